"""What an erasure keeps of each quarantined record: all of it, a masked version, or nothing.

A record belongs to the customer whose address it gives, if it can be parsed. One of somebody else stays without the
mentions of erased customers; one about several people stays without theirs, if it can be divided.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from stedi.erasure import identifiers
from stedi.erasure.judge import Judge
from stedi.privacy import envelopes, tokens, tombstones

_TOGETHER = 64
"""How many records are searched together at first: in most erasures few records have a match."""


def batched(records: Iterable[tuple[str, int, bytes]], size: int) -> Iterator[list[tuple[str, int, bytes]]]:
    """Yields records in batches, each as soon as its bytes are more than `size`."""
    held: list[tuple[str, int, bytes]] = []
    total = 0
    for found in records:
        held.append(found)
        total += len(found[2])
        if total > size:
            yield held
            held, total = [], 0
    yield held


def suspected(batch: Sequence[tuple[str, int, bytes]], judge: Judge) -> Iterator[tuple[str, int, bytes]]:
    """Yields the quarantined records of a batch from which something may have to be removed."""
    texts = [identifiers.as_text(raw) for _, _, raw in batch]
    for start in range(0, len(batch), _TOGETHER):
        yield from (
            batch[start + place] for place in identifiers.telling(texts[start : start + _TOGETHER], judge.reads)
        )


def kept(raw: bytes, judge: Judge, erased: Collection[str]) -> bytes | None:
    """Returns what is kept of a quarantined record: all of it, or a masked version; None if it is removed.

    Args:
        raw: The record.
        judge: Decides whose it is.
        erased: The marks of records that an earlier attempt found.
    """
    traces = judge.traces
    if erased and tombstones.record(traces.key, raw) in erased:
        return None
    text = identifiers.as_text(raw)
    moved = judge.moved(text)
    if not moved and not traces.found(text):
        return raw
    traces.who(text)  # finds every person in a record that names several, for `met`
    plain = raw.decode("utf-8", "replace")
    owner = tokens.owner(plain)
    if owner is None:
        return _envelope(raw, judge)
    if moved or traces.owns(owner):
        return None
    kept = tokens.restrung(plain, lambda value: tokens.but(value, owner, traces.masked))
    # masked so that it is another's record, or is none any more, it is not kept
    if kept is None or tokens.owner(kept) != owner or traces.found(tokens.beside(kept, owner)):
        return None
    return raw if kept == plain else kept.encode()


def tells_of_others(raw: bytes, judge: Judge) -> bool:
    """Returns whether a removed quarantined record has another owner, or none but addresses of others."""
    text, owner = identifiers.as_text(raw), tokens.owner(raw.decode("utf-8", "replace"))
    if owner is not None:
        return judge.somebody_else(owner) and not judge.moved(text)
    return judge.strangers(text)


def _envelope(raw: bytes, judge: Judge) -> bytes | None:
    """Returns a quarantined value about several people without the customers; None if it cannot be divided."""
    cut = judge.cut(raw)
    if cut is None:
        return None
    kept = cut.of(raw)
    if cut.clean:
        return kept
    text = judge.traces.masked(kept.decode("utf-8", "replace"))
    return None if text is None or envelopes.is_json(kept) != envelopes.is_json(text.encode()) else text.encode()
