"""The report as one self-contained page of HTML: no script, no network, no other file.

Jinja2 escapes everything in the template. The page's content security policy allows only its own style sheet, by its
digest, whatever texts contain.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from stedi.audit.consent_history import Period
from stedi.audit.risk import Exposure
from stedi.errors import many
from stedi.landing.quarantine import Fault
from stedi.report import charts, earlier
from stedi.report.content import (
    ColumnLine,
    LandedDay,
    QuarantinedFile,
    ReceiptEntry,
    ReleaseEntry,
    Report,
    RiskLine,
    RoleLine,
    SnapshotLine,
    Stage,
    TableEntry,
    instant,
)
from stedi.report.disclosure import Figure
from stedi.report.earlier import Change
from stedi.report.evidence import AuditReport, CheckLine
from stedi.report.measurements import Bar, DayCount
from stedi.schema.contracts import PrivacyClass

if TYPE_CHECKING:
    from jinja2 import Environment

WORDS = {
    "holds": "Every promise holds",
    "violated": "A promise is broken",
    "outdated": "Not audited since the last change",
    "none": "Not audited",
    "refused": "The record of the last audit is not this lake's",
}
"""The verdict in a few words, by its state."""
_ZONES = ("landing", "trusted", "curated")


def html(found: Report) -> str:
    """Returns the report's page."""
    style = _read("page.css")
    return str(
        _environment()
        .get_template("page.html")
        .render(
            report=found,
            style=style,
            policy=policy(style),
            words=WORDS,
            meta=earlier.META,
            carried=carried(found),
            pictures=_pictures(found),
        )
    )


def audit_html(found: AuditReport) -> str:
    """Returns the page of one audit's report."""
    style = _read("page.css")
    return str(_environment().get_template("audit.html").render(report=found, style=style, policy=policy(style)))


