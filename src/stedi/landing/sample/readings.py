"""Generates readings: every group has its own clock, and each tick writes the lines of one point in time.

What a tick adds to each table is known when its lines are generated, so nothing is joined or stored afterwards.
Lines go to a feed's pool; full pools are mixed and passed on as one text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from random import Random

from stedi._frozen import dataclass, field
from stedi.landing.sample.people import Person

TICK = 3000
"""Milliseconds from tick to tick; a tick's readings are up to 999 ms later, so samples are 2 to 4 s apart."""
_DELAYS = tuple(0 if i < 128 else i * 389 % 1000 for i in range(1024))
"""One tick in eight has no delay: it is on the whole second, where different people's readings have the same time."""
_POOL = 8192
_STRIDE = 61
"""Lines of a pool, and the step at which they are picked: neighbours in a file are not neighbours in time."""
_MOST = 16
"""The most records that a tick writes, including repeated deliveries."""


@dataclass(frozen=True, slots=True)
class _Moment:
    """The template of one tick: the texts that `join` puts after each line's head, and how many readings they are."""

    motions: tuple[str, ...]
    moved: int
    steps: tuple[str, ...]
    stepped: int
    records: int


def _moments() -> tuple[_Moment, ...]:
    rng = Random(1)
    found = []
    for number in range(512):
        vectors = [
            ",".join(f'"{axis}":{rng.getrandbits(16) % 3 - 1}.0' for axis in "xyz")
            for _ in range(3 if rng.getrandbits(3) else 2)
        ]
        distance = 201 + rng.getrandbits(16) % 100
        distances = [distance]
        # what joins get wrong: moments of one feed alone, two distances at once, equal vectors
        if number < 12:
            vectors = []
        elif number < 24:
            distances = []
        elif number < 32:
            distances.append(distance + 1)
        elif number < 48:
            vectors.append(vectors[0])
        found.append(
            _Moment(
                ("", *(f",{vector}}}\n" for vector in vectors)),
                len(set(vectors)),
                ("", *(f"{distance}}}\n" for distance in distances)),
                len(distances),
                len(vectors) + len(distances),
            )
        )
    return tuple(found)


MOMENTS = _moments()
_PHONE = tuple(_Moment(m.motions, m.moved, ("",), 0, len(m.motions) - 1) for m in MOMENTS if m.moved)
_DEVICE = tuple(_Moment(("",), 0, m.steps, m.stepped, len(m.steps) - 1) for m in MOMENTS if m.stepped)
_KINDS = {"both": MOMENTS, "phone": (_PHONE + _PHONE)[:512], "device": (_DEVICE + _DEVICE)[:512]}
# one tick in sixteen is delivered twice
RECORDS_PER_TICK = {kind: sum(m.records for m in of) * 17 // 16 / len(of) for kind, of in _KINDS.items()}


@dataclass(slots=True)
class Feed:
    """A feed's output: pools lines, mixes and counts them, and passes them on.

    Attributes:
        sink: Called with each mixed text, encoded.
        seen: Records passed on.
        kept: The first lines of the first mixed text, which are delivered again elsewhere.
    """

    sink: Callable[[bytes], object]
    seen: int = 0
    kept: list[str] = field(default_factory=list)
    pool: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)

    def flush(self, *, last: bool = False) -> None:
        """Passes on the pooled lines; lines that are to be delivered again go into the next pool."""
        if last:
            self.pool += self.again
            self.again = []
        pool = self.pool
        text = "".join(chain.from_iterable(pool[i::_STRIDE] for i in range(_STRIDE)))
        self.pool, self.again = self.again, []
        if text:
            if not self.kept:
                # the last line may be cut
                self.kept = text[:40_000].split("\n")[:-1][:100]
            data = text.encode()
            self.seen += data.count(b"\n")
            self.sink(data)


@dataclass(slots=True)
class Tally:
    """The counts of one person's readings: distinct motions, distinct steps that the person owns, training rows."""

    motions: int = 0
    steps: int = 0
    pairs: int = 0

    def add(self, other: Tally) -> None:
        """Adds another tally to this one."""
        self.motions += other.motions
        self.steps += other.steps
        self.pairs += other.pairs


