"""A proxy on loopback in front of an S3 server or moto that counts the calls and makes chosen ones fail.

It forwards requests unchanged, including the host name, so signatures stay valid.
"""

from __future__ import annotations

import http.client
import re
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import parse_qs, urlsplit

Kind = Literal["throttle", "error", "deny", "lost", "cut upload", "cut download", "delay"]
KINDS: tuple[Kind, ...] = ("throttle", "error", "lost", "cut upload", "cut download")
"""Faults of a network and a busy service; a client that retries survives each if it happens once."""

_XML = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{0}</Code><Message>{0}</Message></Error>'
_ANSWERS = {  # for S3, and for the services with JSON protocols
    "throttle": ((503, "SlowDown"), (400, "ThrottlingException")),
    "error": ((500, "InternalError"), (500, "InternalServiceException")),
    "deny": ((403, "AccessDenied"), (400, "AccessDeniedException")),
}
_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "proxy-connection"}


@dataclass(frozen=True)
class Call:
    """One request.

    Attributes:
        operation: What it does: `PUT`, `POST uploads`, `GET list-type`, or a target such as `AWSGlue.GetTables`.
        path: The path of the request.
        copies: How many earlier calls had the same operation and path.
    """

    operation: str
    path: str
    copies: int


@dataclass(frozen=True)
class Fault:
    """What goes wrong.

    Attributes:
        kind: `throttle` answers 503, `error` 500 and `deny` 403, without forwarding; `lost` forwards the request, then
            closes the connection without an answer; the cuts close it in the middle of the data; `delay` answers late.
        first: The number of the first failing call, counted from 1.
        last: The number of the last failing call; None if all later calls fail.
        only: A filter for the failing calls in this range.
    """

    kind: Kind
    first: int = 1
    last: int | None = None
    only: Callable[[Call], bool] = lambda call: True

    def strikes(self, number: int, call: Call) -> bool:
        return self.first <= number and (self.last is None or number <= self.last) and self.only(call)


class Proxy:
    """The proxy; `url` is where it listens."""

    def __init__(self, server: str) -> None:
        self._server = urlsplit(server).netloc
        self._lock = threading.Lock()
        self._fault: Fault | None = None
        self.calls: list[Call] = []
        self.struck: list[Call] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                self.forward = http.client.HTTPConnection(proxy._server, timeout=60)

            def finish(self) -> None:
                self.forward.close()
                super().finish()

            def handle_one_request(self) -> None:
                with suppress(ConnectionError):
                    super().handle_one_request()

            def answer(self) -> None:
                proxy.handle(self, self.forward)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer  # noqa: N815 - the base class's names

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False
            request_queue_size = 64

        self._http = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    @contextmanager
    def failing(self, fault: Fault | None) -> Iterator[Proxy]:
        """Restarts the count of calls, and makes calls fail within the block."""
        with self._lock:
            self.calls, self.struck, self._fault = [], [], fault
        try:
            yield self
        finally:
            with self._lock:
                self._fault = None

    def _count(self, handler: BaseHTTPRequestHandler) -> Fault | None:
        parts = urlsplit(handler.path)
        marks = {name for name in parse_qs(parts.query, keep_blank_values=True) if not name.startswith("x-")}
        kinds = ("uploads", "uploadId", "partNumber", "list-type", "versions", "delete", "location")
        told = " ".join([handler.command, *(name for name in kinds if name in marks)])
        operation = handler.headers.get("X-Amz-Target") or told
        with self._lock:
            same = sum(call.operation == operation and call.path == parts.path for call in self.calls)
            call = Call(operation, parts.path, same)
            self.calls.append(call)
            fault = self._fault
            if fault is None or not fault.strikes(len(self.calls), call):
                return None
            self.struck.append(call)
        return fault

    def handle(self, handler: BaseHTTPRequestHandler, forward: http.client.HTTPConnection) -> None:
        body = _body(handler)
        fault = self._count(handler)
        kind = fault.kind if fault else None
        if kind in _ANSWERS:
            return _refuse(handler, str(kind))
        if kind == "delay":
            time.sleep(0.3)
        if forward.sock and select.select([forward.sock], [], [], 0)[0]:  # the server has closed it
            forward.close()
        try:
            forward.putrequest(handler.command, handler.path, skip_host=True, skip_accept_encoding=True)
            for name, value in handler.headers.items():
                if name.lower() not in {*_HOP, "expect"}:
                    forward.putheader(name, value)
            if body and "Content-Length" not in handler.headers:
                forward.putheader("Content-Length", str(len(body)))
            forward.endheaders()
            if kind == "cut upload":
                forward.send(body[: len(body) // 2])
                forward.close()
                return _break(handler)
            if body:
                forward.send(body)
            response = forward.getresponse()
            content = response.read()
        except BaseException:
            forward.close()
            raise
        if kind == "lost" or (kind == "cut download" and not content):
            return _break(handler)
        handler.send_response_only(response.status, response.reason)
        for name, value in response.getheaders():
            if name.lower() not in {*_HOP, "content-length"}:
                handler.send_header(name, value)
        length = response.getheader("Content-Length") if handler.command == "HEAD" else str(len(content))
        if response.status not in (204, 304) and length is not None:
            handler.send_header("Content-Length", length)
        handler.end_headers()
        if kind == "cut download":
            handler.wfile.write(content[: len(content) // 2])
            return _break(handler)
        handler.wfile.write(content)
        return None


def _body(handler: BaseHTTPRequestHandler) -> bytes:
    if "chunked" not in handler.headers.get("Transfer-Encoding", ""):
        return handler.rfile.read(int(handler.headers.get("Content-Length", "0")))
    chunks = []
    while size := int(re.split(rb"[;\r\n]", handler.rfile.readline())[0], 16):
        chunks.append(handler.rfile.read(size))
        handler.rfile.readline()
    while handler.rfile.readline().strip():
        pass
    return b"".join(chunks)


def _refuse(handler: BaseHTTPRequestHandler, kind: str) -> None:
    target = handler.headers.get("X-Amz-Target")
    status, code = _ANSWERS[kind][1 if target else 0]
    content = (f'{{"__type": "{code}", "message": "{code}"}}' if target else _XML.format(code)).encode()
    handler.send_response_only(status)
    handler.send_header("Content-Type", "application/x-amz-json-1.1" if target else "application/xml")
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(content)


def _break(handler: BaseHTTPRequestHandler) -> None:
    """Resets the connection as a failing network does."""
    handler.wfile.flush()
    handler.close_connection = True
    with suppress(OSError):
        handler.connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def proxied(server: str) -> Iterator[Proxy]:
    """Runs a proxy in front of a server within a block."""
    proxy = Proxy(server)
    try:
        yield proxy
    finally:
        proxy.close()