def policy(style: str) -> str:
    """Returns the content security policy of a page with this style sheet and nothing else."""
    # by the digest of the style sheet: markup in a text that was shown unescaped could neither run nor load anything
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def carried(found: Report) -> str:
    """Returns what the page carries of itself for a later report, JSON."""
    changes = found.changes and {
        "since": found.changes.since.isoformat(),
        "lines": [{"what": each.what, "now": each.now, "change": each.change} for each in found.changes.lines],
    }
    plain = {
        "format": found.format,
        "lake": found.lake,
        "state": found.state,
        "as_of": found.as_of and found.as_of.isoformat(),
        "figures": dict(found.figures),
        "changes": changes,
    }
    return json.dumps(plain, separators=(",", ":"), sort_keys=True)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    # undefined names are errors: a page must not silently lack a figure
    made = Environment(
        loader=FunctionLoader(_read), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters.update(figure=_figure, instant=instant, size=_size, cell=_cell, row=_row)
    return made


def _read(name: str) -> str:
    return (resources.files("stedi.report") / "templates" / name).read_text("utf-8")


def _pictures(found: Report) -> Mapping[str, Any]:
    measured = found.measurements
    made: dict[str, Any] = {
        "funnel": charts.bars(
            "funnel",
            "Consent funnel",
            "People from those known to those in releases: "
            + "; ".join(f"{stage.name} {_figure(stage.people)}" for stage in found.funnel),
            [(stage.name, stage.people) for stage in found.funnel],
        ),
        "consent": charts.lines(
            "consent-lines",
            "Consent over time",
            f"Customers known and customers who consent, at the end of each of {many(len(found.consent), 'period')}",
            [f"{each.last:%Y-%m}" for each in found.consent],
            [each.last.toordinal() for each in found.consent],
            [
                ("known", [each.known for each in found.consent]),
                ("consent", [each.consenting for each in found.consent]),
            ],
        ),
        "lineage": charts.graph(
            "lineage",
            "Lineage of the tables",
            "Which table is made from which: "
            + "; ".join(f"{table.name} from {', '.join(table.reads)}" for table in found.tables if table.reads),
            _ZONES,
            [_node(table) for table in found.tables if table.zone in _ZONES],
        ),
        "quarantine": charts.bars(
            "reasons",
            "Records in quarantine by reason",
            f"{many(found.quarantine.total, 'record')} in quarantine",
            list(found.quarantine.by_reason.items()),
        ),
        "landed": charts.columns(
            "landed",
            "Readings landed by day",
            f"Readings landed on the last {many(len(found.days), 'day')} with a landing",
            [(str(each.day), tuple(each.accepted.values())) for each in found.days],
        ),
        "taken": charts.columns(
            "taken",
            "Readings by the day on which they were taken",
            f"Accelerometer and step trainer readings of the last {many(len(measured.days), 'day')} with any",
            [(str(each.day), (each.accelerometer, each.step_trainer)) for each in measured.days],
        ),
        "histograms": [
            charts.bars(
                f"histogram-{place}",
                histogram.name,
                f"Histogram of {many(sum(bar.count for bar in histogram.bars), 'reading')}",
                [(bar.label, bar.count) for bar in histogram.bars],
            )
            for place, histogram in enumerate(measured.histograms)
        ],
        "signals": [
            charts.signal(
                f"signal-{each.person}",
                f"Person {each.person}",
                f"Motion of {many(len(each.motion), 'moment')} and "
                f"{many(len(each.step_trainer), 'step trainer reading')}",
                each.motion,
                each.step_trainer,
            )
            for each in measured.signals
        ],
    }
    return made


def _node(table: TableEntry) -> charts.Node:
    kinds = [kind for kind in PrivacyClass if kind in table.classes]
    classes = " · ".join(f"{table.classes[kind]} {kind.split()[0]}" for kind in kinds)
    updated = _day(table.updated) if table.updated else "never written"
    return charts.Node(table.name, (f"{_figure(table.rows)} rows · {updated}", classes), table.zone, table.reads)


def _figure(found: Figure | None) -> str:
    return "" if found is None else f"{found:,}" if isinstance(found, int) else found


def _signed(found: Figure) -> str:
    return "no change" if found == 0 else f"{found:+,}" if isinstance(found, int) else found


def _cell(found: object) -> str:
    """Returns the text of a table's cell."""
    match found:
        case bool():
            return "yes" if found else "no"
        case None:
            return ""
        case int():
            return f"{found:,}"
        case datetime():
            return instant(found)
        case tuple():
            return ", ".join(map(_cell, found))
    return str(found)


def _row(found: object) -> tuple[object, ...]:
    """Returns the cells of an object's row in a table."""
    match found:
        case Change():
            what = found.what.removeprefix("people: ").removeprefix("rows: ")
            return what, found.now, _signed(found.change)
        case Stage():
            return found.name, found.people, found.left_out, found.reason
        case Period():
            months = (found.start, found.last)
            name = " to ".join(f"{month:%Y-%m}" for month in dict.fromkeys(months))
            levels = (name, found.known, found.consenting)
            return *levels, found.joined, found.rejoined, found.withdrew, found.erased
        case ColumnLine():
            return found.name, found.type, found.privacy, found.text, found.unit
        case SnapshotLine():
            inputs = ", ".join(f"{name} {id_}" for name, id_ in found.inputs.items())
            return found.id, found.at, found.operation, found.rows, inputs
        case QuarantinedFile():
            return found.file, found.feed, found.reason, found.records
        case Fault():
            return found.field or "no field can be told", found.feed, found.reason, found.records
        case LandedDay():
            return found.day, found.files, *found.accepted.values(), found.quarantined, found.erased
        case DayCount():
            return found.day, found.accelerometer, found.step_trainer
        case Bar():
            return found.label, found.count
        case ReleaseEntry():
            name = f"{found.release} (deleted)" if found.deleted else found.release
            about = (name, found.released_at, found.purpose, found.recipient)
            more = found.models_total - len(found.models)
            models = (*found.models, f"and {more:,} before") if more else found.models
            return *about, found.subjects, found.rows, found.stale, found.recalls, models
        case ReceiptEntry():
            return found.id, found.ended, found.follows, found.clean, found.not_reached
        case RoleLine():
            return found.role, found.tables, found.masked or "none"
        case CheckLine():
            return found.name, found.tables, found.held, found.violations
        case Exposure():
            return found.known, found.resolution, found.by_one, found.by_all, found.smallest
        case RiskLine():
            return found.known, found.resolution, found.by_one, found.by_all
    raise TypeError(type(found).__name__)


def _day(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%MZ")


def _size(found: int | None) -> str:
    if found is None:
        return ""
    number = float(found)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"
