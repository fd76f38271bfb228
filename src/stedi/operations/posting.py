"""Posts JSON to another program in one request; `lineage` and `tracing` use it at the end of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http.client import HTTPMessage
from typing import IO, Any
from urllib.request import HTTPRedirectHandler, Request, build_opener

_SECONDS = 5


def post(url: str, content: Mapping[str, Any], headers: Mapping[str, str]) -> None:
    """Posts JSON; a redirect is an error.

    Following a redirect would request the other URL without the content, and send it the headers, which hold keys.

    Args:
        url: An `http(s)` URL.
        content: The JSON object to post.
        headers: Further headers.

    Raises:
        OSError: The server did not accept the request within a few seconds.
    """
    request = Request(url, json.dumps(content).encode(), {**headers, "Content-Type": "application/json"})
    with build_opener(_Stay).open(request, timeout=_SECONDS):
        pass


class _Stay(HTTPRedirectHandler):
    """Follows no redirect, so that a redirect is an error."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        """Returns None: no other request is made."""
        return None
