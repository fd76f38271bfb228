"""Small random worlds for property tests: few people, few instants, few serial numbers.

Small numbers are intended: most worlds then have ties on the last update, shared serial numbers, shared instants and
one person under several spellings of an address; and failing examples shrink to a handful of records.
"""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from random import Random

from hypothesis import strategies as st

FEEDS = ("customer", "accelerometer", "step_trainer")
BASE = 1_655_564_400_000
NOW = BASE + 6
"""A start of the build with some later consents: instants of a world are `BASE` + 1 to 8."""
FUTURE = 4_102_444_800_000
"""After every build, also for tests that cannot set the clock and use the current time instead of `NOW`."""

PEOPLE = (
    ("Ana.Bo@test.example", " ana.bo@TEST.example ", "ANA.BO@TEST.EXAMPLE", "Ana.Bo@test.example  "),
    ("Zoë.Lund@test.example", unicodedata.normalize("NFD", "Zoë.Lund@test.example"), "ZOË.LUND@test.example"),
    ("Nils.Groß@test.example", "nils.gross@test.example", "NILS.GROSS@TEST.EXAMPLE"),
    ("c@test.example",),
)
"""Each person's address in the spellings under which it may be delivered."""
NEIGHBOURS = (
    ("brien@test.example", "BRIEN@test.example"),
    ("o'brien@test.example",),
    ("brien@test.example.org",),
    ("x-brien@test.example", "X-Brien@test.example"),
)
"""People whose addresses contain each other's."""
STRANGERS = ("nobody@test.example", "ana.bo@other.example")
SERIALS = ("serial-1", "serial-2", "Serial-1", "serial-é")

moments = st.integers(1, 4).map(lambda n: BASE + n)
_dates = st.one_of(st.integers(1, 8).map(lambda n: BASE + n), st.just(FUTURE))
addresses = st.sampled_from(PEOPLE).flatmap(st.sampled_from)
serials = st.sampled_from(SERIALS)
WRONG_CONSENTS = (
    "yes",
    str(BASE + 1),
    "",
    True,
    False,
    None,
    0,
    -1,
    BASE + 0.5,
    1.5,
    [BASE + 1],
    {"at": BASE + 1},
    2**63,
    253_402_300_800_000,
)
_wrong_consents = st.sampled_from(WRONG_CONSENTS)
_absent = st.just(...)
BIRTHDAYS = (
    "1990-02-28",
    "1990-02-29",
    "2000-02-29",
    "1990-2-8",
    " 1990-02-28",
    "19900228",
    "",
    "0001-01-01",
    1990,
    None,
)
_birthdays = st.sampled_from(BIRTHDAYS)
NAMES = ("Ana Bo", "Ana Bó", "ana bo", "Ω", "\U0001f45f", "\uffee", "", 7, None)
_names = st.sampled_from(NAMES)
PHONES = ("+1555010", "+1555011", "", 1555010, None)
_phones = st.sampled_from(PHONES)
UPDATES = (1, 2, 3, 1, 2, 3, 6, 7, 8)
AXES = (-1.0, 0.0, 1.0, 0, 1, 0.1)


@st.composite
def customers(draw: st.DrawFn) -> dict[str, object]:
    """A customer record; absent, null, odd and future consents are frequent, and so are equal updates."""
    consent = st.one_of(moments, moments, moments, _dates, _absent, _wrong_consents)
    record: dict[str, object] = {
        "customerName": draw(st.one_of(_absent, _names)),
        "email": draw(addresses),
        "phone": draw(st.one_of(_absent, _phones)),
        "birthDay": draw(st.one_of(_absent, _birthdays)),
        "serialNumber": draw(serials),
        "registrationDate": BASE + draw(st.integers(1, 2)),
        "lastUpdateDate": BASE + draw(st.sampled_from(UPDATES)),
        "shareWithResearchAsOfDate": draw(consent),
        "shareWithPublicAsOfDate": draw(consent),
        "shareWithFriendsAsOfDate": draw(consent),
    }
    return {name: value for name, value in record.items() if value is not ...}


@st.composite
def motions(draw: st.DrawFn) -> dict[str, object]:
    """An accelerometer reading, of a customer more often than of a stranger."""
    axis = st.sampled_from(AXES)
    return {
        "user": draw(st.one_of(*[addresses] * 7, st.sampled_from(STRANGERS))),
        "timestamp": draw(moments),
        "x": draw(axis),
        "y": draw(st.just(0.0)),
        "z": draw(st.sampled_from([-1.0, 1.0])),
    }


@st.composite
def steps(draw: st.DrawFn) -> dict[str, object]:
    """A step trainer reading, of a claimed device more often than of an unknown one."""
    return {
        "sensorReadingTime": draw(moments),
        "serialNumber": draw(st.one_of(*[serials] * 7, st.just("unclaimed"))),
        "distanceFromObject": draw(st.integers(201, 202)),
    }


@st.composite
def worlds(draw: st.DrawFn, *, people: int = 8, readings: int = 14) -> dict[str, list[dict[str, object]]]:
    """Records by feed, some of them delivered twice.

    Args:
        draw: Hypothesis's draw function.
        people: The most customer records.
        readings: The most readings of each kind.
    """
    least = draw(st.sampled_from([0, 1, 4, 8]))  # Hypothesis prefers short lists, but some worlds should be full
    most: dict[str, tuple[st.SearchStrategy[dict[str, object]], int]] = {
        "customer": (customers(), people),
        "accelerometer": (motions(), readings),
        "step_trainer": (steps(), readings),
    }
    world = {
        feed: draw(st.lists(record, min_size=min(least, size), max_size=size)) for feed, (record, size) in most.items()
    }
    for delivered in world.values():
        again = bool(delivered) and draw(st.booleans())
        if again:
            delivered += draw(st.lists(st.sampled_from(delivered), max_size=3))
    return world


def write_world(world: dict[str, list[dict[str, object]]], folder: Path, rng: Random) -> list[Path]:
    """Writes a world as newline-delimited files in any order: one to three per feed, in a folder per feed.

    No two files have the same content, since the lake would treat the second as a copy of the first.

    Returns:
        The files, in an order that `rng` chose.
    """
    files: dict[Path, str] = {}
    for feed in FEEDS:
        records = list(world.get(feed, ()))
        rng.shuffle(records)
        shares: list[list[str]] = [[] for _ in range(rng.randint(1, 3))]
        for record in records:
            shares[rng.randrange(len(shares))].append(json.dumps(record, ensure_ascii=rng.random() < 0.2))
        for number, share in enumerate(shares):
            text = "".join(f"{line}\n" for line in share)
            while text in files.values():
                text += "\n"
            files[folder / feed / f"{feed}-{number}.json"] = text
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    paths = list(files)
    rng.shuffle(paths)
    return paths
