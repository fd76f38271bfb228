"""Writes the sources of the documentation's site: `python docs/site.py FOLDER`, then `zensical build`; see `make docs`.

Pages are those of the repository, with links that lead to each other. The reference is made of the parser, the schema
and the docstrings, so that it cannot be behind them.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import stedi
from stedi.cli import commands
from stedi.schema import descriptions
from stedi.schema.tables import ALL_COLUMNS

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "overview.md",
    "CHANGELOG.md": "changes.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "reporting.md",
    "LICENSE": "license.txt",
    "examples/README.md": "examples.md",
    **{f"examples/{path.name}": f"examples/{path.name}" for path in sorted((ROOT / "examples").glob("*.[ps][yh]"))},
    **{f"docs/{path.relative_to(ROOT / 'docs')}": str(path.relative_to(ROOT / "docs"))
       for kind in ("md", "png", "svg", "ipynb") for path in sorted((ROOT / "docs").rglob(f"*.{kind}"))},
}  # fmt: skip
"""Each page of the repository, and its place on the site."""

NAVIGATION = {
    "Learn": ["tutorial.md", "from-glue.md", "examples.md", "glossary.md"],
    "Do": ["operations.md", "datasets.md", "readers.md", "aws.md"],
    "Look up": [
        *("reference/commands.md", "reference/tables.md", "python.md", "reference/python.md"),
        *("benchmarks.md", "limits.md"),
    ],
    "Understand": ["overview.md", "architecture.md", "privacy.md", "security.md", "compare.md"],
    "Decisions": [page for page in PAGES.values() if page.startswith("decisions/")],
    "Take part": ["contributing.md", "reporting.md", "changes.md"],
}  # fmt: skip

_REFERENCE = "- [Every command](reference/commands.md), [column](reference/tables.md) and [class](reference/python.md)"
_LINK = re.compile(r"(!?\[[^\]]*\]\()([^)#\s]*)((?:#[^)\s]*)?\))")
_SECTIONS = ("Args:", "Attributes:", "Returns:", "Yields:", "Raises:", "Example:")


def main(folder: Path) -> None:
    """Writes pages and configuration into a folder, which is made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    pages = folder / "pages"
    for source, place in PAGES.items():
        target = pages / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.endswith(".md"):
            target.write_text(relinked((ROOT / source).read_text("utf-8"), source), "utf-8")
        else:
            shutil.copyfile(ROOT / source, target)
    reference = pages / "reference"
    reference.mkdir()
    (reference / "commands.md").write_text("\n".join(command_pages()), "utf-8")
    (reference / "tables.md").write_text("\n".join(table_pages()), "utf-8")
    (reference / "python.md").write_text("\n".join(python_pages()), "utf-8")
    index = pages / "index.md"
    index.write_text(re.sub(r"; `make docs` adds.*", f"\n{_REFERENCE}", index.read_text("utf-8")), "utf-8")
    (folder / "zensical.toml").write_text(configuration(), "utf-8")


def relinked(text: str, source: str) -> str:
    """Returns a page's text with its links as they are on the site.

    Args:
        text: The text.
        source: The page's path in the repository.

    Raises:
        SystemExit: A link leads to nothing that the site has.
    """

    def link(found: re.Match[str]) -> str:
        before, path, after = found.groups()
        if not path or re.match(r"[a-z]+:", path):
            return found[0]
        target = str((ROOT / source).parent.joinpath(path).resolve().relative_to(ROOT))
        if target not in PAGES:
            sys.exit(f"{source}: the site has no {target}")
        up = "../" * PAGES[source].count("/")
        return f"{before}{up}{PAGES[target]}{after}"

    parts = re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else _LINK.sub(link, part) for part in parts)


def command_pages() -> Iterator[str]:
    """Yields every command with its arguments, as the parser has them."""
    yield "# Commands\n\nMade from the parser; [operations](../operations.md#commands) says what they are for.\n"
    yield from _command(commands.parser(), "stedi")


