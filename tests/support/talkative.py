"""Runs the command line in a process that also reports every step through a pipe, for tests that interrupt one."""

import sys

STEDI = (
    *(sys.executable, "-c"),
    "import sys; from stedi import cli; from stedi.cli import terminal\n"
    "terminal._A_MINUTE, sys.argv[0] = 0.0, 'stedi'; sys.exit(cli.script())",
)
