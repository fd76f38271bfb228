"""A command does not pay for what else is installed."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stedi.engines import isolation

_LOADED = """
import json, sys
from stedi import cli
sys.argv = ["stedi", *sys.argv[1:]]
code = cli.script()
print(sorted(name for name in ("numpy", "pandas") if sys.modules.get(name)), file=sys.stderr)
sys.exit(code)
"""


def test_no_command_imports_pandas_which_duckdb_looks_for_at_every_bound_value(
    tmp_path: Path, sample_inbox: Path
) -> None:
    pytest.importorskip("pandas", reason="pandas is not installed: nothing could import it")
    for words in (["land", str(sample_inbox)], ["build"], ["audit"], ["query", "select 1"]):
        done = subprocess.run(
            [sys.executable, "-c", _LOADED, "--lake", str(tmp_path / "lake"), *words],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.stderr.splitlines()[-1] == "[]", done.stderr


_NO_READER = """
import sys
from stedi import cli
sys.argv = ["stedi", *sys.argv[1:]]
code = cli.script()
print(sorted(name for name in sys.modules if name.startswith("stedi.landing.reader")), file=sys.stderr)
sys.exit(code)
"""


def test_only_commands_that_read_deliveries_import_their_reader(tmp_path: Path, sample_inbox: Path) -> None:
    def loaded(*words: str) -> str:
        run = [sys.executable, "-c", _NO_READER, "--lake", str(tmp_path / "lake"), *words]
        return subprocess.run(run, capture_output=True, text=True, check=True).stderr.splitlines()[-1]

    inbox = tmp_path / "inbox"
    shutil.copytree(sample_inbox, inbox)
    assert "stedi.landing.reader.parsing" in loaded("land", str(inbox))
    text = "".join(path.read_text(errors="ignore") for path in inbox.glob("customer/*.json"))
    ana, bo, *_ = dict.fromkeys(re.findall(r'"email": ?"([A-Za-z.]+@[a-z.]+)"', text))
    for words in (["build"], ["withdraw", "--yes", ana], ["build"], ["erase", "--yes", ana]):
        assert loaded(*words) == "[]", words
    assert "stedi.landing.reader" in loaded("erase", "--yes", bo, "--inbox", str(inbox))


_COMMANDS = """
import re, sys
from pathlib import Path
from stedi.cli import main
folder, inbox = map(Path, sys.argv[1:])
text = "".join(path.read_text(errors="ignore") for path in inbox.glob("customer/*.json"))
ana, bo, *_ = dict.fromkeys(re.findall(r'"email": ?"([A-Za-z.]+@[a-z.]+)"', text))
for words in (
    ["land", str(inbox)],
    ["build"],
    ["withdraw", "--yes", ana],
    ["build"],
    ["tag", "seen"],
    ["dataset", "create", "gait", "--match", "nearest"],
    ["erase", "--yes", bo],
    ["maintain"],
    ["audit", "--files"],
):
    assert main(["--lake", str(folder / "lake"), *words]) == 0, words
