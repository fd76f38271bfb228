"""The settings of a lake: every key, where it may come from, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stedi.errors import ConfigError
from stedi.storage import config
from stedi.storage.config import Config

LAKE = Config(lake_id="0123456789abcdef", key_fingerprint="fedcba9876543210")
WHOLE = """format = 2
[lake]
id = "0123456789abcdef"
[key]
fingerprint = "fedcba9876543210"
"""
OTHERS: dict[str, tuple[str, Any]] = {
    "key_file": ("key.file", "/keys/a.key"),
    "key_version": ("key.version", 2),
    "signs_as": ("key.signs_as", "ab" * 32),
    "readings": ("consent.readings", "since-consent"),
    "journal_path": ("journal.path", "/journals"),
    "engine_memory": ("engine.memory", "2GiB"),
    "engine_threads": ("engine.threads", 3),
    "query_memory": ("query.memory", "64MB"),
    "query_seconds": ("query.seconds", 1.5),
    "query_role": ("query.role", "engineer"),
    "shared": ("files.shared", True),
    "keep_days": ("maintain.keep_days", 0.5),
    "keep_snapshots": ("maintain.keep_snapshots", 1),
    "grace_hours": ("maintain.grace_hours", 0.0),
    "target_size": ("maintain.target_size", "1MiB"),
    "report_min_count": ("report.min_count", 10),
    "history_days": ("consent.history_days", 1.5),
    "access_days": ("access.keep_days", 30.0),
}
"""Of each optional attribute, its key and a value that is not the default."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "lake.toml"


def text(table: str, line: str) -> str:
    """Whole settings with one more line in a table."""
    head = f"[{table}]\n"
    return WHOLE.replace(head, head + line + "\n") if head in WHOLE else WHOLE + head + line + "\n"


def read(file: Path, content: str, environment: dict[str, str] | None = None) -> Config:
    file.write_text(content, "utf-8")
    return config.read(file, environment or {})


def test_least_settings_give_the_defaults(file: Path) -> None:
    assert read(file, WHOLE) == LAKE
    assert LAKE.readings == "all"


def test_every_attribute_has_a_key_and_is_tested_here() -> None:
    names = {f.name for f in dataclasses.fields(Config)}
    assert names == {"lake_id", "key_fingerprint", "format", *OTHERS}


@pytest.mark.parametrize("attribute", OTHERS)
def test_a_key_sets_its_attribute(file: Path, attribute: str) -> None:
    key, value = OTHERS[attribute]
    table, _, name = key.partition(".")
    shown = json.dumps(value)  # which is TOML, too
    found = read(file, text(table, f"{name} = {shown}"))
    assert found == dataclasses.replace(LAKE, **{attribute: value})


@pytest.mark.parametrize(("text", "size"), [("128MB", 128_000_000), ("1KiB", 1024), ("3GB", 3_000_000_000)])
def test_the_target_size_is_told_in_bytes(text: str, size: int) -> None:
    assert dataclasses.replace(LAKE, target_size=text).target_bytes == size


def test_what_is_written_is_read_back(file: Path) -> None:
    full = dataclasses.replace(LAKE, **{attribute: value for attribute, (_, value) in OTHERS.items()})
    config.write(full, file)
    assert config.read(file, {}) == full
    assert file.stat().st_mode & 0o777 == 0o600


@given(key_file=st.text(st.characters(codec="utf-8"), max_size=20), seconds=st.floats(0.001, 1e15))
def test_any_path_and_number_survive_the_file(
    tmp_path_factory: pytest.TempPathFactory, key_file: str, seconds: float
) -> None:
    file = tmp_path_factory.getbasetemp() / "round.toml"
    settings = dataclasses.replace(LAKE, key_file=key_file, query_seconds=seconds)
    config.write(settings, file)
    assert config.read(file, {}) == settings


@pytest.mark.parametrize(
    ("variable", "value", "attribute", "expected"),
    [
        ("STEDI_KEY_FILE", "/elsewhere", "key_file", "/elsewhere"),
        ("STEDI_ENGINE_MEMORY", "1GB", "engine_memory", "1GB"),
        ("STEDI_ENGINE_THREADS", "7", "engine_threads", 7),
        ("STEDI_QUERY_MEMORY", "1GB", "query_memory", "1GB"),
        ("STEDI_QUERY_SECONDS", "2", "query_seconds", 2.0),
        ("STEDI_QUERY_ROLE", "scientist", "query_role", "scientist"),
    ],
)
def test_the_environment_overrides_the_file(
    file: Path, variable: str, value: str, attribute: str, expected: Any
) -> None:
    full = dataclasses.replace(LAKE, **{name: other for name, (_, other) in OTHERS.items()})
    config.write(full, file)
    assert config.read(file, {variable: value}) == dataclasses.replace(full, **{attribute: expected})


