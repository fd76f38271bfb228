"""Operations on objects: list, read, write and remove, many at a time, with their older versions."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, cast

from stedi._frozen import dataclass
from stedi.errors import LakeError, many
from stedi.storage.s3.connection import ATTEMPTS, BESIDE, answers, client, pause
from stedi.storage.s3.paths import SCHEME, S3Path

T = TypeVar("T")

SUM = "sha256"
"""The entry of an object's metadata with the SHA-256 of its content, hex."""
_PASSING = frozenset({"InternalError", "RequestTimeout", "ServiceUnavailable", "SlowDown"})
"""Errors for single objects of a bulk call that may succeed when repeated."""
_PART = 16 << 20


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
    """Yields every object below a prefix, or the object of exactly this key, sorted by key.

    Raises:
        LakeError: There is an object that no path can name: it could be neither read nor removed.
    """
    root = cast(S3Path, folder)
    with answers(root):
        for page in client().get_paginator("list_objects_v2").paginate(Bucket=root.bucket, Prefix=root.key):
            for entry in page.get("Contents", ()):
                key = entry["Key"]
                # the prefix `inbox` also finds `inbox2`, and a key that ends in a slash is a folder that some console
                # has made
                if (key == root.key or key.startswith(root._prefix)) and not key.endswith("/"):
                    path = S3Path("s3:", root.bucket, *key.split("/"))
                    if path.key != key:
                        raise LakeError(
                            f"{SCHEME}{root.bucket}/{key}: expected a key without empty parts and without `.`, "
                            "found this one, which no path can name; rename that object"
                        )
                    yield Object(path, entry["Size"], entry["LastModified"].timestamp(), entry["ETag"])


def head(path: S3Path) -> dict[str, Any] | None:
    """Returns S3's metadata of an object, or None if there is none."""
    # a bucket itself is no object
    if not path.key:
        return None
    try:
        with answers(path):
            return cast(dict[str, Any], client().head_object(Bucket=path.bucket, Key=path.key))
    except FileNotFoundError:
        return None


def _taken(path: S3Path, take: Callable[[dict[str, Any]], T], **part: str) -> T:
    """Returns what a function makes of a requested object; a body that breaks off is requested again."""
    attempt = 0
    while True:
        with answers(path):
            found = client().get_object(Bucket=path.bucket, Key=path.key, **part)
        try:
            with answers(path):
                return take(found)
        except OSError:
            attempt += 1
            if attempt == ATTEMPTS:
                raise
            time.sleep(pause(attempt))


def read(path: S3Path, **part: str) -> tuple[bytes, dict[str, Any]]:
    """Returns an object's bytes and S3's metadata."""
    return _taken(path, lambda found: (found["Body"].read(), found), **part)


def content(path: Path) -> tuple[bytes, str | None]:
    """Returns an object's bytes and the SHA-256 that its writer recorded with it, if it did."""
    found, about = read(cast(S3Path, path))
    return found, about.get("Metadata", {}).get(SUM)


def recorded(path: S3Path) -> str | None:
    """Returns the SHA-256 that an object's writer recorded with it, if there is such an object and it did."""
    found = head(path)
    return None if found is None else found.get("Metadata", {}).get(SUM)


def digest(path: Path) -> tuple[str, int]:
    """Returns the SHA-256, hex, and the size of an object's bytes, read for that."""

    def take(answer: dict[str, Any]) -> tuple[str, int]:
        found, size = hashlib.sha256(), 0
        for piece in answer["Body"].iter_chunks(1 << 20):
            found.update(piece)
            size += len(piece)
        return found.hexdigest(), size

    return _taken(cast(S3Path, path), take)


def start(path: Path, size: int) -> bytes:
    """Returns an object's first bytes, fewer where it is shorter."""
    found = cast(S3Path, path)
    try:
        return read(found, Range=f"bytes=0-{size - 1}")[0]
    except OSError:
        # an empty object has no first byte to give
        if found.stat().st_size:
            raise
        return b""


