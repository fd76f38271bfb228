"""Random values for the runs of the law: each draw is a function of a random generator.

The same seed draws the same values everywhere, with frequencies given by the weights. Hypothesis promises neither: it
prefers simple examples and variations of earlier ones, and imported modules change what it draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import worlds
from worlds import BASE, FUTURE

Draw = Callable[[Random], Any]
"""Draws one value."""


def one_of(values: Sequence[Any]) -> Draw:
    """One of some values, each equally likely."""
    return lambda random: random.choice(values)


def either(*draws: Draw) -> Draw:
    """The result of one of some draws."""
    return lambda random: random.choice(draws)(random)


def number(least: int, most: int, after: int = 0) -> Draw:
    """An integer from `least` to `most`, inclusive, plus `after`."""
    return lambda random: after + random.randint(least, most)


def some(draw: Draw, least: int, most: int) -> Draw:
    """A list of `least` to `most` values."""
    return lambda random: [draw(random) for _ in range(random.randint(least, most))]


def few_of(values: Sequence[Any], least: int, most: int) -> Draw:
    """A list of `least` to `most` of some values, without repetition, in any order."""
    return lambda random: random.sample(values, random.randint(least, most))


def each(*draws: Draw) -> Draw:
    """A tuple with one value from each draw."""
    return lambda random: tuple(draw(random) for draw in draws)


def chance(random: Random) -> bool:
    """A boolean."""
    return random.random() < 0.5


_dates = either(number(1, 8, BASE), one_of([FUTURE]))
_consents = either(*[number(1, 4, BASE)] * 3, _dates, one_of([...]), one_of(worlds.WRONG_CONSENTS))
_people = either(*[one_of(spellings) for spellings in worlds.PEOPLE])
_CUSTOMER: dict[str, Draw] = {
    "customerName": either(one_of([...]), one_of(worlds.NAMES)),
    "email": _people,
    "phone": either(one_of([...]), one_of(worlds.PHONES)),
    "birthDay": either(one_of([...]), one_of(worlds.BIRTHDAYS)),
    "serialNumber": one_of(worlds.SERIALS),
    "registrationDate": number(1, 2, BASE),
    "lastUpdateDate": either(*[number(update, update, BASE) for update in worlds.UPDATES]),
    "shareWithResearchAsOfDate": _consents,
    "shareWithPublicAsOfDate": _consents,
    "shareWithFriendsAsOfDate": _consents,
}
_MOTION: dict[str, Draw] = {
    "user": either(*[_people] * 7, one_of(worlds.STRANGERS)),
    "timestamp": number(1, 4, BASE),
    "x": one_of(worlds.AXES),
    "y": one_of([0.0]),
    "z": one_of([-1.0, 1.0]),
}
_STEP: dict[str, Draw] = {
    "sensorReadingTime": number(1, 4, BASE),
    "serialNumber": either(*[one_of(worlds.SERIALS)] * 7, one_of(["unclaimed"])),
    "distanceFromObject": number(201, 202),
}


def customer(random: Random) -> dict[str, object]:
    """A customer record like those of `worlds.customers`."""
    return _record(_CUSTOMER, random)


def motion(random: Random) -> dict[str, object]:
    """An accelerometer reading like those of `worlds.motions`."""
    return _record(_MOTION, random)


def step(random: Random) -> dict[str, object]:
    """A step trainer reading like those of `worlds.steps`."""
    return _record(_STEP, random)


def _record(fields: dict[str, Draw], random: Random) -> dict[str, object]:
    return {name: value for name, draw in fields.items() if (value := draw(random)) is not ...}
