"""The commands `describe` and `contract`: the meaning of tables and columns, for people and for other tools."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from stedi.cli import render, terminal
from stedi.cli.pipeline import open_lake, wants_json

if TYPE_CHECKING:
    from stedi.schema.descriptions import DescribedTable

_WIDTH = 80
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
"""What YAML takes for something else than a text."""


def describe(options: argparse.Namespace) -> int:
    """Explains a table's rows and columns."""
    from stedi.schema import descriptions

    found = descriptions.describe_table(descriptions.named(options.table))
    if wants_json(options):
        terminal.document(render.plain(found))
    else:
        terminal.line("\n".join(_described(found)))
    return 0


def contract(options: argparse.Namespace) -> int:
    """Prints the data contract of a table, or of all."""
    document = open_lake(options).contract(options.table)
    if wants_json(options):
        terminal.document(document)
    else:
        terminal.line("\n".join(_yaml(document)))
    return 0


def _described(table: DescribedTable) -> Iterator[str]:
    """Yields a table in lines of at most 80 columns."""
    import textwrap  # takes longer than the parser of a command

    lead = f"{table.name} ({table.zone}): "
    yield from textwrap.wrap(f"{lead}{table.text}", _WIDTH, subsequent_indent="  ", break_long_words=False)
    every = len(table.key) == len(table.columns)
    for what, names in (("key", ("all columns",) if every else table.key), ("built from", table.inputs)):
        if names:
            yield from textwrap.wrap(f"{what}: {', '.join(names)}", _WIDTH, subsequent_indent="  ")
    name, kind = max(len(c.name) for c in table.columns), max(len(c.type) for c in table.columns)
    indent = " " * (name + kind + 4)
    yield ""
    known = any(column.required for column in table.columns)
    for column in table.columns:
        meaning = f"{column.text} ({column.unit})" if column.unit else column.text
        meaning += f"; {column.privacy}" + ("; may be null" if known and not column.required else "")
        head = f"{column.name:{name}}  {column.type:{kind}}  "
        yield from textwrap.wrap(head + meaning, _WIDTH, subsequent_indent=indent, drop_whitespace=True)


def _yaml(value: Any, indent: str = "") -> Iterator[str]:
    """Yields a document of mappings, lists, texts, numbers and booleans as lines of YAML 1.2."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _entry(f"{indent}{name}:", item, indent + "  ")
    else:
        for item in value:
            if isinstance(item, dict):
                first, *rest = _yaml(item, indent + "  ")
                yield f"{indent}- {first.lstrip()}"
                yield from rest
            else:
                yield f"{indent}- {_scalar(item)}"


def _entry(head: str, item: Any, indent: str) -> Iterator[str]:
    if isinstance(item, dict | list):
        # an empty list or mapping has no lines of its own: it is written in JSON's form, which is YAML's
        yield head if item else f"{head} {json.dumps(item)}"
        yield from _yaml(item, indent) if item else ()
    else:
        yield f"{head} {_scalar(item)}"


def _scalar(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return json.dumps(value, ensure_ascii=False)
