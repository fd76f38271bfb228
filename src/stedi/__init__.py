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
    from stedi.audit.explain import ExplainedRow, Explanation
    from stedi.audit.integrity import Check
    from stedi.audit.proof import Proof
    from stedi.audit.record import AuditRecord, FullAudit
    from stedi.audit.risk import Risk
    from stedi.catalog import Snapshot
    from stedi.context.access import Access
    from stedi.datasets import Preview, Release
    from stedi.datasets.comparison import Diff
    from stedi.datasets.dataset import Dataset
    from stedi.datasets.recalls import Recall
    from stedi.erasure.replay import Replay
    from stedi.errors import StediError
    from stedi.lake import Lake, Table
    from stedi.landing import LandedFile, Landing
    from stedi.landing.quarantine import Quarantine
    from stedi.landing.withdrawal import Withdrawal, WithdrawalPreview
    from stedi.maintenance import Maintenance
    from stedi.maintenance.adoption import Adoption
    from stedi.maintenance.key_rotation import Rotation
    from stedi.maintenance.repair import Repair
    from stedi.maintenance.tags import Tag
    from stedi.privacy.pseudonyms import Key
    from stedi.query import Result
    from stedi.report.content import Report
    from stedi.report.export import Export, Exported
    from stedi.transform import Build, Built
    from stedi.transform.previewing import Plan

__all__ = [
    "Access",
    "Adoption",
    "AuditRecord",
    "Build",
    "Built",
    "Check",
    "ConsentHistory",
    "Dataset",
    "Diff",
    "ExplainedRow",
    "Explanation",
    "Export",
    "Exported",
    "FullAudit",
    "Key",
    "Lake",
    "LandedFile",
    "Landing",
    "Maintenance",
    "Period",
    "Plan",
    "Preview",
    "Proof",
    "Quarantine",
    "Recall",
    "Release",
    "Repair",
    "Replay",
    "Report",
    "Result",
    "Risk",
    "Rotation",
    "Snapshot",
    "StediError",
    "Table",
    "Tag",
    "Withdrawal",
    "WithdrawalPreview",
]

_HOMES = {
    "Access": "stedi.context.access",
    "Adoption": "stedi.maintenance.adoption",
    "AuditRecord": "stedi.audit.record",
    "Build": "stedi.transform",
    "Built": "stedi.transform",
    "Check": "stedi.audit.integrity",
    "ConsentHistory": "stedi.audit.consent_history",
    "Dataset": "stedi.datasets.dataset",
    "Diff": "stedi.datasets.comparison",
    "ExplainedRow": "stedi.audit.explain",
    "Explanation": "stedi.audit.explain",
    "Export": "stedi.report.export",
    "Exported": "stedi.report.export",
    "FullAudit": "stedi.audit.record",
    "Key": "stedi.privacy.pseudonyms",
    "Lake": "stedi.lake",
    "LandedFile": "stedi.landing",
    "Landing": "stedi.landing",
    "Maintenance": "stedi.maintenance",
    "Period": "stedi.audit.consent_history",
    "Plan": "stedi.transform.previewing",
    "Preview": "stedi.datasets",
    "Proof": "stedi.audit.proof",
    "Quarantine": "stedi.landing.quarantine",
    "Recall": "stedi.datasets.recalls",
    "Release": "stedi.datasets",
    "Repair": "stedi.maintenance.repair",
    "Replay": "stedi.erasure.replay",
    "Report": "stedi.report.content",
    "Result": "stedi.query",
    "Risk": "stedi.audit.risk",
    "Rotation": "stedi.maintenance.key_rotation",
    "Snapshot": "stedi.catalog",
    "StediError": "stedi.errors",
    "Table": "stedi.lake",
    "Tag": "stedi.maintenance.tags",
    "Withdrawal": "stedi.landing.withdrawal",
    "WithdrawalPreview": "stedi.landing.withdrawal",
}


def __getattr__(name: str) -> object:
    """Imports a public name when it is first used, so that the command line answers at once."""
    if name not in _HOMES:
        raise AttributeError(f"module 'stedi' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """Returns the public names, as a notebook completes them, and nothing else."""
    return list(__all__)
