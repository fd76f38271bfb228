"""Objects of S3 that read like files: a `Path` whose bytes lie in a bucket, and what only a bucket has.

A lake in a bucket has the layout of one in a folder, so the rest of the program works with paths and need not know
which it has; `durable` knows. An object is whole or absent, and on disk when its write returns, so a write needs no
name of its own. What a bucket lacks is made here: a lock is an object that only one writer can create.

Calls that are throttled or time out are repeated with growing pauses, a bounded number of times (botocore's mode
`standard`). What a call did is read from its answer or asked for; it is never taken for granted.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import secrets
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PosixPath, PurePosixPath
from typing import IO, Any, BinaryIO, TypeVar, cast

from stedi.errors import LakeBusy, LakeError, MissingExtra

T = TypeVar("T")

SCHEME = "s3://"
SUM = "sha256"
"""The entry of an object's own metadata that holds the SHA-256 of what was written, hex."""

_ATTEMPTS = 8
"""How often a call is made at most, the first one counted."""
_PASSING = frozenset({"InternalError", "RequestTimeout", "ServiceUnavailable", "SlowDown"})
"""What S3 says of an object, of many in one call, that it may do when asked again."""
_PART = 16 << 20
_BESIDE = 8
"""Transfers side by side."""
_LEASE = 90.0
"""Seconds after which a lock that nobody has renewed is nobody's."""
_BEAT = 15.0
"""Seconds between two renewals."""
_POLL = (0.02, 0.5)
"""Seconds between two looks at a lock that somebody holds, at first and at last."""
_FREE = "free"


def is_remote(location: str | os.PathLike[str]) -> bool:
    """Says whether a location, or a path that was made of one, is in a bucket."""
    return isinstance(location, S3Path) or str(location).startswith(("s3:/", "s3a:/"))


def at(location: str | os.PathLike[str]) -> Path:
    """Returns the path of a location: of an object for `s3://bucket/key`, of a file for anything else.

    Raises:
        LakeError: It names no bucket.
    """
    if isinstance(location, S3Path):
        return location
    text = str(location)
    if not is_remote(text):
        return Path(text.removeprefix("file://") if text.startswith("file://") else text.removeprefix("file:"))
    rest = text.partition(":")[2]
    path = S3Path("s3:", *rest.strip("/").split("/"))
    if not path.bucket or rest.startswith("///"):
        raise LakeError(f"{text}: expected s3://BUCKET/PREFIX, found no bucket")
    return path


@cache
def client() -> Any:
    """Returns the S3 client of this process; region, keys and endpoint come from where every AWS tool finds them.

    Raises:
        MissingExtra: boto3 is not installed.
    """
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        raise MissingExtra("s3:// needs boto3, found none: pip install 'stedi[aws]'") from None
    # an emulator on an address, not a name, cannot have a bucket in front of it
    own = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return boto3.client(
        "s3",
        config=Config(
            retries={"mode": "standard", "max_attempts": _ATTEMPTS},
            connect_timeout=10,
            read_timeout=60,
            max_pool_connections=2 * _BESIDE,
            s3={"addressing_style": "path" if own else "auto"},
        ),
    )


def steady(other: Any) -> Any:
    """Has the client of a service that speaks JSON ask anew for an answer that broke off, and returns it.

    botocore takes the half of such a text for an answer that says nothing.
    """

    def again(response: tuple[Any, Any] | None, attempts: int, **_: Any) -> float | None:
        answer = response[0] if response else None
        if answer is None or attempts >= _ATTEMPTS:
            return None
        told = answer.headers.get("Content-Length")
        return _pause(attempts) if told is not None and int(told) != len(answer.content) else None

    other.meta.events.register_last(f"needs-retry.{other.meta.service_model.service_id.hyphenize()}", again)
    return other


