"""Workers that run many tasks in parallel: threads of this process, or Spark's executors.

A task whose executor fails is run again. So each attempt writes under a unique name, and only what it returns is used.
Results are small: counts and descriptions of files, never rows.
"""

from __future__ import annotations

import re
import secrets
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from stedi._frozen import dataclass
from stedi.errors import LakeError, StediError

T = TypeVar("T")
R = TypeVar("R")

Share = Callable[[float], None]
"""Called with the share of the tasks that are done, from 0 to 1."""

_LOOK = 0.5
"""Seconds between two checks of the executors' progress."""


class Workers(Protocol):
    """The interface through which the verbs use workers."""

    @property
    def slots(self) -> int:
        """How many tasks run in parallel."""

    def map(self, work: Callable[[T], R], tasks: Sequence[T], done: Share = lambda share: None) -> list[R]:
        """Returns a function's result for each task, in the order of the tasks.

        Args:
            work: A function of an importable module; it may be called more than once for a task.
            tasks: The tasks; tasks and results must be picklable.
            done: Called with the share of the tasks that are done.

        Raises:
            StediError: The error of the first task that failed.
            LakeError: A task failed with an unexpected error in every attempt.
        """


@dataclass(frozen=True, slots=True)
class Threads:
    """Threads of this process. With one slot, tasks run in the caller's own thread, which an interrupt reaches.

    Attributes:
        slots: How many tasks run in parallel.
    """

    slots: int

    def map(self, work: Callable[[T], R], tasks: Sequence[T], done: Share = lambda share: None) -> list[R]:
        """Returns a function's result for each task, in the order of the tasks; see `Workers`."""
        results = []
        with ThreadPoolExecutor(self.slots) as threads:
            # in order, so that the first failed task decides the error, as the protocol says
            found = threads.map(work, tasks) if self.slots > 1 else map(work, tasks)
            for number, result in enumerate(found, start=1):
                results.append(result)
                done(number / len(tasks))
        return results


@dataclass(frozen=True, slots=True)
class _Failed:
    """The result of a task that failed with an expected error: running it again would change nothing."""

    kind: type[StediError]
    message: str

    def error(self) -> StediError:
        """Rebuilds the error without its constructor: only the message is sent, and some errors need more."""
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
        """How many tasks run in parallel."""
        return max(1, int(self.spark.sparkContext.defaultParallelism))

    def map(self, work: Callable[[T], R], tasks: Sequence[T], done: Share = lambda share: None) -> list[R]:
        """Returns a function's result for each task, in the order of the tasks; see `Workers`."""
        if not tasks:
            return []
        context = self.spark.sparkContext
        with _watched(context, done):
            try:
                # a partition for each task: those that wait go to whoever is free
                answers = context.parallelize(tasks, len(tasks)).mapPartitions(partial(_answers, work)).collect()
            except Exception as error:
                # its text is an executor's traceback, which can contain data
                raise LakeError(
                    f"Spark's executors failed ({_cause(error)}); nothing was published. Run the command again; their "
                    "logs say more"
                ) from None
        for answer in answers:
            if isinstance(answer, _Failed):
                raise answer.error()
        return list(answers)


def _answers(work: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R | _Failed]:
    """Yields the result of each task. Runs on an executor, whose log must not show a customer's data either."""
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
    """Returns the part of an executor's error text that contains no data; the whole text is a traceback."""
    text = str(error)
    said = _SAID.search(text)
    return said[0] if said else next((word for word in _KNOWN if word in text), type(error).__name__)


@contextmanager
def _watched(context: Any, done: Share) -> Iterator[None]:
    """Reports the share of completed tasks while a block runs a job."""
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
