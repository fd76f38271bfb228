"""Completion of commands and options by the Tab key: prints a static script for a shell."""

from __future__ import annotations

import argparse

from stedi.cli import terminal
from stedi.cli.pipeline import wants_json
from stedi.errors import MissingExtra

SHELLS = ("bash", "zsh", "fish")
_FILES = ("FILE", "PATH", "SRC", "DST", "URI")
"""Metavars of options that name a file."""
_FOLDERS = ("DIR", "INBOX")
"""Metavars of those that name a folder."""


def completion(options: argparse.Namespace) -> int:
    """Prints the script of a shell."""
    try:
        import shtab
    except ModuleNotFoundError:
        raise MissingExtra("completion needs shtab, which is not installed: pip install shtab") from None
    from stedi.cli.commands import parser

    top = parser()
    _mark_paths(top, shtab.FILE, shtab.DIRECTORY)
    script = shtab.complete(top, options.shell)
    if wants_json(options):
        terminal.document({"shell": options.shell, "script": script})
    else:
        terminal.raw(script.rstrip("\n"))
    return 0


def _mark_paths(parser: argparse.ArgumentParser, files: object, folders: object) -> None:
    """Marks every path argument for completion as a path."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                _mark_paths(sub, files, folders)
        elif action.metavar in _FILES + _FOLDERS:
            action.complete = folders if action.metavar in _FOLDERS else files  # type: ignore[attr-defined] # shtab's
