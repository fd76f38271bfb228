"""Landing: files -> records -> landing tables | quarantine.

`batch` lands deliveries. Two packages here know no lake: `reader` makes records of bytes, and `sample` makes deliveries
whose right answer is known.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stedi.context.progress import Progress
    from stedi.landing.batch import Landing, OddInstants, land
    from stedi.landing.rows import LandedFile
    from stedi.landing.unread import Unread

__all__ = ["LandedFile", "Landing", "OddInstants", "Progress", "Unread", "land"]


def __getattr__(name: str) -> object:
    """Imports these names when they are first used: a build or an erasure needs only the journal, and no reader."""
    if name not in __all__:
        raise AttributeError(f"module 'stedi.landing' has no attribute {name!r}")
    return getattr(importlib.import_module("stedi.landing.batch"), name)
