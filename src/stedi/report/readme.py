"""The page of an export, in plain words: its data, their purpose, dates, recipients, and the person's rights.

It is one self-contained HTML file: no script, no network, its style allowed by its hash. Every value is escaped and
isolated from the text direction around it, so a name is only text.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

from stedi.errors import printable

_STYLE = """
:root { color-scheme: light dark; --line: #c9ccd1; --soft: #f3f4f6; --text: #1b1f24; --ground: #fff }
@media (prefers-color-scheme: dark) {
  :root { --line: #454b54; --soft: #22262c; --text: #e8eaed; --ground: #14171a }
}
body { margin: 0 auto; max-width: 46rem; padding: 1rem; font: 1rem/1.5 system-ui, sans-serif;
  color: var(--text); background: var(--ground); overflow-wrap: anywhere }
h1 { font-size: 1.5rem; line-height: 1.25 } h2 { font-size: 1.15rem; margin-top: 2rem }
.wide { overflow-x: auto } table { border-collapse: collapse; width: 100%; font-size: .9rem }
th, td { text-align: left; vertical-align: top; padding: .3rem .5rem; min-width: 5rem;
  border-bottom: 1px solid var(--line) }
td:first-child { min-width: 8.5rem } thead th { background: var(--soft) } code { font-size: .9em }
@media print { body { max-width: none } .wide { overflow: visible } }
"""

_FILES = (
    ("customer.json", "who you are to us, every version of it, the current one first; your consent; your pseudonym"),
    ("accelerometer.jsonl, accelerometer.csv", "the motion that your phone recorded, the same rows in two forms"),
    ("step_trainer.jsonl, step_trainer.csv", "the distances that your step trainer recorded, in two forms"),
    ("quarantine.jsonl", "records of yours that could not be used, as they were delivered, and why"),
    ("releases.json", "the training sets that you are in, and for whom they were made"),
    ("sources.csv", "the delivered files from which all of this comes"),
)

_COLUMNS: Mapping[str, Sequence[tuple[str, str, str]]] = {
    "customer.json, records": (
        ("customerName, email, phone", "how you are called and reached", "text"),
        ("birthDay", "your birthday", "text, YYYY-MM-DD"),
        ("serialNumber", "of your step trainer", "text"),
        ("registrationDate", "when you registered", "milliseconds since 1970-01-01, UTC"),
        ("lastUpdateDate", "when this version was made", "milliseconds since 1970-01-01, UTC"),
        ("shareWithResearchAsOfDate", "since when you agree to research; empty if you do not", "milliseconds, UTC"),
        ("shareWithPublicAsOfDate", "since when you agree that the public may have it", "milliseconds, UTC"),
        ("shareWithFriendsAsOfDate", "since when you agree that friends may have it", "milliseconds, UTC"),
    ),
    "accelerometer": (
        ("user", "your address, as the app sent it", "text"),
        ("timestamp, time", "when it was read: as a number, and as a date", "milliseconds since 1970-01-01; UTC"),
        ("x, y, z", "acceleration along three axes, as the app sent it", "the app's own scale: it names no unit"),
    ),
    "step_trainer": (
        ("sensorReadingTime, time", "when it was read: as a number, and as a date", "milliseconds since 1970; UTC"),
        ("serialNumber", "of the step trainer", "text"),
        ("distanceFromObject", "distance of what was before the sensor", "the device's own scale: it names no unit"),
    ),
    "in all of them": (
        ("unknown_fields", "whatever else stood in the record; others named there are masked", "JSON"),
        ("source", "the delivered file that it came in: its number in sources.csv", "number"),
    ),
}


def page(told: Mapping[str, Any], releases: Sequence[Mapping[str, Any]], *, sources: int) -> str:
    """Returns the page.

    Args:
        told: The content of `customer.json`.
        releases: The content of `releases.json`.
        sources: The number of delivered files with their data.
    """
    style = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    title = "What the data lake has of you"
    parts = [
        f"<h1>{title}</h1>",
        f"<p>For {_shown(told['address'])}, as of {_shown(_second(told['as_of']))}. Lake {_shown(told['lake'])}.</p>",
        *_what(told, sources),
        *_why(told),
        *_recipients(releases),
        *_left_out_data(told["rows"]),
        *_rights(),
        *_files(),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        f"style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="referrer" content="no-referrer">\n<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n'
        f"<body>\n<main>\n{chr(10).join(part.rstrip() for part in parts)}\n</main>\n</body>\n</html>\n"
    )


def _what(told: Mapping[str, Any], sources: int) -> Iterable[str]:
    rows, records = told["rows"], told["records"]
    yield "<h2>What is there</h2>"
    if told["erased"]:
        yield f"<p>You were erased on {_shown(told['erased'])}. What is listed here came after that.</p>"
    if not told["known"]:
        yield "<p>Nothing. The lake has no record, no reading and no file that is yours.</p>"
        return
    yield "<ul>"
    yield f"<li>{_many(len(records), 'record')} of you as a customer, all versions counted</li>"
    yield f"<li>{_many(rows['accelerometer'], 'reading')} of your phone's motion</li>"
    yield f"<li>{_many(rows['step_trainer'], 'reading')} of your step trainer</li>"
    yield f"<li>{_many(rows['quarantined'], 'record')} that could not be used, kept as they were delivered</li>"
    yield f"<li>{_many(sources, 'delivered file')} from which all of this comes</li>"
    yield "</ul>"
    if records:
        current = records[0]
        names = ("customerName", "email", "phone", "birthDay", "serialNumber")
        yield "<p>Your current record:</p>"
        yield from _table(("field", "value"), [(name, current[name]) for name in names])


def _why(told: Mapping[str, Any]) -> Iterable[str]:
    consent, tables = told["consent"], told["tables"]
    yield "<h2>Why, and since when</h2>"
    if not told["known"]:
        yield "<p>There is nothing that a reason would be needed for.</p>"
        return
    since = min((record["registrationDate"] for record in told["records"] if record["registrationDate"]), default=None)
    if since is not None:
        yield f"<p>You registered on {_shown(_day(since))}. What your app and your device send is kept since then.</p>"
    if consent["research"]:
        yield f"<p>You agree to research since {_shown(_day(consent['research_since']))}: your readings train models "
        yield "that detect steps. For that these rows are made, in which a pseudonym stands in place of your name:</p>"
        yield from _table(("table", "rows"), list(tables.items()))
    else:
        yield "<p>You do not agree to research: no model is trained on your readings. They are kept as they were "
        yield "delivered, so that the service works and what you decide can be followed.</p>"
        if consent["research_since"] is not None:
            yield f"<p>Your agreement is dated {_shown(_day(consent['research_since']))}, and is not in force yet.</p>"
        if any(tables.values()):
            yield "<p>Rows of before are still in the tables below; the next build of the lake removes them.</p>"
            yield from _table(("table", "rows"), list(tables.items()))
    if consent["public_since"] is not None:
        yield f"<p>You agreed that the public may have it since {_shown(_day(consent['public_since']))}. "
        yield "That holds only while you agree to research, too.</p>"


def _recipients(releases: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    yield "<h2>Shared with whom</h2>"
    if not releases:
        yield "<p>You are in no training set that was released from this lake.</p>"
        return
    yield "<p>You are in these training sets, under an id that only each of them has. "
    yield "Copies of them may have left the lake.</p>"
    yield from _table(
        ("training set", "purpose", "made for", "on", "your rows", "models trained on it"),
        [
            (
                r["release"],
                r["purpose"],
                r["for"] or "not said",
                r["released_at"][:10],
                r["rows"],
                ", ".join(r["models"]),
            )
            for r in releases
        ],
    )


def _left_out_data(rows: Mapping[str, int]) -> Iterable[str]:
    if not (rows["withheld_shared"] or rows["quarantined_mixed"]):
        return
    yield "<h2>What is not in it, and why</h2>"
    if rows["withheld_shared"]:
        yield f"<p>{_many(rows['withheld_shared'], 'reading')} of a step trainer that other customers have named as "
        yield "theirs, too. Nobody can tell whose they are: they may be somebody else's. They are used for nothing and "
        yield "not shown to anybody. Readings of that device that are certainly yours are in the file.</p>"
    if rows["quarantined_mixed"]:
        yield f"<p>{_many(rows['quarantined_mixed'], 'record')} that could not be used, in which you and others stand "
        yield "so that they cannot be told apart. Showing them would show you others' data.</p>"


def _rights() -> Iterable[str]:
    yield "<h2>What you can do</h2>"
    yield "<p>Write to whoever gave you this file.</p><ul>"
    yield "<li><b>Withdraw</b> from research, at any time and without a reason; you can also do it where you agreed. "
    yield "Your rows leave every training table with the next build, and whoever has a training set is to drop you. "
    yield "The operator's command: <code>stedi withdraw</code>.</li>"
    yield "<li><b>Be erased.</b> Everything of you leaves the lake, and a search of every file proves it. You get a "
    yield "receipt. The operator's command: <code>stedi erase</code>.</li>"
    yield "<li><b>Correct</b> what is wrong, where you registered: the newest record counts.</li>"
    yield "<li><b>Take it with you.</b> The files beside this page can be read by any program.</li>"
    yield "<li><b>Complain</b> to your data protection authority.</li></ul>"


def _files() -> Iterable[str]:
    yield "<h2>The files</h2>"
    yield from _table(("file", "what it holds"), _FILES)
    yield "<p>Files ending in .jsonl have one JSON object a line. In CSV an apostrophe stands before a text that a "
    yield "spreadsheet would take for a formula.</p>"
    for name, columns in _COLUMNS.items():
        yield f"<h3>{_shown(name)}</h3>"
        yield from _table(("column", "meaning", "unit"), columns)


def _table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterable[str]:
    yield '<div class="wide" tabindex="0"><table><thead><tr>'
    yield "".join(f'<th scope="col">{_shown(header)}</th>' for header in headers)
    yield "</tr></thead><tbody>"
    for row in rows:
        yield f"<tr>{''.join(f'<td>{_shown(cell)}</td>' for cell in row)}</tr>"
    yield "</tbody></table></div>"


def _second(instant: str) -> str:
    """Returns an ISO 8601 instant without fractions of a second."""
    return f"{instant.partition('.')[0].removesuffix('Z')}Z"


def _shown(value: object) -> str:
    """Returns a value as text of the page."""
    if value is None:
        return ""
    text = f"{value:,}" if isinstance(value, int) else str(value)
    return f"<bdi>{escape(printable(text))}</bdi>" if isinstance(value, str) else escape(text)


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _day(instant: int) -> str:
    return datetime.fromtimestamp(instant / 1000, UTC).date().isoformat()
