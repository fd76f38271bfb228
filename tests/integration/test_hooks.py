"""What tells other programs of a run is whole, holds no value, and never fails the run."""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import islice
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from deliveries import customer, deliver, motion, step
from lakes import Slate
from stedi import Lake, cli
from stedi.cli import hooks, pipeline
from stedi.operations import posting, tracing
from stedi.privacy import tombstones
from stedi.storage import durable

ANA = "ana.of.the.hills@x.example"
_SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z]+="[^"]*",?)*)\})? (-?[0-9.e+]+)')


@pytest.fixture
def lake(slate: Slate) -> Lake:
    return slate.wiped()


@pytest.fixture
def inbox(inbox: Path) -> Path:
    deliver(inbox, "customer", [customer(ANA)])
    deliver(inbox, "accelerometer", [motion(ANA)])
    deliver(inbox, "step_trainer", [step()])
    return inbox


@pytest.fixture
def pinged() -> Iterator[tuple[str, list[str]]]:
    """The URL of a server, and the paths that it was asked for."""
    got: list[str] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            got.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/job", got
        server.shutdown()


def run(lake: Lake, *words: object) -> int:
    return cli.main(["--lake", str(lake.root), *map(str, words)])


def samples(file: Path) -> dict[str, float]:
    """The samples of a file of metrics, each line of which is one, or a comment."""
    found = {}
    for line in file.read_text("utf-8").splitlines():
        if line.startswith("# "):
            assert re.fullmatch(r"# (HELP \w+ .+\.|TYPE \w+ gauge)", line)
            continue
        match = _SAMPLE.fullmatch(line)
        assert match, line
        found[match[1] + (f"{{{match[2]}}}" if match[2] else "")] = float(match[3])
    return found


def test_metrics_tell_of_a_run_and_of_its_lake(lake: Lake, inbox: Path, tmp_path: Path) -> None:
    file = tmp_path / "stedi.prom"
    assert run(lake, "land", inbox, "--metrics-file", file) == 0
    found = samples(file)
    assert found['stedi_run_success{command="land"}'] == 1
    assert found['stedi_run_rows{command="land"}'] == 3
    assert found['stedi_table_rows{table="customers_landing",zone="landing"}'] == 1
    assert found["stedi_tables_due"] == 5
    assert found['stedi_last_success_timestamp_seconds{command="land"}'] > 1.7e9
    assert stat.S_IMODE(file.stat().st_mode) == 0o644, "a collector runs as another user"
    assert "hills" not in file.read_text("utf-8")


