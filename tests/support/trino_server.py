"""A Trino server for tests: where it is, or why there is none, and a function that queries it.

Trino is half a gigabyte and needs Java 24; `make build/trino/.made` fetches the parts that these tests need.
"""

from __future__ import annotations

import json
import os
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import servers
from lakes import REPOSITORY

HOME = Path(os.environ.get("STEDI_TRINO", REPOSITORY / "build" / "trino"))
"""A folder of `trino-server-core`, with the Iceberg plugin and SQLite's driver in `plugin/iceberg`."""


def _java() -> Path | None:
    """Returns a Java that Trino runs on, the newest of those in the usual folder, or None."""
    found = {}
    for release in Path("/usr/lib/jvm").glob("*/release"):
        version = re.search(r'JAVA_VERSION="(\d+)', release.read_text("utf-8"))
        found[int(version[1]) if version else 0] = release.parent / "bin" / "java"
    newest = max(found, default=0)
    return found[newest] if newest >= 24 else None


JAVA = os.environ.get("STEDI_TRINO_JAVA") or _java()
_MISSING = "there is no Trino: make build/trino/.made" if not (HOME / "plugin" / "iceberg").is_dir() else ""
needs_trino = pytest.mark.skipif(
    bool(_MISSING) or JAVA is None, reason=_MISSING or "Trino needs Java 24 or later; STEDI_TRINO_JAVA names one"
)

Ask = Callable[[str], list[list[Any]]]

_OPTIONS = (
    *("-Xmx1500M", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:+ExitOnOutOfMemoryError"),
    *("-Djdk.attach.allowAttachSelf=true", "--enable-native-access=ALL-UNNAMED", "--add-modules=jdk.incubator.vector"),
)


@contextmanager
def serving(folder: Path, name: str, catalog: str) -> Iterator[Ask]:
    """Runs a server with one catalog within a block.

    Args:
        folder: An empty folder for what the server needs.
        name: The catalog's name in SQL.
        catalog: The catalog's settings: the text of its properties file.

    Yields:
        A function that sends a statement, and returns its rows.
    """
    port = servers.free_port()
    where = f"http://127.0.0.1:{port}"
    settings = {
        "coordinator": "true",
        "node-scheduler.include-coordinator": "true",
        "http-server.http.port": str(port),
        "node.internal-address": "127.0.0.1",
        "discovery.uri": where,
        "catalog.config-dir": str(folder / "catalog"),
        "plugin.dir": str(HOME / "plugin"),
        "query.max-memory": "500MB",
    }
    (folder / "catalog").mkdir()
    (folder / "config.properties").write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    (folder / "catalog" / f"{name}.properties").write_text(catalog)
    node = ("-Dnode.environment=test", f"-Dnode.id={port}", f"-Dnode.data-dir={folder / 'data'}")
    paths = (f"-Dconfig={folder / 'config.properties'}", "-cp", str(HOME / "lib" / "*"))
    headers = {
        "X-Trino-User": "tests",
        "X-Trino-Catalog": name,
        "X-Trino-Schema": "stedi",
        "X-Trino-Time-Zone": "UTC",
        "X-Trino-Client-Capabilities": "PARAMETRIC_DATETIME",
    }

    def ask(sql: str) -> list[list[Any]]:
        page = json.load(urllib.request.urlopen(urllib.request.Request(f"{where}/v1/statement", sql.encode(), headers)))
        rows: list[list[Any]] = []
        while True:
            rows += page.get("data", [])
            assert "error" not in page, f"{sql}\n{page['error']['message']}"
            if "nextUri" not in page:
                return rows
            page = json.load(urllib.request.urlopen(page["nextUri"]))

    def ready() -> bool:
        try:
            return bool(ask("select 1") == [[1]])
        except (OSError, AssertionError):
            return False

    log = folder / "trino.log"
    assert JAVA is not None
    with servers.running([JAVA, *_OPTIONS, *node, *paths, "io.trino.server.TrinoServer"], port, log):
        end = time.monotonic() + 180
        while not ready():
            assert time.monotonic() < end, log.read_text("utf-8", "replace")[-2000:]
            time.sleep(0.5)
        yield ask