print(*(name for name in sys.modules if name.partition(".")[0] in ("pyiceberg", "pydantic", "sqlalchemy")))
"""


def test_no_command_on_a_lake_in_a_folder_imports_pyiceberg(tmp_path: Path, sample_inbox: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _COMMANDS, str(tmp_path), str(sample_inbox)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == ""


def test_times_leave_arrow_as_they_are_where_pandas_counts_as_absent() -> None:
    script = (
        "from stedi import _startup; _startup.without_dataframes()\n"
        "from datetime import UTC, datetime\nimport pyarrow as pa\n"
        "at = datetime(2022, 6, 18, tzinfo=UTC)\n"
        "assert pa.array([at, None]).to_pylist() == [at, None]"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("words", [["--version"], ["--help"]])
def test_what_needs_no_lake_imports_none(words: list[str]) -> None:
    script = (
        "import atexit, sys\nfrom stedi import cli\n"
        "atexit.register(lambda: print(*(n for n in sys.modules if n.startswith('stedi.c')), file=sys.stderr))\n"
        f"sys.argv = ['stedi', *{words!r}]\nsys.exit(cli.script())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    found = set(done.stderr.split())
    assert "stedi.cli" in found
    assert not {"stedi.catalog", "stedi.context"} & found, "imported by the command line itself"


def test_a_command_ends_its_process_at_once_but_not_before_threads_and_exit_functions() -> None:
    script = (
        "import atexit, sys, threading, time\nfrom stedi import cli\n"
        "class Late:\n    def __del__(self):\n        print('taken apart', file=sys.stderr)\n"
        "late = Late()\n"
        "atexit.register(lambda: print('exit function', file=sys.stderr))\n"
        "threading.Thread(target=lambda: (time.sleep(0.1), print('thread', file=sys.stderr))).start()\n"
        "sys.argv = ['stedi', 'nonsense']\ncli.run()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-2:] == ["thread", "exit function"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGALRM])
def test_a_signal_after_the_work_does_not_change_the_exit_code(number: signal.Signals, tmp_path: Path) -> None:
    script = (
        "import os, sys, threading, time\nfrom stedi import cli\n"
        "started, script = threading.Event(), cli.script\n"
        f"threading.Thread(target=lambda: (started.wait(), time.sleep(0.2), os.kill(os.getpid(), {number}))).start()\n"
        "cli.script = lambda: (script(), started.set())[0]\n"
        f"sys.argv = ['stedi', '--lake', {str(tmp_path / 'none')!r}, 'tables']\ncli.run()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr


def test_duckdb_tells_its_version_without_reading_what_is_installed() -> None:
    script = (
        "from stedi import _startup; _startup.without_dataframes()\n"
        "import duckdb, sys\n"
        "assert 'importlib.metadata' not in sys.modules, 'it takes as long to import as the engine'\n"
        "assert duckdb.version() == duckdb.__version__ == duckdb.sql('select version()').fetchone()[0].lstrip('v')\n"
        "assert duckdb._version._dist_version('duckdb').startswith(duckdb.__version__), 'the module itself is there'\n"
        "assert duckdb._dbapi_type_object.sqltypes.VARCHAR == duckdb.sqltypes.VARCHAR"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_process_of_a_query_does_not_import_what_starts_it() -> None:
    script = "import sys\nfrom stedi.query import sandbox\nprint(*(n for n in sys.modules if n.startswith('stedi.')))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    found = set(done.stdout.split())
    assert "stedi.query.statement" in found
    assert not {"stedi.query.execution", "stedi.engines", "stedi.storage", "stedi.schema.tables"} & found


_ASKED = """
import io, json, sys
from pathlib import Path
import stedi._startup
stedi._startup.without_dataframes()
from stedi.query import sandbox
folder, file = sys.argv[1:]
job = {"sql": "select count(*) from t", "memory": 1 << 29, "spill": 1 << 30, "seconds": 60, "threads": 1}
table = {"name": "t", "files": [file], "columns": [["n", "BIGINT"]], "masked": [], "wanted": None}
lines = job | {"temporary": folder, "path": sys.path}, {"relations": [table], "reach": []}
out = io.BytesIO()
assert sandbox.main(io.BytesIO(b"".join(json.dumps(line).encode() + b"\\n" for line in lines)), out) == 0
assert json.loads(out.getvalue().splitlines()[-1])["rows"] == [[3]]
print(*sys.modules)
"""
_COSTLY = {"ast", "dataclasses", "email", "importlib.metadata", "inspect", "numpy", "pyarrow", "site"}
"""Modules that take longer to import than a count takes."""
_ARGPARSE = {"ast", "dataclasses", "inspect"} if sys.version_info >= (3, 14) else set()
"""Those that parsing a command line imports by itself, for its colours."""


def test_the_process_of_a_count_imports_the_engine_and_little_else(tmp_path: Path) -> None:
    file = tmp_path / "t.parquet"
    pq.write_table(pa.table({"n": [1, 2, 3]}), file)
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys\nsys.path[:] = {sys.path!r}\n{_ASKED}", str(tmp_path), str(file)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = set(done.stdout.split())
    assert "_duckdb" in found
    assert _COSTLY & found == set()


_COUNTED = """
import sys
from stedi import cli
sys.argv = ["stedi", *sys.argv[1:]]
code = cli.script()
print(*sys.modules, file=sys.stderr)
sys.exit(code)
"""


def test_a_command_that_counts_or_has_nothing_to_do_imports_neither_engine_nor_arrow(
    tmp_path: Path, sample_inbox: Path
) -> None:
    def modules(*words: str) -> set[str]:
        done = subprocess.run(
            [sys.executable, "-c", _COUNTED, "--lake", str(tmp_path / "lake"), *words],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return set(done.stderr.splitlines()[-1].split())

    modules("land", str(sample_inbox))
    modules("build")
    for words in (["build"], ["status"], ["tables"], ["query", "select count(*) from customers_trusted"]):
        found = modules(*words)
        assert "stedi.lake" in found
        assert (_COSTLY | {"duckdb", "textwrap", "stedi.audit.proof"}) & found - _ARGPARSE == {"site"}, words


@pytest.mark.own_processes
@pytest.mark.parametrize("covered", [False, True])
def test_a_child_process_reads_no_pth_files_unless_its_lines_are_counted(
    tmp_path: Path, covered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    if covered:
        monkeypatch.setenv("COVERAGE_PROCESS_START", str(tmp_path / "none"))
    with isolation.start(["-c", "import sys; print('site' in sys.modules)"], tmp_path) as child:
        assert child.communicate()[0].decode().strip() == str(covered)
