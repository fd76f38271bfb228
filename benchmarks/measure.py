"""Runs one command as a whole process and measures wall time, CPU time and peak memory of its process tree."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one or several processes.

    Attributes:
        wall: Seconds from start to end, including the start of the process.
        cpu: Seconds of user and system time, including all children.
        peak: The most resident bytes, summed over the process tree; a page that two processes share counts twice.
    """

    wall: float
    cpu: float
    peak: int

    def then(self, other: Cost) -> Cost:
        """Returns the cost of running this, then the other."""
        return Cost(self.wall + other.wall, self.cpu + other.cpu, max(self.peak, other.peak))


def wall(cost: Cost) -> float:
    """Returns the wall time, for tables that have the same columns of either time."""
    return cost.wall


def cpu(cost: Cost) -> float:
    """Returns the CPU time."""
    return cost.cpu


class Failed(Exception):
    """A measured command did not exit with 0."""


def run(command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> Cost:
    """Runs a command to its end.

    Raises:
        Failed: It did not exit with 0; the message ends with the last lines that it wrote.
    """
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
        )
        watch = _Watch(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        sampled_peak, sampled_cpu = watch.stop()
        if process.returncode:
            output.seek(0)
            tail = "\n".join(output.read().decode(errors="replace").splitlines()[-15:])
            raise Failed(f"{' '.join(map(str, command))}: exit {process.returncode}\n{tail}")
    # ru_maxrss counts what this process held when it started the command, so it only serves where nothing was sampled
    peak = sampled_peak or usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    # PySpark exits before its JVM, so the system never adds the JVM's time to that of the child
    return Cost(wall, max(usage.ru_utime + usage.ru_stime, sampled_cpu), peak)


class _Watch:
    """Samples memory and CPU time of a process tree fifty times a second, where /proc is available."""

    def __init__(self, pid: int) -> None:
        self._pid, self._peak, self._over = pid, 0, threading.Event()
        self._cpu: dict[int, float] = {}
        self._thread = threading.Thread(target=self._watch, daemon=True)
        if Path("/proc/self/statm").exists():
            self._thread.start()

    def stop(self) -> tuple[int, float]:
        """Returns the peak in bytes and the seconds of CPU time that were sampled."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        return self._peak, sum(self._cpu.values())

    def _watch(self) -> None:
        page, tick = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
        while not self._over.wait(0.02):
            resident = 0
            for pid in _tree(self._pid):
                try:
                    if pid == self._pid:  # its own peak, also between two samples
                        self._peak = max(self._peak, _high_water(pid))
                    resident += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
                    times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
                except (OSError, IndexError):
                    continue
                self._cpu[pid] = sum(map(int, times)) / tick
            self._peak = max(self._peak, page * resident)


def _high_water(pid: int) -> int:
    """Returns the most bytes that the program in a process has held, without those of the program that started it."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0]) if "VmHWM:" in status else 0


def _tree(root: int) -> list[int]:
    found = [root]
    for pid in found:
        try:
            for thread in os.listdir(f"/proc/{pid}/task"):
                found += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split())
        except OSError:
            continue
    return found
