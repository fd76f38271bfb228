"""Renders results that several commands share, as text for people and as JSON documents for scripts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stedi.cli import terminal
from stedi.errors import many, printable

if TYPE_CHECKING:
    from stedi.audit.explain import ExplainedRows, Explanation
    from stedi.landing.batch import Landing
    from stedi.landing.crawl import FeedReport, Report
    from stedi.landing.ndjson import Summary
    from stedi.operations.maintenance import Maintenance


def plain(value: Any) -> Any:
    """Returns what a verb returned as JSON has it: by the names of its attributes, times in ISO 8601."""
    match value:
        case datetime():
            return instant(value)
        case date():
            return value.isoformat()
        case Path():
            return str(value)
        case Mapping():
            return {name: plain(item) for name, item in value.items()}
        case tuple() | list():
            return [plain(item) for item in value]
    # dataclasses of `_frozen` have it, as those of the standard library
    names = getattr(value, "__match_args__", None)
    if names is not None:
        return {name: plain(getattr(value, name)) for name in names}
    return value


def explanation_json(found: Explanation) -> dict[str, object]:
    """Returns the JSON document of a customer's explanation."""
    return {"customer_id": found.customer_id, "known": found.known, **plain(found)}


def explanation(found: Explanation) -> str:
    """Returns a customer's explanation as lines of text."""
    since = f" since {moment(found.since)}" if found.since else ""
    unknown = "unknown: no record of this customer" if found.known else "the lake does not know this address"
    consent = {"agrees": "given", "agrees later": "will be given", "does not agree": "not given", "unknown": unknown}
    known = consent[found.consent] + since
    lines = [f"customer  {found.customer_id}", f"consent   {known}"]
    if found.erased:
        lines.append(f"erased    {moment(found.erased)}")
    if found.history:
        history = [(moment(r.updated), moment(r.consent) or "none", r.file, moment(r.landed_at)) for r in found.history]
        lines += ["", terminal.tabled(("updated", "consent", "file", "landed"), history, ("landed",))]
    left = [(o.table, _reason(o.reason.value, o.shared_by), o.rows) for o in found.left_out]
    rows = [(table, count, found.expected.get(table, "")) for table, count in found.rows.items()]
    lines += ["", terminal.tabled(("table", "rows", "by the landed records"), rows)]
    if left:
        lines += ["", terminal.tabled(("not in", "reason", "landed rows"), left)]
    if found.quarantined:
        quarantined = [(q.record, q.feed, q.reason) for q in found.quarantined]
        lines += ["", terminal.tabled(("quarantined", "feed", "reason"), quarantined)]
    if found.differs:
        what = "a build is due" if found.build_due else "no build is due: `stedi build --full` rebuilds them"
        lines += ["", f"{', '.join(found.differs)}: differ from the landed records; {what}"]
    elif found.build_due:
        lines += ["", "a build is due; this customer's row counts will not change"]
    return "\n".join(lines)


def explained_rows(found: ExplainedRows) -> str:
    """Returns explained rows as lines of text."""
    lines = []
    for row in found.rows:
        shown = (f"{name}={plain(value)}" for name, value in row.row.items() if value is not None)
        lines.append(printable("  ".join(shown)))  # no line breaks in it, either
        if row.customers:
            lines.append(f"  whose  {', '.join(row.customers)}")
        lines.append(f"  why    {printable(row.why)}")
        lines += [
            f"  from   {s.table}: {printable(s.file)}, {s.records:,} record{'s' * (s.records != 1)}"
            for s in row.sources
        ]
    count = len(found.rows)
    lines.append(f"the first {many(count, 'row')}; there are more" if found.more else many(count, "row"))
    return "\n".join(lines)


def maintenance_json(done: Maintenance) -> dict[str, object]:
    """Returns a run as what `--json` prints."""
    return {
        "run": done.run,
        "tables": [
            {
                "name": table.name,
                "compacted": {"files": table.files, "bytes": table.bytes, "into": table.into},
                "manifests": table.manifests,
                "expired": [str(snapshot) for snapshot in table.expired],
                "removed": plain(table.removed),
                "freed": table.freed,
            }
            for table in done.tables
        ],
        "temporary": plain(done.temporary),
        "accesses": done.accesses,
        "freed": done.freed,
    }


def maintenance(done: Maintenance) -> str:
    """Returns a run with one line for each table, and the total freed space."""
    kinds = ("data", "manifests", "metadata", "partial")
    rows = [
        (
            *(table.name, table.files, table.bytes, table.into, table.manifests, len(table.expired)),
            *(table.removed[kind].files if kind in table.removed else 0 for kind in kinds),
            table.freed,
        )
        for table in done.tables
    ]
    headers = ("table", "small files", "bytes", "into", "manifests merged", "expired", *kinds, "freed")
    freed = f"{'freed' if done.run else 'to free'}: {many(done.freed, 'byte')}"
    left = f"temporary files: {done.temporary.files:,}, {many(done.temporary.bytes, 'byte')}"
    gone = f"\naccess log: {many(done.accesses, 'line')} past access.keep_days" if done.accesses else ""
    table = terminal.tabled(headers, rows, ("manifests merged", "metadata", "partial", "manifests", "bytes"))
    return f"{table}\n\n{freed} ({left}){gone}"


