"""Does in a second thread, with a session of its own, what a build or an erasure needs later and nothing else decides.

A build is one statement after the other, and some of them, and all of Python, keep one core busy; an erasure is mostly
Python. What is ready in time fills the other core; what is not is waited for, and what fails beside another statement,
for lack of memory, is tried again. Where an engine has one session for all threads (Spark), and in a build that is
small or needs the memory for one statement, each task is done when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import TypeVar

from stedi.engines import Concurrent, Engine
from stedi.errors import LakeError

T = TypeVar("T")


class Ahead:
    """Tasks that are done in the order in which they are given; a context that waits for the running one.

    Args:
        engine: The session of the first thread.
        worthwhile: Whether there is so much to do that a thread pays, and memory for what it does.
    """

    def __init__(self, engine: Engine, *, worthwhile: bool) -> None:
        self._engine = engine
        self._second: Engine | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._worthwhile = worthwhile
        self._stack = ExitStack()

    def __enter__(self) -> Ahead:
        if self._worthwhile and isinstance(self._engine, Concurrent):
            self._second = self._stack.enter_context(self._engine.beside())
            self._pool = self._stack.enter_context(ThreadPoolExecutor(1))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            # after a failure nobody wants the rest, nor waits for a statement that can be ended
            self._pool.shutdown(wait=False, cancel_futures=True)
            if kind is not None and isinstance(self._second, Concurrent):
                self._second.interrupt()
        self._stack.__exit__(kind, error, trace)

    @property
    def is_active(self) -> bool:
        """Whether tasks are done by a thread, and not when they are asked for."""
        return self._pool is not None

    def begin(self, work: Callable[[Engine], T]) -> Callable[[], T]:
        """Gives a task; returns what waits for its result, or raises its error.

        Args:
            work: The task; it is called with the session of its thread, and, if that fails, with the first one.
        """
        if self._pool is None or self._second is None:
            return lambda: work(self._engine)
        future = self._pool.submit(work, self._second)

        def result() -> T:
            with suppress(LakeError):
                return future.result()
            return work(self._engine)

        return result
