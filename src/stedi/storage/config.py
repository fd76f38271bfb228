"""The lake's settings: one frozen Config, defaults < lake.toml < environment < flags.

A key that is not known, or has a value of the wrong type or out of range, is an error and never skipped:
a misspelled consent policy must not become the default one. The pseudonym key's place is decided here, too;
the key itself is `privacy.pseudonyms`' business.
"""

from __future__ import annotations

import errno
import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from stedi._frozen import dataclass, replace
from stedi.errors import ConfigError
from stedi.schema.roles import Readings, Role
from stedi.storage import durable

FORMAT = 2
"""The version of lake folders that this code creates; `operations.migration` describes each."""
_OLDEST = 1
"""The oldest that it reads and writes."""


@dataclass(frozen=True, slots=True)
class Config:
    """Every setting of one lake.

    Attributes:
        lake_id: The lake's id, 16 hex digits; `lake.id` in lake.toml.
        key_version: How the key is used: 2, with subkeys, or 1 in lakes made before; `key.version`.
        signs_as: Fingerprint of the public key under which the lake signs, as `key show` and `verify` tell it; empty in
            lakes made before; `key.signs_as`.
        readings: `all` readings of a consenting customer, or only those `since-consent`; `consent.readings`.
        key_fingerprint: Tells the lake's pseudonym key from others without telling the key; `key.fingerprint`.
        key_file: The file that holds the key, outside the lake; `key.file`.
        journal_path: Where the lake's journal is copied to and its mark kept, a folder or `s3://` prefix outside the
            lake; empty for a folder beside the key; `journal.path`.
        engine_memory: What the build engine may take; `engine.memory`.
        engine_threads: Threads of landing and builds, 0 for one a core; `engine.threads`.
        query_memory: What one query may take; `query.memory`.
        query_seconds: How long one query may run; `query.seconds`.
        query_role: Whose eyes a query has where it does not say; `query.role`.
        shared: Whether the owner's group may read the lake, what is written from then on; `files.shared`.
        keep_days: How long maintenance keeps a snapshot that is no longer current; `maintain.keep_days`.
        keep_snapshots: How many snapshots of a table it keeps, however old they are; `maintain.keep_snapshots`.
        grace_hours: How long a file that nothing uses stays, so that who reads or writes it may end;
            `maintain.grace_hours`.
        target_size: The size of the files that small ones become; `maintain.target_size`.
        report_min_count: The least count of people that the report shows; `report.min_count`.
        history_days: How long a snapshot that holds people who have withdrawn stays, from the build on that took them
            out; `consent.history_days`.
        access_days: How long the access log keeps a line; `access.keep_days`.
        format: The version of the folder; what brings an older one to this is `stedi migrate`.
    """

    lake_id: str
    key_fingerprint: str
    key_file: str = ""
    key_version: int = 1
    signs_as: str = ""
    readings: Readings = "all"
    journal_path: str = ""
    engine_memory: str = "600MB"
    engine_threads: int = 0
    query_memory: str = "512MB"
    query_seconds: float = 300.0
    query_role: Role = "engineer"
    shared: bool = False
    keep_days: float = 7.0
    keep_snapshots: int = 10
    grace_hours: float = 1.0
    target_size: str = "128MB"
    report_min_count: int = 5
    history_days: float = 7.0
    access_days: float = 365.0
    format: int = FORMAT

    @property
    def threads(self) -> int:
        """Threads to use: the setting, or the cores of this machine."""
        return self.engine_threads or os.cpu_count() or 1

    @property
    def target_bytes(self) -> int:
        """`target_size` in bytes."""
        return size(self.target_size) or 0


_LARGEST = 1 << 16
"""The largest lake.toml, bytes; one with every setting has a thousand."""

_TYPES = {"int": int, "float": float, "bool": bool}
"""Types of settings by their annotations; the others are texts."""
_KEYS = {
    "lake.id": "lake_id",
    "consent.readings": "readings",
    "key.fingerprint": "key_fingerprint",
    "key.file": "key_file",
    "key.version": "key_version",
    "key.signs_as": "signs_as",
    "journal.path": "journal_path",
    "engine.memory": "engine_memory",
    "engine.threads": "engine_threads",
    "query.memory": "query_memory",
    "query.seconds": "query_seconds",
    "query.role": "query_role",
    "files.shared": "shared",
    "maintain.keep_days": "keep_days",
    "maintain.keep_snapshots": "keep_snapshots",
    "maintain.grace_hours": "grace_hours",
    "maintain.target_size": "target_size",
    "report.min_count": "report_min_count",
    "consent.history_days": "history_days",
    "access.keep_days": "access_days",
}
"""Each key of lake.toml and the attribute that it sets."""

