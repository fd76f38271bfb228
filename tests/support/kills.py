"""Kills a fork of this process at the n-th file that it creates, moves or removes; none of its code runs then."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable

PATIENCE = 30.0
"""Seconds after which a fork that has not ended is killed; this counts as a kill, too."""

_MOVES = {"os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.truncate"}


def at(number: int, work: Callable[[], object]) -> bool:
    """Does some work in a fork and kills it on the way.

    Args:
        number: The call to kill it at, counted from 1 over calls that create, move or remove a file.
        work: The work.

    Returns:
        Whether it was killed; False if it finished first.

    Raises:
        AssertionError: The work failed.
    """
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            sys.addaudithook(_counting(number))
            work()
            os._exit(0)
        os._exit(1)
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the work failed"
            return os.WIFSIGNALED(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def _counting(number: int) -> Callable[[str, tuple[object, ...]], None]:
    left = number

    def heard(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writes or event in _MOVES:
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    return heard
