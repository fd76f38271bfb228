"""A page of Markdown as a notebook: only its text and its code become cells, in order."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

_BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```\n", re.DOTALL | re.MULTILINE)


def notebook(page: str) -> dict[str, Any]:
    """Returns the notebook of a page; a shell runs `sh` blocks."""
    cells, place = [], 0
    for block in _BLOCK.finditer(page):
        cells.append(("markdown", page[place : block.start()].strip()))
        cells.append(("code", ("%%sh\n" if block[1] == "sh" else "") + block[2].strip()))
        place = block.end()
    cells.append(("markdown", page[place:].strip()))
    return {
        "cells": [_cell(kind, text, number) for number, (kind, text) in enumerate(c for c in cells if c[1])],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def text(page: Path) -> str:
    """Returns the content of a page's notebook file."""
    return json.dumps(notebook(page.read_text("utf-8")), indent=1, ensure_ascii=False) + "\n"


def _cell(kind: str, source: str, number: int) -> dict[str, Any]:
    cell = {"cell_type": kind, "id": f"cell-{number:02d}", "metadata": {}, "source": source.splitlines(keepends=True)}
    return cell | ({"execution_count": None, "outputs": []} if kind == "code" else {})