_ENVIRONMENT = {
    "STEDI_KEY_FILE": "key.file",
    "STEDI_JOURNAL": "journal.path",
    "STEDI_ENGINE_MEMORY": "engine.memory",
    "STEDI_ENGINE_THREADS": "engine.threads",
    "STEDI_QUERY_MEMORY": "query.memory",
    "STEDI_QUERY_SECONDS": "query.seconds",
    "STEDI_QUERY_ROLE": "query.role",
}
"""Each environment variable that overrides a key; consent and identity come from lake.toml alone."""

# as DuckDB counts: MB in thousands, MiB in 1,024s
_UNITS = {"": 1, "b": 1} | {
    f"{letter}{suffix}": base**power
    for power, letter in enumerate("kmgt", start=1)
    for suffix, base in (("b", 1000), ("ib", 1024))
}


def size(text: str) -> int | None:
    """Returns a size such as `512MB` or `2 GiB` in bytes; None if it is not a number, perhaps with a unit."""
    found = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([a-z]*)", text.strip().lower())
    return int(float(found[1]) * _UNITS[found[2]]) if found and found[2] in _UNITS else None


def read(path: Path, environment: Mapping[str, str] | None = None) -> Config:
    """Returns a lake's settings.

    Args:
        path: The lake's `lake.toml`.
        environment: Overrides, by default the process's environment.

    Raises:
        ConfigError: The file is not TOML, or a key or value in it or in the environment is unknown or invalid.
    """
    try:
        document = tomllib.loads(durable.content(path, _LARGEST).decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected TOML: {error}") from error
    except RecursionError:
        raise ConfigError(f"{path}: expected settings, found TOML that is nested too deeply") from None
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EFBIG):
            raise
        raise ConfigError(f"{path}: {error.strerror}; restore lake.toml from a backup") from error
    # before the keys are looked at: a newer version may have some that are unknown here
    found = document.pop("format", None)
    if type(found) is not int or found < _OLDEST:
        raise ConfigError(f"{path}: format: expected {_OLDEST} to {FORMAT}, found {found!r}; restore it from a backup")
    if found > FORMAT:
        raise ConfigError(
            f"{path}: format: expected {FORMAT} at most, found {found}: a newer stedi made this lake; install that "
            "version; nothing was read or written"
        )
    values: dict[str, object] = {}
    for table, entries in document.items():
        # without keys of its own, a misspelled table would go unnoticed
        if not isinstance(entries, dict) or not (entries or any(key.startswith(f"{table}.") for key in _KEYS)):
            raise ConfigError(f"{path}: unknown key {table!r}: expected one of {', '.join(_KEYS)}")
        for key, value in entries.items():
            values[f"{table}.{key}"] = value
    sources = dict.fromkeys(values, str(path))
    for variable, key in _ENVIRONMENT.items():
        text = (os.environ if environment is None else environment).get(variable)
        if text is not None:
            values[key], sources[key] = _parsed(variable, key, text), variable
    return replace(_config(values, sources, path), format=found)


def role(path: Path, environment: Mapping[str, str] | None = None) -> Role:
    """Returns the default role of a query: from the environment, a lake's settings, or the built-in default.

    Args:
        path: A lake's `lake.toml`, which may be missing: other engines can query without the lake's folder.
        environment: Overrides, by default the process's environment.

    Raises:
        ConfigError: The settings are invalid, or cannot be read.
    """
    said = (os.environ if environment is None else environment).get("STEDI_QUERY_ROLE")
    if said is not None:
        # only to pass the checks: a role depends on neither
        nameless = {"lake.id": "", "key.fingerprint": "", "query.role": said}
        return _config(nameless, {"query.role": "STEDI_QUERY_ROLE"}, path).query_role
    try:
        return read(path, environment).query_role if path.is_file() else Config("", "").query_role
    except OSError as error:
        raise ConfigError(
            f"{path}: expected readable settings with the role of queries, found {error.strerror or 'none'}; set it "
            "with --role or STEDI_QUERY_ROLE"
        ) from None


