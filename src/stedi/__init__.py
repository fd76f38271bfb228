"""STEDI lake: a consent-aware data lake of step detection data.

    >>> import stedi
    >>> lake = stedi.Lake.open("lake")
    >>> lake.query("select count(*) from machine_learning_curated").arrow()

`Lake` is the way in; the rest are what its verbs return, and `StediError`, above everything raised on purpose.
"""

import sys

_CALLED = ("stedi", "stedi.cli", "-mstedi", "-mstedi.cli")
if sys.argv[:1] == ["-m"] and not sys.flags.safe_path and not set(_CALLED).isdisjoint(sys.orig_argv):
    # `python -m stedi` looks for modules in the folder that it is started in first, which may be an inbox: that one is
    # forgotten before anything else is imported, `__future__` included
    del sys.path[0]

import importlib  # noqa: E402
from typing import TYPE_CHECKING  # noqa: E402

from stedi._version import __version__ as __version__  # noqa: E402

if TYPE_CHECKING:
    from stedi.audit.consent_history import ConsentHistory, Period
    from stedi.audit.explain import (
        ExplainedRow,
        ExplainedRows,
        Explanation,
        InQuarantine,
        Landed,
        LeftOut,
        Reason,
        Source,
    )
    from stedi.audit.integrity import Check, Violation
    from stedi.audit.proof import Proof, Reconciliation
    from stedi.audit.record import AuditRecord, Counted, FullAudit
    from stedi.audit.risk import Exposure, Risk
    from stedi.catalog import Snapshot
    from stedi.context.access import Access
    from stedi.context.runs import Run
    from stedi.datasets.comparison import Diff
    from stedi.datasets.creation import Preview
    from stedi.datasets.dataset import Arrays, Dataset
    from stedi.datasets.manifest import Release, Split
    from stedi.datasets.options import Options
    from stedi.datasets.recall import Applied
    from stedi.datasets.recalls import Recall
    from stedi.datasets.verify import Problem, Verification
    from stedi.erasure.replay import Replay
    from stedi.erasure.report import ErasurePreview, Receipt, ReceiptCheck
    from stedi.errors import StediError
    from stedi.lake import Lake, Table
    from stedi.landing import sample
    from stedi.landing.batch import Landing, OddInstants
    from stedi.landing.deliveries.local import Skipped
    from stedi.landing.quarantine import Fault, Quarantine, Quarantined, RawRecord, Relanded
    from stedi.landing.reader.units import Unit
    from stedi.landing.rows import LandedFile
    from stedi.landing.unread import Unread
    from stedi.landing.withdrawal import Withdrawal, WithdrawalPreview
    from stedi.operations.maintenance import Maintenance
    from stedi.operations.maintenance.adoption import Adoption
    from stedi.operations.maintenance.key_rotation import Rotation
    from stedi.operations.maintenance.repair import Repair
    from stedi.operations.maintenance.report import Maintained, Removed
    from stedi.operations.maintenance.tags import Tag
    from stedi.operations.migration import Migration
    from stedi.operations.status import Disk, Due, Status
    from stedi.operations.watch import Round
    from stedi.privacy.pseudonyms import Key
    from stedi.query import Result
    from stedi.report import attestation
    from stedi.report.attestation import Attestation
    from stedi.report.content import Report
    from stedi.report.export import Export, Exported
    from stedi.transform import Build, Built, Step, Withheld
    from stedi.transform.planning import Increment
    from stedi.transform.previewing import Estimate, Plan

__all__ = [
    "Access",
    "Adoption",
    "Applied",
    "Arrays",
    "Attestation",
    "AuditRecord",
    "Build",
    "Built",
    "Check",
    "ConsentHistory",
    "Counted",
    "Dataset",
    "Diff",
    "Disk",
    "Due",
    "ErasurePreview",
    "Estimate",
    "ExplainedRow",
    "ExplainedRows",
    "Explanation",
    "Export",
    "Exported",
    "Exposure",
    "Fault",
    "FullAudit",
    "InQuarantine",
    "Increment",
    "Key",
    "Lake",
    "Landed",
    "LandedFile",
    "Landing",
    "LeftOut",
    "Maintained",
    "Maintenance",
    "Migration",
    "OddInstants",
    "Options",
    "Period",
    "Plan",
    "Preview",
    "Problem",
    "Proof",
    "Quarantine",
    "Quarantined",
    "RawRecord",
    "Reason",
    "Recall",
    "Receipt",
    "ReceiptCheck",
    "Reconciliation",
    "Relanded",
    "Release",
    "Removed",
    "Repair",
    "Replay",
    "Report",
    "Result",
    "Risk",
    "Rotation",
    "Round",
    "Run",
    "Skipped",
    "Snapshot",
    "Source",
    "Split",
    "Status",
    "StediError",
    "Step",
    "Table",
    "Tag",
    "Unit",
    "Unread",
    "Verification",
    "Violation",
    "Withdrawal",
    "WithdrawalPreview",
    "Withheld",
    "attestation",
    "sample",
]

