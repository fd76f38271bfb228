"""OpenLineage events: what a run read, what it wrote, and whether its checks passed.

Each run that `context.runs` keeps gives START, then COMPLETE, FAIL or ABORT. Datasets are named as the specification's
naming page has it, by where they lie, so that other programs' events meet them; the name in the catalog is a symlink.
A build's checks are a run of their own, whose inputs are the tables that were checked. Nothing in an event is a value:
paths that the call named are told without addresses, errors as the history of runs keeps them.

Specification: https://openlineage.io/spec/2-0-2/OpenLineage.json and the facets beside it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stedi._frozen import replace
from stedi._version import __version__
from stedi.catalog import Snapshot, TableState
from stedi.context import Context, places
from stedi.context.progress import run_id
from stedi.context.runs import Run
from stedi.errors import StediError, unnamed
from stedi.operations import posting
from stedi.operations.posting import Patience
from stedi.schema import descriptions, tables
from stedi.schema.feeds import CONTRACTS
from stedi.schema.tables import ALL_ZONES, NAMESPACE, REQUIRED, ZONES
from stedi.storage import s3

if TYPE_CHECKING:
    from stedi.audit.integrity import Check

Event = dict[str, Any]
Send = Callable[[Event], None]
"""Delivers an event; it handles its own failures."""

PRODUCER = f"urn:stedi-lake:{__version__}"
SCHEMA = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
_FACETS = {
    "catalog": "1-1-0/CatalogDatasetFacet",
    "columnLineage": "1-2-0/ColumnLineageDatasetFacet",
    "dataQualityAssertions": "1-1-0/DataQualityAssertionsDatasetFacet",
    "documentation": "1-1-0/DocumentationDatasetFacet",
    "errorMessage": "1-0-1/ErrorMessageRunFacet",
    "jobType": "2-0-4/JobTypeJobFacet",
    "outputStatistics": "1-0-2/OutputStatisticsOutputDatasetFacet",
    "parent": "1-2-0/ParentRunFacet",
    "processing_engine": "1-1-1/ProcessingEngineRunFacet",
    "schema": "1-2-0/SchemaDatasetFacet",
    "storage": "1-0-1/StorageDatasetFacet",
    "symlinks": "1-0-1/SymlinksDatasetFacet",
    "version": "1-0-1/DatasetVersionDatasetFacet",
}
"""The version of each facet that is written, and its schema's name."""
_ENDS = {"done": "COMPLETE", "interrupted": "ABORT", "killed": "ABORT"}
_ID = re.compile(r"[0-9a-f]{16}")
"""The id of a lake."""
_MASKED = "HMAC-SHA-256 under the secret key of the lake"
"""How a pseudonym is made, for the column lineage."""


