"""The job: lands new files and builds every zone on Spark in one run, on AWS Glue or under plain `spark-submit`.

Start-up takes minutes on Glue, so landing and all tables are one job. Glue adds arguments of its own, which the job
skips. Its log names steps and counts, never people; the last line on stdout is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stedi.context.progress import Progress
from stedi.errors import StediError, UsageError, many

if TYPE_CHECKING:
    from stedi.engines import Name
    from stedi.lake import Lake

VERBS = ("land", "build", "audit", "maintain")
"""The verbs that a run can execute, in this order."""
_NAMED = re.compile(r"\S+@\S+")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the job and returns its exit code: 0 success, 1 failure, 2 wrong usage, 3 an audit found a violation."""
    began = time.monotonic()
    summary: dict[str, Any] = {}
    # temporary files hold what customers have delivered
    os.umask(0o077)
    try:
        options = _options(sys.argv[1:] if arguments is None else arguments)
        code = _run(options, summary)
    except SystemExit as stop:  # argparse has printed the reason
        code = stop.code if isinstance(stop.code, int) else UsageError.exit_code
        if code == 0:
            return 0
    except StediError as error:
        code = error.exit_code
        summary["error"] = {"type": type(error).__name__, "message": _NAMED.sub("<address>", str(error))}
    except Exception as error:
        # its text and traceback could contain a customer's data
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(frame.filename).name}:{frame.lineno}"
        code = 1
        summary["error"] = {"type": type(error).__name__, "message": f"unforeseen {type(error).__name__} at {place}"}
    if "error" in summary:
        _say(summary["error"]["message"])
    sys.stdout.write(json.dumps({**summary, "seconds": round(time.monotonic() - began, 1), "exit": code}) + "\n")
    sys.stdout.flush()
    return code


def _options(words: Sequence[str]) -> argparse.Namespace:
    """Returns the job's own arguments; Glue's and unknown arguments are named in the log and skipped."""
    parser = argparse.ArgumentParser(prog="stedi.aws.job", allow_abbrev=False, description="Lands and builds on Spark.")
    parser.add_argument("--lake", required=True, metavar="URI", help="the lake: s3://bucket/prefix, or a folder")
    parser.add_argument("--inbox", metavar="URI", action="append", help="what to land; more, divided by commas")
    parser.add_argument("--key-secret", metavar="ARN", help="the secret of Secrets Manager that holds the lake's key")
    parser.add_argument("--journal", metavar="URI", help="where the lake's journal is copied to, outside the lake")
    parser.add_argument("--readings", choices=("all", "since-consent"), default="all", help="of a lake that is new")
    parser.add_argument("--do", default="land,build", metavar="VERBS", help=f"some of {','.join(VERBS)}")
    parser.add_argument("--engine", choices=("spark", "duckdb"), default="spark", help="default: spark")
    options, others = parser.parse_known_args(words)
    # only the names: a value may be secret
    names = sorted({word.partition("=")[0] for word in others if word.startswith("--")})
    if names:
        _say(f"skipped: {' '.join(names)}")
    options.do = [verb for verb in options.do.split(",") if verb]
    unknown = [verb for verb in options.do if verb not in VERBS]
    if unknown or not options.do:
        raise UsageError(f"--do: expected some of {', '.join(VERBS)}, found {', '.join(unknown) or 'none'}")
    # Glue's arguments are a map, so a name has one value: several places are divided by commas
    options.inbox = [place for given in options.inbox or () for place in given.split(",") if place]
    if "land" in options.do and not options.inbox:
        raise UsageError("--inbox: expected what to land, found nothing; name it, or leave land out of --do")
    return options


def _run(options: argparse.Namespace, summary: dict[str, Any]) -> int:
    if options.key_secret:
        os.environ["STEDI_KEY_FILE"] = f"secretsmanager:{options.key_secret}"
    if options.journal:
        os.environ["STEDI_JOURNAL"] = options.journal
    lake = _lake(options)
    failed = False
    work: dict[str, Callable[[Lake, argparse.Namespace, dict[str, Any]], bool]] = {
        "land": _land,
        "build": _build,
        "audit": _audit,
        "maintain": _maintain,
    }
    for verb in VERBS:
        if verb in options.do:
            began = time.monotonic()
            done: dict[str, Any] = {}
            summary[verb] = done
            fine = work[verb](lake, options, done)
            done["seconds"] = round(time.monotonic() - began, 1)
            if not fine and verb == "audit":
                return 3
            failed = failed or not fine
    return int(failed)


def _lake(options: argparse.Namespace) -> Lake:
    """Opens the lake; creates it if there is none yet."""
    from stedi.lake import Lake
    from stedi.storage import s3

    if (s3.at(options.lake) / "lake.toml").is_file():
        return Lake.open(options.lake)
    return Lake.create(options.lake, readings=options.readings)


def _land(lake: Lake, options: argparse.Namespace, done: dict[str, Any]) -> bool:
    landed = lake.land(*options.inbox, engine=_engine(options), progress=_progress())
    failed = sum(skipped.failed for skipped in landed.skipped)
    done["files"] = len(landed.files)
    done["new"] = sum(not file.already_landed for file in landed.files)
    done["failed"] = failed
    for what in ("seen", "accepted", "quarantined", "erased"):
        done[what] = sum(getattr(file, what) for file in landed.files if not file.already_landed)
    if failed:
        _say(f"{many(failed, 'file')} could not be landed; `stedi land` names them")
    return not failed


def _build(lake: Lake, options: argparse.Namespace, done: dict[str, Any]) -> bool:
    built = lake.build(wait=True, engine=_engine(options), progress=_progress())
    done["run"] = built.run
    done["tables"] = {table.name: {"action": table.action, "rows": table.rows} for table in built.tables}
    return True


def _audit(lake: Lake, options: argparse.Namespace, done: dict[str, Any]) -> bool:
    checks = lake.audit(progress=_progress())
    # rows of damaged files would prove nothing
    if not any(check.violations for check in checks):
        checks += lake.prove(engine=_engine(options), progress=_progress()).checks
    done["checks"] = len(checks)
    done["violations"] = sum(check.violations for check in checks)
    return not done["violations"]


def _maintain(lake: Lake, options: argparse.Namespace, done: dict[str, Any]) -> bool:
    kept = lake.maintain(engine=_engine(options), progress=_progress())
    done["rewritten"] = sum(table.files for table in kept.tables)
    done["freed"] = kept.freed
    return True


def _engine(options: argparse.Namespace) -> Name:
    name: Name = options.engine
    return name


def _progress() -> Progress:
    """Returns a function that logs each step once."""
    shown = ""

    def progress(what: str, _: float | None) -> None:
        nonlocal shown
        if what != shown:
            _say(what)
        shown = what

    return progress


def _say(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%SZ', time.gmtime())} {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
