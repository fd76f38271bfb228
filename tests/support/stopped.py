"""A command with a short lease that stops itself with all its threads at a place, like a machine that goes to sleep.

It is a fork (`forks`), which runs `prepare(PLACE)` first. PLACE is a function, `module:name`: it stops before the first
call of it. Or it is a number N: it stops before the Nth request, of any thread, that may write; 0 means never.
"""

from __future__ import annotations

import os
import pkgutil
import signal
import time
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import forks
import sweep_mutants

LEASE, BEAT = 2.0, 0.4
"""The length of a lease and the time between two renewals, in seconds."""


class Command:
    """A command in its own process.

    Args:
        place: Where it stops.
        words: Its arguments.
        log: The file for its output.
    """

    def __init__(self, place: str, words: list[str], log: Path) -> None:
        self._log = log
        self._process = forks.command(words, log, f"import stopped; stopped.prepare({place!r})")

    def rests(self) -> bool:
        """Waits until it has stopped itself or ended, and returns whether it has stopped itself."""
        end, status = time.monotonic() + 300, Path(f"/proc/{self._process.pid}/stat")
        while time.monotonic() < end:
            if self._process.poll() is not None:
                return False
            with suppress(OSError):  # it has already ended
                if status.read_text().rpartition(")")[2].split()[0] == "T":
                    return True
            time.sleep(0.02)
        raise TimeoutError(self._process.args)

    def ends(self) -> tuple[int, str]:
        """Resumes it, and returns its exit code and output."""
        if self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGCONT)
        return self._process.wait(300), self._log.read_text()

    def close(self) -> None:
        """Kills it, whatever its state."""
        with self._process:
            self._process.kill()


def _before_call(place: str) -> None:
    module, _, name = place.partition(":")
    *path, last = name.split(".")
    owner: Any = pkgutil.resolve_name(f"{module}:{'.'.join(path)}" if path else module)
    real = getattr(owner, last)

    def late(*given: Any, **named: Any) -> Any:
        setattr(owner, last, real)
        os.kill(os.getpid(), signal.SIGSTOP)
        return real(*given, **named)

    setattr(owner, last, late)


def _before_request(number: int) -> None:
    from botocore.httpsession import URLLib3Session

    real, requests = URLLib3Session.send, count(1)

    def send(self: Any, request: Any) -> Any:
        writes = request.method not in ("GET", "HEAD") and ".lock" not in request.url
        if writes and next(requests) == number:
            os.kill(os.getpid(), signal.SIGSTOP)
        return real(self, request)

    URLLib3Session.send = send


def prepare(place: str) -> None:
    """Gives this process a short lease, and makes it stop at a place."""
    from stedi.storage.s3 import leases

    leases._LEASE, leases._BEAT = LEASE, BEAT
    sweep_mutants.apply()
    if place.isdigit():
        _before_request(int(place))
    else:
        _before_call(place)
