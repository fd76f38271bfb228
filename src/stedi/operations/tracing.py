"""OpenTelemetry spans of runs, each posted to a collector when the run has ended.

The format is OTLP's JSON (opentelemetry.io/docs/specs/otlp, JSON Protobuf Encoding), which needs no package: ids are
hexadecimal, 64-bit numbers are strings. With `TRACEPARENT` (w3.org/TR/trace-context) the spans become children of the
caller's span.
"""

from __future__ import annotations

import os
import re
import secrets
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from stedi._version import __version__
from stedi.context.progress import run_id
from stedi.context.runs import Run
from stedi.operations import posting
from stedi.operations.posting import Patience

if TYPE_CHECKING:
    from stedi.context import Context

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INTERNAL, _OK, _ERROR = 1, 1, 2
"""SPAN_KIND_INTERNAL; STATUS_CODE_OK and STATUS_CODE_ERROR."""
_CALLER = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}")
"""A `traceparent`; an id of zeros is invalid, and then the whole value is ignored."""


class Tracer:
    """Posts a span for each run on lakes; an observer of `context.runs`.

    Args:
        url: The URL at which a collector accepts traces, such as `http://HOST:4318/v1/traces`.
        patience: How long a run waits for the collector; by default some seconds.
    """

    def __init__(self, url: str, patience: Patience | None = None) -> None:
        self._url, self._patience = url, patience or Patience()
        caller = _CALLER.fullmatch(os.environ.get("TRACEPARENT", ""))
        self._trace, self._parent = caller.groups() if caller else ("", "")

    def began(self, context: Context, run: Run) -> None:
        """Does nothing: a span is posted when it is complete."""

    def ended(self, context: Context, run: Run, result: object) -> None:
        """Posts the span of a run that has ended."""
        self._post(run, {"stedi.lake_id": context.config.lake_id})

    def failed(self, place: str, command: str, error: str) -> None:
        """Posts the span of a command that failed before it opened a lake; `error` contains no data values."""
        self._post(Run(run_id(), command, datetime.now(UTC), 0.0, "failed", None, error), {})

    def _post(self, run: Run, lake: dict[str, str]) -> None:
        told = {
            "stedi.run": run.id,
            "stedi.outcome": run.outcome,
            "stedi.rows": run.rows,
            "error.type": run.kind or None,
        }
        good = run.outcome == "done"
        span = {
            "traceId": self._trace or secrets.token_hex(16),
            "spanId": secrets.token_hex(8),
            "parentSpanId": self._parent,
            "name": f"stedi {run.command}",
            "kind": _INTERNAL,
            "startTimeUnixNano": _nanoseconds(run.started),
            "endTimeUnixNano": _nanoseconds(run.ended or datetime.now(UTC)),
            "attributes": _attributes(told),
            "status": {"code": _OK} if good else {"code": _ERROR, "message": run.error},
        }
        resource = {"attributes": _attributes({"service.name": "stedi", "service.version": __version__, **lake})}
        scope = {"name": "stedi", "version": __version__}
        traces = {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": scope, "spans": [span]}]}]}
        headers = _headers(os.environ.get("OTEL_EXPORTER_OTLP_HEADERS", ""))
        self._patience.wait_for(lambda: posting.post(self._url, traces, headers))


def _headers(text: str) -> dict[str, str]:
    """Returns the headers of OTEL_EXPORTER_OTLP_HEADERS: decodes percent signs, strips blanks (w3.org/TR/baggage)."""
    from urllib.parse import unquote

    pairs = (pair.partition("=") for pair in text.split(",") if "=" in pair)
    return {unquote(name.strip()): unquote(value.strip()) for name, _, value in pairs}


def _nanoseconds(at: datetime) -> str:
    # in integers: near 1.8e18, doubles are 256 nanoseconds apart
    return str((at - _EPOCH) // timedelta(microseconds=1) * 1000)


def _attributes(values: dict[str, str | int | None]) -> list[dict[str, Any]]:
    return [
        {"key": key, "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}}
        for key, value in values.items()
        if value is not None
    ]
