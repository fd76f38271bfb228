"""The walls between modules: data flow down one list, and nothing imports back up it."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import stedi

SOURCE = Path(stedi.__file__).parent

FLOORS = (
    ("_frozen", "errors", "_native", "_regex", "_startup", "_version"),
    ("schema",),
    ("storage",),
    ("privacy",),
    ("catalog",),
    ("engines",),
    ("context",),
    ("query",),
    ("landing", "transform"),
    ("audit",),
    ("datasets",),
    ("report", "erasure"),
    ("operations",),
    ("lake",),
    ("aws",),
    ("cli",),
    ("__init__", "__main__"),
)
"""From the ground up: an entry imports from the floors below its own, and nothing from beside it or above."""

PURE = ("contracts", "feeds", "tables")
IMPURE = {
    *("asyncio", "datetime", "getpass", "http", "io", "multiprocessing", "os", "pathlib", "platform"),
    *("random", "secrets", "shutil", "socket", "sqlite3", "ssl", "subprocess", "sys", "tempfile", "time"),
    *("urllib", "uuid"),
}
"""Clock, disk, network, chance and machine."""

HEAVY = {
    *("duckdb", "fastavro", "numpy", "pandas", "polars", "pyarrow", "pydantic", "pyiceberg", "sqlalchemy"),
    *("sqlglot", "zstandard"),
}
"""What must not be imported before it is needed: a command line answers at once."""

LOADED_BY_OTHERS = {
    *("stedi.__main__", "stedi.aws.glue", "stedi.cli.__main__"),
    "stedi.catalog.fileio",
}
"""Runs when imported; and what is loaded by PyIceberg."""


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def layer(path: Path) -> str:
    return path.relative_to(SOURCE).with_suffix("").parts[0]


def dotted(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yields line and dotted name of everything that a module imports, anywhere in it, types included."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: expected a whole name, not a relative one"
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


ONE_COMMIT = "stedi.catalog.committer"
"""Locks `catalog.lock`, for the moments of one commit: no command's lock."""
LOCKED_ALONE = {
    "stedi.operations.maintenance": "landings and builds wait for one table at a time, and not for all of them",
    "stedi.operations.maintenance.adoption": "its folder is still a copy, which `writing` refuses",
    "stedi.operations.recovery": "runs before the command that it makes room for takes its own locks, or beside it",
}
"""What takes locks of commands besides `Context.writing`, and why."""
MENDING = {
    "stedi.erasure.replay": "the lake may be older than its recorded state, until this has ended",
    "stedi.lake": "`repair`: what is damaged may be needed to finish the rest",
}
"""What writes to a lake that `Context.writing` refuses, and why."""


BY_HAND = {
    "stedi.audit.proof.prove": "the proof shares nothing with what opens and builds a lake",
    "stedi.erasure.pending.read": "a state file of its own, as those of `privacy`",
    "stedi.erasure.pending.unended": "likewise",
    "stedi.erasure.pending.write": "likewise",
    "stedi.landing.journal.apply": "a batch calls it with the catalog that it was planned from",
}
"""What takes two parts of a `Context` instead of it, and why."""


def methods(path: Path) -> set[tuple[str, str]]:
    """Returns what a module calls by a dotted name: the last two parts of each."""
    calls = (node.func for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call))
    return {
        (getattr(f.value, "attr", getattr(f.value, "id", "")), f.attr) for f in calls if isinstance(f, ast.Attribute)
    }


def own_layer(name: str) -> str | None:
    """Returns the layer that an imported name belongs to, or None for what is not ours."""
    first, *rest = name.split(".")
    if first != "stedi":
        return None
    if rest and ((SOURCE / rest[0]).is_dir() or (SOURCE / f"{rest[0]}.py").is_file()):
        return rest[0]
    return "__init__"


def calls(path: Path, function: str) -> list[int]:
    """Returns the lines on which a module calls a built-in function."""
    tree = ast.parse(path.read_text("utf-8"))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [c.lineno for c in found if isinstance(c.func, ast.Name) and c.func.id == function]


def test_imports_run_down_the_floors() -> None:
    floors = {entry: floor for floor, entries in enumerate(FLOORS) for entry in entries}
    wrong = []
    for path in modules():
        assert layer(path) in floors, f"{dotted(path)} stands on no floor: give it its place in FLOORS"
        for line, name in imports(path):
            other = own_layer(name)
            if other is not None and other != layer(path) and floors[other] >= floors[layer(path)]:
                wrong.append(f"{dotted(path)} line {line} imports {name}, which stands no floor below it")
    assert wrong == []


def test_every_entry_of_the_floors_exists() -> None:
    assert {entry for entries in FLOORS for entry in entries} == {layer(path) for path in modules()}


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_touch_no_clock_disk_or_network(name: str) -> None:
    path = SOURCE / "schema" / f"{name}.py"
    assert not {imported.split(".")[0] for _, imported in imports(path)} & IMPURE
    assert not calls(path, "open")


