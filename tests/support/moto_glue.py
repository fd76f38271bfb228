"""Runs moto with Glue's version check on table updates, and with faster answers.

Run as `python moto_glue.py -H HOST -p PORT`. Plain moto lets a paused commit overwrite a later one, which Glue
refuses: https://docs.aws.amazon.com/glue/latest/webapi/API_UpdateTable.html, `VersionId`.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterable
from functools import cache
from typing import Any

from moto import backends
from moto.core import responses
from moto.core.exceptions import JsonRESTError
from moto.core.serialize import AttributePickerContext, XFormedAttributePicker
from moto.glue.responses import GlueResponse
from moto.server import main
from werkzeug.serving import WSGIRequestHandler

import wire

_update_table, _lock = GlueResponse.update_table, threading.Lock()
_possible_keys = XFormedAttributePicker.get_possible_keys


def update_table(self: GlueResponse) -> Any:
    """Refuses an update based on a version that is no longer current."""
    given = self.parameters
    with _lock:
        table = self.glue_backend.get_table(given["DatabaseName"], given["TableInput"]["Name"])
        if given.get("VersionId") not in (None, table.as_dict()["VersionId"]):
            raise JsonRESTError("ConcurrentModificationException", "The table has been updated concurrently.")
        return _update_table(self)


_keys: dict[tuple[Any, ...], tuple[str, ...]] = {}


def possible_keys(self: XFormedAttributePicker, context: AttributePickerContext) -> Iterable[str]:
    """Returns the names under which moto looks up a member of an answer; caches those for plain dicts."""
    shape = context.shape
    if type(context.obj) is not dict or shape is None:
        return _possible_keys(self, context)
    parent = getattr(shape, "parent", None)
    known = (type(self), context.service_model, context.key, shape.name, parent and parent.name)
    if known not in _keys:
        _keys[known] = tuple(_possible_keys(self, context))
    return _keys[known]


def quicken() -> None:
    """Makes requests cheaper, whatever they ask for."""
    modules = (*backends.list_of_moto_modules(),)  # each request would list moto's folder
    backends.list_of_moto_modules = lambda: modules
    responses.method_names_from_class = cache(responses.method_names_from_class)
    WSGIRequestHandler.log_request = lambda *_, **__: None  # type: ignore[method-assign]
    http.client.parse_headers = wire.headers  # type: ignore[assignment]
    WSGIRequestHandler.protocol_version = "HTTP/1.1"  # a connection serves many requests


if __name__ == "__main__":
    quicken()
    XFormedAttributePicker.get_possible_keys = possible_keys  # type: ignore[assignment]
    GlueResponse.update_table = update_table  # type: ignore[method-assign]
    main()
