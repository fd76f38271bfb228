"""`python -m stedi.cli` is `stedi`."""

import sys

from stedi.cli import script

if __name__ == "__main__":
    sys.exit(script())
