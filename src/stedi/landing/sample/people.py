"""Invented people: who they are, what they consented to and when, and the records that the website delivers.

A group's plan (who shares a serial number, and each person's story) becomes persons. A person's story becomes customer
records, and it determines whether the current record consents. All choices come from the seeded random generator.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from random import Random

from stedi._frozen import dataclass

EPOCH = 1_655_564_400_000
"""About when the samples begin, in epoch milliseconds."""
FUTURE = 4_102_444_800_000
"""The first instant of the year 2100: a consent with this date is not valid yet."""
DAY = 86_400_000

_FIRST = ("Ba", "De", "Fi", "Go", "Ha", "Je", "Ki", "Lo", "Ma", "Ne", "Pi", "Ro", "Sa", "Te", "Vi", "Zo")
_SECOND = ("ba", "ce", "di", "fo", "ga", "he", "ji", "ko", "la", "me", "ni", "po", "ra", "se", "ti", "vo")
_ENDS = ("", "", "", "", "é", "", "ß", "")
"""Endings of last names; two have characters that rule 1 composes or folds."""

STORIES = (
    *("agreed", "never", "withdrew", "agreed", "spelled", "never", "agreed", "new serial", "tie without"),
    *("corrected", "never", "again", "future", "late", "never", "agreed", "withdrew", "never", "repeated"),
    *("tie later", "never", "agreed", "never", "tie future", "agreed", "never", "tie name", "withdrew"),
    *("agreed", "never", "spelled"),
)
"""The stories of people with their own device, assigned in turn; about half of them consent."""
_SHARED_STORIES = ("agreed", "never", "agreed", "withdrew", "late", "never", "agreed")
"""The stories of people who share a device, assigned in turn."""
AGREEING = frozenset(
    ("agreed", "spelled", "new serial", "corrected", "again", "late", "repeated", "tie later", "tie name")
)
WITHDREW = frozenset(("withdrew", "tie without", "tie future"))
"""Stories in which a consent was given and does not count any more."""

_MOTIONS = (
    "both",
    "both",
    "both",
    "both",
    "phone",
    "both",
    "both",
    "none",
    "both",
    "both",
    "device",
    "both",
    "both",
)
_BEFORE = (0, 20, 0, 60, 0, 10, 0, 30, 0, 40, 0, 100, 0, 20, 0, 30, 0, 90, 0, 50)
"""The percentage of a person's readings that were taken before the consent, assigned in turn; 100 is all of them."""
_GROUPS = (
    *("solo",) * 6,
    *("shared 2", "solo", "solo", "shared 3", "solo", "resold", "solo", "stranger"),
    *("solo",) * 10,
    *("shared 2", *("solo",) * 63),
)
"""Kinds of groups, assigned in turn: about nine of a hundred customers share a serial number."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A group: one person, or a few who claim the same serial number, or a stranger without a record.

    Attributes:
        kind: `solo`, `shared`, `resold` or `stranger`.
        stories: The story of each person.
        before: The percentage of each person's readings before the consent.
        motion: What is delivered: `both`, `phone` (no steps), `device` (only steps) or `none`.
        weight: The group's share of all readings.
    """

    kind: str
    stories: tuple[str, ...]
    before: tuple[int, ...]
    motion: str = "both"
    weight: int = 0


@dataclass(frozen=True, slots=True)
class Person:
    """One customer.

    Attributes:
        story: The person's story.
        addresses: The spellings of the person's address in readings.
        serials: The serial numbers that the person's records name.
        records: The records that the website delivers, in the order of events.
        agreed_from: The first tick of the group's clock that the consent covers; None if there is no consent.
    """

    story: str
    addresses: tuple[str, ...]
    serials: tuple[str, ...]
    records: tuple[dict[str, object], ...]
    agreed_from: int | None


def plans(customers: int) -> Iterator[Plan]:
    """Yields the groups for a number of customers, always the same groups for the same number."""
    people = solos = sharers = number = 0
    while people < customers:
        kind, _, size = _GROUPS[number % len(_GROUPS)].partition(" ")
        count = 0 if kind == "stranger" else min(int(size or (2 if kind == "resold" else 1)), customers - people)
        spread = 6 + number * 5 % 9
        number += 1
        people += count
        if kind == "solo" or count == 1:
            story, motion = STORIES[solos % len(STORIES)], _MOTIONS[solos % len(_MOTIONS)]
            weight = {"both": 4, "phone": 2, "device": 1, "none": 0}[motion] * spread
            yield Plan("solo", (story,), (_BEFORE[solos % len(_BEFORE)],), motion, weight)
            solos += 1
        elif count:
            turns = range(sharers, sharers + count)
            stories = tuple(_SHARED_STORIES[turn % len(_SHARED_STORIES)] for turn in turns)
            before = tuple(_BEFORE[turn % len(_BEFORE)] for turn in turns)
            yield Plan(kind, stories, before, weight=4 * count * spread)
            sharers += count
        else:
            yield Plan(kind, (), (), weight=2 * spread)