@contextmanager
def _answers(path: object) -> Iterator[None]:
    """Turns what S3 refuses into the errors that files raise, in words that name the object and the reason alone."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError
    from s3transfer.exceptions import RetriesExceededError

    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if status == 404 or code in ("404", "NoSuchKey", "NoSuchBucket", "NoSuchVersion", "NoSuchUpload"):
            what = "bucket" if code == "NoSuchBucket" else "object"
            raise FileNotFoundError(2, f"no such {what} in S3", str(path)) from error
        if status == 403:
            raise PermissionError(13, f"S3 refuses {error.operation_name} ({code})", str(path)) from error
        if status == 412 or code in ("PreconditionFailed", "ConditionalRequestConflict"):
            raise FileExistsError(17, "somebody else has written it", str(path)) from error
        raise OSError(5, f"S3 fails {error.operation_name} ({code or status})", str(path)) from error
    except (BotoCoreError, Boto3Error, RetriesExceededError) as error:
        raise OSError(5, f"S3 cannot be reached ({type(error).__name__})", str(path)) from error


def is_outage(error: Exception, location: str | os.PathLike[str]) -> bool:
    """Says whether an error tells of S3, of the way there or of who may use it, and nothing of the object."""
    return is_remote(location) and isinstance(error, OSError) and not isinstance(error, FileNotFoundError)


class S3Path(PosixPath):
    """A path in a bucket: `s3://bucket/key`. It reads, lists and removes like a file's; `durable` writes.

    What is not defined here would look on the local disk; asking for the file system's own name of it raises.
    """

    def __str__(self) -> str:
        return SCHEME + "/".join(self.parts[1:])

    def __repr__(self) -> str:
        return f"S3Path({str(self)!r})"

    def __fspath__(self) -> str:
        raise LakeError(f"{self}: expected a folder of this machine, found one in S3; this needs a lake in a folder")

    def __reduce__(self) -> tuple[Callable[[str], Path], tuple[str]]:
        return at, (str(self),)

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return self.parts[1] if len(self.parts) > 1 else ""

    @property
    def key(self) -> str:
        """The object's key, or a prefix of keys without the slash at its end."""
        return "/".join(self.parts[2:])

    @property
    def _prefix(self) -> str:
        return f"{self.key}/" if self.key else ""

    def relative_to(self, *other: Any, **options: Any) -> Path:  # type: ignore[override]
        """Returns what follows another path's parts, which is no location by itself: a plain path."""
        return Path(PurePosixPath(*self.parts).relative_to(PurePosixPath(*at(other[0]).parts), *other[1:], **options))

    def is_relative_to(self, *other: Any) -> bool:
        """Says whether another path is this one or above it."""
        parts = at(other[0]).joinpath(*other[1:]).parts
        return self.parts[: len(parts)] == parts

    def is_absolute(self) -> bool:
        """Says that it is: it depends on no working folder."""
        return True

    def absolute(self) -> S3Path:
        """Returns itself."""
        return self

    def resolve(self, strict: bool = False) -> S3Path:
        """Returns itself: there are no links."""
        return self

    def is_file(self, *args: Any, **kwargs: Any) -> bool:
        """Says whether there is an object of this key."""
        return _head(self) is not None

    def is_dir(self, *args: Any, **kwargs: Any) -> bool:
        """Says whether any object lies below."""
        with _answers(self):
            found = client().list_objects_v2(Bucket=self.bucket, Prefix=self._prefix, MaxKeys=1)
        return bool(found.get("KeyCount"))

    def exists(self, *args: Any, **kwargs: Any) -> bool:
        """Says whether there is an object of this key, or any below."""
        return self.is_file() or self.is_dir()

    def is_symlink(self) -> bool:
        """Says that it is none."""
        return False

    def stat(self, *args: Any, **kwargs: Any) -> os.stat_result:
        """Returns size and time of an object; owner and mode say nothing.

        Raises:
            FileNotFoundError: There is none.
        """
        found = _head(self)
        if found is None:
            raise FileNotFoundError(2, "no such object in S3", str(self))
        return _status(found["ContentLength"], found["LastModified"].timestamp())

    lstat = stat

    def read_bytes(self) -> bytes:
        """Returns an object's bytes.

        Raises:
            FileNotFoundError: There is none.
        """
        return _read(self)[0]

    def read_text(self, encoding: str | None = None, *args: Any, **kwargs: Any) -> str:
        """Returns an object's text."""
        return self.read_bytes().decode(encoding or "utf-8")

    def open(self, mode: str = "r", *args: Any, **kwargs: Any) -> IO[Any]:  # type: ignore[override]
        """Returns an object's bytes as a file that can be sought in: a copy without a name, gone when it is closed."""
        if mode != "rb":
            raise LakeError(f"{self}: expected an object of S3 to be read as bytes, found mode {mode}")
        copy = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 - the caller closes it
        try:
            with _answers(self):
                client().download_fileobj(self.bucket, self.key, copy, Config=_transfer())
            copy.seek(0)
        except BaseException:
            copy.close()
            raise
        return copy

    def iterdir(self) -> Iterator[Path]:  # type: ignore[override]
        """Yields what lies directly below: objects, and prefixes that have some."""
        with _answers(self):
            pages = (
                client()
                .get_paginator("list_objects_v2")
                .paginate(Bucket=self.bucket, Prefix=self._prefix, Delimiter="/")
            )
            for page in pages:
                for entry in page.get("Contents", ()):
                    if entry["Key"] != self._prefix:
                        yield self / entry["Key"].removeprefix(self._prefix)
                for entry in page.get("CommonPrefixes", ()):
                    yield self / entry["Prefix"].removeprefix(self._prefix).rstrip("/")

    def glob(self, pattern: str, **kwargs: Any) -> Iterator[Path]:  # type: ignore[override]
        """Yields what lies directly below and has a name that a pattern matches."""
        return (path for path in self.iterdir() if fnmatch.fnmatchcase(path.name, pattern))

    def rglob(self, pattern: str, **kwargs: Any) -> Iterator[Path]:  # type: ignore[override]
        """Yields the objects below, at any depth, whose names a pattern matches."""
        return (found.path for found in listing(self) if fnmatch.fnmatchcase(found.path.name, pattern))

    def unlink(self, missing_ok: bool = False) -> None:
        """Removes an object.

        Raises:
            FileNotFoundError: There is none, and that is not allowed.
            PermissionError: S3 refuses.
        """
        if not missing_ok and not self.is_file():
            raise FileNotFoundError(2, "no such object in S3", str(self))
        remove([self])

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Does nothing: a prefix is there when something has it."""

    def chmod(self, mode: int, **kwargs: Any) -> None:
        """Does nothing: who may read is the bucket's policy."""