def each(function: Callable[[Any], Any], items: Iterable[Any]) -> list[tuple[Any, Any]]:
    """Returns each item with the result of a function; several requests run at once."""
    from concurrent.futures import ThreadPoolExecutor

    listed = list(items)
    if len(listed) < 2:
        return [(item, function(item)) for item in listed]
    with ThreadPoolExecutor(2 * BESIDE) as beside:
        return list(zip(listed, beside.map(function, listed), strict=True))


def transfer() -> Any:
    """Returns how a large object travels: in parts, several at a time."""
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(multipart_threshold=4 * _PART, multipart_chunksize=_PART, max_concurrency=4)


def write(path: Path, body: bytes, **condition: str) -> None:
    """Writes an object, whole or not at all, with its SHA-256 recorded beside its bytes.

    Args:
        path: The object.
        body: Its bytes.
        condition: What must be so, `IfMatch` or `IfNoneMatch` of S3.
    """
    target = cast(S3Path, path)
    sha256 = hashlib.sha256(body).hexdigest()
    with answers(target):
        client().put_object(Bucket=target.bucket, Key=target.key, Body=body, Metadata={SUM: sha256}, **condition)


def create(path: Path, body: bytes) -> None:
    """Writes a new object.

    Raises:
        FileExistsError: It exists.
    """
    try:
        write(path, body, IfNoneMatch="*")
    except FileExistsError:
        # it was, or the first request was done and its answer lost
        if read(cast(S3Path, path))[0] != body:
            raise


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
        with answers(target), open(source, "rb") as stream:
            # parts carry checksums that S3 compares; a broken one is sent again or fails
            client().upload_fileobj(
                stream, target.bucket, target.key, ExtraArgs={"Metadata": {SUM: digest}}, Config=transfer()
            )
        found, sent = target.stat().st_size, source.stat().st_size
        if found != sent:
            raise OSError(5, f"expected {sent} bytes in S3 after the upload, found {found}", str(target))

    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(BESIDE) as beside:
        # asking for the results raises the first error
        for _ in beside.map(copy, pairs):
            pass


def exchange(source: Path, path: Path, tag: str, to: Path) -> None:
    """Replaces an object by a local file if the object has not changed since it was read.

    A file too large for one request is compared right before the upload, since multipart uploads cannot be conditional.

    Args:
        source: The local file.
        path: The object.
        tag: The ETag of the content that was read.
        to: The object's new name, or its own.

    Raises:
        FileExistsError: Its content has changed; nothing was written.
        FileNotFoundError: It is gone.
    """
    target, new = cast(S3Path, path), cast(S3Path, to)
    if new == target and source.stat().st_size <= 4 * _PART:
        write(target, source.read_bytes(), IfMatch=tag)
        return
    found = head(target)
    if found is None:
        raise FileNotFoundError(2, "no such object in S3", str(target))
    if found["ETag"] != tag:
        raise FileExistsError(17, "another program has written it", str(target))
    upload([(source, new)])
    if new != target:
        remove([target])


def download(path: Path, target: Path, *, tag: str = "") -> None:
    """Copies an object into a new private local file; there is no file if this fails.

    Args:
        path: The object.
        target: The file.
        tag: The ETag that the object must have; by default any.

    Raises:
        FileExistsError: The object's content has changed, or the file exists.
        FileNotFoundError: The object is gone.
    """
    source = cast(S3Path, path)
    condition = {"IfMatch": tag} if tag else {}
    with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as out:

        def take(answer: dict[str, Any]) -> None:
            # a body that broke off is requested again from its start
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
    # S3 takes a thousand keys in a request
    for start in range(0, len(objects), 1_000):
        refused += _removed(bucket, objects[start : start + 1_000])
    if refused:
        first = refused[0]
        kind = PermissionError if any(error.get("Code") == "AccessDenied" for error in refused) else OSError
        raise kind(
            13 if kind is PermissionError else 5,
            f"S3 refused to delete {many(len(refused), 'object')} ({first.get('Code')})",
            f"{SCHEME}{bucket}/{first['Key']}",
        )


