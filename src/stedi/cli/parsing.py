"""The parser beyond argparse's: it describes the called command alone, groups its help, and suggests corrections.

`commands` knows every command and its options; the types of their values are here.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn, cast

from stedi.cli import hooks, terminal
from stedi.errors import unnamed

AddCommand = Callable[[str, Callable[[argparse.Namespace], int], str], argparse.ArgumentParser]
"""Adds a command with its name, function and short description; returns its parser."""


_URI = re.compile(r"(?!s3:)[A-Za-z][A-Za-z0-9+.-]+://")
"""A URI that no option for paths on this machine takes."""
_UNITS = {"s": "seconds", "m": "minutes", "min": "minutes", "h": "hours", "d": "days"}
"""Units of a length of time, by the names of `timedelta`'s arguments."""
_LONGEST = timedelta(days=36_500)
"""The longest length of time that an option takes."""


def commands(
    parser: argparse.ArgumentParser, common: argparse.ArgumentParser, dest: str, only: str | None = None
) -> AddCommand:
    """Returns a function that adds a command, or an action, to a parser.

    Args:
        parser: The parser that gets them.
        common: The options that all of them have.
        dest: What the parser calls them: `command` or `action`.
        only: The one that a call names: the others are listed, and their options left out, since describing those takes
            longer than some commands run. By default all are described.
    """

    def made(**about: Any) -> argparse.ArgumentParser:
        name = about["prog"].rpartition(" ")[2]
        return Parser(**about) if only in (None, name) else cast(argparse.ArgumentParser, _Listed())

    subparsers = parser.add_subparsers(
        dest=dest,
        metavar=dest.upper(),
        required=True,
        parser_class=cast(type[argparse.ArgumentParser], made),
    )

    def add(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = subparsers.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}.", parents=[common], allow_abbrev=False
        )
        if name in hooks.COMMANDS:
            hooks.add(sub)
        sub.set_defaults(run=run, parser=sub)
        return sub

    return add


class _Listed:
    """Stands for a command that the call does not name: takes the description of its options and keeps nothing."""

    def __getattr__(self, name: str) -> Callable[..., _Listed]:
        return lambda *_, **__: self