def test_the_process_s_environment_is_the_default_one(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write(LAKE, file)
    monkeypatch.setenv("STEDI_ENGINE_THREADS", "5")
    assert config.read(file).engine_threads == 5


@pytest.mark.parametrize(
    "variable",
    ["STEDI_READINGS", "STEDI_CONSENT_READINGS", "STEDI_LAKE_ID", "STEDI_KEY_FINGERPRINT", "STEDI_FILES_SHARED"],
)
def test_the_environment_decides_neither_consent_nor_identity(file: Path, variable: str) -> None:
    config.write(LAKE, file)
    assert config.read(file, {variable: "since-consent"}) == LAKE


@pytest.mark.parametrize(
    ("table", "line", "expected"),
    [
        ("consent", 'reading = "all"', "unknown key 'consent.reading'"),
        ("consnt", 'readings = "all"', "unknown key 'consnt.readings'"),
        ("consnt", "", "unknown key 'consnt'"),
        ("consent", 'readings = "since_consent"', "expected all or since-consent, found 'since_consent'"),
        ("consent", "readings = true", "consent.readings: expected str, found bool"),
        ("consent", "[consent.readings]", "consent.readings: expected str, found dict"),
        ("engine", "threads = true", "engine.threads: expected int, found bool"),
        ("engine", "threads = 1.0", "engine.threads: expected int, found float"),
        ("engine", 'threads = "1"', "engine.threads: expected int, found str"),
        ("engine", "threads = -1", "expected 0 or more, found -1"),
        ("engine", "memory = 600", "engine.memory: expected str, found int"),
        ("engine", 'memory = "600"', "expected a size such as 600MB"),
        ("engine", 'memory = "MB"', "expected a size such as 600MB"),
        ("engine", 'memory = "0MB"', "expected a size such as 600MB"),
        ("engine", 'memory = "-1MB"', "expected a size such as 600MB"),
        ("engine", 'memory = "1MB; drop"', "expected a size such as 600MB"),
        ("engine", 'memory = "\u0661MB"', "expected a size such as 600MB"),
        ("query", 'memory = "80%"', "expected a size such as 600MB"),
        ("query", "seconds = false", "query.seconds: expected float, found bool"),
        ("query", 'role = "king"', "query.role: expected scientist or engineer or officer, found 'king'"),
        ("query", "seconds = 0", "expected more than 0, found 0"),
        ("query", "seconds = nan", "expected more than 0, found nan"),
        ("query", "seconds = inf", "expected more than 0, found inf"),
        ("maintain", "keep_days = -1", "maintain.keep_days: expected 0 or more, found -1"),
        ("maintain", "keep_days = nan", "maintain.keep_days: expected 0 or more, found nan"),
        ("maintain", "grace_hours = inf", "maintain.grace_hours: expected 0 or more, found inf"),
        ("maintain", "keep_snapshots = 0", "maintain.keep_snapshots: expected 1 or more, found 0"),
        ("maintain", "keep_snapshots = 1.5", "maintain.keep_snapshots: expected int, found float"),
        ("maintain", 'target_size = "128"', "maintain.target_size: expected a size such as 600MB"),
        ("report", "min_count = 2", "report.min_count: expected 1, or 3 or more, found 2"),
        ("files", "shared = 1", "files.shared: expected bool, found int"),
        ("key", "file = 1", "key.file: expected str, found int"),
    ],
)
def test_a_wrong_setting_is_named_and_refused(file: Path, table: str, line: str, expected: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read(file, text(table, line))
    assert expected in str(refused.value)
    assert str(file) in str(refused.value)
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "format: expected 1 to 2, found None"),
        (
            WHOLE.replace("format = 2", "format = 3"),
            "format: expected 2 at most, found 3: a newer stedi made this lake",
        ),
        (WHOLE.replace("format = 2", "format = true"), "format: expected 1 to 2, found True"),
        (WHOLE.replace("format = 2", 'format = "1"'), "format: expected 1 to 2, found '1'"),
        ("readings = 'all'\n" + WHOLE, "unknown key 'readings'"),
        (WHOLE.replace("[lake]\n", "[lake]\nid = 'twice'\n"), "expected TOML"),
        (WHOLE.replace('id = "0123456789abcdef"\n', ""), "lake.id is missing; restore lake.toml"),
        (WHOLE.replace('fingerprint = "fedcba9876543210"\n', ""), "key.fingerprint is missing"),
        ("format = ", "expected TOML"),
    ],
)
def test_a_broken_file_is_refused_whole(file: Path, content: str, expected: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read(file, content)
    assert expected in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_no_text_is_refused(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="expected TOML"):
        config.read(file, {})


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("STEDI_ENGINE_THREADS", "many", "STEDI_ENGINE_THREADS: engine.threads: expected int, found 'many'"),
        ("STEDI_ENGINE_THREADS", "-2", "STEDI_ENGINE_THREADS: engine.threads: expected 0 or more"),
        ("STEDI_QUERY_SECONDS", "nan", "STEDI_QUERY_SECONDS: query.seconds: expected more than 0"),
        ("STEDI_QUERY_ROLE", "king", "STEDI_QUERY_ROLE: query.role: expected scientist or engineer or officer"),
        ("STEDI_ENGINE_MEMORY", "", "STEDI_ENGINE_MEMORY: engine.memory: expected a size"),
    ],
)
def test_a_wrong_variable_is_named_and_refused(file: Path, variable: str, value: str, expected: str) -> None:
    config.write(LAKE, file)
    with pytest.raises(ConfigError) as refused:
        config.read(file, {variable: value})
    assert expected in str(refused.value)


def test_changed_settings_are_checked_like_any_others() -> None:
    assert config.changed(LAKE, readings="since-consent").readings == "since-consent"
    assert config.changed(LAKE) == LAKE
    with pytest.raises(ConfigError, match=r"argument: consent\.readings: expected all or since-consent"):
        config.changed(LAKE, readings="none")
    with pytest.raises(ConfigError, match=r"engine\.threads: expected int, found bool"):
        config.changed(LAKE, engine_threads=True)


def test_no_threads_mean_one_a_core() -> None:
    assert LAKE.threads == os.cpu_count()
    assert dataclasses.replace(LAKE, engine_threads=3).threads == 3
