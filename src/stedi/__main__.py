"""`python -m stedi` is the same as `stedi`, without the current folder on the path."""

import sys

if not sys.flags.safe_path:
    del sys.path[0]  # a delivered `json.py` must not be run

from stedi.cli import run

if __name__ == "__main__":
    run()