class Parser(argparse.ArgumentParser):
    """A parser whose help explains commands, and whose messages suggest corrections."""

    _words: Sequence[str] = ()
    """The words that it was given to parse."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"formatter_class": _formatter, **options})
        # every option of the type `Path` is refused a URI, without a word at the option
        self.register("type", Path, _path)

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override] # typeshed's overloads
        """Returns the options that the words set, and the words that it does not know."""
        self._words = sys.argv[1:] if args is None else args
        return super().parse_known_args(args, namespace)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override] # typeshed's overloads
        """Returns the options that the words set; an unknown word ends the process with a message and the usage."""
        found, rest = self.parse_known_args(args, namespace)
        if rest:
            # the command's own parser, whose usage and options the message is about
            at_hand: Parser = getattr(found, "parser", self)
            if not rest[0].startswith("-"):
                at_hand.error(f"expected no further argument, found {rest[0]!r}")
            option = rest[0].partition("=")[0]
            if option in at_hand._option_string_actions:
                at_hand.error(f"expected {option} after the command, found it before: `{at_hand.prog} {option} ...`")
            known = [*at_hand._option_string_actions, *self._option_string_actions]
            at_hand.error(f"no option {rest[0]}{_meant(option, known)}")
        return found

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        known = [str(choice) for choice in action.choices]
        if isinstance(action, argparse._SubParsersAction):
            known += ["help"] if self.prog == "stedi" else []
            # an option of a command stands before it, and its value was taken for the command
            early = [word.partition("=")[0] for word in self._words[: self._words.index(value)]]
            early = [option for option in early if option[:2] == "--" and option not in self._option_string_actions]
            if early:
                found = f"found {early[0]} before it: `{self.prog} {action.metavar} {early[0]} ...`"
                raise argparse.ArgumentError(None, f"expected options of a command after it, {found}")
            meant = _meant(str(value), known) or f"; `{self.prog} --help` lists them"
            raise argparse.ArgumentError(None, f"no {str(action.metavar).lower()} {value!r}{meant}")
        listed = ", ".join(known)
        raise argparse.ArgumentError(action, f"expected one of {listed}, found {value!r}{_meant(str(value), known)}")

    def error(self, message: str) -> NoReturn:
        """Ends the command with a message without addresses, whatever the words of the call."""
        if message.endswith(": expected one argument"):
            message += ", found none; write one that begins with a hyphen as --OPTION=VALUE"
        show = self.print_usage
        if message.endswith((": COMMAND", ": ACTION")):
            unknown = [word for word in self._words if word[:1] == "-" and word not in self._option_string_actions]
            if unknown:
                message = f"no option {unknown[0]}{_meant(unknown[0], self._option_string_actions)}"
            else:
                show, message = self.print_help, f"expected {'a command' if self.prog == 'stedi' else 'an action'}"
        message = message.replace("the following arguments are required: ", "expected ")
        show(sys.stderr)
        terminal.say(f"{self.prog}: {unnamed(message)}")
        sys.exit(2)

    def format_usage(self) -> str:
        """Returns the form of a call in one line; the help lists the options."""
        self.usage = " ".join(["%(prog)s [OPTION ...]", *(_place(action) for action in self._get_positional_actions())])
        return super().format_usage()

    def format_help(self) -> str:
        """Returns the help: of everything in groups, or of one command with why and examples."""
        from stedi.cli import guide

        self.format_usage()
        listed = [action for action in self._actions if isinstance(action, argparse._SubParsersAction)]
        if not listed or self.prog != "stedi":
            return super().format_help() + guide.ending(self.prog.partition(" ")[2])
        helps = {choice.dest: choice.help or "" for choice in listed[0]._choices_actions}
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, self._actions, self._mutually_exclusive_groups)
        formatter.add_text(self.description)
        options = self._get_formatter()
        options.start_section("options")
        options.add_arguments([action for action in self._actions if action not in listed])
        options.end_section()
        ending = "`stedi help COMMAND` shows a command's options and examples.\n"
        return f"{formatter.format_help()}\n{guide.overview(helps)}\n{options.format_help()}\n{ending}"


def _formatter(prog: str) -> argparse.HelpFormatter:
    """Returns a formatter as wide as the terminal: to find the width, argparse would import `shutil` at every call."""
    columns = os.environ.get("COLUMNS", "")
    wide = int(columns) if columns.isdecimal() else 0
    return argparse.HelpFormatter(prog, width=(wide or terminal.width() or 80) - 2)


def _place(action: argparse.Action) -> str:
    name = str(action.metavar)
    if isinstance(action, argparse._SubParsersAction):
        return f"{name} ..."
    return {"?": f"[{name}]", "*": f"[{name} ...]", "+": f"{name} [{name} ...]"}.get(str(action.nargs), name)


def _meant(word: str, known: Iterable[str]) -> str:
    """Returns the question whether a word that is like one of the known ones was meant; nothing if none is."""
    import difflib

    names = {name.lstrip("-"): name for name in known}  # two dashes make no two words alike
    near = difflib.get_close_matches(word.lstrip("-"), names, n=1, cutoff=0.6)
    return f"; did you mean `{names[near[0]]}`?" if near else ""


def _path(text: str) -> Path:
    """Returns a path; of a URI `Path` would make a folder named `gs:`. Who takes none in S3 says so."""
    if _URI.match(text):
        raise argparse.ArgumentTypeError(f"expected a path on this machine, found the URI {text!r}")
    return Path(text)


def lake(text: str) -> str:
    """Returns a lake's place; an empty text would be the default lake, and is a variable that is not set."""
    if not text:
        raise argparse.ArgumentTypeError("expected a folder or s3://BUCKET/PREFIX, found nothing: is a variable unset?")
    return text


def time(text: str) -> datetime:
    """Returns a moment in ISO 8601."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected an ISO 8601 time such as 2026-11-30T12:00Z, found {text!r}"
        ) from None


def positive(text: str) -> int:
    """Returns a whole number above 0."""
    value = int(text) if text.isdecimal() and len(text) < 16 else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, of 15 digits at most, found {text!r}")
    return value


def duration(text: str) -> timedelta:
    """Returns a length of time such as `2s`, `90m`, `26h` or `8d`."""
    found = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)(s|min|m|h|d)", text)
    span = timedelta(**{_UNITS[found[2]]: float(found[1])}) if found else None
    # neither a date before year 1 nor a wait beyond the system's longest
    if span is None or span > _LONGEST:
        raise argparse.ArgumentTypeError(
            f"expected a length of time such as 2s, 90m, 26h or 8d, of {_LONGEST.days:,} days at most, found {text!r}"
        )
    return span


def interval(text: str) -> timedelta:
    """Returns a length of time above 0, at which something is repeated."""
    span = duration(text)
    if not span:
        raise argparse.ArgumentTypeError(f"expected more than 0s, such as 2s, found {text!r}")
    return span


def delivered(text: str) -> str:
    """Returns the place of deliveries; an empty text would be the folder at hand, and is a variable that is not set."""
    if not text:
        raise argparse.ArgumentTypeError("expected a file, a folder or a glob, found nothing: is a variable unset?")
    return text
