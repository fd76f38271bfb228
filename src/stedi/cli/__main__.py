"""`python -m stedi.cli` is `stedi`."""

from stedi.cli import run

if __name__ == "__main__":
    run()
