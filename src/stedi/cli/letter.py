"""The letter to an erased person: a receipt in plain words, as a page or as text.

It names nobody, since the lake no longer knows them. A page is one self-contained file without network access or
scripts.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from stedi._frozen import dataclass
from stedi.errors import UsageError, many, printable

_ROWS = {
    "customers_landing": "customer records",
    "accelerometer_landing": "motion readings of the phone app",
    "step_trainer_landing": "readings of the step trainer",
    "quarantine": "records that could not be used",
}
"""What the rows of a table are, for readers who do not know the lake."""
_STAY = {
    "backups": "Backups of our data, until they expire. If we ever restore one, we repeat the erasure before anybody "
    "uses it.",
    "handed_out": "Results and data sets that we gave to others earlier. We cannot change them; we tell their holders "
    "which data to remove.",
    "access_logs": "Logs of access to our storage, with names of files.",
    "athena_results": "Results of earlier queries over our data.",
    "query_history": "A list of earlier queries over our data.",
    "catalog_history": "Older versions of the list of our tables.",
}
"""What an erasure does not reach, by the words of a receipt's `not_reached`."""
_STYLE = (
    ":root{color-scheme:light dark}body{font:1rem/1.5 system-ui,sans-serif;max-width:42rem;margin:2rem auto;"
    "padding:0 1rem;overflow-wrap:anywhere}table{border-collapse:collapse}th,td{text-align:left;padding:.2rem 1rem "
    ".2rem 0;border-bottom:1px solid #8886;font-weight:400}td{text-align:right;white-space:nowrap;"
    "font-variant-numeric:tabular-nums}"
)


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a letter: a heading, and below it sentences and counts."""

    heading: str
    sentences: tuple[str, ...] = ()
    counts: tuple[tuple[str, int], ...] = ()


def refuse(path: Path | None, people: int) -> None:
    """Refuses a letter that could not be written, before anything is done.

    Args:
        path: The letter's file, None for none.
        people: How many are to be erased.

    Raises:
        UsageError: It is not for one person, its name has no known ending, or its folder is missing.
    """
    if path is None:
        return
    if people != 1:
        raise UsageError(f"expected one address, since a letter is for one person, found {people:,}", argument="letter")
    if path.suffix.lower() not in (".html", ".txt"):
        raise UsageError(
            "expected a name that ends in .html or .txt, found another; nothing was done", argument="letter"
        )
    if not path.parent.is_dir() or path.is_dir():
        raise UsageError(
            "expected a file in an existing folder, found no such folder; nothing was done", argument="letter"
        )


def rendered(receipt: Mapping[str, Any], signer: str, *, html: bool) -> bytes:
    """Returns the letter that goes with a receipt.

    Args:
        receipt: The receipt of one person's erasure.
        signer: The fingerprint of the public key that signed it.
        html: Whether to return a page instead of text.
    """
    title = "The erasure of your data" if receipt["known"] else "Your request to be erased"
    parts = list(_parts(receipt, signer))
    return (_page(title, parts) if html else _text(title, parts)).encode()


def _parts(receipt: Mapping[str, Any], signer: str) -> Iterator[_Part]:
    removed = receipt["removed"]
    asked = f"Your request {receipt['reference']}. " if receipt.get("reference") else ""
    day = str(receipt["ended"])[:10]
    if not receipt["known"]:
        yield _Part(
            "What we found",
            (
                f"{asked}On {day} we searched for your data by the address that you gave, and found none. "
                "If you think that we have your data, please tell us other spellings of your address.",
            ),
        )
    else:
        yield _Part(
            "What we removed",
            (f"{asked}On {day} we erased the data that we had about you:",),
            tuple(_counts(removed)),
        )
        yield _Part("How we know", (_searched(receipt),))
    stays = list(_stays(receipt))
    yield _Part("What we cannot reach", tuple(stays))
    yield _Part(
        "What we keep",
        (
            "A number that is computed from your address with a secret key. It does not show who you are; it keeps "
            "old files from bringing your data back.",
            "A signed receipt of this erasure, which contains this number instead of your name.",
        ),
    )
    yield _Part(
        "How you can check this",
        (
            f"Ask us for receipt {receipt['id']}. Anybody can check it with the program stedi, without us: "
            f"stedi verify {receipt['id']}.json. It is signed with the key whose fingerprint is {signer}.",
        ),
    )
    name = f"request {receipt['reference']}" if receipt.get("reference") else f"receipt {receipt['id']}"
    yield _Part(
        "Questions",
        (
            f"Please write to the address to which you sent your request, and mention {name}. If you do not agree with "
            "our answer, you may complain to your data protection authority (GDPR, article 77).",
        ),
    )


def _searched(receipt: Mapping[str, Any]) -> str:
    removed, scanned = receipt["removed"], receipt["scanned"]
    files, closed = sum(scanned["files"].values()), len(scanned.get("not_opened", ()))
    if scanned.get("found"):
        return (
            f"Afterwards we searched all {files:,} files of our data lake and found a trace of you in "
            f"{len(scanned['found']):,} of them, which we must check by hand."
        )
    but = " except the data named below" if any(removed.get("others", {}).values()) or removed.get("foreign") else ""
    unread = f" {many(closed, 'file')} could not be opened." if closed else ""
    return f"Afterwards we searched all {files:,} files of our data lake and found no trace of you{but}.{unread}"


def _counts(removed: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    tables = {name: int(gone["rows"]) for name, gone in removed["tables"].items()}
    yield from ((words, tables.get(name, 0)) for name, words in _ROWS.items() if name != "quarantine" or tables[name])
    copies = sum(rows for name, rows in tables.items() if name not in _ROWS and name != "landed_files")
    yield "copies of these in tables for research", copies
    if delivered := removed.get("delivered"):
        yield "records in the files that were delivered to us", int(delivered["records"])
    if made := removed.get("releases", {}).get("rewritten"):
        yield "data sets for research that we rewrote without you", len(made)


def _stays(receipt: Mapping[str, Any]) -> Iterator[str]:
    removed, days = receipt["removed"], receipt.get("not_reached_days", {})
    for word in receipt["not_reached"]:
        gone = f" They are deleted after at most {many(days[word], 'day')}." if word in days else ""
        yield _STAY.get(word, word) + gone
    recalls = receipt.get("recalls", ())
    if recalls:
        names = ", ".join(recall["release"] for recall in recalls)
        yield f"Data sets with your data that others may have: {names}. A recall tells them which data to remove."
    others = sum(count for counts in removed.get("others", {}).values() for count in counts.values())
    if others:
        yield f"{many(others, 'place')} in data of other people with a mention of you: it belongs to them."
    left = len(removed.get("delivered", {}).get("left", ()))
    if left:
        yield f"{many(left, 'delivered file')} that we must check by hand."
    if removed.get("foreign"):
        yield "Notes of other programs about our data, which only these programs can change."


def _text(title: str, parts: Sequence[_Part]) -> str:
    lines = [title, "=" * len(title)]
    for part in parts:
        lines += ["", part.heading, "-" * len(part.heading)]
        for sentence in part.sentences:
            mark = "- " if len(part.sentences) > 1 else ""
            lines += textwrap.wrap(
                mark + printable(sentence), 78, subsequent_indent=" " * len(mark), break_long_words=False
            )
        lines += [f"  {count:>12,}  {what}" for what, count in part.counts]
    return "\n".join(lines) + "\n"


def _page(title: str, parts: Sequence[_Part]) -> str:
    body = [f"<h1>{escape(title)}</h1>"]
    for part in parts:
        body.append(f"<h2>{escape(part.heading)}</h2>")
        each = [escape(printable(sentence)) for sentence in part.sentences]
        if len(each) > 1:
            body.append("<ul>" + "".join(f"<li>{sentence}</li>" for sentence in each) + "</ul>")
        else:
            body += [f"<p>{sentence}</p>" for sentence in each]
        if part.counts:
            rows = (f'<tr><th scope="row">{escape(what)}</th><td>{count:,}</td></tr>' for what, count in part.counts)
            body.append("<table>" + "".join(rows) + "</table>")
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )
