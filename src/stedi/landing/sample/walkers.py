"""People who walk in front of their step trainer with a phone in the pocket: readings to train a step detector.

A session is a list of activities; an activity is a motion of the trunk and the feet over time. The phone samples the
trunk's acceleration at about 50 Hz. The step trainer samples the distance to the nearest object at about 20 Hz. Each
device has its own clock. The time of every step and the span of every activity are known, by the phone's clock, and are
written to the label file.

Sources of the parameters:

- cadence, 91 to 138 steps per minute, is within the normal range in a laboratory, 96 to 138 for women and 81 to 135 for
  men: "Using Cadence to Study Free-Living Ambulatory Behaviour", Sports Medicine, doi:10.2165/11599170-000000000-00000;
- a foot swings for 0.75 of a step, 37.5% of a stride; textbooks give about 40%;
- the others are assumptions, not measurements, chosen so that a model has something to learn: step times vary by 1 to
  3%; the trunk's acceleration is 0.09 to 0.24 g root mean square upwards, 0.05 to 0.14 forwards, 0.04 to 0.11 sideways;
  a sensor's noise is 0.015 g; a clock drifts by up to 100 parts per million.

The distance has no unit in the real deliveries; as in those, it is between about 200 and 300.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import cos, pi, sin
from random import Random

from stedi._frozen import dataclass

SECONDS = 120
"""The length of each session in seconds."""
PHONE_MS, DEVICE_MS = 20, 50
"""Milliseconds between two samples: 50 and 20 samples per second."""
_CHANCE_OF_A_GAP = 1 / 1500
"""The probability, at each sample, that the device records nothing for up to 1.5 s."""
_WAVE = 256
"""The number of entries in a table of one step's curve."""


@dataclass(frozen=True, slots=True)
class Label:
    """What a person did: an activity from `start` to `end`, or a step at the time `start`, by the phone's clock."""

    label: str
    start: int
    end: int | None = None


@dataclass(frozen=True, slots=True)
class Recording:
    """The recordings of both devices, with labels.

    Attributes:
        motions: Time by the phone's clock (epoch milliseconds) and x, y, z (g); each time occurs once.
        steps: Time by the step trainer's clock (epoch milliseconds) and distance; each time occurs once.
        labels: Spans and steps in the order of their start.
    """

    motions: tuple[tuple[int, float, float, float], ...]
    steps: tuple[tuple[int, int], ...]
    labels: tuple[Label, ...]


@dataclass(frozen=True, slots=True)
class _Stride:
    """The interval from one step (or other turning point) to the next; times are in ms from the session's start."""

    start: float
    end: float
    activity: str
    foot: int
    is_step: bool


def recording(start: int, rng: Random) -> Recording:
    """Returns one person's recording; each call generates another person, with other feet and clocks.

    Args:
        start: When it starts, in epoch milliseconds.
        rng: Decides everything.
    """
    strides = tuple(_strides(rng))
    labels: list[Label] = []
    for stride in strides:
        if labels and labels[-1].label == stride.activity:
            labels[-1] = Label(stride.activity, labels[-1].start, start + round(stride.end))
        else:
            labels.append(Label(stride.activity, start + round(stride.start), start + round(stride.end)))
    labels += [Label("step", start + round(stride.end)) for stride in strides if stride.is_step]
    labels.sort(key=lambda label: (label.start, label.label))
    return Recording(tuple(_phone(start, strides, rng)), tuple(_device(start, strides, rng)), tuple(labels))


def _strides(rng: Random) -> Iterator[_Stride]:
    """Yields the strides of a session, without gaps from its start to its end."""
    cadence = rng.uniform(91, 138)
    lame = rng.uniform(-0.05, 0.05)  # one foot is slower than the other
    steadiness = rng.uniform(0.01, 0.03)
    time, end, turn = 0.0, SECONDS * 1000.0, rng.getrandbits(1)
    while time < end:
        others = ("standing", "squatting", "handling", "sitting")
        activity = "walking" if turn % 2 else others[rng.getrandbits(8) % len(others)]
        until = min(time + rng.uniform(9_000, 20_000) * (1.6 if activity == "walking" else 1), end)
        pace = 60_000 / (cadence * rng.uniform(0.92, 1.08))
        foot = rng.getrandbits(1)
        while time < until:
            if activity == "walking":
                duration = pace * (1 + (lame if foot else -lame)) * rng.gauss(1, steadiness)
            elif activity == "squatting":
                duration = rng.uniform(2_400, 3_600)
            else:
                duration = until - time
            stop = time + duration
            whole = stop <= until
            yield _Stride(time, min(stop, until), activity, foot, activity == "walking" and whole)
            time, foot = min(stop, until), 1 - foot
        turn += 1