class Emitter:
    """Emits runs on lakes as OpenLineage events; an observer of `context.runs`.

    Args:
        send: Delivers each event.
        sources: The arguments of a landing: paths of files and folders.
    """

    def __init__(self, send: Send, sources: Sequence[str | os.PathLike[str]] = ()) -> None:
        self._send = send
        self._sources = [_source(path) for path in sources]
        self._before: Mapping[str, int] = {}

    def began(self, context: Context, run: Run) -> None:
        """Emits the start of a run."""
        # what a run has written is told by which snapshots are new at its end
        self._before = {name: s.current.id for name, s in _states(context).items() if s.current}
        self._send(_event("START", run, _namespace(context), [], []))

    def ended(self, context: Context, run: Run, result: object) -> None:
        """Emits the end of a run, with its inputs and outputs."""
        states, namespace = _states(context), _namespace(context)
        written = [
            (state, state.current)
            for name, state in states.items()
            if state.current and state.current.id != self._before.get(name)
        ]
        inputs = self._inputs(states, run, written, result)
        outputs = [self._output(states, run, *each) for each in written] + _release(result)
        self._send(_event(_ENDS.get(run.outcome, "FAIL"), run, namespace, inputs, outputs))
        checked = list(_checked(states, run, written))
        if checked:
            for event in ("START", "FAIL" if run.error else "COMPLETE"):
                facets = {"parent": _parent(run, namespace)}
                one = replace(run, id=f"{run.id}.checks", command=f"{run.command}.checks")
                self._send(_event(event, one, namespace, checked if event != "START" else [], [], facets))

    def failed(self, place: str, command: str, error: str) -> None:
        """Emits a command that failed before it opened its lake.

        Args:
            place: The place of the lake, which may not exist.
            command: The command.
            error: The error, without values.
        """
        run = Run(run_id(), command, datetime.now(UTC), 0.0, "failed", None, error)
        named = f"stedi:{_id_at(place) or unnamed(place)}"
        self._send(_event("START", run, named, [], []))
        self._send(_event("FAIL", run, named, [], []))

    def _inputs(
        self,
        states: Mapping[str, TableState],
        run: Run,
        written: Sequence[tuple[TableState, Snapshot]],
        result: object,
    ) -> list[Event]:
        if run.command == "land":
            return [{"namespace": namespace, "name": name} for namespace, name in self._sources]
        if run.command == "audit" and result is not None:
            return list(_audited(states, result.checks))  # type: ignore[attr-defined] # what the verb returns
        read: dict[str, int] = {}
        if run.command == "build":
            for _, snapshot in written:
                read |= json.loads(snapshot.summary.get("stedi.inputs", "{}"))
        elif run.command.startswith("dataset") and hasattr(result, "release"):
            read = {n: s.current.id for n, s in states.items() if ZONES.get(n) in ("trusted", "curated") and s.current}
        return [_dataset(states[name], version) for name, version in sorted(read.items()) if name in states]

    def _output(self, states: Mapping[str, TableState], run: Run, state: TableState, snapshot: Snapshot) -> Event:
        found = _dataset(state, snapshot.id)
        lineage = _columns(states, state.name) if run.command == "build" else self._landed(run, state.name)
        if lineage:
            found["facets"] |= _facet("columnLineage", fields=lineage)
        counts = {"rowCount": "added-records", "size": "added-files-size", "fileCount": "added-data-files"}
        numbers = {name: int(snapshot.summary.get(key, 0)) for name, key in counts.items()}
        return found | {"outputFacets": _facet("outputStatistics", **numbers)}

    def _landed(self, run: Run, table: str) -> dict[str, Any]:
        """Returns where each column of a landing table comes from: the field of the same name of what was delivered."""
        contract = next((c for c in CONTRACTS.values() if c.table == table), None)
        if contract is None or run.command != "land":
            return {}
        return {
            field.name: {"inputFields": [_field(source, field.name, "IDENTITY") for source in self._sources]}
            for field in contract.fields
        }


def sender(target: str, patience: Patience | None = None) -> Send:
    """Returns a function that writes events to a file, a line each, or posts them to a URL.

    Args:
        target: A file's path, or an `http(s)` URL; `OPENLINEAGE_API_KEY` is its bearer token.
        patience: How long the run waits for the URL; by default some seconds.
    """
    if target.startswith(("http://", "https://")):
        waiting = patience or Patience()
        return lambda event: waiting.wait_for(lambda: _post(target, event))
    return lambda event: _append(Path(target), event)


def _post(url: str, event: Event) -> None:
    token = os.environ.get("OPENLINEAGE_API_KEY")
    posting.post(url, event, {"Authorization": f"Bearer {token}"} if token else {})


def _append(path: Path, event: Event) -> None:
    # one write at the end of the file, so that two commands do not mix their lines; a link could lead to any of the
    # user's files
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    with open(os.open(path, flags, 0o600), "ab", buffering=0) as stream:
        stream.write(json.dumps(event).encode() + b"\n")


def _event(
    kind: str,
    run: Run,
    namespace: str,
    inputs: list[Event],
    outputs: list[Event],
    facets: Mapping[str, Any] | None = None,
) -> Event:
    at = run.started if kind == "START" else run.ended or datetime.now(UTC)
    told = _facet("processing_engine", version=__version__, name="stedi", openlineageAdapterVersion=__version__)
    if kind in ("FAIL", "ABORT"):
        message = run.error or "it did not end well"
        told |= _facet("errorMessage", message=message, programmingLanguage="PYTHON")
    job = _facet("jobType", processingType="BATCH", integration="STEDI", jobType="COMMAND")
    return {
        "eventType": kind,
        "eventTime": at.isoformat(),
        "producer": PRODUCER,
        "schemaURL": SCHEMA,
        "run": {"runId": _uuid(run.id), "facets": told | dict(facets or {})},
        "job": {"namespace": namespace, "name": run.command.replace(" --", ".").replace(" ", "."), "facets": job},
        "inputs": inputs,
        "outputs": outputs,
    }


