"""What a reader of a report can infer: bounds for each count of people, tightened by all sums until none changes.

It uses the page's JSON and which count is a part of which, but not how the product chooses what to show.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_MANY = 10**9


class Reader:
    """A reader of one page.

    Args:
        page: The report's JSON.

    Attributes:
        bounds: For each named count of people, its least and greatest possible value.
    """

    def __init__(self, page: Mapping[str, Any]) -> None:
        self.least = page["min_count"]
        self.bounds: dict[str, tuple[int, int]] = {}
        self._sums: list[tuple[str, str, str]] = []
        self._read(page)
        self._solve()

    def told(self) -> dict[str, int]:
        """Returns the small counts of people whose exact value is known."""
        people = {name: found for name, found in self.bounds.items() if not name.endswith("records")}
        return {name: low for name, (low, high) in people.items() if low == high and 0 < low < self.least}

    def _know(self, name: str, shown: object = None) -> str:
        low, high = self.bounds.get(name, (0, _MANY))
        if isinstance(shown, int):
            low, high = max(low, shown), min(high, shown)
        elif isinstance(shown, str) and shown.startswith("fewer than "):
            low, high = max(low, 1), min(high, int(shown.removeprefix("fewer than ")) - 1)
        else:
            assert shown in (None, "not shown"), shown
        assert low <= high, f"{name}: the page contradicts itself"
        self.bounds[name] = low, high
        return name

    def _part(self, part: str, whole: str, rest: str = "", shown: object = None) -> None:
        """Adds that one count is a part of another; the remainder is a count, too."""
        rest = rest or f"{whole} but {part}"
        self._sums.append((part, self._know(rest, shown), whole))

    def _read(self, page: Mapping[str, Any]) -> None:
        stages = [self._know(stage["name"], stage["people"]) for stage in page["funnel"]]
        for at, whole in enumerate(stages):
            for part in stages[at + 1 :]:
                self._part(part, whole)
        for before, stage in zip(stages, page["funnel"][1:], strict=False):
            self._part(stage["name"], before, shown=stage["left_out"])
        rows = {table["name"]: table["rows"] for table in page["tables"]}
        for name, stage in (("customers_trusted", stages[1]), ("customers_curated", stages[2])):
            self._know(stage, rows[name])
        self._know("records", page["records"])
        self._part("superseded records", "records", stages[0], None)
        self._know("superseded records", page["superseded"])
        self._know("measured", page["measurements"]["people"])
        self._part("measured", stages[2])
        self._periods(page, stages)
        for each in page["releases"]:
            release = self._know(each["release"], each["subjects"])
            self._know(f"stale {release}", each["stale"])
            self._part(f"stale {release}", release)
        if page["risk"]:
            self._know("judged", page["risk"]["people"])
            for place, line in enumerate(page["risk"]["lines"]):
                one, every = (
                    self._know(f"by one {place}", line["by_one"]),
                    self._know(f"by all {place}", line["by_all"]),
                )
                self._part(one, every)
                self._part(every, "judged")
                self._part(one, "judged")
        if page["changes"]:
            for line in page["changes"]["lines"]:
                if line["what"].startswith("people: "):
                    self._change(line)

    def _periods(self, page: Mapping[str, Any], stages: list[str]) -> None:
        """Adds consent over time; the change after the last period is its difference from the present."""
        for at, period in enumerate(page["consent"]):
            known, agree = self._know(f"known {at}", period["known"]), self._know(f"agree {at}", period["consenting"])
            self._part(agree, known)
            for flow in ("joined", "withdrew", "erased", "rejoined"):
                self._know(f"{flow} {at}", period[flow])
            self._part(f"rejoined {at}", f"joined {at}")
            for levels, now in (("known", stages[0]), ("agree", stages[1])):
                ends = [f"{levels} {before}" for before in range(at)]
                for other in [*ends, now]:
                    self._apart(f"{levels} {at}", other)

    def _apart(self, one: str, other: str) -> None:
        """Adds the difference of two counts, if both are known."""
        (low, high), (least, most) = self.bounds[one], self.bounds[other]
        if low == high and least == most:
            self._know(f"between {one} and {other}", abs(low - least))

    def _change(self, line: Mapping[str, Any]) -> None:
        if isinstance(line["change"], int):
            self._know(f"change of {line['what']}", abs(line["change"]))
            if isinstance(line["now"], int):
                self._know(f"earlier {line['what']}", line["now"] - line["change"])
        else:
            self._know(f"change of {line['what']}", line["change"])

    def _solve(self) -> None:
        """Tightens the bounds by part + rest = whole until none changes."""
        moved = True
        while moved:
            moved = False
            for part, rest, whole in self._sums:
                (a, b), (c, d), (e, f) = (self.bounds[name] for name in (part, rest, whole))
                tighter = {
                    part: (max(a, e - d), min(b, f - c)),
                    rest: (max(c, e - b), min(d, f - a)),
                    whole: (max(e, a + c), min(f, b + d)),
                }
                for name, (low, high) in tighter.items():
                    assert low <= high, f"{name}: the page contradicts itself"
                    moved = moved or (low, high) != self.bounds[name]
                    self.bounds[name] = low, high
