"""`python -m stedi` is `stedi`."""

import sys

from stedi.cli import script

sys.exit(script())
