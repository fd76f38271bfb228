"""Workers that run many tasks side by side: threads here, or Spark's executors.

A task that is cut off with its executor is run again, so whatever a task writes goes by a name of that attempt alone,
and only what it returns counts. What returns is small: counts, descriptions of files, never rows.
"""

from __future__ import annotations

import re
import secrets
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from stedi.errors import LakeError, StediError

T = TypeVar("T")
R = TypeVar("R")

Share = Callable[[float], None]
"""Told the share of the tasks that are done, 0 to 1."""

_LOOK = 0.5
"""Seconds between two looks at how far the executors are."""


class Workers(Protocol):
    """What the verbs ask of whoever works for them."""

    @property
    def slots(self) -> int:
        """How many tasks run side by side."""

    def map(self, work: Callable[[T], R], tasks: Sequence[T], done: Share = lambda share: None) -> list[R]:
        """Returns what a function makes of each task, in their order.

        Args:
            work: A function of an importable module; it may be called more than once for a task.
            tasks: The tasks; they and the results can be pickled.
            done: Called with the current step and its completed share.

        Raises:
            StediError: What the first task that failed has raised.
            LakeError: Tasks failed in a way that nobody foresaw, more often than is tried.
        """


@dataclass(frozen=True, slots=True)
class Threads:
    """Threads of this process; one is the caller's own, which an interrupt reaches.

    Attributes:
        slots: How many tasks run side by side.
    """

    slots: int

    def map(self, work: Callable[[T], R], tasks: Sequence[T], done: Share = lambda share: None) -> list[R]:
        """Returns what a function makes of each task, in their order; see `Workers`."""
        results = []
        with ThreadPoolExecutor(self.slots) as threads:
            found = threads.map(work, tasks) if self.slots > 1 else map(work, tasks)
            for number, result in enumerate(found, start=1):
                results.append(result)
                done(number / len(tasks))
        return results


@dataclass(frozen=True, slots=True)
class _Failed:
    """What a task says that has failed in a way that is foreseen: running it again would change nothing."""

    kind: type[StediError]
    message: str

    def error(self) -> StediError:
        """Returns the error anew: some are made of more than their message, which is all that is sent."""
        made = self.kind.__new__(self.kind)
        made.args = (self.message,)
        return made


class Executors:
    """The executors of a Spark session.

    Args:
        spark: The session.
    """

    def __init__(self, spark: Any) -> None:
        self.spark = spark

    @property
    def slots(self) -> int:
        """How many tasks run side by side."""
        return max(1, int(self.spark.sparkContext.defaultParallelism))

    def map(self, work: Callable[[T], R], tasks: Sequence[T], done: Share = lambda share: None) -> list[R]:
        """Returns what a function makes of each task, in their order; see `Workers`."""
        if not tasks:
            return []
        context = self.spark.sparkContext
        with _watched(context, done):
            try:
                answers = context.parallelize(tasks, len(tasks)).mapPartitions(partial(_answers, work)).collect()
            except Exception as error:
                # its text is a traceback of an executor
                raise LakeError(
                    f"Spark's executors failed ({_cause(error)}); nothing was published. Run the command again; their "
                    "logs say more"
                ) from None
        for answer in answers:
            if isinstance(answer, _Failed):
                raise answer.error()
        return list(answers)


def _answers(work: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R | _Failed]:
    """Yields what becomes of each task. Runs on an executor, whose log must not show a customer's data either."""
    for task in tasks:
        try:
            answer: R | _Failed = work(task)
        except StediError as error:
            answer = _Failed(type(error), str(error))
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(frame.filename).name}:{frame.lineno}"
            raise RuntimeError(f"unforeseen {type(error).__name__} at {place}") from None
        yield answer


_SAID = re.compile(r"(?:unforeseen \w+ at [\w.]+:\d+|ModuleNotFoundError: No module named '[\w.]+')")
_KNOWN = ("ExecutorLostFailure", "OutOfMemoryError", "Python worker exited unexpectedly")


def _cause(error: Exception) -> str:
    """Returns what executors say of a failure, as far as it holds no data: their text is a traceback."""
    text = str(error)
    said = _SAID.search(text)
    return said[0] if said else next((word for word in _KNOWN if word in text), type(error).__name__)


@contextmanager
def _watched(context: Any, done: Share) -> Iterator[None]:
    """Reports how many tasks have ended while a block runs a job."""
    group, ended = f"stedi-{secrets.token_hex(8)}", threading.Event()
    tracker = context.statusTracker()

    def look() -> None:
        while not ended.wait(_LOOK):
            stages = [
                stage
                for job in tracker.getJobIdsForGroup(group)
                if (found := tracker.getJobInfo(job)) is not None
                for number in found.stageIds
                if (stage := tracker.getStageInfo(number)) is not None
            ]
            total = sum(stage.numTasks for stage in stages)
            if total:
                done(sum(stage.numCompletedTasks for stage in stages) / total)

    context.setJobGroup(group, "stedi", interruptOnCancel=True)
    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield
    except BaseException:
        context.cancelJobGroup(group)
        raise
    finally:
        ended.set()
        watcher.join()
    done(1.0)