def _phone(start: int, strides: tuple[_Stride, ...], rng: Random) -> Iterator[tuple[int, float, float, float]]:
    """Yields the accelerometer's samples: gravity, the trunk's motion, the phone's orientation in the pocket, noise."""
    strength = rng.uniform(0.12, 0.32)
    late = rng.uniform(0.0, 0.12)
    upward = tuple(
        strength * (cos(2 * pi * (at / _WAVE - late)) + 0.4 * cos(4 * pi * (at / _WAVE - 0.1))) for at in range(_WAVE)
    )
    forward = tuple(0.6 * strength * sin(2 * pi * (at / _WAVE - late - 0.1)) for at in range(_WAVE))
    sideways = tuple(0.5 * strength * sin(pi * at / _WAVE) for at in range(_WAVE))
    squat = tuple(0.12 * cos(2 * pi * at / _WAVE) + 0.05 * cos(4 * pi * at / _WAVE) for at in range(_WAVE))
    turned, tilted = rng.uniform(0, 2 * pi), rng.uniform(-0.5, 0.5)
    ct, st, ci, si = cos(turned), sin(turned), cos(tilted), sin(tilted)
    gauss = rng.gauss
    shake = [0.0, 0.0, 0.0]
    for at, time, stride in _samples(strides, PHONE_MS, 2.0, 0.01, rng):
        place = int((at - stride.start) / (stride.end - stride.start) * _WAVE) % _WAVE
        up, ahead, aside = 1.0, 0.0, 0.0
        if stride.activity == "walking":
            up += upward[place]
            ahead, aside = forward[place], sideways[place] * (1 if stride.foot else -1)
        elif stride.activity == "squatting":
            up += squat[place]
            ahead = 0.5 * squat[place]
        elif stride.activity == "handling":
            shake = [0.92 * of + gauss(0, 0.09) for of in shake]
            up, ahead, aside = up + shake[0], shake[1], shake[2]
        elif stride.activity == "sitting":
            up, ahead = 0.26, 0.966  # the thigh is level, so the phone is turned by almost 90 degrees
        # the phone is rotated about the vertical axis and then tilted
        first, second = ct * ahead - st * aside, st * ahead + ct * aside
        yield (
            # + 0.0: a value that is rounded to -0.0 becomes 0.0
            start + time,
            round(first + gauss(0, 0.015), 3) + 0.0,
            round(ci * up - si * second + gauss(0, 0.015), 3) + 0.0,
            round(si * up + ci * second + gauss(0, 0.015), 3) + 0.0,
        )


def _device(start: int, strides: tuple[_Stride, ...], rng: Random) -> Iterator[tuple[int, int]]:
    """Yields the step trainer's samples: the nearer a foot (or, squatting, a knee) comes, the shorter the distance."""
    rest = rng.uniform(270, 295)
    reach = (rng.uniform(14, 60), rng.uniform(14, 60))
    swing = tuple(sin(pi * (at / _WAVE - 0.25) / 0.75) ** 2 if at / _WAVE > 0.25 else 0.0 for at in range(_WAVE))
    offset, drift = rng.uniform(-40, 40), rng.uniform(-1e-4, 1e-4)
    sway = rng.uniform(0, 2 * pi)
    last = -1
    for at, time, stride in _samples(strides, DEVICE_MS, 4.0, 0.02, rng):
        place = int((at - stride.start) / (stride.end - stride.start) * _WAVE) % _WAVE
        distance = rest + 3 * sin(at / 5_000 + sway)
        if stride.activity == "walking" and stride.is_step:
            distance -= reach[stride.foot] * swing[place]
        elif stride.activity == "squatting":
            distance -= 35 * sin(pi * place / _WAVE) ** 2
        # the clock drifts, but never says one time twice
        told = max(start + round(time + offset + drift * time), last + 1)
        last = told
        yield told, round(distance + rng.gauss(0, 2))


def _samples(
    strides: tuple[_Stride, ...], every: int, jitter: float, lost: float, rng: Random
) -> Iterator[tuple[float, int, _Stride]]:
    """Yields a sensor's samples: the exact time, the same in whole milliseconds (each once), and the stride then."""
    following = iter(strides)
    stride = next(following)
    deaf, last = 0.0, -1
    for number in range(1, SECONDS * 1000 // every - 1):
        chance = rng.random()
        if chance < _CHANCE_OF_A_GAP:
            deaf = number * every + rng.uniform(200, 1_500)
        at = number * every + rng.gauss(0, jitter)
        if chance > 1 - lost or at < deaf or round(at) <= last:
            continue
        while at >= stride.end:
            stride = next(following)
        last = round(at)
        yield at, last, stride
