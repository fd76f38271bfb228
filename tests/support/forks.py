"""Runs the lake's Python processes as forks of one that has imported everything: starting one takes 0.3 s of a core.

The forks behave like started processes: separate from this process, with their own limits, in the environment that the
lake gives them. Tests whose claim is about such a process use the production way of starting it
(`pytest.mark.own_processes`).

`command` starts the lake's command line as a fork, for tests that stop or kill it, or run it as on another machine.

As a program, this module is the process that forks.
"""

from __future__ import annotations

import array
import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import CodeType
from typing import IO, Any


class Fork:
    """A forked process, with the part of the interface of `subprocess.Popen` that the lake uses."""

    def __init__(self, words: Sequence[str], status: int, stdin: int, stdout: int) -> None:
        self.args = list(words)
        self.returncode: int | None = None
        self.stdin, self.stdout = os.fdopen(stdin, "wb"), os.fdopen(stdout, "rb")
        self._status, self._lock = os.fdopen(status, "rb", buffering=0), threading.Lock()
        self.pid = int.from_bytes(self._status.read(4), "little")

    def __enter__(self) -> Fork:
        return self

    def __exit__(self, *_: object) -> None:
        self.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            self.stdin.close()
        self.wait()

    def poll(self) -> int | None:
        """Returns the exit code; None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """Waits until it ends, and returns the exit code."""
        with self._lock:
            if self.returncode is None:
                if not select.select([self._status], [], [], timeout)[0]:
                    raise subprocess.TimeoutExpired(self.args, timeout or 0)
                told = self._status.read(4)
                if len(told) < 4:
                    raise ChildProcessError(f"nobody tells how it has ended: {self.args}")
                self.returncode = os.waitstatus_to_exitcode(int.from_bytes(told, "little"))
                self._status.close()
        return self.returncode

    def kill(self) -> None:
        """Kills it, even while another thread waits for it."""
        with contextlib.suppress(ProcessLookupError, ValueError):  # it has already ended
            if self.returncode is None and not select.select([self._status], [], [], 0)[0]:
                os.kill(self.pid, signal.SIGKILL)


class Forks:
    """The process that forks; `start` replaces `stedi.engines.isolation.start`.

    Args:
        modules: The modules that it imports for all forks.
        before: Statements that it then runs for them.
    """

    def __init__(self, *modules: str, before: str = "") -> None:
        from stedi.engines import isolation

        self._environment, self._lock = isolation.environment, threading.Lock()
        self._socket, theirs = socket.socketpair()
        told = [str(theirs.fileno()), ",".join(modules), before]
        command = [sys.executable, "-I", "-W", "ignore", __file__, *told, *isolation.folders()]
        self._process = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], env=isolation.environment("/"), start_new_session=True
        )
        theirs.close()

    def start(
        self,
        words: Sequence[str],
        folder: str | os.PathLike[str],
        *,
        errors: IO[bytes] | None = None,
        alone: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> Fork:
        """Forks a process, like `isolation.start`. `environment`, if given, replaces the isolated environment."""
        (read, stdin), (stdout, write), (status, told) = os.pipe(), os.pipe(), os.pipe()
        given = self._environment(folder) if environment is None else dict(environment)
        asked = {"words": list(words), "folder": os.fspath(folder), "environment": given}
        theirs = [read, write, errors.fileno() if errors is not None else 2, told]
        with self._lock:
            body = json.dumps(asked | {"alone": alone}).encode()
            self._socket.sendmsg(
                [len(body).to_bytes(4, "little") + body],
                [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", theirs))],
            )
        for descriptor in (read, write, told):
            os.close(descriptor)
        return Fork(words, status, stdin, stdout)

    def close(self) -> None:
        """Ends the forking process."""
        self._socket.close()
        self._process.wait()


OWN = False
"""Whether the current test starts processes as in production, because its claim is about them."""


@contextmanager
def forking() -> Iterator[None]:
    """Runs the lake's processes as forks within a block; the forking process is started when first needed."""
    from stedi.engines import isolation

    within, forks = isolation.start, list[Forks]()

    def start(words: Sequence[str], folder: str | os.PathLike[str], **options: Any) -> Any:
        if OWN:
            return within(words, folder, **options)
        if not forks:
            forks.append(Forks("duckdb", "pyarrow", "stedi.query.sandbox"))
        return forks[0].start(words, folder, **options)

    isolation.start = start
    try:
        yield
    finally:
        isolation.start = within
        for made in forks:
            made.close()
        if _commands.cache_info().currsize:
            _commands().close()
            _commands.cache_clear()