@pytest.mark.parametrize("package", ["reader", "sample"])
def test_records_and_samples_know_no_lake(package: str) -> None:
    """They stand in `landing`, but need nothing that a lake has."""
    below = {entry for entries in FLOORS[:2] for entry in entries}
    found = sorted((SOURCE / "landing" / package).glob("*.py"))
    assert len(found) > 3
    for path in found:
        ours = {name for _, name in imports(path) if own_layer(name)}
        outside = {name for name in ours if not f"{name}.".startswith(f"stedi.landing.{package}.")}
        assert {own_layer(name) for name in outside} <= below, f"{dotted(path)} imports {sorted(outside)}"


def test_only_the_catalog_imports_pyiceberg() -> None:
    outside = [path for path in modules() if layer(path) != "catalog"]
    assert not [dotted(p) for p in outside for _, name in imports(p) if name.split(".")[0] == "pyiceberg"]


def test_the_proof_shares_nothing_with_what_it_proves() -> None:
    """No module, SELECT, view or helper that builds a table; of the graph of tables only names and columns."""
    facts = {f"stedi.schema.tables.{name}" for name in ("COLUMNS", "ZONES", "DataFile")}
    facts.add("stedi.schema.contracts.has_unseen")
    plumbing = {f"stedi.context.progress.{name}" for name in ("Progress", "silent")}
    plumbing |= {"stedi.engines.Columnar", "stedi.engines.Engine", "stedi.engines.literals.quoted"}
    plumbing |= {f"stedi._frozen.{name}" for name in ("dataclass", "field", "replace")}
    summing = {f"stedi.engines.column_sums.{name}" for name in ("ColumnSums", "Joined")}
    users = {dotted(path) for path in modules() for _, name in imports(path) if name in summing}
    judges = {"stedi.audit.proof.agreement", "stedi.transform.checks"}
    engines = {"stedi.engines", "stedi.engines.duckdb", "stedi.engines.spark.engine"}
    assert users <= judges | engines, "what builds a table must not sum with it"
    allowed = facts | plumbing | summing | {"stedi.audit.integrity.Check", "stedi.privacy.pseudonyms.Key"}
    proof = sorted((SOURCE / "audit" / "proof").glob("*.py"))
    assert len(proof) > 3
    for path in proof:
        ours = {name for _, name in imports(path) if name.startswith("stedi.")}
        catalog = {name for name in ours if name.startswith("stedi.catalog.")}
        own = {name for name in ours if name.startswith("stedi.audit.proof")}
        assert ours - catalog - own <= allowed, f"{dotted(path)} imports {sorted(ours - catalog - own - allowed)}"
        assert "importlib.resources" not in path.read_text("utf-8")
        called = {node.attr for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Attribute)}
        assert not called & {"pseudonymise", "prepare", "graph", "assertions"}


def test_only_the_context_locks_a_lake() -> None:
    """So nothing writes without what `Context.writing` refuses and finishes."""
    own = {("durable", "lock"), ("durable", "commands")}
    locking = {path for path in modules() if methods(path) & own} - {SOURCE / "storage" / "durable.py"}
    assert {dotted(path) for path in locking if layer(path) != "context"} == {ONE_COMMIT}
    assert not [dotted(path) for path in modules() for _, name in imports(path) if "durable.lock" in name]
    for method, allowed in (("locked", LOCKED_ALONE), ("mending", MENDING)):
        assert {dotted(path) for path in modules() if ("context", method) in methods(path)} == allowed.keys()


def test_a_verb_takes_the_context_and_not_its_parts() -> None:
    above = {entry for entries in FLOORS[FLOORS.index(("context",)) + 1 :] for entry in entries} - {"aws", "cli"}
    found = set()
    for path in modules():
        for node in ast.parse(path.read_text("utf-8")).body if layer(path) in above else ():
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                names = {argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)}
                if "context" not in names and len(names & {"catalog", "config", "root", "key"}) > 1:
                    found.add(f"{dotted(path)}.{node.name}")
    assert found == BY_HAND.keys()


def test_only_the_command_line_prints() -> None:
    assert {dotted(path) for path in modules() if calls(path, "print")} <= {"stedi.cli"}


def test_importing_any_module_imports_nothing_heavy() -> None:
    names = sorted({dotted(path) for path in modules()} - LOADED_BY_OTHERS)
    script = f"import importlib, sys\nfor n in {names!r}: importlib.import_module(n)\nprint(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not set(run.stdout.split()) & set(HEAVY)


def test_the_public_names_are_listed_exist_and_are_documented() -> None:
    names = stedi.__all__
    assert len(names) == len(set(names))
    assert list(names) == sorted(names)
    for name in names:
        value = getattr(stedi, name)
        if callable(value):
            assert inspect.getdoc(value), f"stedi.{name} has no docstring"


def test_the_public_names_are_all_of_them() -> None:
    tree = ast.parse((SOURCE / "__init__.py").read_text("utf-8"))
    sources = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    imported = {alias.name for node in sources if str(node.module).startswith("stedi") for alias in node.names}
    assert imported - {"__version__"} == set(stedi.__all__)