def _command(parser: argparse.ArgumentParser, name: str) -> Iterator[str]:
    rows: list[str] = []
    below: list[str] = []
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction) or (name != "stedi" and action.dest in ("lake", "json")):
            continue
        if isinstance(action, argparse._SubParsersAction):
            for word, sub in action.choices.items():
                below += [f"## {name} {word}\n\n{sub.description or ''}\n", *_command(sub, f"{name} {word}")]
            continue
        named = ", ".join(action.option_strings) or str(action.metavar or action.dest)
        choices = f"{{{','.join(map(str, action.choices))}}}" if action.choices else ""
        value = "" if not action.option_strings or action.nargs == 0 else f" {action.metavar or choices or 'N'}"
        rows.append(f"| `{named}{value}` | {action.help or ''} |")
    if rows:
        yield f"| {name} | |\n| --- | --- |\n" + "\n".join(rows) + "\n"
    yield from below


def table_pages() -> Iterator[str]:
    """Yields every table with its columns."""
    yield "# Tables and columns\n\n`stedi describe TABLE` says the same.\n"
    for name in ALL_COLUMNS:
        table = descriptions.describe_table(name)
        yield f"## {name}\n\nZone {table.zone}: {table.text}.\n"
        if table.key:
            yield f"Key: {', '.join(f'`{column}`' for column in table.key)}.\n"
        if table.inputs:
            yield f"Built from {', '.join(f'[{read}](#{read})' for read in table.inputs)}.\n"
        yield "| column | type | meaning | unit | class |\n| --- | --- | --- | --- | --- |"
        yield "\n".join(f"| `{c.name}` | {c.type} | {c.text} | {c.unit} | {c.privacy} |" for c in table.columns) + "\n"


def python_pages() -> Iterator[str]:
    """Yields every public name of the package with its docstring."""
    yield "# Python's classes\n\nMade from the docstrings. How they work together: [From Python](../python.md).\n"
    for name in stedi.__all__:
        found = getattr(stedi, name)
        yield f"## stedi.{name}\n"
        yield from _documented(found)
        if inspect.isclass(found) and name == "Lake":
            for verb, method in sorted(vars(found).items()):
                function = getattr(method, "__func__", method)
                if not verb.startswith("_") and inspect.isfunction(function):
                    yield f"### {verb}\n\n```python\n{verb}{_signature(function)}\n```\n"
                    yield from _documented(function)


def _signature(function: object) -> str:
    text = str(inspect.signature(function))  # type: ignore[arg-type]
    text = re.sub(r"<function [^>]*>", "...", text)
    return (
        text
        if len(text) < 90
        else "(\n    " + ",\n    ".join(re.split(r", (?=[\w*]+(?::|$|,))", text[1 : text.rindex(")")])) + ",\n)"
    )


def _documented(found: object) -> Iterator[str]:
    """Yields a docstring of Google's style as Markdown."""
    section = ""
    for line in (inspect.getdoc(found) or "").splitlines():
        if line in _SECTIONS:
            section = line
            yield f"\n**{line.rstrip(':')}**\n"
        elif not section or not line.strip():
            yield line
        elif section == "Example:":
            yield line  # indented by four: a block of code
        else:
            entry = re.match(r"    ([\w*`.]+): (.*)", line)
            yield (
                f"- `{entry[1]}`: {entry[2]}"
                if entry
                else "  " + line.strip()
                if line.startswith("     ")
                else line.strip()
            )
    yield ""


def configuration() -> str:
    """Returns the configuration of the site's builder."""
    navigation: dict[str, str | list[str]] = {"Start": "index.md", **NAVIGATION}
    entries = ",\n  ".join(f"{{ {json.dumps(title)} = {json.dumps(pages)} }}" for title, pages in navigation.items())
    return textwrap.dedent(
        """\
        [project]
        site_name = "STEDI lake"
        site_description = "A consent-aware data lake of step detection data"
        docs_dir = "pages"
        site_dir = "html"
        use_directory_urls = false
        nav = [
          NAVIGATION
        ]

        [project.theme]
        font = false
        features = [
          "content.code.copy", "navigation.sections", "navigation.top", "navigation.footer", "search.highlight",
        ]

        [[project.theme.palette]]
        media = "(prefers-color-scheme: light)"
        scheme = "default"

        [[project.theme.palette]]
        media = "(prefers-color-scheme: dark)"
        scheme = "slate"

        [project.markdown_extensions]
        attr_list = {}
        md_in_html = {}
        tables = {}
        toc.permalink = true
        pymdownx.highlight.pygments_lang_class = true
        pymdownx.inlinehilite = {}
        pymdownx.superfences.custom_fences = [
          { name = "mermaid", class = "mermaid", format = "pymdownx.superfences.fence_code_format" },
        ]
        """
    ).replace("NAVIGATION", entries)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
