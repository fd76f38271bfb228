"""Every event is what the published schemas of OpenLineage ask for, and says what was read, written and checked."""

from __future__ import annotations

import importlib
import json
import re
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from deliveries import customer, deliver, motion, step
from lakes import REPOSITORY, Slate
from stedi import Lake, cli
from stedi.errors import AuditFailed, LakeError
from stedi.operations import lineage
from stedi.schema import tables
from stedi.schema.tables import REQUIRED, ZONES

SCHEMAS = REPOSITORY / "tests" / "data" / "openlineage"
ANA = "ana.of.the.hills@x.example"


@pytest.fixture(scope="module")
def valid() -> Any:
    """Holds an event against the schema of its kind, and each facet against that facet's."""
    jsonschema, referencing = (importlib.import_module(name) for name in ("jsonschema", "referencing"))
    documents = {json.loads(p.read_text())["$id"]: json.loads(p.read_text()) for p in SCHEMAS.glob("*.json")}
    resources = [(name, referencing.Resource.from_contents(document)) for name, document in documents.items()]
    registry = referencing.Registry().with_resources(resources)

    def held(content: Any, schema: str) -> None:
        validator = jsonschema.Draft202012Validator
        check = validator({"$ref": schema}, registry=registry, format_checker=validator.FORMAT_CHECKER)
        check.validate(content)

    def validated(event: Any) -> None:
        held(event, event["schemaURL"])
        version_7 = r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
        assert re.fullmatch(version_7, event["run"]["runId"])
        parts = [event["run"], event["job"], *event["inputs"], *event["outputs"]]
        facets = [part.get(kind, {}) for part in parts for kind in ("facets", "inputFacets", "outputFacets")]
        for each in facets:
            for facet in each.values():
                held(facet, facet["_schemaURL"])

    return validated


@pytest.fixture
def lake(slate: Slate) -> Lake:
    return slate.wiped()


@pytest.fixture
def inbox(inbox: Path) -> Path:
    deliver(inbox, "customer", [customer(ANA), customer("bo@x.example", ..., serialNumber="s2")])
    deliver(inbox, "accelerometer", [motion(ANA)])
    deliver(inbox, "step_trainer", [step()])
    return inbox


def told(file: Path) -> list[Any]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def run(lake: Lake, file: Path | str, *words: str, code: int = 0) -> None:
    assert cli.main(["--lake", str(lake.root), *words, "--openlineage", str(file)]) == code


def test_a_landing_and_a_build_are_told_with_all_that_they_read_and_wrote(
    lake: Lake, inbox: Path, tmp_path: Path, valid: Any
) -> None:
    file = tmp_path / "events.jsonl"
    run(lake, file, "land", str(inbox))
    run(lake, file, "build")
    events = told(file)
    for event in events:
        valid(event)
    assert [(e["job"]["name"], e["eventType"]) for e in events] == [
        (job, kind) for job in ("land", "build", "build.checks") for kind in ("START", "COMPLETE")
    ]
    assert {e["job"]["namespace"] for e in events} == {f"stedi:{lake.config.lake_id}"}
    landed, built, checked = events[1], events[3], events[5]
    assert landed["inputs"] == [{"namespace": "file", "name": str(inbox)}]
    names = {name: str(lake.root / zone / name) for name, zone in ZONES.items()}
    wrote = {output["name"]: output for output in landed["outputs"]}
    assert wrote[names["customers_landing"]]["outputFacets"]["outputStatistics"]["rowCount"] == 2
    heads = {name: str(s.current.id) for name, s in lake.catalog.tables().items() if s.current}
    outputs = {output["name"]: output for output in built["outputs"]}
    assert outputs.keys() == {names[name] for name in names if ZONES[name] != "landing"}
    for name in ("customers_trusted", "machine_learning_curated"):
        facets = outputs[names[name]]["facets"]
        assert facets["version"]["datasetVersion"] == heads[name]
        assert [f["name"] for f in facets["schema"]["fields"]] == [c.name for c in lake.catalog.table(name).columns]
    versions = {i["name"]: i["facets"]["version"]["datasetVersion"] for i in built["inputs"]}
    assert versions[names["customers_landing"]] == heads["customers_landing"]
    assertions = {i["name"]: i["inputFacets"]["dataQualityAssertions"]["assertions"] for i in checked["inputs"]}
    for name in REQUIRED.keys() & {n for n in names if ZONES[n] != "landing"}:
        found = {(a["assertion"], a.get("column")) for a in assertions[names[name]]}
        assert {("consent_proof", None)} | {("not_null", column) for column in REQUIRED[name]} <= found
    every = {a["assertion"] for each in assertions.values() for a in each}
    assert {check.name for check in tables.assertions()} <= every
    assert checked["run"]["facets"]["parent"]["run"]["runId"] == built["run"]["runId"]


