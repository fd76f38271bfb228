"""Records for tests, each from a one-line call, and the files that deliver them.

Instants can be given as small numbers, milliseconds after `DAWN`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

DAWN = 1_000_000_000_000
"""The epoch milliseconds from which tests count: the last digits of an instant are the test's number for it."""

_DUSK = 1_000_000_000
"""Smaller numbers are milliseconds after `DAWN`; greater ones are epoch milliseconds."""


def instant(moment: int) -> int:
    """Converts a small number to epoch milliseconds; other values are returned unchanged."""
    return DAWN + moment if type(moment) is int and 0 < moment < _DUSK else moment


def moment(instant: Any) -> Any:
    """Reverses `instant`; values that are not instants near `DAWN` are returned unchanged."""
    return instant - DAWN if type(instant) is int and 0 < instant - DAWN < _DUSK else instant


def customer(email: str = "a@x.example", consent: object = 50, update: int = 100, **more: object) -> dict[str, object]:
    """A customer record; `consent=...` leaves the consent out."""
    record = {"email": email, "serialNumber": "s1", "registrationDate": 10, "lastUpdateDate": update, **more}
    if consent is not ...:
        record["shareWithResearchAsOfDate"] = consent
    return {name: instant(value) if name.endswith("Date") else value for name, value in record.items()}  # type: ignore[arg-type]


def motion(user: str = "a@x.example", at: int = 100, x: float = 1.0) -> dict[str, object]:
    """An accelerometer reading."""
    return {"user": user, "timestamp": instant(at), "x": x, "y": 0.0, "z": -1.0}


def step(serial: str = "s1", at: int = 100, distance: int = 246) -> dict[str, object]:
    """A step trainer reading."""
    return {"sensorReadingTime": instant(at), "serialNumber": serial, "distanceFromObject": distance}


def deliver(folder: Path, feed: str, records: Iterable[Mapping[str, object]], name: str = "delivered.json") -> Path:
    """Writes records, one per line, into the feed's folder below `folder`."""
    path = folder / feed / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path
