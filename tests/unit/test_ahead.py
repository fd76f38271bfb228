"""What a build's second thread does ahead: in order, with a session of its own, or when it is asked for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from typing import Any

import pytest

from stedi.errors import LakeError
from stedi.transform.ahead import Ahead


class One:
    """An engine with one session for all threads."""


class Several(One):
    """An engine with a session for each thread."""

    def __init__(self) -> None:
        self.second: Several | None = None
        self.ended, self.interrupted = False, Event()

    @contextmanager
    def beside(self) -> Iterator[Any]:
        self.second = Several()
        try:
            yield self.second
        finally:
            self.ended = True

    def interrupt(self) -> None:
        self.interrupted.set()


def test_tasks_are_done_in_their_order_by_another_thread_with_its_own_session() -> None:
    engine, done = Several(), list[tuple[int, Any, bool]]()

    def task(number: int) -> Any:
        here = threading.get_ident()

        def work(session: Any) -> int:
            done.append((number, session, threading.get_ident() == here))
            return number

        return work

    with Ahead(engine, worthwhile=True) as ahead:  # type: ignore[arg-type]
        assert ahead.is_active
        results = [ahead.begin(task(number)) for number in range(5)]
        assert [result() for result in reversed(results)] == [4, 3, 2, 1, 0]
    assert done == [(number, engine.second, False) for number in range(5)]
    assert engine.ended


@pytest.mark.parametrize(("engine", "worthwhile"), [(One(), True), (Several(), False)])
def test_without_a_second_session_a_task_is_done_when_it_is_asked_for(engine: Any, worthwhile: bool) -> None:
    done = list[Any]()
    with Ahead(engine, worthwhile=worthwhile) as ahead:
        assert not ahead.is_active
        result = ahead.begin(done.append)
        assert done == []
        result()
        assert done == [engine]


def test_the_error_of_a_task_is_raised_where_its_result_is_asked_for() -> None:
    def fail(_: object) -> None:
        raise LookupError("why")

    with Ahead(Several(), worthwhile=True) as ahead:  # type: ignore[arg-type]
        failing, other = ahead.begin(fail), ahead.begin(lambda _: 7)
        assert other() == 7
        with pytest.raises(LookupError, match="why"):
            failing()


def test_a_task_that_fails_beside_another_statement_is_done_again_by_the_first_session() -> None:
    engine, done = Several(), list[Any]()

    def work(session: Any) -> int:
        done.append(session)
        if session is not engine:
            raise LakeError("the engine needs more memory")
        return 7

    with Ahead(engine, worthwhile=True) as ahead:  # type: ignore[arg-type]
        assert ahead.begin(work)() == 7
    assert done == [engine.second, engine]


def test_after_a_failure_the_running_task_is_ended_and_no_other_is_begun() -> None:
    engine, begun, done = Several(), Event(), list[object]()

    def long(session: Any) -> None:
        begun.set()
        assert session.interrupted.wait(20)
        done.append(session)

    def interrupted() -> None:
        with Ahead(engine, worthwhile=True) as ahead:  # type: ignore[arg-type]
            ahead.begin(long)
            ahead.begin(done.append)
            assert begun.wait(20)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert done == [engine.second], "it has ended before the session is closed"
    assert engine.ended
