"""Hooks of commands that write: metrics, JSON log, pings, lineage, spans; none of them ever fails the run.

begin -> a ping, a line of the log
runs  -> each run on the lake is told to the log, as OpenLineage events and as a span of OpenTelemetry
end   -> metrics, a ping, a line of the log: also where the command failed before it reached the lake
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from stedi.cli import render, terminal
from stedi.errors import StediError, UsageError, printable

if TYPE_CHECKING:
    from stedi.context import Context
    from stedi.context.runs import Observer, Run
    from stedi.operations import lineage, posting, tracing

COMMANDS = frozenset(
    {
        *("init", "land", "build", "audit", "maintain", "repair", "adopt", "withdraw", "erase", "key", "tag"),
        *("quarantine", "watch", "migrate", "create", "refresh", "note", "delete", "recall"),
    }
)
"""The commands that write, and the actions of `dataset` that do."""

observers: list[Observer] = []
"""The observers of runs on the lakes that this process opens."""


def add(sub: argparse.ArgumentParser) -> None:
    """Adds the options to a command."""
    group = sub.add_argument_group("monitoring")
    group.add_argument(
        "--metrics-file", metavar="FILE", type=Path, help="write Prometheus metrics to this file at the end"
    )
    group.add_argument("--log-json", action="store_true", help="write messages as JSON, one object a line")
    group.add_argument("--ping", metavar="URL", help="request URL/start, then URL, or URL/fail on failure")
    group.add_argument(
        "--openlineage", metavar="FILE_OR_URL", help="append OpenLineage events to a file, or post them to a URL"
    )
    group.add_argument("--otlp", metavar="URL", help="post an OpenTelemetry span of each run to a collector")


def run(options: argparse.Namespace) -> int:
    """Runs a command, and reports it as its options say; returns its exit code."""
    words = [getattr(options, name, None) for name in ("metrics_file", "log_json", "ping", "openlineage", "otlp")]
    if not any(words):
        return cast(int, options.run(options))
    hooks = _Hooks(options)
    hooks.begin()
    observers.append(hooks)
    try:
        code = terminal.finished(cast(int, options.run(options)))  # what stdout has lost counts, too
    except BaseException as error:
        from stedi.context import runs

        hooks.end(1 if isinstance(error, Exception) else 130, *runs.described(error), error)
        raise
    else:
        hooks.end(code, "done" if not code else "failed", "", None)
    finally:
        observers.remove(hooks)
    return code


def close() -> None:
    """Gives stderr back, once the last message of a command is written."""
    if isinstance(sys.stderr, JsonLines):
        sys.stderr = sys.stderr.stream


class _Hooks:
    """Reports one command."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._command = " ".join(filter(None, (options.command, getattr(options, "action", None))))
        self._lake = str(getattr(options, "lake", None) or os.environ.get("STEDI_LAKE") or "lake")
        self._metrics: Path | None = options.metrics_file
        self._ping: str | None = options.ping
        for option, url in (("--ping", self._ping), ("--otlp", options.otlp)):
            if url and not url.startswith(("http://", "https://")):
                raise UsageError(f"{option}: expected an http or https URL, found something else; nothing was done")
        self._began = time.monotonic()
        self._context: Context | None = None
        self._rows: int | None = None
        self._error = ""
        self._seen = False
        # each other program has a time of its own: one that hangs must not silence the rest
        self._patience: list[posting.Patience] = []
        self._pings: posting.Patience | None = None
        self._tellers: dict[str, lineage.Emitter | tracing.Tracer] = {}
        if options.openlineage:
            from stedi.operations import lineage

            if not options.openlineage.startswith(("http://", "https://")):
                from stedi.context import places

                places.refuse_into_lake(Path(options.openlineage))
            send = lineage.sender(options.openlineage, self._waiting())
            sources = getattr(options, "paths", None) or [getattr(options, "inbox", None)]
            named = [path for path in sources if isinstance(path, str | os.PathLike)]
            self._tellers["OpenLineage"] = lineage.Emitter(
                lambda event: self._safely("OpenLineage", lambda: send(event)), named
            )
        if options.otlp:
            from stedi.operations import tracing

            self._tellers["the span"] = tracing.Tracer(options.otlp, self._waiting())
        self._log: JsonLines | None = None
        if options.log_json:
            self._log = JsonLines(sys.stderr, self._command)
            sys.stderr = cast(TextIO, self._log)

    def _waiting(self) -> posting.Patience:
        """Returns the time that each run waits for one other program."""
        from stedi.operations import posting

        self._patience.append(posting.Patience())
        return self._patience[-1]

    def begin(self) -> None:
        """Reports the start of the command."""
        self._told("start")
        self._pinged("/start")

    def began(self, context: Context, run: Run) -> None:
        """A run on the lake has begun."""
        if self._command == "watch":  # it may go on for months
            for waiting in self._patience:
                waiting.renew()
        self._seen = True
        self._context = context
        if self._log:
            self._log.run = run.id
        self._told("run", of=run.command)
        for what, teller in self._tellers.items():
            self._safely(what, partial(teller.began, context, run))

    def ended(self, context: Context, run: Run, result: object) -> None:
        """A run on the lake has ended."""
        self._rows, self._error = run.rows, self._error or run.error
        told = {"outcome": run.outcome, "seconds": run.seconds, "rows": run.rows, "error": run.error or None}
        self._told("ran", of=run.command, **told)
        for what, teller in self._tellers.items():
            self._safely(what, partial(teller.ended, context, run, result))
        if self._command == "watch":  # it may go on for months
            self._write(int(run.outcome != "done"), run.seconds or 0.0)
            self._pinged("" if run.outcome == "done" else "/fail")

    def end(self, code: int, outcome: str, error: str, raised: BaseException | None) -> None:
        """Reports the end of the command."""
        if isinstance(raised, StediError):
            code = raised.exit_code
        seconds = time.monotonic() - self._began
        for what, teller in self._tellers.items():
            if error and not self._seen:
                self._safely(what, partial(teller.failed, self._lake, self._command, error))
        self._write(code, seconds)
        self._pinged("/fail" if code else "")
        self._told(
            "end",
            outcome=outcome,
            exit=code,
            seconds=round(seconds, 3),
            error=error or (self._error if code else "") or None,
        )

    def _write(self, code: int, seconds: float) -> None:
        if self._metrics is None:
            return
        from stedi.operations import metrics

        path, ended = self._metrics, metrics.Ended(self._command, code, seconds, self._rows)
        self._safely("the metrics", lambda: metrics.write(path, ended, self._context or self._opened()))

    def _opened(self) -> Context | None:
        """Returns the lake of a command without a recorded run, if it can be opened."""
        from stedi.context import Context

        try:
            return Context.open(self._lake)
        except (StediError, OSError):
            return None

    def _pinged(self, what: str) -> None:
        if self._ping is None:
            return
        from stedi.operations import posting

        url, waiting = self._ping.rstrip("/") + what, self._pings or self._waiting()
        self._pings = waiting
        self._safely("the ping", lambda: waiting.wait_for(lambda: posting.get(url)))

    def _told(self, event: str, **what: Any) -> None:
        if self._log:
            self._log.object(event=event, **what)

    def _safely(self, what: str, do: Callable[[], None]) -> None:
        """Does work that the run does not need; its URL may contain a secret and is not shown."""
        try:
            do()
        except Exception as error:
            why = getattr(error, "strerror", None) or type(error).__name__
            terminal.say(f"{what} could not be written: {why}; the command goes on")


class JsonLines:
    """A stream of messages that writes each line as a JSON object.

    Args:
        stream: Where they go.
        command: The command that they are of.
    """

    def __init__(self, stream: TextIO, command: str) -> None:
        self.stream, self.run = stream, ""
        self._command = command
        self._part = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def isatty(self) -> bool:
        """It is no terminal: progress comes as lines."""
        return False

    def write(self, text: str) -> int:
        """Writes the lines that are whole, and keeps the rest."""
        *lines, self._part = (self._part + text).split("\n")
        for line in lines:
            if line.strip():
                failed = line.startswith("stedi: ")
                self.object(level="error" if failed else "info", message=line.removeprefix("stedi: "))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Writes several texts."""
        for line in lines:
            self.write(line)

    def object(self, **what: Any) -> None:
        """Writes one object."""
        at = render.instant(datetime.now(UTC))
        plain = {"time": at, "command": self._command, "run": self.run or None, **what}
        self.stream.write(printable(json.dumps(plain)) + "\n")
        self.stream.flush()