def test_the_key_stands_as_masking_between_an_address_and_a_pseudonym(lake: Lake, inbox: Path, tmp_path: Path) -> None:
    lake.land(inbox)
    run(lake, tmp_path / "events", "build")
    outputs = {Path(o["name"]).name: o["facets"] for o in told(tmp_path / "events")[1]["outputs"]}
    for table, facets in outputs.items():
        fields = facets["columnLineage"]["fields"]
        assert fields.keys() == {field["name"] for field in facets["schema"]["fields"]}
        for column, made in fields.items():
            for source in made["inputFields"]:
                [how] = source["transformations"]
                home = Path(source["name"]).name
                assert home in ("customers_landing", "accelerometer_landing", "step_trainer_landing")
                assert how["masking"] is (column == "customer_id"), (table, column)
                if column == "customer_id":
                    assert (home, source["field"]) in [
                        ("customers_landing", "email"),
                        ("accelerometer_landing", "user"),
                    ]
                else:
                    assert source["field"].lower() == column.lower()


def test_a_failure_is_told_without_a_value(
    lake: Lake, inbox: Path, tmp_path: Path, valid: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.land(inbox)
    lake.build()
    file = tmp_path / "events"
    texts = [
        AuditFailed("customers_trusted: consent proof: expected no row, found rows of 1 such customers"),
        AuditFailed("curated_customers_are_trusted: expected no violations, found 1; nothing was published"),
        LakeError(f"{ANA} is wrong"),
        ValueError(ANA),
    ]
    for error in texts:
        with monkeypatch.context() as patch:
            patch.setattr("stedi.transform.build", lambda *_, error=error, **__: (_ for _ in ()).throw(error))
            run(lake, file, "build", code=3 if isinstance(error, AuditFailed) else 1)
    run(Lake(lake.context), file, "land", str(tmp_path / ANA), code=1)
    events = told(file)
    for event in events:
        valid(event)
    assert "hills" not in file.read_text("utf-8")
    failed = [e["run"]["facets"]["errorMessage"]["message"] for e in events if e["eventType"] == "FAIL"]
    assert len(failed) == 7
    broken = [
        (Path(i["name"]).name, a["assertion"], a["success"])
        for e in events
        for i in e["inputs"]
        for a in i.get("inputFacets", {}).get("dataQualityAssertions", {}).get("assertions", [])
    ]
    assert broken == [
        ("customers_trusted", "consent_proof", False),
        ("customers_curated", "curated_customers_are_trusted", False),
        ("customers_trusted", "curated_customers_are_trusted", False),
    ]


def test_an_audit_a_maintenance_an_erasure_and_a_release_are_told(
    lake: Lake, inbox: Path, tmp_path: Path, valid: Any
) -> None:
    lake.land(inbox)
    lake.build()
    file = tmp_path / "events"
    run(lake, file, "audit")
    run(lake, file, "maintain")
    run(lake, file, "withdraw", "bo@x.example", "--yes")
    run(lake, file, "erase", ANA, "--yes")
    events = told(file)
    for event in events:
        valid(event)
    ended = {e["job"]["name"]: e for e in events if e["eventType"] == "COMPLETE"}
    assert {"audit", "maintain", "withdraw", "erase"} <= ended.keys()
    audited = [a for i in ended["audit"]["inputs"] for a in i["inputFacets"]["dataQualityAssertions"]["assertions"]]
    assert len(audited) > 20
    assert all(a["success"] for a in audited)
    assert "customers_landing" in [Path(o["name"]).name for o in ended["withdraw"]["outputs"]]
    assert {Path(o["name"]).name for o in ended["erase"]["outputs"]} >= {"customers_landing", "customers_trusted"}
    assert "@" not in file.read_text("utf-8")


def test_a_command_that_reaches_no_lake_is_told(tmp_path: Path, valid: Any) -> None:
    file = tmp_path / "events"
    assert cli.main(["--lake", str(tmp_path / "none"), "maintain", "--openlineage", str(file)]) == 1
    events = told(file)
    assert [event["eventType"] for event in events] == ["START", "FAIL"]
    for event in events:
        valid(event)


def test_events_are_posted_and_a_server_that_is_away_costs_nothing(lake: Lake, inbox: Path, valid: Any) -> None:
    got: list[Any] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(201)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/api/v1/lineage"
        run(lake, url, "land", str(inbox))
        server.shutdown()
    assert [event["eventType"] for event in got] == ["START", "COMPLETE"]
    for event in got:
        valid(event)
    run(lake, "http://127.0.0.1:1/nobody", "build")
    assert lake.build().run == ""


def test_what_lies_in_a_bucket_is_named_by_its_bucket_and_key() -> None:
    assert lineage._named("s3://bucket/lake/trusted/customers_trusted") == (
        "s3://bucket",
        "lake/trusted/customers_trusted",
    )
    assert lineage._source("s3://bucket/inbox/*.json") == ("s3://bucket", "inbox")


def test_a_glob_is_named_by_the_folder_in_which_it_begins() -> None:
    assert lineage._source("s3://bucket/inbox/2026-1?.json") == ("s3://bucket", "inbox")
    assert lineage._source("/data/inbox/2026*/customer") == ("file", "/data/inbox")
    assert lineage._source("[ab].json") == ("file", str(Path.cwd()))
    assert lineage._source("/*.json") == ("file", "/")