def _status(size: int, modified: float) -> os.stat_result:
    return os.stat_result((stat.S_IFREG | 0o600, 0, 0, 1, 0, 0, size, int(modified), int(modified), int(modified)))


def _head(path: S3Path) -> dict[str, Any] | None:
    if not path.key:
        return None
    try:
        with _answers(path):
            return cast(dict[str, Any], client().head_object(Bucket=path.bucket, Key=path.key))
    except FileNotFoundError:
        return None


def _taken(path: S3Path, take: Callable[[dict[str, Any]], T], **part: str) -> T:
    """Returns what is made of S3's answer to the request for an object; a body that breaks off is asked for anew."""
    attempt = 0
    while True:
        with _answers(path):
            found = client().get_object(Bucket=path.bucket, Key=path.key, **part)
        try:
            with _answers(path):
                return take(found)
        except OSError:
            attempt += 1
            if attempt == _ATTEMPTS:
                raise
            time.sleep(_pause(attempt))


def _read(path: S3Path, **part: str) -> tuple[bytes, dict[str, Any]]:
    """Returns an object's bytes and what S3 says of it."""
    return _taken(path, lambda found: (found["Body"].read(), found), **part)


def content(path: Path) -> tuple[bytes, str | None]:
    """Returns an object's bytes and the SHA-256 that its writer recorded with it, if it did."""
    found, about = _read(cast(S3Path, path))
    return found, about.get("Metadata", {}).get(SUM)


