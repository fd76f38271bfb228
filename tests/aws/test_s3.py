"""Objects that read like files, over a real S3 server and over moto's: each claim of `stedi.storage.s3`."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, cast

import duckdb
import pytest

import servers
import wire
from s3_faults import KINDS, Call, Fault, Kind, Proxy, proxied
from stedi.errors import LakeBusy, LakeError, MissingExtra
from stedi.storage import durable, s3
from stedi.storage.s3 import connection, objects
from stedi.storage.s3 import leases as s3_leases
from stedi.storage.s3.paths import S3Path

PYENV = {name: os.environ[name] for name in ("HOME", "PYENV_ROOT") if name in os.environ}
if shutil.which("pyenv"):  # its `python3.13` runs where that version is asked for
    listed = subprocess.run(["pyenv", "versions", "--bare"], capture_output=True, text=True).stdout.split()
    PYENV["PYENV_VERSION"] = ":".join(reversed(listed))

HOLD = """
import sys, time
from stedi.storage import s3
with s3.lock(s3.at(sys.argv[1]), wait=False, waiting=None, advice=""):
    print("held", flush=True)
    time.sleep(60)
"""
BASICS = """
import pickle
from stedi.storage import s3
path, root = s3.at("s3://bucket/lake/x/y.tar.gz"), s3.at("s3://bucket/lake/")
assert str(path) == f"{path}" == path.as_posix() == "s3://bucket/lake/x/y.tar.gz", path
made = (path / "z", path.parent, path.with_name("q"), path.with_suffix(".x"), path.with_stem("r"))
assert [str(p) for p in made] == [
    "s3://bucket/lake/x/y.tar.gz/z", "s3://bucket/lake/x", "s3://bucket/lake/x/q", "s3://bucket/lake/x/y.tar.x",
    "s3://bucket/lake/x/r.gz"]
assert {type(p) for p in (path / "z", path.parent, *path.parents, pickle.loads(pickle.dumps(path)))} == {s3.S3Path}
assert (path.name, path.stem, path.suffix, path.bucket, path.key) == (
    "y.tar.gz", "y.tar", ".gz", "bucket", "lake/x/y.tar.gz")
