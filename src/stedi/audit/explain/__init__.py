"""Explanations: why rows of a customer or of a table are in a table, or are left out of it.

Explanations are computed from landed records, by code that the build does not share, and are compared with the
published tables. Only here does a result hold a customer's own data: the caller must know the address or use
`--where`.
"""

from __future__ import annotations

from stedi.audit.explain.customer import Explanation, InQuarantine, Landed, LeftOut, explain
from stedi.audit.explain.rows import LIMIT, ExplainedRow, ExplainedRows, Source, chosen
from stedi.audit.explain.rows import explain as explain_rows
from stedi.audit.proof.reconciliation import Reason

__all__ = [
    "LIMIT",
    "ExplainedRow",
    "ExplainedRows",
    "Explanation",
    "InQuarantine",
    "Landed",
    "LeftOut",
    "Reason",
    "Source",
    "chosen",
    "explain",
    "explain_rows",
]