_HOMES = {
    "Access": "stedi.context.access",
    "Adoption": "stedi.operations.maintenance.adoption",
    "Applied": "stedi.datasets.recall",
    "Arrays": "stedi.datasets.dataset",
    "Attestation": "stedi.report.attestation",
    "AuditRecord": "stedi.audit.record",
    "Build": "stedi.transform",
    "Built": "stedi.transform",
    "Check": "stedi.audit.integrity",
    "ConsentHistory": "stedi.audit.consent_history",
    "Counted": "stedi.audit.record",
    "Dataset": "stedi.datasets.dataset",
    "Diff": "stedi.datasets.comparison",
    "Disk": "stedi.operations.status",
    "Due": "stedi.operations.status",
    "ErasurePreview": "stedi.erasure.report",
    "Estimate": "stedi.transform.previewing",
    "ExplainedRow": "stedi.audit.explain",
    "ExplainedRows": "stedi.audit.explain",
    "Explanation": "stedi.audit.explain",
    "Export": "stedi.report.export",
    "Exported": "stedi.report.export",
    "Exposure": "stedi.audit.risk",
    "Fault": "stedi.landing.quarantine",
    "FullAudit": "stedi.audit.record",
    "InQuarantine": "stedi.audit.explain",
    "Increment": "stedi.transform.planning",
    "Key": "stedi.privacy.pseudonyms",
    "Lake": "stedi.lake",
    "Landed": "stedi.audit.explain",
    "LandedFile": "stedi.landing.rows",
    "Landing": "stedi.landing.batch",
    "LeftOut": "stedi.audit.explain",
    "Maintained": "stedi.operations.maintenance.report",
    "Maintenance": "stedi.operations.maintenance",
    "Migration": "stedi.operations.migration",
    "OddInstants": "stedi.landing.batch",
    "Options": "stedi.datasets.options",
    "Period": "stedi.audit.consent_history",
    "Plan": "stedi.transform.previewing",
    "Preview": "stedi.datasets.creation",
    "Problem": "stedi.datasets.verify",
    "Proof": "stedi.audit.proof",
    "Quarantine": "stedi.landing.quarantine",
    "Quarantined": "stedi.landing.quarantine",
    "RawRecord": "stedi.landing.quarantine",
    "Reason": "stedi.audit.explain",
    "Recall": "stedi.datasets.recalls",
    "Receipt": "stedi.erasure.report",
    "ReceiptCheck": "stedi.erasure.report",
    "Reconciliation": "stedi.audit.proof",
    "Relanded": "stedi.landing.quarantine",
    "Release": "stedi.datasets.manifest",
    "Removed": "stedi.operations.maintenance.report",
    "Repair": "stedi.operations.maintenance.repair",
    "Replay": "stedi.erasure.replay",
    "Report": "stedi.report.content",
    "Result": "stedi.query",
    "Risk": "stedi.audit.risk",
    "Rotation": "stedi.operations.maintenance.key_rotation",
    "Round": "stedi.operations.watch",
    "Run": "stedi.context.runs",
    "Skipped": "stedi.landing.deliveries.local",
    "Snapshot": "stedi.catalog",
    "Source": "stedi.audit.explain",
    "Split": "stedi.datasets.manifest",
    "Status": "stedi.operations.status",
    "StediError": "stedi.errors",
    "Step": "stedi.transform",
    "Table": "stedi.lake",
    "Tag": "stedi.operations.maintenance.tags",
    "Unit": "stedi.landing.reader.units",
    "Unread": "stedi.landing.unread",
    "Verification": "stedi.datasets.verify",
    "Violation": "stedi.audit.integrity",
    "Withdrawal": "stedi.landing.withdrawal",
    "WithdrawalPreview": "stedi.landing.withdrawal",
    "Withheld": "stedi.transform",
    "attestation": "stedi.report.attestation",
    "sample": "stedi.landing.sample",
}
"""The module of each public name; `attestation` and `sample` are modules themselves."""


def __getattr__(name: str) -> object:
    """Imports a public name when it is first used, so that the command line answers at once."""
    if name not in _HOMES:
        raise AttributeError(f"module 'stedi' has no attribute {name!r}")
    module = importlib.import_module(_HOMES[name])
    return module if _HOMES[name].endswith(f".{name}") else getattr(module, name)


def __dir__() -> list[str]:
    """Returns the public names, as a notebook completes them, and nothing else."""
    return list(__all__)
