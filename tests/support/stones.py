"""Computes the result of an erasure in plain Python: which records are removed, and which stay out afterwards.

This shares no code with `stedi`; tests compare the lake with it, as they compare builds with `oracle`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

Record = Mapping[str, object]
World = dict[str, list[dict[str, object]]]
_MOMENTS = {"customer": "registrationDate", "accelerometer": "timestamp", "step_trainer": "sensorReadingTime"}


@dataclass(slots=True)
class Stones:
    """The erased people and their data.

    Attributes:
        pseudonym: The customer id of an email address as delivered.
        people: Until when data of each erased customer stay out.
        claims: The erased customers who claimed each serial number.
        serials: Until when readings of a serial number that only they claimed stay out.
        moments: Readings of shared serial numbers that could belong to an erased customer.
    """

    pseudonym: Callable[[str], str]
    people: dict[str, int] = field(default_factory=dict)
    claims: dict[str, set[str]] = field(default_factory=dict)
    serials: dict[str, int] = field(default_factory=dict)
    moments: set[tuple[str, int]] = field(default_factory=set)

    def claimants(self) -> dict[str, int]:
        """How many erased customers claimed each serial number."""
        return {serial: len(people) for serial, people in self.claims.items()}

    def copy(self) -> Stones:
        """Returns an independent copy."""
        claims = {serial: set(people) for serial, people in self.claims.items()}
        return Stones(self.pseudonym, dict(self.people), claims, dict(self.serials), set(self.moments))

    def join(self, others: Stones) -> None:
        """Adds the tombstones of other erasures."""
        for mine, theirs in ((self.people, others.people), (self.serials, others.serials)):
            mine.update({name: max(until, mine.get(name, 0)) for name, until in theirs.items()})
        for serial, people in others.claims.items():
            self.claims.setdefault(serial, set()).update(people)
        self.moments |= others.moments

    def who(self, record: Record) -> str:
        """The person of a customer record or accelerometer reading."""
        return self.pseudonym(str(record.get("email", record.get("user"))))

    def bars(self, feed: str, record: Record) -> bool:
        """Whether a record stays out."""
        at = int(str(record.get(_MOMENTS[feed]) or 0))
        if feed != "step_trainer":
            return at <= self.people.get(self.who(record), -1)
        serial = str(record["serialNumber"])
        return at <= self.serials.get(serial, 0) or (serial, at) in self.moments

    def erase(self, world: Mapping[str, Sequence[Record]], people: set[str], now: int) -> World:
        """Adds tombstones for customers and returns all other people's records."""
        claimed: dict[str, set[str]] = {}
        for record in world["customer"]:
            if record.get("serialNumber") is None:
                continue  # a withdrawal of a customer about whom nothing else is known
            claimed.setdefault(str(record["serialNumber"]), set()).add(self.who(record))
        theirs = {
            feed: [record for record in world[feed] if self.who(record) in people]
            for feed in ("customer", "accelerometer")
        }
        for person in people:
            own = [
                int(str(r.get(_MOMENTS[feed]) or 0)) for feed in theirs for r in theirs[feed] if self.who(r) == person
            ]
            self.people[person] = max([now, self.people.get(person, 0), *own])
        for serial, claimants in claimed.items():
            gone = claimants & people
            if gone:
                self.claims.setdefault(serial, set()).update(gone)
            if gone == claimants:
                read = [int(str(r["sensorReadingTime"])) for r in world["step_trainer"] if r["serialNumber"] == serial]
                self.serials[serial] = max([now, self.serials.get(serial, 0), *read])
            else:
                moved = [r for r in theirs["accelerometer"] if self.who(r) in gone]
                self.moments |= {(serial, int(str(record["timestamp"]))) for record in moved}
        only = {serial for serial, claimants in claimed.items() if claimants <= people}
        return {
            "customer": [dict(r) for r in world["customer"] if self.who(r) not in people],
            "accelerometer": [dict(r) for r in world["accelerometer"] if self.who(r) not in people],
            "step_trainer": [
                dict(r)
                for r in world["step_trainer"]
                if r["serialNumber"] not in only and (r["serialNumber"], r["sensorReadingTime"]) not in self.moments
            ],
        }