def _removed(bucket: str, objects: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
    """Removes up to a thousand objects, and returns S3's errors for those that remain."""
    refused: list[dict[str, Any]] = []
    left = list(objects)
    for attempt in range(ATTEMPTS):
        with answers(f"{SCHEME}{bucket}"):
            # an answer of 200 lists refused and timed-out removals
            done = client().delete_objects(Bucket=bucket, Delete={"Objects": left, "Quiet": True})
        errors = done.get("Errors", [])
        refused += [error for error in errors if error.get("Code") not in _PASSING]
        late = [error for error in errors if error.get("Code") in _PASSING]
        if not late:
            return refused
        again = {(error["Key"], error.get("VersionId")) for error in late}
        left = [entry for entry in left if (entry["Key"], entry.get("VersionId")) in again]
        time.sleep(pause(attempt))
    return refused + late


def remove_tree(folder: Path) -> None:
    """Removes every object below a prefix, and an object of exactly this key."""
    remove([found.path for found in listing(folder)])


def remove_versions(folder: Path, meant: Callable[[str], bool] = lambda key: True) -> int:
    """Removes a bucket's remains of removed objects: older versions, delete markers, unfinished uploads.

    Args:
        folder: A prefix.
        meant: Returns whether a key's are removed.

    Returns:
        How many versions and uploads were removed.

    Raises:
        PermissionError: S3 refused one.
        OSError: Some are still there.
    """
    root = cast(S3Path, folder)
    versions, marks = _stale(root, meant)
    _remove(root.bucket, versions)
    _remove(root.bucket, marks)  # after them: what was deleted is not seen again, not even if S3 refuses
    uploads = _uploads(root, meant)
    for upload_ in uploads:
        with suppress(FileNotFoundError), answers(root):
            client().abort_multipart_upload(Bucket=root.bucket, Key=upload_["Key"], UploadId=upload_["UploadId"])
    left = sum(map(len, _stale(root, meant))) + len(_uploads(root, meant))
    if left:
        raise OSError(5, f"expected no older versions and no unfinished uploads, found {left}", str(root))
    return len(versions) + len(marks) + len(uploads)


def _stale(root: S3Path, meant: Callable[[str], bool]) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Returns the versions below a prefix that no reader sees, and the marks that say that something was deleted."""
    versions, marks = [], []
    with answers(root):
        for page in client().get_paginator("list_object_versions").paginate(Bucket=root.bucket, Prefix=root.key):
            # a bucket without versions shows each object as one, `null`, that is the latest
            versions += [entry for entry in page.get("Versions", ()) if not entry["IsLatest"]]
            marks += page.get("DeleteMarkers", ())

    def told(entries: list[dict[str, str]]) -> list[dict[str, str]]:
        stale = [entry for entry in entries if _in(root, entry["Key"]) and meant(entry["Key"])]
        return [{name: entry[name] for name in ("Key", "VersionId")} for entry in stale]

    return told(versions), told(marks)


def _uploads(root: S3Path, meant: Callable[[str], bool]) -> list[dict[str, str]]:
    with answers(root):
        # parts of an upload that broke off stay, unlisted, until somebody removes them
        pages = client().get_paginator("list_multipart_uploads").paginate(Bucket=root.bucket, Prefix=root.key)
        found = [upload_ for page in pages for upload_ in page.get("Uploads", ())]
    return [upload_ for upload_ in found if _in(root, upload_["Key"]) and meant(upload_["Key"])]


def _in(root: S3Path, key: str) -> bool:
    """Returns whether a key is that of a location, or one below it."""
    return key == root.key or key.startswith(root._prefix)
