"""Workers for tests that need no Spark: tasks and answers are pickled, as if sent to another machine."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import Any


class Pool:
    """Runs tasks one by one; discards the first `lost` answers of each, as if its executor had died."""

    def __init__(self, slots: int = 3, lost: int = 0) -> None:
        self.slots, self.lost = slots, lost
        self.tasks = 0

    def map(self, work: Callable[[Any], Any], tasks: Sequence[Any], done: Callable[[float], None] = print) -> list[Any]:
        answers = []
        for number, task in enumerate(tasks, start=1):
            self.tasks += 1
            for _ in range(self.lost + 1):
                answer = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(work))(pickle.loads(pickle.dumps(task)))))
            answers.append(answer)
            done(number / len(tasks))
        return answers
