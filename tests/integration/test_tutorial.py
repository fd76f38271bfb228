"""The tutorial and its notebook are one text, and what they say can be done can be."""

from __future__ import annotations

import os
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import notebooks
from lakes import REPOSITORY

PAGE, NOTEBOOK = REPOSITORY / "docs" / "tutorial.md", REPOSITORY / "docs" / "tutorial.ipynb"


def test_the_notebook_is_made_of_the_page() -> None:
    """`UPDATE_DOCS=1 make test ARGS=tests/integration/test_tutorial.py` makes it anew."""
    if os.environ.get("UPDATE_DOCS"):
        NOTEBOOK.write_text(notebooks.text(PAGE), "utf-8")
    assert NOTEBOOK.read_text("utf-8") == notebooks.text(PAGE)


@pytest.mark.thorough
def test_the_notebook_runs_to_its_end_and_the_model_beats_the_guess(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Jupyter's own
        nbformat: Any = import_module("nbformat")
        from nbclient import NotebookClient

        monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
        monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
        (tmp_path / "work").mkdir()
        book: Any = nbformat.reads(NOTEBOOK.read_text("utf-8"), 4)
        checks = (
            "assert first[0] < first[1] / 2 and second[0] < second[1] / 2\nassert (diff.moved, diff.only_one) == (0, 1)"
        )
        book.cells.append(nbformat.v4.new_code_cell(checks, id="checks"))
        NotebookClient(book, timeout=120, resources={"metadata": {"path": str(tmp_path / "work")}}).execute()
    said = "".join(output.get("text", "") for cell in book.cells if cell.cell_type == "code" for output in cell.outputs)
    assert "gait@1 has 1 who left; models: step-counter-1" in said
