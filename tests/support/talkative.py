"""The command line as a process that tells of every step in a pipe, too, for tests that strike at one."""

import sys

STEDI = (
    *(sys.executable, "-c"),
    "import sys; from stedi import cli; from stedi.cli import terminal\n"
    "terminal._A_MINUTE, sys.argv[0] = 0.0, 'stedi'; sys.exit(cli.script())",
)
