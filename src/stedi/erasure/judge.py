"""Whose a delivered record is, and what of one that holds the records of several people goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stedi.erasure.identifiers import Identifiers
from stedi.privacy import envelopes, tokens, tombstones
from stedi.privacy.envelopes import Cut, Member


class Judge:
    """What tells the records of some customers from those of others.

    Args:
        traces: What identifies them.
        moments: Serial number and instant of readings that go though others claim the device.
    """

    def __init__(self, traces: Identifiers, moments: frozenset[tuple[str, int]]) -> None:
        self.traces = traces
        self._moments = moments
        self._serials = frozenset(number for number, _ in moments)

    def suspects(self, text: str) -> bool:
        """Says whether a piece of a file may hold such a record."""
        return (
            self.traces.found(text)
            or any(number in text for number in self._serials)
            or ("\\" in text and bool(self._serials))
        )

    def reads(self, text: str) -> bool:
        """Says whether some text, or what it reads decoded, may tell anything that goes."""
        return any(
            self.traces.says(reading) or any(number in reading for number in self._serials)
            for reading in tokens.readings(text)
        )

    def tells(self, text: str) -> bool:
        """Says whether a text holds anything that goes."""
        return self.traces.found(text) or self.moved(text)

    def moved(self, text: str) -> bool:
        """Says whether a text tells a moment of a shared device at which one of them moved."""
        return bool(self._moments) and not self._moments.isdisjoint(tombstones.moments_of(text, self._serials))

    def whose(self, members: Sequence[Member]) -> bool | None:
        """Says whether an object is one of theirs, by its members: False for somebody else's, None if it does not tell.

        Whose a record is, its one address tells, whatever else is in it. With two it is theirs if both are.
        """
        named = [value for name, value in members if name.lower() in ("email", "user")]
        if named and all(isinstance(value, str) for value in named):
            theirs = [self.traces.owns(str(value)) for value in named]
            return all(theirs) if len(named) == 1 or any(theirs) else None
        fields = {name.lower(): value for name, value in members}
        number, at = fields.get("serialnumber"), fields.get("sensorreadingtime")
        if not named and isinstance(number, str) and type(at) is int:
            return number in self.traces.numbers or (number, at) in self._moments
        return None

    def cut(self, raw: bytes) -> Cut | None:
        """Returns what of a value that holds the records of several people goes; None for what is one person's."""
        found = envelopes.cut(raw, self.whose, self.suspects, self.tells, self.strangers)
        if found is None:
            return None
        return replace(found, clean=not self.traces.found(found.of(raw).decode("utf-8", "replace")))

    def somebody_else(self, address: str) -> bool:
        """Says whether an address is another person's: with what nobody sees within, it is the same person's."""
        return not (self.traces.known(address) or self.traces.known(tokens.visible(address)))

    def strangers(self, text: str) -> bool:
        """Says whether a text names somebody else by address."""
        return any(
            self.somebody_else(address)
            for reading in tokens.readings(text)
            for address in tokens.addresses(tokens.folded(reading))
        )
