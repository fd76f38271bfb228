"""Explanations as text for people and as JSON documents for scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime

from stedi import output
from stedi.explain.customer import Explanation
from stedi.explain.rows import LIMIT, ExplainedRow
from stedi.layout import printable


def to_json(found: Explanation) -> dict[str, object]:
    """Returns the JSON document of a customer's explanation."""
    return {
        "customer_id": found.customer_id,
        "known": found.known,
        "consent": found.consent,
        "since": _time(found.since),
        "erased": _time(found.erased),
        "history": [
            {"updated": _time(r.updated), "consent": _time(r.consent), "file": r.file, "landed_at": _time(r.landed_at)}
            for r in found.history
        ],
        "rows": dict(found.rows),
        "expected": dict(found.expected),
        "left_out": [
            {"table": o.table, "reason": o.reason.value, "rows": o.rows, "shared_by": o.shared_by}
            for o in found.left_out
        ],
        "quarantined": [{"record": q.record, "feed": q.feed, "reason": q.reason} for q in found.quarantined],
        "build_due": found.build_due,
        "differs": list(found.differs),
    }


def render(found: Explanation) -> str:
    """Returns a customer's explanation as lines of text."""
    since = f" since {_time(found.since)}" if found.since else ""
    unknown = "unknown: no record of this customer" if found.known else "the lake does not know this address"
    known = unknown if found.consent == "unknown" else f"{found.consent}{since}"
    lines = [f"customer  {found.customer_id}", f"consent   {known}"]
    if found.erased:
        lines.append(f"erased    {_time(found.erased)}")
    if found.history:
        history = [(_time(r.updated), _time(r.consent) or "none", r.file, _time(r.landed_at)) for r in found.history]
        lines += ["", output.table(history, ("updated", "consent", "file", "landed"))]
    left = [(o.table, _reason(o.reason.value, o.shared_by), o.rows) for o in found.left_out]
    rows = [(table, count, found.expected.get(table, "")) for table, count in found.rows.items()]
    lines += ["", output.table(rows, ("table", "rows", "by what is landed"))]
    if left:
        lines += ["", output.table(left, ("not in", "reason", "landed rows"))]
    if found.quarantined:
        quarantined = [(q.record, q.feed, q.reason) for q in found.quarantined]
        lines += ["", output.table(quarantined, ("quarantined", "feed", "reason"))]
    if found.differs:
        what = "a build is due" if found.build_due else "no build is due: `stedi build --full` makes them anew"
        lines += ["", f"{', '.join(found.differs)}: not what the landed records say; {what}"]
    elif found.build_due:
        lines += ["", "a build is due; of this customer nothing will change in number"]
    return "\n".join(lines)


def rows_to_json(table: str, found: Sequence[ExplainedRow], *, more: bool) -> dict[str, object]:
    """Returns the JSON document of explained rows."""
    return {
        "table": table,
        "rows": [
            {
                "row": {name: _plain(value) for name, value in row.row.items()},
                "customers": list(row.customers),
                "why": row.why,
                "sources": [{"table": s.table, "file": s.file, "records": s.records} for s in row.sources],
            }
            for row in found
        ],
        "more": more,
    }


def render_rows(found: Sequence[ExplainedRow], *, more: bool) -> str:
    """Returns explained rows as lines of text."""
    lines = []
    for row in found:
        shown = (f"{name}={_plain(value)}" for name, value in row.row.items() if value is not None)
        lines.append(printable("  ".join(shown)))  # no end of a line in it, either
        if row.customers:
            lines.append(f"  whose  {', '.join(row.customers)}")
        lines.append(f"  why    {printable(row.why)}")
        lines += [
            f"  from   {s.table}: {printable(s.file)}, {s.records:,} record{'s' * (s.records != 1)}"
            for s in row.sources
        ]
    lines.append(f"the first {LIMIT} rows; there are more" if more else f"{len(found)} row{'s' * (len(found) != 1)}")
    return "\n".join(lines)


def _reason(reason: str, shared_by: int) -> str:
    return f"{reason}: its serial number is shared by {shared_by:,}" if shared_by else reason


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return _time(value)
    if isinstance(value, date):
        return value.isoformat()
    return dict(value) if isinstance(value, Mapping) else value