def landed(landing: Landing) -> str:
    """Returns the outcome of a landing: new files first, then known ones."""
    new = [file for file in landing.files if not file.already_landed]
    before = many(len(landing.files) - len(new), "file")
    if not new:
        return f"nothing new: {before} landed before" if landing.files else "nothing new: no file was read"
    seen, accepted = sum(file.seen for file in new), sum(file.accepted for file in new)
    refused, erased = sum(file.quarantined for file in new), sum(file.erased for file in new)
    lines = [f"{many(len(new), 'new file')}: {accepted:,} accepted of {many(seen, 'record')}"]
    lines[0] += f", {refused:,} quarantined" if refused else ""
    lines[0] += f", {erased:,} of erased customers left out" if erased else ""
    lines += [f"{before} landed before"] if len(new) < len(landing.files) else []
    if refused:
        lines.append("see `stedi quarantine --fields` for what was wrong, `stedi crawl PATH` for how files differ")
    return "\n".join(lines)


def crawl(report: Report) -> str:
    """Returns a report for people."""
    blocks = [_feed(feed) for feed in report.feeds]
    blocks += ["\n".join(f"not read: {item.name}: {item.why}" for item in report.skipped)] if report.skipped else []
    return "\n\n".join(blocks)


def _feed(feed: FeedReport) -> str:
    from stedi.landing.crawl.report import listing, share

    lost = sum(feed.rejects.values())
    sampled = ", sampled" if feed.sampled else ""
    title = feed.feed if feed.known else f"{feed.feed} (no contract)"
    lines = [
        f"{title}: {many(feed.files, 'file')}, {many(feed.seen, 'record')}{sampled}; {lost:,} would be quarantined"
    ]
    lines += [f"  {count:,} x {reason}" for reason, count in feed.rejects.items()]
    rows = []
    for found in feed.fields:
        bounds = f"{found.bounds[0]:g} to {found.bounds[1]:g}" if found.bounds else ""
        years = "-".join(str(year) for year in dict.fromkeys(found.years)) if found.years else ""
        lengths = "-".join(f"{length:g}" for length in dict.fromkeys(found.lengths)) if found.lengths else ""
        missing = share(found.missing, feed.records)
        rows.append((found.name, listing(found.types), missing, lengths, bounds or years, "  ".join(found.shapes)))
    if rows:
        headers = ("field", "types", "missing", "length", "range", "shapes")
        lines.append(terminal.tabled(headers, rows, ("shapes", "length")))
    if feed.known and feed.records:
        lines.append("  as the contract says" if not feed.drift else "  differs from the contract:")
    for drift in feed.drift:
        effect = "quarantined" if drift.costs else "kept"
        kind = drift.kind.replace("_", " ")
        lines.append(f"    {drift.field}: {kind}, {many(drift.records, 'record')} ({effect}): {drift.found}")
    if feed.proposal is not None:
        lines += ["  a contract that fits:", *(f"    {line}" for line in feed.proposal.splitlines())]
    return "\n".join(lines)


def rewritten_json(summary: Summary) -> dict[str, object]:
    """Returns a summary as one JSON document's value."""
    return {**plain(summary), "written": summary.written, "rejected": summary.rejected}


def rewritten(summary: Summary) -> str:
    """Returns a line for each file that was not taken and for each reason of rejects, and one for all."""
    lines = [f"{item.name}: {item.why}" for item in summary.skipped]
    for file in summary.files:
        lines += [f"{file.name}: {count:,} x {reason}" for reason, count in sorted(file.rejects.items())]
    records = "record" if summary.written == 1 else "records"
    files = "file" if len(summary.files) == 1 else "files"
    total = f"{summary.written:,} {records} of {len(summary.files):,} {files} written"
    return "\n".join([*lines, total + (f"; {summary.rejected:,} set aside as no record" if summary.rejected else "")])


def _reason(reason: str, shared_by: int) -> str:
    return f"{reason}: its serial number is shared by {shared_by:,}" if shared_by else reason


def instant(moment: datetime) -> str:
    """Returns an instant for machines: ISO 8601 in UTC, with milliseconds."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def moment(at: datetime | None, *, exact: bool = False) -> str:
    """Returns an instant for people, in UTC, which `--at` and `--since` take, too.

    Args:
        at: The instant; nothing is shown of None.
        exact: Whether milliseconds are shown.
    """
    if at is None:
        return ""
    text = at.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "milliseconds" if exact else "seconds")
    return f"{text}Z"


def identified(snapshot: int | None) -> str | None:
    """Returns a snapshot's id as JSON has it: a text, for many readers of JSON round numbers of 64 bits."""
    return None if snapshot is None else str(snapshot)
