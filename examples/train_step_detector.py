"""A step detector, from deliveries to a table of how well it does: `python train_step_detector.py FOLDER [WALKERS]`.

Needs `pip install 'stedi[examples,readers]'`. The walkers are made up (`stedi.sample`), so the figures tell that the
way from deliveries to a model works. They tell nothing of how well anybody's steps are found in life.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier

import stedi
from stedi import sample

Floats = NDArray[np.float64]

NEAR_MS = 100
"""A step is found if one is told within so many milliseconds of it."""
REFRACTORY_MS = 250
"""Nobody takes two steps within so many milliseconds."""
CONTEXT = 8
"""Samples before and after a moment that the model sees."""


@dataclass(frozen=True)
class Window:
    """Ten seconds of somebody: times and steps in milliseconds since the start, what was measured at these times.

    Steps in a gap, with no sample within 100 ms, do not count: nobody can tell them.
    """

    subject: str
    times: Floats
    distance: Floats
    motion: Floats
    steps: Floats


def released(folder: Path, walkers: int) -> stedi.Dataset:
    """Makes deliveries, a lake of them, and a training set of those who agreed: windows with their steps."""
    sample.write(folder / "inbox", customers=5, readings=200, walkers=walkers, seed=2)
    lake = stedi.Lake.create(folder / "lake")
    lake.land(folder / "inbox")
    release = lake.create_dataset(
        "gait",
        match="nearest",
        tolerance="20ms",
        window="10s",
        max_gap="2s",
        min_samples=100,
        split="60/0/40",
        labels=str(folder / "inbox" / sample.LABELS),
    )
    return stedi.Dataset.open(release.path)


def windows(dataset: stedi.Dataset, split: str) -> list[Window]:
    """Reads the windows of a split."""
    arrays, steps = dataset.numpy(split), dataset.arrow(split)["events"].to_pylist()
    found = []
    for x, mask, times, subject, events in zip(arrays.X, arrays.mask, arrays.t, arrays.groups, steps, strict=True):
        distance, *axes = x[:, mask].astype(float)
        motion = np.sqrt(sum(axis**2 for axis in axes)) - 1  # gravity is taken away: the phone may be held in any way
        when = times[mask].astype(float)
        heard = [step for step in events if np.abs(when - step).min() <= NEAR_MS]
        found.append(Window(str(subject), when, distance - np.median(distance), motion, np.array(heard, float)))
    return found


def features(window: Window) -> Floats:
    """Returns what the model sees of each moment: distance and motion around it, and how far away these samples are."""
    places = np.arange(len(window.times))[:, None] + np.arange(-CONTEXT, CONTEXT + 1)
    places = places.clip(0, len(window.times) - 1)
    away = window.times[places] - window.times[:, None]
    return np.hstack([window.distance[places], window.motion[places], away])


def is_step(window: Window) -> NDArray[np.bool_]:
    """Says of each moment whether a step is at most 50 ms away."""
    if not len(window.steps):
        return np.zeros(len(window.times), bool)
    return np.abs(window.times[:, None] - window.steps).min(axis=1) <= 50


def peaks(times: Floats, score: Floats, least: float) -> Floats:
    """Returns when a score has its peaks: the highest first, each with nothing else around it."""
    found: list[float] = []
    for place in np.argsort(-score):
        if score[place] < least:
            break
        if all(abs(times[place] - other) >= REFRACTORY_MS for other in found):
            found.append(times[place])
    return np.sort(np.array(found))


def hits(told: Floats, steps: Floats) -> int:
    """Counts the steps that are told, each by one that is near and that tells no other."""
    count = place = 0
    for step in steps:
        while place < len(told) and told[place] < step - NEAR_MS:
            place += 1
        if place < len(told) and told[place] <= step + NEAR_MS:
            count, place = count + 1, place + 1
    return count


Detector = Callable[[Sequence[Window]], list[Floats]]
"""Tells of each window when steps were taken."""


def counts(told: Sequence[Floats], of: Sequence[Window]) -> Floats:
    """Returns found, told and true steps of each person, a row a person."""
    people: dict[str, Floats] = {}
    for times, window in zip(told, of, strict=True):
        of_window = np.array([hits(times, window.steps), len(times), len(window.steps)], float)
        people[window.subject] = people.get(window.subject, np.zeros(3)) + of_window
    return np.array([people[subject] for subject in sorted(people)])


def f1(people: Floats) -> float:
    found, told, true = people.sum(axis=0)
    return float(2 * found / (told + true)) if told + true else 0.0


def count_error(people: Floats) -> float:
    """Returns by how much of the true steps the number that is told is off, percent, at the mean of people."""
    return float(np.mean(100 * np.abs(people[:, 1] - people[:, 2]) / people[:, 2]))


def interval(measure: Callable[[Floats], float], people: Floats) -> tuple[float, float]:
    """Returns the bootstrap's 95% interval: what it would be of as many people drawn from these."""
    rng = np.random.default_rng(0)
    draws = [measure(people[rng.integers(0, len(people), len(people))]) for _ in range(1000)]
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def trained(train: Sequence[Window]) -> Detector:
    """Trains the model on two thirds of the people, and chooses its threshold on the others."""
    held = set(sorted({window.subject for window in train})[::3])
    fitted = [window for window in train if window.subject not in held]
    others = [window for window in train if window.subject in held]
    model = HistGradientBoostingClassifier(max_iter=80, learning_rate=0.15, random_state=0)
    model.fit(np.vstack([features(w) for w in fitted]), np.concatenate([is_step(w) for w in fitted]))

    def scores(of: Sequence[Window]) -> list[Floats]:
        every = model.predict_proba(np.vstack([features(window) for window in of]))[:, 1]
        return np.split(every, np.cumsum([len(window.times) for window in of])[:-1])

    def told(of: Sequence[Window], scored: Sequence[Floats], least: float) -> list[Floats]:
        return [peaks(window.times, score, least) for window, score in zip(of, scored, strict=True)]

    scored = scores(others)
    chosen = max((0.2, 0.3, 0.4, 0.5, 0.6), key=lambda least: f1(counts(told(others, scored, least), others)))
    return lambda of: told(of, scores(of), chosen)


