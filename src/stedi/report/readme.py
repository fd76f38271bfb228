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
    ("customer.json", "your customer record, all versions, the current one first; your consent; your pseudonym"),
    ("accelerometer.jsonl, accelerometer.csv", "the motion that your phone recorded, the same rows in two formats"),
    ("step_trainer.jsonl, step_trainer.csv", "the distances that your step trainer recorded, in two formats"),
    ("quarantine.jsonl", "your records that could not be used, as delivered, with the reason"),
    ("releases.json", "the training sets with your data, and their recipients"),
    ("sources.csv", "the delivered files that contained these data"),
)

_COLUMNS: Mapping[str, Sequence[tuple[str, str, str]]] = {
    "customer.json, records": (
        ("customerName, email, phone", "your name, email address and telephone number", "text"),
        ("birthDay", "your birthday", "text, YYYY-MM-DD"),
        ("serialNumber", "of your step trainer", "text"),
        ("registrationDate", "when you registered", "milliseconds since 1970-01-01, UTC"),
        ("lastUpdateDate", "when this version was written", "milliseconds since 1970-01-01, UTC"),
        ("shareWithResearchAsOfDate", "start of your consent to research; empty without consent", "milliseconds, UTC"),
        ("shareWithPublicAsOfDate", "start of your consent to publication", "milliseconds, UTC"),
        ("shareWithFriendsAsOfDate", "start of your consent to sharing with friends", "milliseconds, UTC"),
    ),
    "accelerometer": (
        ("user", "your address, as the app sent it", "text"),
        ("timestamp, time", "when it was read: as a number, and as a date", "milliseconds since 1970-01-01; UTC"),
        ("x, y, z", "acceleration along three axes, as the app sent it", "the app's own scale: it names no unit"),
    ),
    "step_trainer": (
        ("sensorReadingTime, time", "when it was read: as a number, and as a date", "milliseconds since 1970; UTC"),
        ("serialNumber", "of the step trainer", "text"),
        (
            "distanceFromObject",
            "distance of the object in front of the sensor",
            "the device's own scale: it names no unit",
        ),
    ),
    "in all of them": (
        ("unknown_fields", "other fields of the record; mentions of other people are masked", "JSON"),
        ("source", "the delivered file of the row: its number in sources.csv", "number"),
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
    title = "Your data in the data lake"
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
    yield "<h2>Your data</h2>"
    if told["erased"]:
        yield f"<p>Your data were erased on {_shown(told['erased'])}. The data listed here "
        yield "arrived after that.</p>"
    if not told["known"]:
        yield "<p>None. The lake has no record, reading or file of yours.</p>"
        return
    yield "<ul>"
    yield f"<li>{_many(len(records), 'customer record')}, counting all versions</li>"
    yield f"<li>{_many(rows['accelerometer'], 'reading')} of your phone's motion</li>"
    yield f"<li>{_many(rows['step_trainer'], 'reading')} of your step trainer</li>"
    yield f"<li>{_many(rows['quarantined'], 'record')} that could not be used, kept as delivered</li>"
    yield f"<li>{_many(sources, 'delivered file')} with these data</li>"
    yield "</ul>"
    if records:
        current = records[0]
        names = ("customerName", "email", "phone", "birthDay", "serialNumber")
        yield "<p>Your current record:</p>"
        yield from _table(("field", "value"), [(name, current[name]) for name in names])


def _why(told: Mapping[str, Any]) -> Iterable[str]:
    consent, tables = told["consent"], told["tables"]
    yield "<h2>Why we have them</h2>"
    if not told["known"]:
        yield "<p>We have no data about you.</p>"
        return
    since = min((record["registrationDate"] for record in told["records"] if record["registrationDate"]), default=None)
    if since is not None:
        yield f"<p>You registered on {_shown(_day(since))}. "
        yield "We have kept the data of your app and your device since then.</p>"
    if consent["research"]:
        yield f"<p>You have consented to research since {_shown(_day(consent['research_since']))}: your readings train "
        yield "models that detect steps. These rows are made for it, with a pseudonym instead of your name:</p>"
        yield from _table(("table", "rows"), list(tables.items()))
    else:
        yield "<p>You do not consent to research: no model is trained on your readings. They are kept as they were "
        yield "delivered, so that the service works and your decisions can be followed.</p>"
        if consent["research_since"] is not None:
            yield f"<p>Your consent is dated {_shown(_day(consent['research_since']))}, and is not in force yet.</p>"
        if any(tables.values()):
            yield "<p>Earlier rows are still in the following tables; the next build of the lake removes them.</p>"
            yield from _table(("table", "rows"), list(tables.items()))
    if consent["public_since"] is not None:
        yield f"<p>You have consented to publication since {_shown(_day(consent['public_since']))}. "
        yield "This applies only while you also consent to research.</p>"


def _recipients(releases: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    yield "<h2>Recipients</h2>"
    if not releases:
        yield "<p>No training set released from this lake contains your data.</p>"
        return
    yield "<p>These training sets contain your data, each under an id that only it uses. "
    yield "Copies of them may have left the lake.</p>"
    yield from _table(
        ("training set", "purpose", "recipient", "date", "your rows", "models trained on it"),
        [
            (
                r["release"],
                r["purpose"],
                r["for"] or "not named",
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
    yield "<h2>What is left out, and why</h2>"
    if rows["withheld_shared"]:
        yield f"<p>{_many(rows['withheld_shared'], 'reading')} of a step trainer that other customers have named as "
        yield "theirs, too. They may belong to somebody else, and nobody can tell. They are never used "
        yield "or shown to anybody. Readings of that device that are certainly yours are in the file.</p>"
    if rows["quarantined_mixed"]:
        yield f"<p>{_many(rows['quarantined_mixed'], 'record')} that could not be used and mention both you and other "
        yield "people. We cannot separate them, so they would show you other people's data.</p>"


def _rights() -> Iterable[str]:
    yield "<h2>What you can do</h2>"
    yield "<p>Write to the organisation that gave you this file.</p><ul>"
    yield "<li><b>Withdraw</b> from research, at any time and without a reason, also where you consented. "
    yield "The next build removes your rows from every training table, and holders of training sets must remove them. "
    yield "The operator's command: <code>stedi withdraw</code>.</li>"
    yield "<li><b>Be erased.</b> All your data leave the lake, and a search of every file proves it. You get "
    yield "a receipt. The operator's command: <code>stedi erase</code>.</li>"
    yield "<li><b>Correct</b> errors where you registered: the newest record counts.</li>"
    yield "<li><b>Take your data with you.</b> Any program can read the files beside this page.</li>"
    yield "<li><b>Complain</b> to your data protection authority.</li></ul>"


def _files() -> Iterable[str]:
    yield "<h2>The files</h2>"
    yield from _table(("file", "content"), _FILES)
    yield "<p>Files ending in .jsonl have one JSON object a line. In CSV an apostrophe precedes each text that a "
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
    # `bdi` isolates text written from right to left, which could turn the words around it
    return f"<bdi>{escape(printable(text))}</bdi>" if isinstance(value, str) else escape(text)


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _day(instant: int) -> str:
    return datetime.fromtimestamp(instant / 1000, UTC).date().isoformat()