def recorded(path: S3Path) -> str | None:
    """Returns the SHA-256 that an object's writer recorded with it, if there is such an object and it did."""
    found = _head(path)
    return None if found is None else found.get("Metadata", {}).get(SUM)


@dataclass(frozen=True, slots=True)
class Object:
    """One object of a listing.

    Attributes:
        path: Where it is.
        size: Its size in bytes.
        modified: When it was written, seconds since the epoch, by S3's clock.
        tag: S3's mark of its content.
    """

    path: S3Path
    size: int
    modified: float
    tag: str


def listing(folder: Path) -> Iterator[Object]:
    """Yields every object below a prefix, or the one of exactly this key, by key.

    Raises:
        LakeError: There is one that no path names: it would be neither read nor removed.
    """
    root = cast(S3Path, folder)
    with _answers(root):
        for page in client().get_paginator("list_objects_v2").paginate(Bucket=root.bucket, Prefix=root.key):
            for entry in page.get("Contents", ()):
                key = entry["Key"]
                if (key == root.key or key.startswith(root._prefix)) and not key.endswith("/"):
                    path = S3Path("s3:", root.bucket, *key.split("/"))
                    if path.key != key:
                        raise LakeError(
                            f"{SCHEME}{root.bucket}/{key}: expected a key without empty parts and without `.`, found "
                            "this one, which no path names; rename that object"
                        )
                    yield Object(path, entry["Size"], entry["LastModified"].timestamp(), entry["ETag"])


def _transfer() -> Any:
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(multipart_threshold=4 * _PART, multipart_chunksize=_PART, max_concurrency=4)


def digest(path: Path) -> tuple[str, int]:
    """Returns the SHA-256, hex, and the size of an object's bytes, read for that."""

    def take(answer: dict[str, Any]) -> tuple[str, int]:
        found, size = hashlib.sha256(), 0
        for piece in answer["Body"].iter_chunks(1 << 20):
            found.update(piece)
            size += len(piece)
        return found.hexdigest(), size

    return _taken(cast(S3Path, path), take)


def write(path: Path, body: bytes) -> None:
    """Writes an object, whole or not at all, with its SHA-256 recorded beside its bytes."""
    target = cast(S3Path, path)
    with _answers(target):
        client().put_object(
            Bucket=target.bucket, Key=target.key, Body=body, Metadata={SUM: hashlib.sha256(body).hexdigest()}
        )


