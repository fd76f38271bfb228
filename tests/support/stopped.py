"""A command with a short lease that stops itself, all its threads, at a place: as a machine that sleeps does.

Run as `python stopped.py PLACE ARGUMENTS...`. PLACE is a function, `module:name`, before whose first call it stops; or
a number: it stops before its so-many-th request that may write, whatever thread makes it; 0 for never.
"""

from __future__ import annotations

import os
import pkgutil
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path
from typing import Any

import sweep_mutants

LEASE, BEAT = 2.0, 0.4
"""Seconds: of a lease, and between two renewals."""


class Command:
    """A command in a process of its own.

    Args:
        place: Where it stops.
        words: Its arguments.
        log: The file for what it says.
    """

    def __init__(self, place: str, words: list[str], log: Path) -> None:
        self._log = log
        with open(log, "wb") as stream:
            self._process = subprocess.Popen([sys.executable, __file__, place, *words], stdout=stream, stderr=stream)

    def rests(self) -> bool:
        """Waits until it has stopped itself or has ended, and returns whether it has stopped itself."""
        end = time.monotonic() + 300
        while time.monotonic() < end:
            found = os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is not None:
                return found.si_code == os.CLD_STOPPED
            time.sleep(0.02)
        raise TimeoutError(self._process.args)

    def ends(self) -> tuple[int, str]:
        """Lets it go on, and returns its exit code and what it has said."""
        self._process.send_signal(signal.SIGCONT)
        return self._process.wait(300), self._log.read_text()

    def kill(self) -> None:
        """Ends it, wherever it is."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


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


if __name__ == "__main__":
    from stedi import cli
    from stedi.storage.s3 import leases

    leases._LEASE, leases._BEAT = LEASE, BEAT
    sweep_mutants.apply()
    place = sys.argv[1]
    if place.isdigit():
        _before_request(int(place))
    else:
        _before_call(place)
    sys.exit(cli.main(sys.argv[2:]))