def _facet(name: str, /, **content: Any) -> dict[str, Any]:
    return {name: {"_producer": PRODUCER, "_schemaURL": _schema(name), **content}}


def _schema(name: str) -> str:
    version, _, title = _FACETS[name].partition("/")
    return f"https://openlineage.io/spec/facets/{version}/{title}.json#/$defs/{title}"


def _parent(run: Run, namespace: str) -> dict[str, Any]:
    parent = {"run": {"runId": _uuid(run.id)}, "job": {"namespace": namespace, "name": run.command}}
    return {"_producer": PRODUCER, "_schemaURL": _schema("parent"), **parent}


def _uuid(run: str) -> str:
    """Returns the UUID (version 7, RFC 9562) of a run: its time, and what else tells it apart."""
    at = int(run[:13]) if run[:13].isdecimal() else 0
    # from the run's id, not drawn: all events of a run have one UUID, also those that only name it as their parent
    rest = int.from_bytes(hashlib.sha256(run.encode()).digest()[:10], "big")
    value = at << 80 | 7 << 76 | (rest >> 62 & 0xFFF) << 64 | 2 << 62 | rest & ((1 << 62) - 1)
    digits = f"{value:032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _namespace(context: Context) -> str:
    """Returns the namespace of a lake's jobs."""
    return f"stedi:{context.config.lake_id}"


def _id_at(place: str) -> str | None:
    """Returns the id of the lake at a place, which may be one that cannot be opened; None if there is none."""
    try:
        found = tomllib.loads((places.named(place) / "lake.toml").read_text("utf-8"))["lake"]["id"]
    except (StediError, OSError, ValueError, LookupError, TypeError):
        return None
    return found if isinstance(found, str) and _ID.fullmatch(found) else None


def _states(context: Context) -> Mapping[str, TableState]:
    try:
        return context.catalog.tables()
    except StediError:  # the run itself reports the problem
        return {}


def _named(location: str) -> tuple[str, str]:
    """Returns namespace and name of a place."""
    if location.startswith(("s3://", "s3a://")):
        bucket, _, key = location.partition("://")[2].partition("/")
        return f"s3://{bucket}", key.rstrip("/") or "/"
    return "file", location.removeprefix("file://").rstrip("/") or "/"


def _source(path: str | os.PathLike[str]) -> tuple[str, str]:
    """Returns namespace and name of what a landing was called with; of a glob the folder in which it begins."""
    text = os.fspath(path)
    plain = text if not set("*?[") & set(text) else re.split(r"[^/]*[*?[]", text, maxsplit=1)[0]
    place = plain if s3.is_remote(plain) else os.path.abspath(os.path.expanduser(plain))
    namespace, name = _named(place)
    return namespace, unnamed(name)


def _dataset(state: TableState, version: int) -> Event:
    """Returns a table as a dataset, as of a snapshot."""
    namespace, name = _named(state.location)
    root = state.location.removesuffix(f"/{ALL_ZONES[state.name]}/{state.name}")
    fields = [
        {
            "name": column.name,
            "type": column.type,
            "description": descriptions.describe(state.name, column.name).comment,
            "ordinal_position": place,
        }
        for place, column in enumerate(state.columns, start=1)
    ]
    remote = namespace != "file"
    # Iceberg calls a catalog in a SQL database jdbc, whatever reads it
    kind = "glue" if remote else "jdbc"
    warehouse = root if remote else f"file://{root.removeprefix('file://')}"
    facets = {
        **_facet("version", datasetVersion=str(version)),
        **_facet("schema", fields=fields),
        **_facet("documentation", description=descriptions.TABLES[state.name]),
        **_facet("storage", storageLayer="iceberg", fileFormat="parquet"),
        **_facet("catalog", framework="iceberg", type=kind, name="stedi", warehouseUri=warehouse),
        **_facet(
            "symlinks", identifiers=[{"namespace": warehouse, "name": f"{NAMESPACE}.{state.name}", "type": "TABLE"}]
        ),
    }
    return {"namespace": namespace, "name": name, "facets": facets}