def threshold(train: Sequence[Window]) -> Detector:
    """A step is when the distance comes back over a threshold below its median, the one that does best on `train`."""

    def told(of: Sequence[Window], below: float) -> list[Floats]:
        back = [(w.distance[:-1] < -below) & (w.distance[1:] >= -below) for w in of]
        return [window.times[1:][crossed] for window, crossed in zip(of, back, strict=True)]

    chosen = max((3, 4, 5, 6, 8, 10, 13, 16, 20), key=lambda below: f1(counts(told(train, below), train)))
    return lambda of: told(of, chosen)


def majority(of: Sequence[Window]) -> list[Floats]:
    """At most moments nobody takes a step: tells none."""
    return [np.array([]) for _ in of]


def draw(path: Path, window: Window, detectors: dict[str, Detector]) -> None:
    """Draws a window: what was measured, the steps, and what each detector tells."""
    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, (above, below) = plt.subplots(2, 1, sharex=True, figsize=(9, 5), height_ratios=(3, 1), layout="constrained")
    above.plot(window.times / 1000, window.distance, color="tab:blue", label="distance")
    above.set_ylabel("distance from the median")
    beside = above.twinx()
    beside.plot(window.times / 1000, window.motion, color="tab:orange", alpha=0.6)
    beside.set_ylabel("acceleration less gravity, g", color="tab:orange")
    rows = {"true steps": window.steps, **{name: tell([window])[0] for name, tell in detectors.items()}}
    for place, times in enumerate(rows.values()):
        below.plot(times / 1000, np.full(len(times), -place), "|", markersize=14, markeredgewidth=2)
    below.set_yticks([-place for place in range(len(rows))], list(rows))
    below.set_ylim(-len(rows) + 0.5, 0.5)
    below.set_xlabel("seconds")
    figure.suptitle("Ten seconds of a person whom the model has never seen")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(folder: Path, walkers: int = 30) -> dict[str, tuple[float, float]]:
    """Prints the table; returns F1 and count error by detector."""
    dataset = released(folder, walkers)
    train, test = windows(dataset, "train"), windows(dataset, "test")
    people = [len({window.subject for window in split}) for split in (train, test)]
    print(f"{dataset.release}: {people[0]} people to learn from, {people[1]} held out")
    detectors = {"majority": majority, "threshold": threshold(train), "model": trained(train)}
    print(f"\n{'detector':<12}{f'F1 within {NEAR_MS} ms':>24}{'count error, %':>28}")
    results = {}
    for name, tell in detectors.items():
        counted = counts(tell(test), test)
        results[name] = f1(counted), count_error(counted)
        shown = [
            f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
            for value, (low, high), digits in (
                (results[name][0], interval(f1, counted), 2),
                (results[name][1], interval(count_error, counted), 1),
            )
        ]
        print(f"{name:<12}{shown[0]:>24}{shown[1]:>28}")
    print("\nIn brackets: the bootstrap's 95% interval over the people held out.")
    walked = max(test, key=lambda window: len(window.steps))
    draw(folder / "step_detector.png", walked, {name: detectors[name] for name in ("threshold", "model")})
    print(f"drawn: {folder / 'step_detector.png'}")
    return results


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:3]))