assert str(path.relative_to(root)) == "x/y.tar.gz" and root / path.relative_to(root) == path
assert path == s3.at(str(path)) == s3.at(path) and hash(path) == hash(s3.at(str(path))) and path != root
assert sorted([path, root]) == [root, path] and {path: 1}[s3.at(str(path))] == 1
assert path.is_relative_to(root) and not root.is_relative_to(path)
"""


ONE = pytest.mark.parametrize("store", ["versitygw" if servers.VERSITYGW else "moto"], indirect=True)
"""For what asks nothing of a server that the other would do otherwise: one is enough, the real one if it is there."""


@contextmanager
def using(**variables: str) -> Iterator[None]:
    """Sets variables of the environment, and has the client made anew."""
    with pytest.MonkeyPatch.context() as patch, wire.cheap():
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.setattr("boto3.DEFAULT_SESSION", wire.session())  # the last one has found its keys
        s3.client.cache_clear()
        try:
            yield
        finally:
            s3.client.cache_clear()


@pytest.fixture(params=["versitygw", "moto"])
def store(request: pytest.FixtureRequest) -> Iterator[servers.Server]:
    """One S3 server, then the other."""
    server: servers.Server = request.getfixturevalue("s3_server" if request.param == "versitygw" else "moto_server")
    with using(**servers.environment(s3=server)):
        yield server


@pytest.fixture
def root(store: servers.Server) -> S3Path:
    """An empty prefix of a new bucket."""
    return cast(S3Path, s3.at(f"s3://{servers.new_bucket()}/a lake"))


@pytest.fixture
def proxy(store: servers.Server, root: S3Path) -> Iterator[Proxy]:
    """A proxy that every call takes from now on, and a client that does not pause between its attempts."""
    with proxied(store.url) as proxy, using(AWS_ENDPOINT_URL_S3=proxy.url), unhurried():
        yield proxy


@contextmanager
def unhurried() -> Iterator[None]:
    from botocore.retries.standard import ExponentialBackoff

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ExponentialBackoff, "delay_amount", lambda *_: 0.001)
        for module in (connection, objects):
            patch.setattr(module, "pause", lambda attempt: 0.001)
        yield


def versioned(root: S3Path) -> Path:
    s3.client().put_bucket_versioning(Bucket=root.parts[1], VersioningConfiguration={"Status": "Enabled"})
    return root


def kept(root: S3Path) -> list[tuple[str, str]]:
    """Every version, mark of deletion and unfinished upload that a bucket has, as kind and key."""
    bucket, client = root.parts[1], s3.client()
    found = client.list_object_versions(Bucket=bucket)
    return sorted(
        [("version", entry["Key"]) for entry in found.get("Versions", ())]
        + [("mark", entry["Key"]) for entry in found.get("DeleteMarkers", ())]
        + [("upload", entry["Key"]) for entry in client.list_multipart_uploads(Bucket=bucket).get("Uploads", ())]
    )


def to(*operations: str) -> Callable[[Call], bool]:
    return lambda call: call.operation in operations


# paths


@pytest.mark.parametrize("python", ["python3.11", "python3.12", "python3.13", "python3.14"])
def test_a_path_of_an_object_behaves_as_one_of_a_file_on_each_python(python: str) -> None:
    program = sys.executable if python == f"python3.{sys.version_info.minor}" else shutil.which(python)
    source = str(Path(s3.__file__).parents[3])
    bare = {"PYTHONPATH": source, "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", **PYENV}
    if program is None or subprocess.run([program, "-c", ""], capture_output=True, env=bare).returncode:
        pytest.skip(f"no {python} on this machine")
    run = subprocess.run([program, "-c", BASICS], capture_output=True, text=True, env=bare)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("location", ["s3://b/k", "s3://b/k/", "s3a://b/k", "s3:/b/k", s3.at("s3://b/k")])
def test_every_spelling_of_a_location_is_one_path(location: str | Path) -> None:
    assert s3.is_remote(location)
    assert str(s3.at(location)) == "s3://b/k"


@pytest.mark.parametrize("location", ["/tmp/x", "file:///tmp/x", "file:/tmp/x", Path("/tmp/x")])
def test_what_is_no_location_in_s3_is_a_file(location: str | Path) -> None:
    assert not s3.is_remote(location)
    assert s3.at(location) == Path("/tmp/x")
    assert not isinstance(s3.at(location), s3.S3Path)


def test_a_location_without_a_bucket_is_refused() -> None:
    with pytest.raises(LakeError, match="found no bucket"):
        s3.at("s3://")


def test_a_relative_path_is_a_plain_one() -> None:
    found = s3.at("s3://b/lake/x/y").relative_to(s3.at("s3://b/lake"))
    assert PurePosixPath(found) == PurePosixPath("x/y")
    assert not isinstance(found, s3.S3Path)
    with pytest.raises(ValueError, match="not in the subpath"):
        s3.at("s3://b/lake/x").relative_to(s3.at("s3://other/lake"))


def test_nothing_takes_an_object_for_a_file_of_this_machine() -> None:
    path = s3.at("s3://b/lake")
    with pytest.raises(LakeError, match="expected a folder of this machine"):
        os.stat(path)
    with pytest.raises(LakeError, match="expected a folder of this machine"):
        os.listdir(path)


def test_a_path_survives_a_journey_to_another_process() -> None:
    path = s3.at("s3://b/lake/x")
    assert pickle.loads(pickle.dumps(path)) == path
    assert (path.absolute(), path.resolve(), path.is_absolute(), path.is_symlink()) == (path, path, True, False)
    assert repr(path) == "S3Path('s3://b/lake/x')"


# reading and writing


def test_what_is_written_is_read_with_its_sum_and_its_size(root: S3Path) -> None:
    before = time.time()
    s3.write(root / "x" / "é ?#&%+.json", b"bytes")
    path = root / "x" / "é ?#&%+.json"
    digest = hashlib.sha256(b"bytes").hexdigest()
    assert (path.read_bytes(), path.read_text(), s3.content(path)) == (b"bytes", "bytes", (b"bytes", digest))
    assert s3.recorded(path) == digest
    assert s3.digest(path) == (digest, 5)
    status = path.stat()
    assert (status.st_size, abs(status.st_mtime - before) < 60, path.lstat().st_size) == (5, True, 5)
    with path.open("rb") as stream:
        stream.seek(2)
        assert stream.read() == b"tes"
    assert (path.is_file(), path.is_dir(), path.exists()) == (True, False, True)
    assert (path.parent.is_file(), path.parent.is_dir(), path.parent.exists()) == (False, True, True)


def test_writing_again_replaces_the_content(root: S3Path) -> None:
    s3.write(root / "a", b"a long first text")
    s3.write(root / "a", b"")
    assert s3.content(root / "a") == (b"", hashlib.sha256(b"").hexdigest())


def test_two_contents_of_one_size_and_second_are_told_apart_by_their_status(root: S3Path) -> None:
    path = root / "file"
    found = set()
    for content in (b"one", b"two", b"six"):
        durable.write(path, content)
        found.add(path.stat().st_ino)
    assert len(found) == 3
    assert path.stat().st_ino == path.stat().st_ino


def test_an_object_that_others_wrote_has_no_sum(root: S3Path) -> None:
    s3.client().put_object(Bucket=root.parts[1], Key="x", Body=b"1")
    path = cast(S3Path, s3.at(f"s3://{root.parts[1]}/x"))
    assert s3.content(path) == (b"1", None)
    assert s3.recorded(path) is None


def test_what_is_not_there_is_said_to_be_missing(root: S3Path) -> None:
    missing: list[Callable[[], Any]] = [
        (root / "no").read_bytes,
        (root / "no").stat,
        (root / "no").unlink,
        lambda: (root / "no").open("rb"),
        lambda: s3.content(root / "no"),
        lambda: list(s3.listing(s3.at("s3://stedi-no-such-bucket/x"))),
    ]
    for ask in missing:
        with pytest.raises(FileNotFoundError, match=r"no such (object|bucket) in S3"):
            ask()
    assert s3.recorded(root / "no") is None
    assert not (root / "no").exists()
    assert not root.exists()
    assert [*root.iterdir(), *s3.listing(root)] == []
    (root / "no").unlink(missing_ok=True)


def test_an_object_opens_for_reading_bytes_only(root: S3Path) -> None:
    with pytest.raises(LakeError, match="mode w"):
        (root / "x").open("w")


def test_listings_show_what_is_below_a_prefix_and_no_neighbour(root: S3Path) -> None:
    names = ["a.json", "b/c.json", "b/d/e.json", "b2/f.txt"]
    for name in names:
        s3.write(root / name, name.encode())
    s3.write(root.with_name(f"{root.name}2") / "neighbour", b"")
    s3.write(s3.at(f"s3://{root.parts[1]}/another"), b"")
    assert [str(found.path.relative_to(root)) for found in s3.listing(root)] == names
    assert [found.size for found in s3.listing(root)] == [len(name) for name in names]
    assert [str(found.path) for found in s3.listing(root / "a.json")] == [str(root / "a.json")]
    assert sorted(path.name for path in root.iterdir()) == ["a.json", "b", "b2"]
    assert [path.name for path in root.glob("*.json")] == ["a.json"]
    assert sorted(path.name for path in root.rglob("*.json")) == ["a.json", "c.json", "e.json"]
    assert [entry.path for entry in durable.walk(root, without={root / "b"})] == [root / "a.json", root / "b2/f.txt"]


@ONE
@pytest.mark.thorough
def test_a_listing_of_more_than_a_page_is_whole(root: S3Path) -> None:
    s3.each(lambda number: s3.write(root / f"{number:04}", b""), range(1_005))
    assert [found.path.name for found in s3.listing(root)] == [f"{number:04}" for number in range(1_005)]
    s3.remove_tree(root)
    assert list(s3.listing(root)) == []


def test_a_key_that_no_path_names_is_not_passed_over(moto_server: servers.Server) -> None:
    with using(**servers.environment(s3=moto_server)):  # a server whose objects are files has no such key
        bucket = servers.new_bucket()
        s3.client().put_object(Bucket=bucket, Key="lake/x//y", Body=b"")
        with pytest.raises(LakeError, match="which no path can name"):
            list(s3.listing(s3.at(f"s3://{bucket}/lake")))


def test_an_objects_start_is_read_without_the_rest(root: S3Path) -> None:
    s3.write(root / "a", bytes(range(100)))
    s3.write(root / "empty", b"")
    assert s3.start(root / "a", 4) == bytes(range(4))
    assert s3.start(root / "a", 400) == bytes(range(100))
    assert s3.start(root / "empty", 4) == b""


def test_folders_and_modes_need_nothing_in_a_bucket(root: S3Path) -> None:
    (root / "folder").mkdir()
    (root / "folder").chmod(0o700)
    durable.folder(root / "other" / "folder")
    durable.sync(root)
    assert kept(root) == []


def test_durable_files_are_objects_too(root: S3Path) -> None:
    durable.write(root / "a", b"1")
    with pytest.raises(ZeroDivisionError), durable.replacing(root / "b") as stream:
        stream.write(b"half written" * (1 // 0))
    assert [found.path.name for found in s3.listing(root)] == ["a"]
    durable.remove(root / "a")
    durable.remove(root / "a")
    assert list(s3.listing(root)) == []


# many files, and large ones


def test_files_go_up_and_come_down_as_they_are(root: S3Path, tmp_path: Path) -> None:
    pairs = []
    for number in range(20):
        source = tmp_path / f"{number}"
        source.write_bytes(os.urandom(number * 1_000))
        pairs.append((source, root / f"{number}"))
    s3.upload(pairs)
    for source, target in pairs:
        body = source.read_bytes()
        assert s3.content(target) == (body, hashlib.sha256(body).hexdigest())
    s3.download(root / "19", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "19").read_bytes()
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        s3.download(root / "19", tmp_path / "copy")


def test_a_large_file_goes_up_in_parts(root: S3Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "_PART", 5 << 20)
    body = os.urandom(21 << 20)
    (tmp_path / "large").write_bytes(body)
    s3.upload([(tmp_path / "large", root / "large")])
    assert "-" in next(s3.listing(root)).tag  # S3's mark of parts
    s3.download(root / "large", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == body
    assert s3.recorded(root / "large") == hashlib.sha256(body).hexdigest()
    assert kept(root) == [("version", f"{root.name}/large")]


def test_an_upload_or_a_download_that_fails_leaves_nothing(root: S3Path, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    with pytest.raises(FileNotFoundError, match="no such bucket"):
        s3.upload([(tmp_path / "a", s3.at("s3://stedi-no-such-bucket/a"))])
    with pytest.raises(FileNotFoundError, match="no such object"):
        s3.download(root / "no", tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_a_download_is_of_the_content_that_is_meant_or_none(root: S3Path, tmp_path: Path) -> None:
    s3.write(root / "a", b"listed")
    tag = next(s3.listing(root)).tag
    s3.download(root / "a", tmp_path / "same", tag=tag)
    s3.write(root / "a", b"changed")
    with pytest.raises(FileExistsError, match="another program has written it"):
        s3.download(root / "a", tmp_path / "other", tag=tag)
    assert (tmp_path / "same").read_bytes() == b"listed"
    assert not (tmp_path / "other").exists()


# removing


def test_removing_takes_what_is_named_and_nothing_else(root: S3Path) -> None:
    for name in ("a", "b", "c/d", "c2"):
        s3.write(root / name, b"")
    s3.remove([root / "a", root / "not there"])
    s3.remove([])
    s3.remove_tree(root / "c")
    (root / "b").unlink()
    assert [found.path.name for found in s3.listing(root)] == ["c2"]
    s3.remove_tree(root / "c2")
    assert list(s3.listing(root)) == []


def test_what_a_bucket_may_not_delete_is_an_error_and_the_rest_is_gone(root: S3Path) -> None:
    client, bucket = s3.client(), f"{root.parts[1]}-locked"
    client.create_bucket(
        Bucket=bucket,
        ObjectLockEnabledForBucket=True,
        CreateBucketConfiguration={"LocationConstraint": servers.REGION},
    )
    locked = cast(S3Path, s3.at(f"s3://{bucket}/lake"))
    for name in ("a", "b", "c"):
        s3.write(locked / name, b"first")
        s3.write(locked / name, b"second")
    client.put_object_legal_hold(
        Bucket=bucket,
        Key="lake/b",
        VersionId=next(
            entry["VersionId"]
            for entry in client.list_object_versions(Bucket=bucket, Prefix="lake/b")["Versions"]
            if not entry["IsLatest"]
        ),
        LegalHold={"Status": "ON"},
    )
    s3.remove_tree(locked)
    assert list(s3.listing(locked)) == []
    with pytest.raises(PermissionError, match="S3 refused to delete 1 object"):
        s3.remove_versions(locked)
    # the version that stays is still hidden: its mark was not removed
    assert ("version", "lake/b") in kept(locked)
    assert list(s3.listing(locked)) == []
    assert not [entry for entry in kept(locked) if entry[0] == "version" and entry[1] != "lake/b"]


def test_removing_versions_leaves_nothing_but_what_readers_see(root: S3Path) -> None:
    versioned(root)
    neighbour = root.with_name(f"{root.name}2") / "x"
    for path in (root / "current", root / "gone", neighbour):
        s3.write(path, b"old")
        s3.write(path, b"new")
    s3.remove([root / "gone"])
    s3.client().create_multipart_upload(Bucket=root.parts[1], Key=f"{root.name}/broken")
    assert s3.remove_versions(root) == 1 + 3 + 1
    assert kept(root) == sorted(
        [("version", f"{root.name}/current"), ("version", f"{root.name}2/x"), ("version", f"{root.name}2/x")]
    )
    assert (root / "current").read_bytes() == b"new"
    assert s3.remove_versions(root) == 0


def test_removing_versions_removes_those_that_are_meant(root: S3Path) -> None:
    versioned(root)
    for name in ("a", "b"):
        s3.write(root / name, b"old")
        s3.write(root / name, b"new")
        s3.client().create_multipart_upload(Bucket=root.parts[1], Key=f"{root.name}/{name}")
    assert s3.remove_versions(root, lambda key: key.endswith("/b")) == 1 + 1
    left = [("upload", f"{root.name}/a"), *[("version", f"{root.name}/a")] * 2, ("version", f"{root.name}/b")]
    assert kept(root) == left


def test_a_bucket_without_versions_loses_nothing_that_is_current(root: S3Path) -> None:
    s3.write(root / "a", b"1")
    assert s3.remove_versions(root) == 0
    assert (root / "a").read_bytes() == b"1"


@ONE
def test_versions_that_are_still_there_after_all_are_an_error(root: S3Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versioned(root)
    for body in (b"old", b"new"):
        s3.write(root / "a", body)
    monkeypatch.setattr(objects, "_remove", lambda *_: None)
    with pytest.raises(OSError, match="expected no older versions and no unfinished uploads, found 1"):
        s3.remove_versions(root)


# calls that fail

CALLS: dict[str, Callable[[S3Path, Path], object]] = {
    "write": lambda root, _: s3.write(root / "new", b"bytes"),
    "read": lambda root, _: s3.content(root / "a"),
    "recorded": lambda root, _: s3.recorded(root / "a"),
    "open": lambda root, _: (root / "a").open("rb").close(),
    "list": lambda root, _: list(s3.listing(root)),
    "upload": lambda root, folder: s3.upload([(folder / "a", root / "up")]),
    "digest": lambda root, _: s3.digest(root / "a"),
    "download": lambda root, folder: s3.download(root / "a", folder / "down"),
    "remove": lambda root, _: s3.remove([root / "b"]),
    "remove_versions": lambda root, _: s3.remove_versions(root),
}


@ONE
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.sample(full=20)
def test_what_fails_once_at_any_call_is_done_all_the_same(
    proxy: Proxy, root: S3Path, tmp_path: Path, call: str, kind: Kind
) -> None:
    body = os.urandom(100_000)
    versioned(root)
    (tmp_path / "a").write_bytes(body)
    for name in ("a", "b"):
        s3.write(root / name, body)
    with proxy.failing(Fault(kind, 1, 2)):
        CALLS[call](root, tmp_path)
    assert len(proxy.struck) >= 1
    names = [found.path.name for found in s3.listing(root)]
    assert ("new" in names, "up" in names, "b" in names) == (call == "write", call == "upload", call != "remove")
    if call == "download":
        assert (tmp_path / "down").read_bytes() == body
    if call == "upload":
        assert s3.content(root / "up") == (body, hashlib.sha256(body).hexdigest())


@ONE
@pytest.mark.parametrize("kind", ["throttle", "error", "lost", "cut upload", "cut download", "deny"])
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.sample(full=20)
def test_what_fails_for_good_is_one_error_that_files_raise_after_a_bounded_number_of_calls(
    proxy: Proxy, root: S3Path, tmp_path: Path, call: str, kind: Kind
) -> None:
    (tmp_path / "a").write_bytes(b"bytes")
    s3.write(root / "a", b"bytes")
    with (
        proxy.failing(Fault(kind)),
        pytest.raises(PermissionError if kind == "deny" else OSError, match=r"S3 (refused|failed|cannot be)") as caught,
    ):
        CALLS[call](root, tmp_path)
    assert type(caught.value) is (PermissionError if kind == "deny" else OSError)
    assert len(proxy.calls) <= 100
    assert not (tmp_path / "down").exists()


def test_an_answer_of_another_service_that_breaks_off_is_asked_for_anew(moto_server: servers.Server) -> None:
    import boto3

    servers.reset(moto_server)
    with proxied(moto_server.url) as proxy, using(**servers.environment(s3=moto_server, aws=moto_server)), unhurried():
        glue = s3.steady(boto3.client("glue", endpoint_url=proxy.url))
        glue.create_database(DatabaseInput={"Name": "there"})
        with proxy.failing(Fault("cut download", 1, 2)):
            assert [found["Name"] for found in glue.get_databases()["DatabaseList"]] == ["there"]
        with proxy.failing(Fault("cut download")):
            assert "DatabaseList" not in glue.get_databases()  # as if nothing had been said
        assert len(proxy.calls) == connection.ATTEMPTS


@ONE
def test_objects_that_are_refused_or_late_in_one_answer_are_told_apart(
    root: S3Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = s3.client()
    asked: list[list[str]] = []
    told = iter([{"a": "SlowDown", "b": "AccessDenied", "c": "InternalError"}, {"c": "SlowDown"}, {}])

    class Some:
        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def delete_objects(self, Bucket: str, Delete: dict[str, Any]) -> dict[str, Any]:  # noqa: N803 - boto3's
            keys = [entry["Key"] for entry in Delete["Objects"]]
            asked.append([key[-1] for key in keys])
            codes = next(told)
            return {"Errors": [{"Key": key, "Code": codes[key[-1]]} for key in keys if key[-1] in codes]}

    monkeypatch.setattr(objects, "client", lambda: Some())
    monkeypatch.setattr(objects, "pause", lambda attempt: 0.0)
    with pytest.raises(PermissionError, match=r"refused to delete 1 object \(AccessDenied\).*/b"):
        s3.remove([root / name for name in ("a", "b", "c", "d")])
    assert asked == [["a", "b", "c", "d"], ["a", "c"], ["c"]]


# locks


def held(path: Path) -> subprocess.Popen[str]:
    """A process that holds the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def locked(path: Path, *, wait: bool | float = False) -> Any:
    return s3.lock(path, wait=wait, waiting=None, advice="try again")