def walk(
    motions: Feed,
    steps: Feed,
    addresses: Sequence[str],
    serials: Sequence[str],
    start: int,
    quota: int,
    agreed_from: int,
    kind: str,
    rng: Random,
) -> tuple[Tally, Tally]:
    """Writes one person's readings, exactly `quota` records.

    Args:
        motions: The feed for accelerometer readings.
        steps: The feed for step trainer readings.
        addresses: Spellings of the person's address; readings use all of them.
        serials: The person's serial numbers, which nobody else claims.
        start: The clock's start, in epoch milliseconds.
        quota: The number of records to write.
        agreed_from: The first tick that the consent covers.
        kind: `both`, `phone` or `device`.
        rng: The random generator.

    Returns:
        The counts before the consent, and from the consent on.
    """
    bits, moments = rng.getrandbits, _KINDS[kind]
    heads = [f'{{"user":"{addresses[i % len(addresses)]}","timestamp":' for i in range(4)]
    tails = [f',"serialNumber":"{serials[i % len(serials)]}","distanceFromObject":' for i in range(2)]
    tallies = (Tally(), Tally())
    tick, left = 0, quota
    while left >= _MOST:
        # a run of ticks ends where the consent begins, so that it counts on one side
        covered = tick >= agreed_from
        count = min(left // _MOST, _POOL) if covered else min(left // _MOST, _POOL, agreed_from - tick)
        moved = stepped = pairs = 0
        pool, again = motions.pool, motions.again
        step_pool, step_again = steps.pool, steps.again
        for base in range(start + TICK * tick, start + TICK * (tick + count), TICK):
            # one number decides a tick: bits 0-9 the delay, 10-18 the moment, 19-20 the spelling of the address, 21 the
            # device, and 28-31, if all are 0, that it is delivered twice
            r = bits(32)
            time = base + _DELAYS[r & 1023]
            moment = moments[r >> 10 & 511]
            head = f'{{"sensorReadingTime":{time}{tails[r >> 21 & 1]}'
            pool.append(f"{heads[r >> 19 & 3]}{time}".join(moment.motions))
            step_pool.append(head.join(moment.steps))
            moved += moment.moved
            stepped += moment.stepped
            pairs += moment.moved * moment.stepped
            left -= moment.records
            if r < 1 << 28:
                again.append(f"{heads[r >> 19 & 3 ^ 1]}{time}".join(moment.motions))
                step_again.append(head.join(moment.steps))
                left -= moment.records
        tick += count
        tallies[covered].add(Tally(moved, stepped, pairs))
        if len(pool) >= _POOL:
            motions.flush()
            steps.flush()
    for tick_left in range(tick, tick + left):
        tally = tallies[tick_left >= agreed_from]
        if kind == "device":
            steps.pool.append(f'{{"sensorReadingTime":{start + TICK * tick_left}{tails[0]}201}}\n')
            tally.steps += 1
        else:
            motions.pool.append(f'{heads[0]}{start + TICK * tick_left},"x":0.0,"y":1.0,"z":-1.0}}\n')
            tally.motions += 1
    return tallies


def walk_together(
    motions: Feed,
    steps: Feed,
    people: Sequence[Person],
    shared: str,
    start: int,
    quota: int,
    rng: Random,
) -> tuple[list[tuple[Tally, Tally]], int]:
    """Writes the readings of people who claim the same serial number, exactly `quota` records.

    At each tick, one person moves, or two, or nobody. If one person moves, the shared device's steps belong to that
    person; otherwise they are withheld. Steps of a serial number that only the first person has named always belong to
    the first person.

    Args:
        motions: The feed for accelerometer readings.
        steps: The feed for step trainer readings.
        people: The people who claim the serial number.
        shared: The serial number.
        start: The clock's start, in epoch milliseconds.
        quota: The number of records to write.
        rng: The random generator.

    Returns:
        For each person the counts before the consent and from the consent on, and the number of withheld steps.
    """
    heads = [f'{{"user":"{person.addresses[0]}","timestamp":' for person in people]
    since = [person.agreed_from or 0 for person in people]
    own = next((serial for serial in people[0].serials if serial != shared), None)
    tallies = [(Tally(), Tally()) for _ in people]
    withheld, tick, left = 0, 0, quota
    while left >= _MOST:
        r = rng.getrandbits(32)
        time = start + TICK * tick + _DELAYS[r & 1023]
        moment = MOMENTS[r >> 10 & 511]
        chance = r >> 20 & 63
        first = chance % len(people)
        movers = [] if chance < 4 else [first, (first + 1) % len(people)] if chance < 8 else [first]
        if not moment.moved:
            movers = []
        for mover in movers:
            motions.pool.append(f"{heads[mover]}{time}".join(moment.motions))
            tallies[mover][tick >= since[mover]].motions += moment.moved
            left -= len(moment.motions) - 1
        alone = own is not None and r >> 26 & 1 == 0
        owners = [0] if alone else movers
        serial = own if alone else shared
        head = f'{{"sensorReadingTime":{time},"serialNumber":"{serial}","distanceFromObject":'
        steps.pool.append(head.join(moment.steps))
        left -= moment.stepped
        if len(owners) == 1:
            tally = tallies[owners[0]][tick >= since[owners[0]]]
            tally.steps += moment.stepped
            tally.pairs += moment.stepped * (moment.moved if owners[0] in movers else 0)
        else:
            withheld += moment.stepped
        tick += 1
        if len(motions.pool) >= _POOL:
            motions.flush()
            steps.flush()
    for tick_left in range(tick, tick + left):
        motions.pool.append(f'{heads[0]}{start + TICK * tick_left},"x":0.0,"y":0.0,"z":1.0}}\n')
        tallies[0][tick_left >= since[0]].motions += 1
    return tallies, withheld
