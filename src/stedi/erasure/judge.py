"""Decides who owns a delivered record, and what to remove from one with the records of several people."""

from __future__ import annotations

from collections.abc import Sequence

from stedi._frozen import replace
from stedi.erasure.identifiers import Identifiers
from stedi.privacy import envelopes, tokens, tombstones
from stedi.privacy.envelopes import Cut, Member


class Judge:
    """Tells the records of some customers from those of others.

    Args:
        traces: Their identifiers.
        moments: Serial number and instant of readings to remove although others claim the device.
    """

    def __init__(self, traces: Identifiers, moments: frozenset[tuple[str, int]]) -> None:
        self.traces = traces
        self._moments = moments
        self._serials = frozenset(number for number, _ in moments)

    def suspects(self, text: str) -> bool:
        """Returns whether a piece of a file may hold such a record."""
        return (
            self.traces.found(text)
            or any(number in text for number in self._serials)
            # an escape can hide a number; the record is parsed then
            or ("\\" in text and bool(self._serials))
        )

    def reads(self, text: str) -> bool:
        """Returns whether a text, plain or decoded, may contain anything to remove."""
        return any(
            self.traces.says(reading) or any(number in reading for number in self._serials)
            for reading in tokens.readings(text)
        )

    def tells(self, text: str) -> bool:
        """Returns whether a text contains anything to remove."""
        return self.traces.found(text) or self.moved(text)

    def moved(self, text: str) -> bool:
        """Returns whether a text contains a moment of a shared device at which one of them moved."""
        return bool(self._moments) and not self._moments.isdisjoint(tombstones.moments_of(text, self._serials))

    def whose(self, members: Sequence[Member]) -> bool | None:
        """Returns whether an object belongs to one of them, by its members; None if they do not show an owner.

        The only address in a record names its owner, whatever else it contains. With two addresses, both must be
        theirs.
        """
        named = [value for name, value in members if name.lower() in ("email", "user")]
        if named and all(isinstance(value, str) for value in named):
            theirs = [self.traces.owns(str(value)) for value in named]
            # two addresses, none of them theirs: the text around them may still tell of somebody
            return all(theirs) if len(named) == 1 or any(theirs) else None
        fields = {name.lower(): value for name, value in members}
        number, at = fields.get("serialnumber"), fields.get("sensorreadingtime")
        # not `isinstance`: true and false are integers, too
        if not named and isinstance(number, str) and type(at) is int:
            return number in self.traces.numbers or (number, at) in self._moments
        return None

    def cut(self, raw: bytes) -> Cut | None:
        """Returns what to remove from a value with records of several people; None for a value of one person."""
        found = envelopes.cut(raw, self.whose, self.suspects, self.tells, self.strangers)
        if found is None:
            return None
        # what is left may mention them in a text beside their objects
        return replace(found, clean=not self.traces.found(found.of(raw).decode("utf-8", "replace")))

    def somebody_else(self, address: str) -> bool:
        """Returns whether an address belongs to somebody else; invisible characters do not change the person."""
        return not (self.traces.known(address) or self.traces.known(tokens.visible(address)))

    def strangers(self, text: str) -> bool:
        """Returns whether a text contains somebody else's address."""
        return any(
            self.somebody_else(address)
            for reading in tokens.readings(text)
            for address in tokens.addresses(tokens.folded(reading))
        )