def _columns(states: Mapping[str, TableState], table: str) -> dict[str, Any]:
    """Returns which landed columns each column of a table below landing is made from, and where the key masks them."""
    from stedi.schema.classification import PSEUDONYM, ColumnLineage

    followed = ColumnLineage(tables.graph())
    fields: dict[str, Any] = {}
    names = {column.name.lower(): column.name for state in states.values() for column in state.columns}
    for column in states[table].columns:
        inputs = []
        for home, origin in sorted(followed.origins(table)[column.name.lower()]):
            masked = home not in states and origin == PSEUDONYM
            # the engine makes a pseudonym of the addresses that its view lists
            places = followed.origins(home)["address"] if masked else {(home, origin)}
            for source, field in sorted(places):
                if source in states:
                    named = _named(states[source].location)
                    kind = "TRANSFORMATION" if masked else "IDENTITY"
                    inputs.append(_field(named, names.get(field, field), kind, masking=masked))
        if inputs:
            fields[column.name] = {"inputFields": inputs}
    return fields


def _field(source: tuple[str, str], field: str, kind: str, *, masking: bool = False) -> dict[str, Any]:
    how = {"type": "DIRECT", "subtype": kind, "description": _MASKED if masking else "", "masking": masking}
    return {"namespace": source[0], "name": source[1], "field": field, "transformations": [how]}


def _checked(
    states: Mapping[str, TableState], run: Run, written: Sequence[tuple[TableState, Snapshot]]
) -> Iterator[Event]:
    """Yields the tables that a build has checked before it published them, or the one for which it did not."""
    if run.command != "build":
        return
    if run.kind == "AuditFailed":
        # the message of a broken check begins with its name, or with that of the table
        broken = run.error.partition(":")[0]
        check = next((check for check in tables.assertions() if check.name == broken), None)
        wrong = sorted(check.reads) if check else [broken]
        name = broken if check else "consent_proof" if "consent proof" in run.error else "not_null"
        for table in wrong:
            if table in states and (current := states[table].current):
                yield _with(_dataset(states[table], current.id), [_assertion(name, success=False)])
        return
    for state, snapshot in written if not run.error else ():
        found = [_assertion("consent_proof", success=True)]
        found += [_assertion("not_null", success=True, column=name) for name in sorted(REQUIRED.get(state.name, ()))]
        found += [_assertion(c.name, success=True) for c in tables.assertions() if state.name in c.reads]
        yield _with(_dataset(state, snapshot.id), found)


def _audited(states: Mapping[str, TableState], checks: Iterable[Check]) -> Iterator[Event]:
    """Yields the tables that an audit looked at, with each check's outcome."""
    found: dict[str, list[Event]] = {}
    for check in checks:
        found.setdefault(check.table, []).append(_assertion(check.name, success=not check.violations))
    for name, assertions in found.items():
        if name in states and (current := states[name].current):
            yield _with(_dataset(states[name], current.id), assertions)


def _assertion(name: str, *, success: bool, column: str = "") -> Event:
    return {"assertion": name, "success": success, **({"column": column} if column else {})}


def _with(dataset: Event, assertions: list[Event]) -> Event:
    return dataset | {"inputFacets": _facet("dataQualityAssertions", assertions=assertions)}


def _release(result: object) -> list[Event]:
    """Returns the folder of a release that a run has made, as a dataset."""
    path, release, rows = (getattr(result, name, None) for name in ("path", "release", "rows"))
    if not path or not release or not isinstance(rows, int):
        return []
    namespace, name = _named(str(path) if s3.is_remote(str(path)) else os.path.abspath(str(path)))
    facets = {
        **_facet("version", datasetVersion=str(release)),
        **_facet("storage", storageLayer="file", fileFormat="parquet"),
    }
    return [
        {
            "namespace": namespace,
            "name": name,
            "facets": facets,
            "outputFacets": _facet("outputStatistics", rowCount=rows),
        }
    ]