def test_a_lock_excludes_other_threads_and_ends_with_its_block(root: S3Path) -> None:
    path = root / "build.lock"
    assert not s3.is_held(path)
    with locked(path):
        assert s3.is_held(path)
        with pytest.raises(LakeBusy, match=r"s3://.*: another build is running; try again"), locked(path):
            pass
    assert not s3.is_held(path)
    with locked(path):
        pass
    assert not s3.is_held(path), "what stays is an object that says that it is nobody's"


def test_a_lock_ends_with_a_block_that_raises(root: S3Path) -> None:
    with pytest.raises(RuntimeError), locked(root / "x.lock"):
        raise RuntimeError
    assert not s3.is_held(root / "x.lock")


@pytest.mark.thorough
def test_a_lock_excludes_other_processes_and_outlives_a_killed_one_until_its_lease_ends(
    root: S3Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = root / "land.lock"
    process = held(path)
    try:
        with pytest.raises(LakeBusy), locked(path):
            pass
    finally:
        process.kill()
        process.communicate()
    assert s3.is_held(path)
    monkeypatch.setattr(s3_leases, "_LEASE", 1.0)
    time.sleep(2.1)  # S3 tells times in seconds
    assert not s3.is_held(path)
    with locked(path):
        assert s3.is_held(path)


@ONE
def test_of_many_who_want_a_lock_one_has_it_at_a_time(root: S3Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_leases, "_POLL", (0.01, 0.01))
    inside, seen, failures = 0, [], []

    def work() -> None:
        nonlocal inside
        try:
            with locked(root / "x.lock", wait=30):
                inside += 1
                seen.append(inside)
                time.sleep(0.02)
                inside -= 1
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (seen, failures) == ([1] * 8, [])


def test_of_many_who_find_a_dead_holders_lock_one_takes_it(root: S3Path, monkeypatch: pytest.MonkeyPatch) -> None:
    s3.write(root / "x.lock", b"a dead holder's")
    monkeypatch.setattr(s3_leases, "_LEASE", -10.0)
    leases = [s3.Lease(root / "x.lock") for _ in range(8)]
    barrier = threading.Barrier(8)
    found = s3_leases._held(root / "x.lock")
    monkeypatch.setattr(s3_leases, "_held", lambda path: found)  # all see the same age, as if at one moment

    def take(lease: s3.Lease) -> bool:
        barrier.wait()
        return lease.take()

    taken = [done for _, done in s3.each(take, leases)]
    for lease in leases:
        lease.release()
    assert taken.count(True) == 1


@ONE
def test_waiting_is_told_once_and_ends(root: S3Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_leases, "_POLL", (0.05, 0.05))
    told: list[int] = []
    lease = s3.Lease(root / "x.lock")
    assert lease.take()
    with (
        pytest.raises(LakeBusy),
        s3.lock(root / "x.lock", wait=0.3, waiting=lambda: told.append(1), advice=""),
    ):
        pass
    assert told == [1]
    threading.Timer(0.3, lease.release).start()
    with s3.lock(root / "x.lock", wait=True, waiting=lambda: told.append(2), advice=""):
        assert told == [1, 2]


@ONE
@pytest.mark.thorough
def test_a_lock_is_renewed_as_long_as_its_holder_lives(root: S3Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_leases, "_BEAT", 0.1)
    monkeypatch.setattr(s3_leases, "_LEASE", 2.0)
    with locked(root / "x.lock"):
        tags = set()
        for _ in range(16):
            time.sleep(0.2)
            tags.add(next(s3.listing(root)).tag)
            assert s3.is_held(root / "x.lock")
        assert len(tags) > 3
    assert not s3.is_held(root / "x.lock")


def test_a_holder_that_lost_its_lock_neither_renews_nor_removes_the_next_ones(
    root: S3Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_leases, "_BEAT", 0.05)
    path = root / "x.lock"
    first = s3.Lease(path)
    assert first.take()
    s3.write(path, b"the next one's")
    time.sleep(0.3)
    first.release()
    assert path.read_bytes() == b"the next one's"


@ONE
@pytest.mark.parametrize("kind", KINDS)
def test_a_lock_is_held_once_whatever_happens_to_its_first_call(proxy: Proxy, root: S3Path, kind: Kind) -> None:
    path = root / "x.lock"
    with proxy.failing(Fault(kind, 1, 1)):
        lease = s3.Lease(path)
        assert lease.take()
    assert len(proxy.struck) == 1
    assert not s3.Lease(path).take()
    with proxy.failing(Fault(kind, 1, 1)):
        lease.release()
    assert not s3.is_held(path)


@ONE
def test_a_renewal_whose_answer_is_lost_keeps_the_lock(
    proxy: Proxy, root: S3Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_leases, "_BEAT", 0.1)
    path = root / "x.lock"
    lease = s3.Lease(path)
    assert lease.take()
    with proxy.failing(Fault("lost", 1, 2, to("PUT"))):
        time.sleep(0.6)
    assert len(proxy.struck) == 2
    assert s3.is_held(path)
    lease.release()
    assert not s3.is_held(path)


# the engine


def test_duckdb_reads_what_is_in_the_bucket(root: S3Path, tmp_path: Path) -> None:
    connection = duckdb.connect()
    connection.execute(f"copy (select range as n from range(1000)) to '{tmp_path}/x.parquet'")
    s3.upload([(tmp_path / "x.parquet", root / "x.parquet")])
    for statement in s3.engine_statements():
        connection.execute(statement)
    assert connection.execute(f"select count(*), sum(n) from '{root}/x.parquet'").fetchone() == (1000, 499500)


@ONE
def test_duckdb_repeats_what_is_throttled(proxy: Proxy, root: S3Path, tmp_path: Path) -> None:
    connection = duckdb.connect()
    connection.execute(f"copy (select range as n from range(1000)) to '{tmp_path}/x.parquet'")
    s3.upload([(tmp_path / "x.parquet", root / "x.parquet")])
    for statement in [*s3.engine_statements(), "set http_retry_wait_ms = 5"]:
        connection.execute(statement)
    for kind in KINDS:
        if kind != "cut upload":  # it uploads nothing
            with proxy.failing(Fault(kind, 1, 2)):
                connection.execute("set enable_http_metadata_cache = false")
                assert connection.execute(f"select sum(n) from '{root}/x.parquet'").fetchone() == (499500,), kind
            assert proxy.struck


def test_duckdb_is_given_the_keys_and_the_place_that_boto3_finds(store: servers.Server) -> None:
    with using(AWS_SESSION_TOKEN="a token"):
        assert s3.engine_settings() == {
            "key_id": servers.ACCESS,
            "secret": servers.SECRET,
            "session_token": "a token",
            "region": servers.REGION,
            "endpoint": store.url.removeprefix("http://"),
            "url_style": "path",
            "use_ssl": "false",
        }


def test_without_an_endpoint_of_ones_own_duckdb_goes_to_aws(
    monkeypatch: pytest.MonkeyPatch, store: servers.Server
) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name)
    s3.client.cache_clear()
    assert "endpoint" not in s3.engine_settings()


def test_the_extension_is_a_file_on_this_machine() -> None:
    assert Path(s3.extension()).is_file()


def test_what_is_not_installed_is_said_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    s3.client.cache_clear()
    with pytest.raises(MissingExtra, match=r"pip install 'stedi\[aws\]'"):
        s3.client()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'stedi\[aws\]'"):
        s3.extension()
