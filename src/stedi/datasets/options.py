"""The options of a training set: parsed, checked together, and kept in the manifest.

Durations are whole milliseconds, rates samples a second. A release is made again from what `to_json` gives.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, Self, get_args

from stedi._frozen import asdict, dataclass, replace
from stedi.errors import UsageError, unnamed

Match = Literal["exact", "nearest", "backward"]
Vectors = Literal["mean", "list"]
Time = Literal["relative", "absolute"]
Purpose = Literal["research", "public"]

SPLITS = ("train", "validation", "test")
"""The splits, in the order of their shares."""
NAMES = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
"""Valid names of training sets: valid as a folder's name on every system, without `@`."""
LONGEST = 86_400_000
"""The longest duration, milliseconds: a day."""
_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "min": 60_000, "h": 3_600_000}
_DURATION = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,3}))?(ms|s|min|m|h)")
_RATE = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?) ?[Hh][Zz]")
_LONGEST_TEXT = 500


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a release.

    Attributes:
        match: The accelerometer reading of the same customer with which a step trainer reading is paired: of exactly
            the same moment (`exact`), the `nearest` within the tolerance, or the last one before (`backward`).
        tolerance: The greatest difference of the two times, milliseconds; 0 with `exact`.
        vectors: Several vectors of one moment become their `mean`, or a `list` of them.
        window: The length of a window, milliseconds; None for one row a moment.
        stride: From the start of a window to that of the next, milliseconds.
        max_gap: The longest time between two samples of a window, milliseconds.
        min_samples: The least number of samples of a window.
        resample: Samples a second, interpolated; None leaves the samples as they were measured.
        pad: Pad every window to the length of the longest, with a mask of the samples.
        split: Shares of train, validation and test, percent.
        stratify: Give each split about its share of each label; people of earlier releases stay in their split.
        labels: The file of labels, or empty.
        time: Instants relative to the subject's first reading (`relative`), or unchanged (`absolute`).
        purpose: `research`, or `public`: then only customers who also share with the public.
        recipient: For whom the release is made; `for` in JSON.
    """

    match: Match = "exact"
    tolerance: int = 0
    vectors: Vectors = "mean"
    window: int | None = None
    stride: int | None = None
    max_gap: int = 5_000
    min_samples: int = 2
    resample: float | None = None
    pad: bool = False
    split: tuple[float, float, float] = (80.0, 10.0, 10.0)
    stratify: bool = False
    labels: str = ""
    time: Time = "relative"
    purpose: Purpose = "research"
    recipient: str = ""

    @classmethod
    def parse(cls, **words: Any) -> Self:
        """Returns options given by name: `window="10s"`, `resample="50Hz"`, `split="80/10/10"`.

        Args:
            words: Values by attribute; durations, rates and shares as text or in the attribute's unit. None means the
                default.

        Raises:
            UsageError: A value is invalid, or two options contradict each other.
        """
        known = set(cls.__match_args__)
        given = {name: value for name, value in words.items() if value is not None}
        unknown = sorted(given.keys() - known)
        if unknown:
            raise UsageError(f"{unknown[0]}: expected an option of a training set: {', '.join(sorted(known))}")
        for name in ("tolerance", "window", "stride", "max_gap"):
            if name in given:
                given[name] = duration(name, given[name])
        if "resample" in given:
            given["resample"] = rate("resample", given["resample"])
        if "split" in given:
            given["split"] = shares(given["split"])
        found = cls(**given)
        return found._settled(frozenset(given))

    def _settled(self, given: frozenset[str]) -> Self:
        """Returns the options with the defaults that depend on others, if they go together."""
        for name, values in (("match", Match), ("vectors", Vectors), ("time", Time), ("purpose", Purpose)):
            value, allowed = getattr(self, name), get_args(values)
            if value not in allowed:
                raise _refused(name, f"one of {', '.join(allowed)}", value)
        if self.match == "exact" and self.tolerance:
            raise UsageError(
                "expected no tolerance with match exact, which takes equal instants; use nearest or backward",
                argument="tolerance",
            )
        if self.window is None:
            beside = sorted({"stride", "max_gap", "min_samples", "resample", "pad"} & given)
            # options of a manifest give every value, also the defaults: those are no contradiction
            if self.pad or any(getattr(self, name) != getattr(Options(), name) for name in beside):
                what = "expected a window with it, found none; give a window, such as 10s"
                raise UsageError(what, argument=beside[0])
        else:
            none = next((name for name in ("window", "stride", "max_gap") if getattr(self, name) == 0), None)
            if none is not None:
                raise UsageError("expected more than 0 ms, found 0", argument=none)
        if type(self.min_samples) is not int or not 1 <= self.min_samples <= 1_000_000:
            raise _refused("min_samples", "a whole number from 1 to 1,000,000", self.min_samples)
        if self.resample is not None and self.vectors == "list":
            what = "expected vectors mean, found list: lists of vectors cannot be interpolated"
            raise UsageError(what, argument="resample")
        if self.stratify and not self.labels:
            raise UsageError("expected labels, found none; give a file of labels", argument="stratify")
        if len(self.recipient) > _LONGEST_TEXT or not self.recipient.isprintable():
            raise UsageError(f"expected {_LONGEST_TEXT} printable characters at most, on one line", argument="for")
        tolerance = 20 if self.match != "exact" and "tolerance" not in given else self.tolerance
        stride = self.window if self.stride is None else self.stride
        return replace(self, tolerance=tolerance, stride=stride)

    def to_json(self) -> dict[str, Any]:
        """Returns the options as plain values; durations in milliseconds."""
        plain = asdict(self)
        plain["split"] = list(self.split)
        plain["for"] = plain.pop("recipient")
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """Returns the options that `to_json` gave.

        Raises:
            UsageError: This version does not know them.
        """
        named = {("recipient" if name == "for" else name): value for name, value in plain.items()}
        return cls.parse(**named)


def duration(name: str, value: object) -> int:
    """Returns a duration in milliseconds: `20ms`, `10s`, `1.5s`, `2m`, `1h`, or a number of milliseconds.

    Raises:
        UsageError: It is not a duration, is not in whole milliseconds, or is longer than a day.
    """
    found: int | None = None
    if isinstance(value, int) and not isinstance(value, bool):
        found = value
    elif isinstance(value, str) and (parts := _DURATION.fullmatch(value.strip())):
        # in integers: 0.1 s is exactly 100 ms
        thousandths = int(parts[1]) * 1000 + int((parts[2] or "").ljust(3, "0"))
        whole, rest = divmod(thousandths * _UNITS[parts[3]], 1000)
        found = None if rest else whole
    if found is None or not 0 <= found <= LONGEST:
        raise _refused(name, "a duration of whole milliseconds, a day at most, such as 20ms, 10s or 1.5s", value)
    return found


def rate(name: str, value: object) -> float:
    """Returns samples a second: `50Hz`, `12.5Hz`, or a number.

    Raises:
        UsageError: It is not a rate, or not between 0.001 and 1,000.
    """
    found: float | None = None
    if isinstance(value, int | float) and not isinstance(value, bool):
        found = float(value)
    elif isinstance(value, str) and (parts := _RATE.fullmatch(value.strip())):
        found = float(parts[1])
    if found is None or not 0.001 <= found <= 1000:
        raise _refused(name, "a rate from 0.001Hz to 1000Hz, such as 50Hz", value)
    return found


def shares(value: object) -> tuple[float, float, float]:
    """Returns the shares of train, validation and test, percent: `80/10/10`, or three numbers.

    Raises:
        UsageError: They are not three numbers of at least 0 with the sum 100.
    """
    parts = value.split("/") if isinstance(value, str) else value
    found: list[float] = []
    if isinstance(parts, list | tuple) and len(parts) == len(SPLITS):
        for part in parts:
            try:
                found.append(float(part))
            except (TypeError, ValueError):
                break
    if len(found) != len(SPLITS) or not all(0 <= part <= 100 for part in found) or abs(sum(found) - 100) > 1e-9:
        raise _refused("split", "shares of train, validation and test whose sum is 100, such as 80/10/10", value)
    return found[0], found[1], found[2]


def _refused(name: str, expected: str, found: object) -> UsageError:
    """Returns what refuses an option's value, which is shown without an address."""
    return UsageError(f"expected {expected}, found {unnamed(repr(found)[:80])}; nothing was done", argument=name)


def refuse_name(name: str) -> None:
    """Refuses an invalid name of a training set.

    Raises:
        UsageError: It is invalid.
    """
    if not NAMES.fullmatch(name):
        raise UsageError(
            "the training set's name: expected up to 64 of a-z, 0-9, '.', '_' and '-', a letter or digit first"
        )