def command(words: Sequence[str], log: Path, before: str = "", **variables: str) -> Fork:
    """Starts a command of the lake in this process's folder and environment; use it in a `with` block, which ends it.

    Args:
        words: Its arguments.
        log: The file for all its output.
        before: Statements to run before it, which change its behaviour.
        variables: Changes to its environment.
    """
    statements = f"import os, sys\nfrom stedi import cli\nos.dup2(2, 1)\n{before}\nsys.exit(cli.main(sys.argv[1:]))"
    with log.open("wb") as stream:
        given = {**os.environ, **variables}
        return _commands().start(["-c", statements, *words], os.getcwd(), errors=stream, environment=given)


@cache
def _commands() -> Forks:
    """The process that forks commands; it has imported the modules of commands on a lake in a bucket."""
    storage = ("boto3", "s3transfer.manager", "pyarrow.dataset", "pyiceberg.catalog.glue", "pyiceberg.table")
    lake = [f"stedi.{name}" for name in ("cli", "landing", "transform", "erasure", "operations.maintenance")]
    others = ("stedi.storage.s3", "stedi.query.sandbox", "stedi.landing.withdrawal")
    return Forks("duckdb", "sqlglot", *storage, *lake, *others, before="import wire; wire.warm()")


def _serve(descriptor: int, modules: Sequence[str], before: str) -> None:
    for module in modules:
        importlib.import_module(module)
    exec(before)
    import stedi.query.sandbox

    codes = {stedi.query.sandbox.__file__: _code(stedi.query.sandbox.__file__)}
    gc.freeze()  # otherwise each fork copies memory that it only reads
    gc.set_threshold(50_000)  # as a command sets it
    asking = socket.socket(fileno=descriptor)
    while True:
        start, ancillary, *_ = asking.recvmsg(4, socket.CMSG_SPACE(4 * 4))
        if not start:
            return
        body = b""
        while len(body) < int.from_bytes(start, "little"):
            body += asking.recv(1 << 20)
        [(_, _, raw)] = ancillary
        descriptors = list(array.array("i", raw))
        between = os.fork()
        if not between:
            _watched(json.loads(body), descriptors, codes)
        for one in descriptors:
            os.close(one)
        os.waitpid(between, 0)


def _watched(asked: dict[str, Any], descriptors: list[int], codes: dict[str, CodeType]) -> None:
    """Does the work in a fork of this process, and reports its exit without blocking."""
    if os.fork():
        os._exit(0)
    *streams, told = descriptors
    child = os.fork()
    if not child:
        os.close(told)
        _do(asked, streams, codes)
    for one in streams:
        os.close(one)
    os.write(told, child.to_bytes(4, "little"))
    _, status = os.waitpid(child, 0)
    with contextlib.suppress(OSError):
        os.write(told, status.to_bytes(4, "little"))
    os._exit(0)


def _do(asked: dict[str, Any], streams: list[int], codes: dict[str, CodeType]) -> None:
    """Does the work as a newly started interpreter would, and exits."""
    code = 1
    try:
        if asked["alone"]:
            os.setsid()
        for number, descriptor in enumerate(streams):
            os.dup2(descriptor, number)
        os.closerange(3, 256)
        os.chdir(asked["folder"])
        os.environ.clear()
        os.environ.update(asked["environment"])
        tempfile.tempdir = None  # the temporary folder depends on the environment
        first, *others = asked["words"]
        sys.argv = [first, *others]
        what: str | CodeType = codes[first] if first in codes else others[0]
        if first == "-c":
            sys.argv = ["-c", *others[1:]]
        exec(what, {"__name__": "__main__", "__file__": first, "__builtins__": __builtins__})
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _code(path: str) -> CodeType:
    return compile(Path(path).read_bytes(), path, "exec", dont_inherit=True)


if __name__ == "__main__":
    sys.path[:] = sys.argv[4:]
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _serve(int(sys.argv[1]), sys.argv[2].split(","), sys.argv[3])