def test_metrics_are_written_when_the_command_fails_and_hold_what_last_went_well(
    lake: Lake, inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.land(inbox)
    lake.build()
    file = tmp_path / "stedi.prom"
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", "00" * 32)
    assert run(lake, "build", "--metrics-file", file) == 1
    found = samples(file)
    assert (found['stedi_run_success{command="build"}'], found['stedi_run_exit_code{command="build"}']) == (0, 1)
    assert found['stedi_last_success_timestamp_seconds{command="build"}'] > 1.7e9
    assert cli.main(["--lake", str(tmp_path / "none"), "maintain", "--metrics-file", str(file)]) == 1
    assert samples(file)['stedi_run_success{command="maintain"}'] == 0


def test_metrics_keep_what_can_be_read_of_a_lake_and_say_what_cannot(lake: Lake, inbox: Path, tmp_path: Path) -> None:
    lake.land(inbox)
    lake.build()
    lake.erase(ANA)
    (lake.root / tombstones.NAME).write_bytes(b"damaged")
    file = tmp_path / "stedi.prom"
    assert run(Lake(lake.context), "build", "--metrics-file", file) == 1
    found = samples(file)
    assert found['stedi_table_rows{table="customers_landing",zone="landing"}'] == 0
    assert found['stedi_last_success_timestamp_seconds{command="build"}'] > 1.7e9
    assert "stedi_disk_free_bytes" in found
    assert "stedi_tables_due" not in found
    unknown = {part: found[f'stedi_lake_unknown{{part="{part}"}}'] for part in ("runs", "tables", "due", "disk")}
    assert unknown == {"runs": 0, "tables": 0, "due": 1, "disk": 0}


def test_metrics_take_their_name_when_they_are_whole(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "stedi.prom"
    assert run(lake, "build", "--metrics-file", file) == 0
    before = file.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable.os, "replace", full)
    hooked = hooks._Hooks(cli.parser().parse_args(["build", "--metrics-file", str(file)]))
    hooked.end(0, "done", "", None)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["stedi.prom"]
    assert "could not be written: No space left on device; the command goes on" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--metrics-file", "--openlineage"])
def test_nothing_is_written_into_a_lake_beside_the_lake_itself(lake: Lake, option: str) -> None:
    assert run(lake, "build", option, lake.root / "landing" / "told") == 2
    assert not (lake.root / "landing" / "told").exists()


def test_a_run_is_a_span_below_the_callers_and_holds_no_value(
    lake: Lake, inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    got: list[dict[str, Any]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            got.append({"path": self.path, "key": self.headers["api-key"], **body})
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team = a, api-key=k%201%3D ")
    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/v1/traces"
        before = time.time_ns()
        assert run(lake, "land", inbox, "--otlp", url) == 0
        after = time.time_ns()
        monkeypatch.setenv("TRACEPARENT", f"00-{'a' * 32}-{'b' * 16}-01")
        assert run(Lake(lake.context), "land", tmp_path / ANA, "--otlp", url) == 1
        assert cli.main(["--lake", str(tmp_path / "none"), "maintain", "--otlp", url]) == 1
        server.shutdown()
    assert {(each["path"], each["key"]) for each in got} == {("/v1/traces", "k 1=")}
    assert "hills" not in json.dumps(got)

    def told(attributes: list[dict[str, Any]]) -> dict[str, str]:
        return {each["key"]: next(iter(each["value"].values())) for each in attributes}

    resources = [each["resourceSpans"][0] for each in got]
    assert told(resources[0]["resource"]["attributes"])["stedi.lake_id"] == lake.config.lake_id
    landed, missing, nowhere = (each["scopeSpans"][0]["spans"][0] for each in resources)
    assert [span["name"] for span in (landed, missing, nowhere)] == ["stedi land", "stedi land", "stedi maintain"]
    assert [span["status"]["code"] for span in (landed, missing, nowhere)] == [1, 2, 2]
    [first] = [each for each in lake.runs() if (each.command, each.outcome) == ("land", "done")]
    attributes = told(landed["attributes"])
    assert (attributes["stedi.run"], attributes["stedi.rows"]) == (first.id, "3")
    assert before < int(landed["startTimeUnixNano"]) <= int(landed["endTimeUnixNano"]) < after
    assert (missing["traceId"], missing["parentSpanId"]) == ("a" * 32, "b" * 16)
    assert re.fullmatch(r"[0-9a-f]{32} [0-9a-f]{16}", f"{landed['traceId']} {landed['spanId']}")
    assert run(lake, "build", "--otlp", "http://127.0.0.1:1/nobody") == 0
    assert "the span could not be written: " in capsys.readouterr().err


@pytest.mark.parametrize("zeros", [f"00-{'0' * 32}-{'b' * 16}-01", f"00-{'a' * 32}-{'0' * 16}-01"])
def test_a_caller_whose_ids_are_zeros_is_none(zeros: str, monkeypatch: pytest.MonkeyPatch) -> None:
    posted = list[Any]()
    monkeypatch.setenv("TRACEPARENT", zeros)
    monkeypatch.setattr("stedi.operations.posting.post", lambda url, content, headers: posted.append(content))
    tracing.Tracer("http://collector").failed("lake", "build", "unforeseen")
    [span] = posted[0]["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert span["parentSpanId"] == ""
    assert span["traceId"] not in ("a" * 32, "0" * 32)


@pytest.mark.parametrize("option", ["--otlp", "--openlineage"])
@pytest.mark.parametrize("code", [302, 307])
def test_what_is_posted_follows_no_redirect_and_hands_its_keys_to_nobody_else(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str, code: int
) -> None:
    asked: list[str] = []

    class Elsewhere(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            asked.append(self.path)
            self.send_response(code)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=key")
    monkeypatch.setenv("OPENLINEAGE_API_KEY", "key")
    with HTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        assert run(lake, "build", option, f"http://127.0.0.1:{server.server_port}/v1") == 0
        server.shutdown()
    assert set(asked) == {"/v1"}
    assert "could not be written: " in capsys.readouterr().err


def test_a_log_is_an_object_a_line_with_the_run(lake: Lake, inbox: Path, capsys: pytest.CaptureFixture[str]) -> None:
    real = sys.stderr
    assert run(lake, "land", inbox, "--log-json") == 0
    assert run(lake, "land", inbox / "no", ANA, "--log-json") == 1
    assert sys.stderr is real
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert {line["command"] for line in lines} == {"land"}
    events = [line["event"] for line in lines if "event" in line]
    assert events == ["start", "run", "ran", "end"] * 2
    ids = [found.id for found in islice(lake.runs(), 2)][::-1]
    assert [line["run"] for line in lines if line.get("event") == "ran"] == ids
    ran = [(line["outcome"], line["rows"]) for line in lines if line.get("event") == "ran"]
    assert ran == [("done", 3), ("failed", 0)]
    ends = [(line["exit"], line["error"]) for line in lines if line.get("event") == "end"]
    assert ends == [(0, None), (1, "delivered files that could not be read: 2")]
    levels = [(line["level"], line["message"].partition(": ")[0]) for line in lines if "level" in line]
    assert {("error", "no"), ("error", ANA)} <= {(level, name.rpartition("/")[2]) for level, name in levels}


def test_the_end_of_a_log_has_what_failed_before_other_work_was_done_and_what_stdout_has_lost(
    lake: Lake, inbox: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def end() -> tuple[int, str | None]:
        found = [json.loads(line) for line in capsys.readouterr().err.splitlines()][-1]
        return found["exit"], found["error"]

    assert run(lake, "land", "--build", inbox, inbox / "no", "--log-json") == 1
    assert end() == (1, "delivered files that could not be read: 1")
    with monkeypatch.context() as patch, open("/dev/full", "w", encoding="utf-8") as full:
        patch.setattr(sys, "stdout", full)
        assert run(lake, "build", "--log-json") == 1
        assert end()[0] == 1


def test_the_last_message_of_a_command_that_fails_is_an_object_too(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", "00" * 32)
    real = sys.stderr
    assert run(lake, "build", "--log-json") == 1
    assert sys.stderr is real
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert lines[-1]["level"] == "error"
    assert "pseudonym key" in lines[-1]["message"]


def test_pings_tell_of_start_success_and_failure(lake: Lake, inbox: Path, pinged: tuple[str, list[str]]) -> None:
    url, got = pinged
    assert run(lake, "land", inbox, "--ping", url) == 0
    assert run(lake, "land", inbox / "none", "--ping", url) == 1
    assert got == ["/job/start", "/job", "/job/start", "/job/fail"]


def test_a_ping_that_is_not_answered_costs_nothing_and_its_secret_is_not_said(
    lake: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(lake, "build", "--ping", "http://127.0.0.1:1/secret-token") == 0
    said = capsys.readouterr().err
    assert "the ping could not be" in said
    assert "secret-token" not in said
    assert run(lake, "build", "--ping", "file:///etc/passwd") == 2


def test_a_slow_request_leaves_time_for_those_that_follow() -> None:
    waiting, asked = posting.Patience(0.4), list[str]()
    with pytest.raises(TimeoutError):
        waiting.wait_for(lambda: time.sleep(1))
    waiting.wait_for(lambda: asked.append("the end"))
    assert asked == ["the end"]


def test_slow_requests_together_take_no_more_than_the_time_of_a_run() -> None:
    waiting, began = posting.Patience(0.4), time.monotonic()
    for _ in range(8):
        with pytest.raises(TimeoutError):
            waiting.wait_for(lambda: time.sleep(1))
    assert time.monotonic() - began < 0.8


@pytest.fixture
def dripping() -> Iterator[str]:
    """The URL of a server that sends a byte of its answer every tenth of a second, without an end."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
                while True:
                    time.sleep(0.1)
                    connection.sendall(b"x")

        def accept() -> None:
            with suppress(OSError):
                while True:
                    Thread(target=drip, args=(server.accept()[0],), daemon=True).start()

        Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/v1"


@pytest.mark.parametrize("option", ["--otlp", "--openlineage", "--ping"])
def test_an_answer_that_drips_holds_no_run_longer_than_its_time(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], dripping: str, option: str
) -> None:
    assert run(lake, "build", "--openlineage", os.devnull) == 0, "what the first of a process imports is not timed"
    monkeypatch.setattr(posting.Patience.__init__, "__defaults__", (0.5,))
    began = time.monotonic()
    assert run(lake, "build", option, dripping) == 0
    without = time.monotonic()
    assert run(lake, "build") == 0
    assert without - began < 0.5 + 2 * (time.monotonic() - without) + 2
    assert "could not be written: no answer in time; the command goes on" in capsys.readouterr().err


def test_lineage_names_a_lake_that_cannot_be_opened_as_one_that_can(lake: Lake, inbox: Path, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    assert run(lake, "land", inbox, "--openlineage", file) == 0
    settings = lake.root / "lake.toml"
    settings.write_text(settings.read_text("utf-8") + "\n[nothing]\nof = 1\n")
    assert run(lake, "build", "--openlineage", file) != 0
    events = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert events[-1]["eventType"] == "FAIL"
    assert {event["job"]["namespace"] for event in events} == {f"stedi:{lake.config.lake_id}"}


def test_every_command_that_writes_takes_the_hooks() -> None:
    """So that a new one is not forgotten: which do not is said here."""
    words = {name for name, sub in _commands().items() if "--ping" in sub.format_help()}
    reads = {"aws", "completion", "consent", "contract", "crawl", "ddl", "demo", "describe", "doctor", "explain"}
    reads |= {"dataset", "export", "history", "log", "ndjson", "query", "report", "roles", "runs", "status", "tables"}
    assert _commands().keys() - words <= reads | {"verify"}
    assert words <= hooks.COMMANDS


def test_every_command_changes_a_lake_or_does_not() -> None:
    """What an interrupted one says depends on it; those that need no lake are said here."""
    looks, writes, words = pipeline._LOOKS, hooks.COMMANDS, _commands().keys()
    # some actions of `dataset` write; an audit adds its own record, and only a replay changes the quarantine
    assert looks & writes == {"audit", "quarantine"}
    assert words - looks - writes == {"aws", "completion", "dataset", "demo", "ndjson"}
    assert looks <= words


def _commands() -> dict[str, argparse.ArgumentParser]:
    [commands] = [action.choices for action in cli.parser()._actions if isinstance(action.choices, dict)]
    return dict(commands)
