"""Requests to another program when a run begins and ends, and how long a command waits for it in all."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from http.client import HTTPMessage
from queue import Empty, SimpleQueue
from threading import Thread
from typing import IO, Any
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, OpenerDirector, Request, build_opener

_SECONDS = 5.0
"""Seconds that a run waits for all its requests together, and that one socket may be silent."""


class Patience:
    """The time for which a run waits for another program, whatever that does.

    A socket's timeout starts again with each byte that arrives, and a name is looked up without one.

    Args:
        seconds: The time for all requests of a run together.
    """

    def __init__(self, seconds: float = _SECONDS) -> None:
        self._seconds = self._left = seconds

    def renew(self) -> None:
        """Gives the next run the whole time again."""
        self._left = self._seconds

    def wait_for(self, request: Callable[[], None]) -> None:
        """Makes a request, in a thread that is left behind if it takes more than half of the time that is left.

        The other half is for later requests: a slow ping at the start must not suppress the one that reports a failure.

        Raises:
            TimeoutError: It takes longer.
            Exception: What the request raises.
        """
        began = time.monotonic()
        answer = SimpleQueue[BaseException | None]()

        def ask() -> None:
            try:
                request()
            except BaseException as error:
                answer.put(error)
            else:
                answer.put(None)

        try:
            if self._left <= 0:
                raise Empty
            # a daemon: a request that is left behind must not keep the process from ending
            Thread(target=ask, daemon=True).start()
            found = answer.get(timeout=self._left / 2)
        except Empty:
            raise TimeoutError(None, "no answer in time") from None
        finally:
            self._left -= time.monotonic() - began
        if found is not None:
            raise found


def post(url: str, content: Mapping[str, Any], headers: Mapping[str, str]) -> None:
    """Posts JSON; a redirect is an error.

    Following a redirect would request the other URL without the content, and send it the headers, which hold keys.

    Args:
        url: An `http(s)` URL.
        content: The JSON object to post.
        headers: Further headers.

    Raises:
        OSError: The server did not accept the request, or sent nothing for a few seconds.
    """
    request = Request(url, json.dumps(content).encode(), {**headers, "Content-Type": "application/json"})
    _request(build_opener(_Stay), request)


def get(url: str) -> None:
    """Requests a URL.

    Raises:
        OSError: The server did not answer, or not with success.
    """
    _request(build_opener(), Request(url))


def _request(opener: OpenerDirector, request: Request) -> None:
    try:
        opener.open(request, timeout=_SECONDS).close()
    except HTTPError as error:
        error.close()  # it holds the connection
        raise


class _Stay(HTTPRedirectHandler):
    """Follows no redirect, so that a redirect is an error."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        """Returns None: no other request is made."""
        return None
