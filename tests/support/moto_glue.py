"""moto, taught that Glue updates a table only over the version that the caller has read.

Run as `python moto_glue.py -H HOST -p PORT`. Without it a commit that was stopped overwrites what came meanwhile, which
Glue refuses: https://docs.aws.amazon.com/glue/latest/webapi/API_UpdateTable.html, `VersionId`.
"""

from __future__ import annotations

import threading
from typing import Any

from moto.core.exceptions import JsonRESTError
from moto.glue.responses import GlueResponse
from moto.server import main
from werkzeug.serving import WSGIRequestHandler

_update_table, _lock = GlueResponse.update_table, threading.Lock()


def update_table(self: GlueResponse) -> Any:
    """Refuses a version that is no longer the table's."""
    given = self.parameters
    with _lock:
        table = self.glue_backend.get_table(given["DatabaseName"], given["TableInput"]["Name"])
        if given.get("VersionId") not in (None, table.as_dict()["VersionId"]):
            raise JsonRESTError("ConcurrentModificationException", "The table has been updated concurrently.")
        return _update_table(self)


if __name__ == "__main__":
    GlueResponse.update_table = update_table  # type: ignore[method-assign]
    WSGIRequestHandler.protocol_version = "HTTP/1.1"  # a connection serves many requests
    main()