def serial(rng: Random) -> str:
    """Returns a serial number in the devices' format: 36 characters, five groups of hexadecimal digits."""
    digits = f"{rng.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def name(number: int, seed: int) -> tuple[str, str]:
    """Returns a first and a last name; two numbers with the same seed never get the same names, ignoring case."""
    # an odd factor permutes the 2^20 names: so many numbers in a row have different ones
    place = (number * 0x9E375 + seed * 0x3C6EF) % (1 << 20)
    first = _FIRST[place & 15] + _SECOND[place >> 4 & 15]
    last = _FIRST[place >> 8 & 15] + _SECOND[place >> 12 & 15] + _SECOND[place >> 16]
    again = number >> 20
    return first, last + _ENDS[place % len(_ENDS)] + (f"-{again}" if again else "")


def person(
    story: str, who: tuple[str, str], serials: tuple[str, ...], start: int, agreed_from: int, rng: Random
) -> Person:
    """Returns a person with the records that tell the person's story.

    Args:
        story: One of `STORIES`.
        who: First and last name.
        serials: The serial numbers: first those that earlier records named, last the current one.
        start: When the group's clock starts, in epoch milliseconds.
        agreed_from: The tick of that clock at which the person consented; 0 means before the first tick.
        rng: Decides details that no count depends on.
    """
    first, last = (who[0] + "é", who[1]) if story == "spelled" else who
    address = f"{first}.{last}@test.example"
    registered = start - 1000 * (60 + rng.getrandbits(14))
    consent = start + 3000 * agreed_from if agreed_from else registered
    bits = rng.getrandbits(24)
    # no dates, so they become null below landing
    odd_birthdays = {0: "unknown", 1: "1999-02-29", 2: ""}
    known: dict[str, object] = {
        "customerName": f"{first} {last}",
        "email": address,
        "phone": f"+1801555{100 + bits % 100:04d}",
        "birthDay": odd_birthdays.get(
            bits & 63, f"{1930 + bits % 70}-{1 + (bits >> 7) % 12:02d}-{1 + (bits >> 11) % 28:02d}"
        ),
        "serialNumber": serials[-1],
        "registrationDate": registered,
    }
    shares = [n for n, b in (("shareWithPublicAsOfDate", 16), ("shareWithFriendsAsOfDate", 18)) if bits >> b & 3]

    def at(update: int, research: int | None, **changed: object) -> dict[str, object]:
        record = {**known, **changed, "lastUpdateDate": update}
        if research is not None:
            record["shareWithResearchAsOfDate"] = research
        return {**record, **dict.fromkeys(shares, registered)}

    # `again` has records at `registered` and `late - 1`: the order of the three must be strict
    late = max(consent, registered + 2)
    spellings = _spellings(address) if story == "spelled" else (address,)
    tellings = {
        "agreed": lambda: [at(consent, consent)],
        "never": lambda: [at(registered, None)],
        "late": lambda: [at(registered, None), at(late, consent)],
        "withdrew": lambda: [at(consent, consent), at(consent + DAY, None)],
        "again": lambda: [at(registered, registered), at(late - 1, None), at(late, consent)],
        "corrected": lambda: [
            at(consent, consent, customerName=f"{first} {last}x", phone="+18015550000"),
            at(consent + DAY, consent),
        ],
        "new serial": lambda: [at(consent, consent)],
        "spelled": lambda: [
            at(consent, consent, email=spellings[1]),
            at(consent + 1, consent, email=spellings[2]),
        ],
        "repeated": lambda: [at(consent, consent)] * 3,
        "tie later": lambda: [at(late, registered - 1), at(late, consent)],
        "tie name": lambda: [at(consent, consent), at(consent, consent, customerName=first)],
        "tie without": lambda: [at(consent, consent), at(consent, None)],
        "tie future": lambda: [at(consent, consent), at(consent, FUTURE)],
        "future": lambda: [at(registered, FUTURE)],
    }
    # older than any other record: it claims the device and is never current
    earlier = [at(registered - 1, None, serialNumber=serial) for serial in serials[:-1]]
    records = (*earlier, *tellings[story]())
    return Person(story, spellings, serials, records, agreed_from if story in AGREEING else None)


def _spellings(address: str) -> tuple[str, ...]:
    """Returns the address as given, in capitals, with spaces, and with decomposed accents: one person under rule 1."""
    return (address, f"  {address.upper()}", unicodedata.normalize("NFD", address), f"{address.lower()} ")