def write(config: Config, path: Path) -> None:
    """Writes a lake's settings, whole and on disk before they take their name."""
    tables: dict[str, list[str]] = {}
    for key, attribute in _KEYS.items():
        table, _, name = key.partition(".")
        tables.setdefault(table, []).append(f"{name} = {_toml(getattr(config, attribute))}")
    text = f"# A STEDI lake. See docs/operations.md for each setting.\nformat = {config.format}\n"
    text += "".join(f"\n[{table}]\n" + "\n".join(lines) + "\n" for table, lines in tables.items())
    durable.write(path, text.encode(), durable.readable(path.parent))


def changed(config: Config, **values: object) -> Config:
    """Returns the settings with some of them replaced, checked like any others."""
    keys = {attribute: key for key, attribute in _KEYS.items()}
    known = {name: getattr(config, name) for name in keys}
    merged = {keys[name]: value for name, value in {**known, **values}.items()}
    _config(merged, dict.fromkeys(merged, "argument"), Path("lake.toml"))
    return replace(config, **values)  # type: ignore[arg-type] # checked by name in the line above


def _config(values: Mapping[str, object], sources: Mapping[str, str], path: Path) -> Config:
    types = {name: _TYPES.get(kind, str) for name, kind in Config.__annotations__.items()}
    arguments: dict[str, object] = {}
    for key, value in values.items():
        if key not in _KEYS:
            raise ConfigError(f"{sources[key]}: unknown key {key!r}: expected one of {', '.join(_KEYS)}")
        attribute = _KEYS[key]
        # TOML has 7 and 7.0; nothing else is converted, and to Python a boolean is an integer
        if types[attribute] is float and type(value) is int:
            value = float(value)
        if type(value) is not types[attribute]:
            raise ConfigError(
                f"{sources[key]}: {key}: expected {types[attribute].__name__}, found {type(value).__name__}"
            )
        arguments[attribute] = value
    for needed in ("lake.id", "key.fingerprint"):
        if needed not in values:
            raise ConfigError(f"{path}: {needed} is missing; restore lake.toml from a backup")
    config = Config(**arguments)  # type: ignore[arg-type] # types were compared above
    if config.readings not in get_args(Readings):
        expected = " or ".join(get_args(Readings))
        raise ConfigError(
            f"{sources['consent.readings']}: consent.readings: expected {expected}, found {config.readings!r}"
        )
    if config.query_role not in get_args(Role):
        expected = " or ".join(get_args(Role))
        raise ConfigError(f"{sources['query.role']}: query.role: expected {expected}, found {config.query_role!r}")
    if config.key_version not in (1, 2):
        raise ConfigError(f"{sources['key.version']}: key.version: expected 1 or 2, found {config.key_version}")
    if config.engine_threads < 0:
        raise ConfigError(
            f"{sources['engine.threads']}: engine.threads: expected 0 or more, found {config.engine_threads}"
        )
    if not 0 < config.query_seconds < float("inf"):
        raise ConfigError(
            f"{sources['query.seconds']}: query.seconds: expected more than 0, found {config.query_seconds}"
        )
    for key in ("maintain.keep_days", "maintain.grace_hours", "consent.history_days", "access.keep_days"):
        if not 0 <= getattr(config, _KEYS[key]) < float("inf"):
            raise ConfigError(f"{sources[key]}: {key}: expected 0 or more, found {values[key]!r}")
    if config.keep_snapshots < 1:
        raise ConfigError(
            f"{sources['maintain.keep_snapshots']}: maintain.keep_snapshots: expected 1 or more, "
            f"found {config.keep_snapshots}"
        )
    if config.report_min_count < 1 or config.report_min_count == 2:  # fewer than 2, and not 0, is 1
        raise ConfigError(
            f"{sources['report.min_count']}: report.min_count: expected 1, or 3 or more, found "
            f"{config.report_min_count}"
        )
    for key in ("engine.memory", "query.memory", "maintain.target_size"):
        if key in values and not _is_size(getattr(config, _KEYS[key])):
            raise ConfigError(f"{sources[key]}: {key}: expected a size such as 600MB or 2GB, found {values[key]!r}")
    return config


def _is_size(text: str) -> bool:
    return re.fullmatch("[0-9]+[KMGT]i?B", text) is not None and bool(size(text))


def _parsed(variable: str, key: str, text: str) -> object:
    kind = {"engine.threads": int, "query.seconds": float}.get(key, str)
    try:
        return kind(text)
    except ValueError:
        raise ConfigError(f"{variable}: {key}: expected {kind.__name__}, found {text!r}") from None


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # TOML takes JSON's escapes
    return str(value)
