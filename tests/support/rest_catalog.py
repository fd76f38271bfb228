"""A catalog with the parts of Iceberg's REST protocol that a lake uses, on loopback, over PyIceberg's SQL catalog."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import (
    CommitFailedException,
    NamespaceAlreadyExistsError,
    NoSuchNamespaceError,
    NoSuchTableError,
    TableAlreadyExistsError,
)
from pyiceberg.table import CommitTableRequest
from sqlalchemy import text

from stedi.catalog.fileio import LakeFileIO

_STATUS = {
    CommitFailedException: 409,
    NamespaceAlreadyExistsError: 409,
    TableAlreadyExistsError: 409,
    NoSuchNamespaceError: 404,
    NoSuchTableError: 404,
}


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """Runs such a catalog within a block, and yields its URL."""
    within = SqlCatalog(
        "within", uri=f"sqlite:///{folder}/rest.db", **{"py-io-impl": "stedi.catalog.fileio.LakeFileIO"}
    )
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(size) or b"{}")
            try:
                with lock:
                    status, answer = 200, _done(within, self.command, self.path, body)
            except tuple(_STATUS) as error:
                status = _STATUS[type(error)]
                answer = json.dumps({"error": {"message": "refused", "type": type(error).__name__, "code": status}})
            raw = answer.encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(raw)

        do_GET = do_POST = do_DELETE = do_HEAD = _answer  # noqa: N815 - as the library calls them

        def log_message(self, *_: object) -> None:
            """Logs nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        within.engine.dispose()


def _done(catalog: SqlCatalog, method: str, path: str, body: dict[str, Any]) -> str:
    path, _, asked_for = path.partition("?")
    match method, [unquote(part) for part in path.strip("/").split("/")[1:]]:
        case "GET", ["config"]:
            return json.dumps({"defaults": {}, "overrides": {}})
        case "GET", ["namespaces"]:
            found = [] if "parent=" in asked_for else catalog.list_namespaces()
            return json.dumps({"namespaces": found})
        case "POST", ["namespaces"]:
            catalog.create_namespace(tuple(body["namespace"]), body.get("properties") or {})
            return json.dumps({"namespace": body["namespace"], "properties": {}})
        case (("GET" | "HEAD"), ["namespaces", name]):
            return json.dumps({"namespace": [name], "properties": catalog.load_namespace_properties(name)})
        case "GET", ["namespaces", name, "tables"]:
            tables = catalog.list_tables(name)
            return json.dumps({"identifiers": [{"namespace": [name], "name": table[-1]} for table in tables]})
        case "POST", ["namespaces", name, "register"]:
            return _shown(catalog.register_table((name, body["name"]), body["metadata-location"]).metadata_location)
        case "GET", ["namespaces", name, "tables", table]:
            return _shown(_location(catalog, name, table))
        case "POST", ["namespaces", name, "tables", table]:
            asked = CommitTableRequest.model_validate(body)
            done = catalog.commit_table(catalog.load_table((name, table)), asked.requirements, asked.updates)
            return done.model_dump_json(by_alias=True)
        case "DELETE", ["namespaces", name, "tables", table]:
            catalog.drop_table((name, table))
            return "{}"
    raise NoSuchTableError(path)


def _location(catalog: SqlCatalog, namespace: str, table: str) -> str:
    """Returns where a table's metadata is, without reading it."""
    wanted = "select metadata_location from iceberg_tables where table_namespace = :namespace and table_name = :table"
    with catalog.engine.connect() as connection:
        found = connection.execute(text(wanted), {"namespace": namespace, "table": table}).scalar()
    if found is None:
        raise NoSuchTableError(table)
    return str(found)


@cache
def _metadata(location: str) -> Any:
    """Reads a metadata file once and caches it, since metadata files are never rewritten."""
    return json.loads(LakeFileIO().new_input(location).open().read())


def _shown(location: str) -> str:
    return json.dumps({"metadata-location": location, "metadata": _metadata(location), "config": {}})