def upload(pairs: Iterable[tuple[Path, Path]]) -> None:
    """Copies local files into a bucket, several at a time, with their SHA-256; each is there, whole, afterwards.

    Args:
        pairs: Local file and object.

    Raises:
        OSError: One could not be written, or has another size there.
    """

    def copy(pair: tuple[Path, Path]) -> None:
        source, target = pair[0], cast(S3Path, pair[1])
        with open(source, "rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        with _answers(target), open(source, "rb") as stream:
            # parts carry checksums that S3 compares; a broken one is sent anew or fails
            client().upload_fileobj(
                stream, target.bucket, target.key, ExtraArgs={"Metadata": {SUM: digest}}, Config=_transfer()
            )
        found, sent = target.stat().st_size, source.stat().st_size
        if found != sent:
            raise OSError(5, f"expected {sent} bytes in S3 after the upload, found {found}", str(target))

    with ThreadPoolExecutor(_BESIDE) as beside:
        for _ in beside.map(copy, pairs):
            pass


def download(path: Path, target: Path, *, tag: str = "") -> None:
    """Copies an object into a new local file that its owner alone may read; there is none if that fails.

    Args:
        path: The object.
        target: The file.
        tag: S3's mark of the content that is meant, if any other is not.

    Raises:
        FileExistsError: The object has another content by now, or the file is there.
        FileNotFoundError: The object is gone.
    """
    source = cast(S3Path, path)
    condition = {"IfMatch": tag} if tag else {}
    with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as out:

        def take(answer: dict[str, Any]) -> None:
            out.seek(0)
            out.truncate()
            for piece in answer["Body"].iter_chunks(1 << 20):
                out.write(piece)

        try:
            _taken(source, take, **condition)  # one stream for each file; files come side by side
        except BaseException:
            target.unlink(missing_ok=True)
            raise


def remove(paths: Iterable[Path]) -> None:
    """Removes objects; those that are not there do no harm.

    Raises:
        PermissionError: S3 refused one; the others are gone.
    """
    by_bucket: dict[str, list[str]] = {}
    for path in paths:
        by_bucket.setdefault(cast(S3Path, path).bucket, []).append(cast(S3Path, path).key)
    for bucket, keys in by_bucket.items():
        _remove(bucket, [{"Key": key} for key in keys])


def _remove(bucket: str, objects: Sequence[dict[str, str]]) -> None:
    refused: list[dict[str, Any]] = []
    for start in range(0, len(objects), 1_000):
        refused += _removed(bucket, objects[start : start + 1_000])
    if refused:
        first = refused[0]
        kind = PermissionError if any(error.get("Code") == "AccessDenied" for error in refused) else OSError
        raise kind(
            13 if kind is PermissionError else 5,
            f"S3 refuses to delete {len(refused):,} objects ({first.get('Code')})",
            f"{SCHEME}{bucket}/{first['Key']}",
        )


def _removed(bucket: str, objects: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
    """Removes up to a thousand objects, and returns what S3 says of those that it did not remove."""
    refused: list[dict[str, Any]] = []
    left = list(objects)
    for attempt in range(_ATTEMPTS):
        with _answers(f"{SCHEME}{bucket}"):
            # an answer of 200 lists what was refused, and what was not done in time
            done = client().delete_objects(Bucket=bucket, Delete={"Objects": left, "Quiet": True})
        errors = done.get("Errors", [])
        refused += [error for error in errors if error.get("Code") not in _PASSING]
        late = [error for error in errors if error.get("Code") in _PASSING]
        if not late:
            return refused
        again = {(error["Key"], error.get("VersionId")) for error in late}
        left = [entry for entry in left if (entry["Key"], entry.get("VersionId")) in again]
        time.sleep(_pause(attempt))
    return refused + late


def _pause(attempt: int) -> float:
    """Returns the seconds to wait after an attempt, the first one being number 0."""
    return float(min(2.0, 0.1 * 2**attempt))


def remove_tree(folder: Path) -> None:
    """Removes every object below a prefix, and an object of exactly this key."""
    remove([found.path for found in listing(folder)])


def forget(folder: Path, keep: Callable[[str], bool] = lambda key: False) -> int:
    """Removes what a bucket still knows of objects that are gone: older versions, marks of deletion, broken uploads.

    Args:
        folder: A prefix.
        keep: Says of a key whether its older versions stay.

    Returns:
        How many versions and uploads were removed.

    Raises:
        PermissionError: S3 refused one.
        OSError: Some are still there.
    """
    root = cast(S3Path, folder)
    versions, marks = _stale(root, keep)
    _remove(root.bucket, versions)
    _remove(root.bucket, marks)  # after them: what was deleted is not seen again, not even if S3 refuses
    uploads = _uploads(root)
    for upload_ in uploads:
        with suppress(FileNotFoundError), _answers(root):
            client().abort_multipart_upload(Bucket=root.bucket, Key=upload_["Key"], UploadId=upload_["UploadId"])
    left = sum(map(len, _stale(root, keep))) + len(_uploads(root))
    if left:
        raise OSError(5, f"expected no older version and no unfinished upload, found {left}", str(root))
    return len(versions) + len(marks) + len(uploads)


def _stale(root: S3Path, keep: Callable[[str], bool]) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Returns the versions below a prefix that no reader sees, and the marks that say that something was deleted."""
    versions, marks = [], []
    with _answers(root):
        for page in client().get_paginator("list_object_versions").paginate(Bucket=root.bucket, Prefix=root.key):
            # a bucket without versions shows each object as one, `null`, that is the latest
            versions += [entry for entry in page.get("Versions", ()) if not entry["IsLatest"]]
            marks += page.get("DeleteMarkers", ())

    def told(entries: list[dict[str, str]]) -> list[dict[str, str]]:
        meant = [entry for entry in entries if _in(root, entry["Key"]) and not keep(entry["Key"])]
        return [{name: entry[name] for name in ("Key", "VersionId")} for entry in meant]

    return told(versions), told(marks)


def _uploads(root: S3Path) -> list[dict[str, str]]:
    with _answers(root):
        pages = client().get_paginator("list_multipart_uploads").paginate(Bucket=root.bucket, Prefix=root.key)
        return [upload_ for page in pages for upload_ in page.get("Uploads", ()) if _in(root, upload_["Key"])]


def _in(root: S3Path, key: str) -> bool:
    """Says whether a key is that of a location, or one below it."""
    return key == root.key or key.startswith(root._prefix)


class Lease:
    """A lock that is an object: whoever creates it has it, and renews it until it is given back, which it then says.

    One that has not been renewed for a minute and a half is a dead holder's and can be taken. It is never deleted: in a
    bucket that keeps versions, not every server takes what was deleted for absent. Ages are told by S3's
    clock alone. A holder that was stopped for longer finds its lease gone at the next renewal; tables are safe from it
    all the same, since each commit asks for the state that it was made from.
    """

    def __init__(self, path: Path) -> None:
        self._path = cast(S3Path, path)
        self._tag = ""
        self._ended = threading.Event()
        self._beats: threading.Thread | None = None

    def take(self) -> bool:
        """Returns whether the lock is held now."""
        try:
            held = _held(self._path)
            if held is None:
                self._tag = self._put(IfNoneMatch="*")
            elif held[0] < _LEASE:
                return False
            else:
                self._tag = self._put(IfMatch=held[1])
        except (FileExistsError, FileNotFoundError):
            return False
        self._beats = threading.Thread(target=self._beat, daemon=True)
        self._beats.start()
        return True

    def release(self) -> None:
        """Gives the lock back, if it is still held."""
        self._ended.set()
        if self._beats is not None:
            self._beats.join()
        with suppress(OSError), _answers(self._path):  # who comes next waits for its age, no longer
            client().put_object(
                Bucket=self._path.bucket, Key=self._path.key, Body=b"", Metadata={"state": _FREE}, IfMatch=self._tag
            )

    def _beat(self) -> None:
        while not self._ended.wait(_BEAT):
            try:
                self._tag = self._put(IfMatch=self._tag)
            except (FileExistsError, FileNotFoundError):
                return  # somebody else's now
            except OSError:
                continue

    def _put(self, **condition: str) -> str:
        body = json.dumps({"holder": secrets.token_hex(8), "process": os.getpid()}).encode()
        with _answers(self._path):
            try:
                done = client().put_object(Bucket=self._path.bucket, Key=self._path.key, Body=body, **condition)
            except Exception:
                # refused, or done and the answer was lost: the object says whose it is
                with suppress(OSError):
                    found, about = _read(self._path)
                    if found == body:
                        return str(about["ETag"])
                raise
        return str(done["ETag"])


def _held(path: S3Path) -> tuple[float, str] | None:
    """Returns the age of a lock in seconds, by S3's clock, and its tag; None if there is none.

    One that was given back is as old as can be.
    """
    from email.utils import parsedate_to_datetime

    found = _head(path)
    if found is None:
        return None
    if found.get("Metadata", {}).get("state") == _FREE:
        return float("inf"), found["ETag"]
    now = parsedate_to_datetime(found["ResponseMetadata"]["HTTPHeaders"]["date"])
    return (now - found["LastModified"]).total_seconds(), found["ETag"]


def is_held(path: Path) -> bool:
    """Says whether somebody alive holds a lock."""
    found = _held(cast(S3Path, path))
    return found is not None and found[0] < _LEASE


@contextmanager
def lock(path: Path, *, wait: bool | float, waiting: Callable[[], None] | None, advice: str) -> Iterator[None]:
    """Holds a lock for the length of a block.

    Raises:
        LakeBusy: Somebody else holds it and `wait` is False, or has held it for longer than that.
    """
    lease = Lease(path)
    end = None if wait is True else time.monotonic() + float(wait)
    told, pause = False, _POLL[0]
    while not lease.take():
        if not wait or (end is not None and time.monotonic() > end):
            raise LakeBusy(f"{path.parent}: another {path.stem} is running; {advice}")
        if waiting is not None and not told:
            waiting()
            told = True
        time.sleep(pause)
        pause = min(_POLL[1], 2 * pause)
    try:
        yield
    finally:
        lease.release()


def engine_settings() -> dict[str, str]:
    """Returns what DuckDB's S3 secret needs, from where boto3 finds it: region, keys, endpoint."""
    from urllib.parse import urlsplit

    import boto3

    made = client()
    found = boto3.Session().get_credentials()
    if found is None:
        raise LakeError("s3://: expected AWS credentials, found none; configure them as for any AWS tool")
    keys = found.get_frozen_credentials()
    settings = {"key_id": keys.access_key, "secret": keys.secret_key, "region": made.meta.region_name or "us-east-1"}
    if keys.token:
        settings["session_token"] = keys.token
    if os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"):
        url = urlsplit(made.meta.endpoint_url)
        settings |= {"endpoint": url.netloc, "url_style": "path", "use_ssl": str(url.scheme == "https").lower()}
    return settings


def engine_statements() -> list[str]:
    """Returns the statements after which a DuckDB session reads objects of S3, and repeats what is throttled."""

    def text(value: str) -> str:
        return "'" + value.replace("'", "''") + "'"

    settings = ", ".join(f"{name} {text(value)}" for name, value in engine_settings().items())
    return [
        f"load {text(extension())}",
        f"create or replace secret (type s3, {settings})",
        f"set http_retries = {_ATTEMPTS}",
        "set http_retry_backoff = 2",  # 4 would make the last pause half an hour
        "set http_timeout = 60",
        # an object is never written again under its name: what is known of it stays true
        "set enable_http_metadata_cache = true",
    ]


def extension() -> str:
    """Returns the file of DuckDB's httpfs extension.

    Raises:
        MissingExtra: It is not installed.
    """
    from importlib.util import find_spec

    spec = find_spec("duckdb_extension_httpfs")
    places = spec.submodule_search_locations if spec and spec.submodule_search_locations else ()
    for place in places:
        for path in sorted(Path(place).glob("extensions/*/httpfs.duckdb_extension")):
            return str(path)
    raise MissingExtra("s3:// needs DuckDB's httpfs extension, found none: pip install 'stedi[aws]'")


def each(function: Callable[[Any], Any], items: Iterable[Any]) -> list[tuple[Any, Any]]:
    """Returns each item with what a function makes of it; several wait for S3 at once."""
    listed = list(items)
    with ThreadPoolExecutor(2 * _BESIDE) as beside:
        return list(zip(listed, beside.map(function, listed), strict=True))


def start(path: Path, size: int) -> bytes:
    """Returns an object's first bytes, fewer where it is shorter."""
    found = cast(S3Path, path)
    try:
        return _read(found, Range=f"bytes=0-{size - 1}")[0]
    except OSError:
        # an empty object has no first byte to give
        if found.stat().st_size:
            raise
        return b""
