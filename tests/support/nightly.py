"""What runs by night alone: all of a sweep of which a sample runs by day, and what restates what runs by day."""

from __future__ import annotations

import os

import pytest

NIGHTLY = bool(os.environ.get("STEDI_NIGHTLY"))
"""Whether `make nightly` runs."""
at_night = pytest.mark.skipif(not NIGHTLY, reason="make nightly runs it")
"""For a test whose claim a quicker one makes by day."""
