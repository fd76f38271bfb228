"""One request that posts JSON to another program, as `lineage` and `tracing` do at the end of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http.client import HTTPMessage
from typing import IO, Any
from urllib.request import HTTPRedirectHandler, Request, build_opener

_SECONDS = 5


def post(url: str, content: Mapping[str, Any], headers: Mapping[str, str]) -> None:
    """Posts JSON; an answer that it is elsewhere is an error.

    To follow it would request the other address without the content, and hand it the headers, which hold keys.

    Args:
        url: An `http(s)` URL.
        content: What is posted.
        headers: Further headers.

    Raises:
        OSError: Nobody takes it there within some seconds.
    """
    request = Request(url, json.dumps(content).encode(), {**headers, "Content-Type": "application/json"})
    with build_opener(_Stay).open(request, timeout=_SECONDS):
        pass


class _Stay(HTTPRedirectHandler):
    """Follows nothing: the answer counts as an error."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        """Makes no other request."""
        return None
