"""Local servers that replace AWS and other catalogs: each on loopback, on a free port.

A server ends with the test process, however that ends: a small helper process ends it when the pipe from the test
process breaks.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ACCESS, SECRET, REGION = "AKIAEXAMPLE", "an-example-not-a-secret", "eu-central-1"
VERSITYGW = os.environ.get("STEDI_VERSITYGW") or shutil.which(
    "versitygw", path=os.pathsep.join([os.environ.get("PATH", ""), str(Path(__file__).parents[2] / "build" / "tools")])
)
"""A real S3 server, of the version that `.ci/run` installs."""
POSTGRES = next(
    (Path(found).resolve().parent for found in [shutil.which("initdb")] if found),
    next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None),
)
"""The folder of PostgreSQL's programs."""

NO_VERSITYGW = "no S3 server: put versitygw into PATH or build/tools, as .ci/run does, or name it in STEDI_VERSITYGW"
NO_POSTGRES = "no PostgreSQL server: install it (Debian, Ubuntu: apt install postgresql)"

_GUARD = """
import signal, subprocess, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
number, user, command = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
options = {"user": user, "group": int(sys.argv[3]), "extra_groups": []} if user else {}
served = subprocess.Popen(sys.argv[4:], stdin=subprocess.DEVNULL, **options)
sys.stdin.buffer.read()
served.send_signal(number)
try:
    served.wait(5)
except subprocess.TimeoutExpired:
    served.kill()
"""


@dataclass(frozen=True)
class Server:
    """A server that answers.

    Attributes:
        url: Its address, `http://127.0.0.1:PORT`.
        folder: The folder of its data; empty if they are in memory.
    """

    url: str
    folder: Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _environment() -> dict[str, str]:
    """Returns this process's environment without the variables that make Python processes measure coverage."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COV")}


@contextmanager
def running(
    command: Sequence[str | Path], port: int, log: Path, *, user: str = "", stop: signal.Signals = signal.SIGTERM
) -> Iterator[None]:
    """Runs a server within a block.

    Args:
        command: The program and its arguments.
        port: The port where it will listen, on 127.0.0.1.
        log: A file for its output.
        user: The user that runs it, by default the current one.
        stop: The signal that ends it cleanly.

    Raises:
        RuntimeError: It does not listen within a minute.
    """
    group = str(pwd.getpwnam(user).pw_gid) if user else ""
    with log.open("ab") as out:
        guard = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _GUARD, str(int(stop)), user, group, *map(str, command)],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=out,
            cwd=log.parent,
            env=_environment(),
        )
    assert guard.stdin is not None
    try:
        end = time.monotonic() + 60
        while not _listens(port):
            if time.monotonic() > end:
                raise RuntimeError(f"{command[0]}: expected it to listen, found:\n{log.read_text('utf-8', 'replace')}")
            time.sleep(0.02)
        yield
    finally:
        guard.stdin.close()
        guard.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def versitygw(folder: Path) -> Iterator[Server]:
    """Runs an S3 server whose buckets are folders."""
    assert VERSITYGW is not None, NO_VERSITYGW
    buckets, versions, port = folder / "buckets", folder / "versions", free_port()
    buckets.mkdir()
    versions.mkdir()
    told = ["--access", ACCESS, "--secret", SECRET, "--region", REGION, "--port", f"127.0.0.1:{port}"]
    # like S3 itself, it keeps connections open for many requests
    command: list[str | Path] = [VERSITYGW, "--quiet", "--keep-alive", *told]
    with running([*command, "posix", "--versioning-dir", versions, buckets], port, folder / "log"):
        yield Server(f"http://127.0.0.1:{port}", buckets)


@contextmanager
def moto(folder: Path) -> Iterator[Server]:
    """Runs moto: S3, Glue, Athena, IAM, CloudFormation, Secrets Manager and the rest, in memory."""
    port = free_port()
    program = str(Path(__file__).with_name("moto_glue.py"))
    command = [sys.executable, program, "-H", "127.0.0.1", "-p", str(port)]
    with running(command, port, folder / "log"):
        yield Server(f"http://127.0.0.1:{port}", Path())


def reset(server: Server) -> None:
    """Resets all of moto's state."""
    with urllib.request.urlopen(urllib.request.Request(f"{server.url}/moto-api/reset", method="POST")) as answer:
        answer.read()


@contextmanager
def postgres() -> Iterator[str]:
    """Runs PostgreSQL, and yields the URL of an empty database, in SQLAlchemy's form."""
    assert POSTGRES is not None, NO_POSTGRES
    user = "nobody" if os.geteuid() == 0 else ""  # PostgreSQL refuses to run as root
    with ExitStack() as stack:
        # other users cannot read pytest's folders
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stedi-postgres-")))
        if user:
            shutil.chown(folder, user)
        options: dict[str, Any] = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []} if user else {}
        data = str(folder / "data")
        told = ["-D", data, "-U", "stedi", "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C"]
        subprocess.run([str(POSTGRES / "initdb"), *told], check=True, stdout=subprocess.DEVNULL, cwd="/", **options)
        port = free_port()
        settings = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "max_connections=100"]
        command = [str(POSTGRES / "postgres"), "-D", data, "-p", str(port), *(f"-c{text}" for text in settings)]
        stack.enter_context(running(command, port, folder / "log", user=user, stop=signal.SIGINT))
        yield f"postgresql+psycopg2://stedi@127.0.0.1:{port}/postgres"


def environment(*, s3: Server, aws: Server | None = None) -> Mapping[str, str]:
    """Returns environment variables that point every AWS tool to these servers and away from AWS."""
    return {
        "AWS_ACCESS_KEY_ID": ACCESS,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        "AWS_ENDPOINT_URL_S3": s3.url,
        # for a service without a server, nothing listens
        "AWS_ENDPOINT_URL": aws.url if aws else "http://127.0.0.1:1",
        **({"AWS_ENDPOINT_URL_GLUE": aws.url} if aws else {}),
    }


def new_bucket() -> str:
    """Makes a bucket on the S3 server that the environment names, and returns its name."""
    from stedi.storage import s3

    name = f"stedi-{secrets.token_hex(6)}"
    s3.client().create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    return name
