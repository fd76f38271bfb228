"""Drops people from a release: its folder is written again beside it without them, and replaces it in one step.

If the process dies at any time, the folder is the old or the new one. Where a file system cannot exchange two names,
the old one may lie aside until the next command that drops people restores it. Files without these people stay byte for
byte the same. Only the signature of the new folder needs lake and key.
"""

from __future__ import annotations

import ctypes
import errno
import glob
import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from stedi.datasets import chain, contents, quality, seal
from stedi.datasets.contents import Manifest
from stedi.datasets.seal import MANIFEST, SUMS
from stedi.storage import durable

_PARTIAL = re.compile(r"\.[^/]{1,100}\.[0-9a-f]{16}\.partial")
_ASIDE = re.compile(r"\.[^/]{1,100}\.[0-9a-f]{16}\.aside")
"""The name of the old folder, where two renames take the place of an exchange."""
_UNABLE = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
"""What a file system answers that cannot exchange two names, as NFS."""
_BATCH = 1 << 17


def drop(
    folder: Path,
    gone: Mapping[str, str],
    seal_it: Callable[[Path], None],
    describe: Callable[[Path, Path, dict[str, Any]], None],
) -> tuple[str, ...]:
    """Removes subjects from a release's folder; without any of them it stays unchanged.

    Args:
        folder: The release.
        gone: The subjects, and since when they may not be used, ISO 8601.
        seal_it: Called with the new folder when all but what proves it is there: adds that.
        describe: Called with the folder, the new one and its manifest when its data are there: writes what describes
            them.

    Returns:
        Those who were in it.

    Raises:
        AuditFailed: It has no manifest of a release.
    """
    folder = _real(folder)
    remove_abandoned(folder)
    manifest = contents.open_manifest(folder / MANIFEST)
    known = contents.subjects(folder / contents.SUBJECTS)
    present = {subject for subject, _, _ in known} & gone.keys()
    if not present:
        return ()
    beside = folder.with_name(f".{folder.name[:100]}.{secrets.token_hex(8)}.partial")
    beside.mkdir(0o700)
    # while this process lives, no other takes it for an abandoned one
    held = durable.hold(beside)
    try:
        plain = _rewritten(folder, beside, manifest, frozenset(present), known)
        plain["parent"] = chain.parent(manifest.plain, manifest.origin, {s: gone[s] for s in present})
        describe(folder, beside, plain)
        (beside / MANIFEST).write_bytes(text(plain))
        seal_it(beside)
        if not (beside / SUMS).exists():
            (beside / SUMS).write_bytes(seal.sums(beside))
        # on disk before it has the release's name: a crash after the exchange finds a whole folder
        _settle(folder, beside)
        _replace(folder, beside)
        durable.sync(folder.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)  # the old one, or an unfinished one
        os.close(held)
    return tuple(sorted(present))


def remove_abandoned(folder: Path) -> None:
    """Removes what a killed command has left beside a release of its own making, or of the folder from before."""
    folder = _real(folder)
    restore(folder)
    for entry in abandoned(folder):
        shutil.rmtree(entry, ignore_errors=True)


def abandoned(folder: Path) -> Iterator[Path]:
    """Yields the folders that `remove_abandoned` removes."""
    folder = _real(folder)
    for entry in folder.parent.glob(f".{glob.escape(folder.name[:100])}.*.partial"):
        if _PARTIAL.fullmatch(entry.name) and entry.is_dir() and not entry.is_symlink() and not durable.is_held(entry):
            yield entry


def restore(folder: Path) -> None:
    """Gives a release its folder back that a killed command has put aside, or removes it if the new one is there."""
    folder = _real(folder)
    for entry in folder.parent.glob(f".{glob.escape(folder.name[:100])}.*.aside"):
        if _ASIDE.fullmatch(entry.name) and entry.is_dir() and not entry.is_symlink():
            if os.path.lexists(folder):
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.rename(folder)
            durable.sync(folder.parent)


def text(plain: Mapping[str, Any]) -> bytes:
    """Returns the text of a manifest."""
    import json

    return (json.dumps(plain, ensure_ascii=False, indent=2) + "\n").encode()


def _real(folder: Path) -> Path:
    """Returns a release's folder itself: in place of a link, only the link would be exchanged, and the people stay."""
    return Path(os.path.realpath(folder))


def _replace(folder: Path, beside: Path) -> None:
    """Gives a new folder the name of an old one; atomically where the file system can exchange two names."""
    try:
        exchange(beside, folder)
    except OSError as error:
        if error.errno not in _UNABLE:
            raise
        aside = folder.with_name(f".{folder.name[:100]}.{secrets.token_hex(8)}.aside")
        folder.rename(aside)
        # killed here, the release has no folder, until `restore` gives it the old one back
        durable.sync(folder.parent)
        beside.rename(folder)
        durable.sync(folder.parent)
        shutil.rmtree(aside, ignore_errors=True)


def exchange(one: Path, other: Path) -> None:
    """Exchanges the names of two folders, atomically.

    Raises:
        OSError: This system cannot do so; nothing was changed.
    """
    # two renames would leave a moment at which there is no release; Python has no call that exchanges two names
    library = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    try:
        if sys.platform == "darwin":
            # 2 is RENAME_SWAP here, and RENAME_EXCHANGE on Linux
            failed = library.renamex_np(*names, 2)
        else:
            here = -100  # AT_FDCWD
            failed = library.renameat2(here, names[0], here, names[1], 2)
    except AttributeError:
        raise OSError(errno.ENOSYS, "folders cannot be exchanged on this system", str(other)) from None
    if failed:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(other))


def _rewritten(
    folder: Path, beside: Path, manifest: Manifest, gone: frozenset[str], known: Iterable[tuple[str, str, int]]
) -> dict[str, Any]:
    """Writes the files with rows, and returns the manifest that they make; what describes them is still that of old."""
    (beside / "data").mkdir(0o700)
    plain = dict(manifest.plain)
    files, moments = [], 0
    for file in manifest.files:
        source, target = folder / file.path, beside / file.path
        if file.path == contents.SUBJECTS:
            rows = _subjects(source, target, gone)
        elif gone.isdisjoint(contents.counts(source)):
            rows = file.rows
            _link(source, target)
        else:
            rows, went = _rows(source, target, gone)
            moments += went
        files.append({"path": file.path, "size": target.stat().st_size, "rows": rows, "sha256": seal.digest(target)})
    left = [entry for entry in known if entry[0] not in gone]
    splits = {split: [rows for _, where, rows in left if where == split] for split in contents.SPLITS}
    plain["files"] = files
    plain["subjects"], plain["rows"] = len(left), sum(rows for _, _, rows in left)
    plain["splits"] = {split: {"subjects": len(rows), "rows": sum(rows)} for split, rows in splits.items()}
    if plain["options"].get("resample") is not None:  # the data do not tell how many moments they were made from
        moments = _made_from(folder / quality.NAME, gone)
    plain["account"] = chain.account(plain["account"], moments)
    return plain


def _made_from(told: Path, gone: frozenset[str]) -> int:
    """Returns how many moments the windows of some subjects were made from, as the release's quality says."""
    return sum(person.get(quality.WITHIN, 0) for person in quality.read(told) if person["subject"] in gone)


def _rows(source: Path, target: Path, gone: frozenset[str]) -> tuple[int, int]:
    """Writes a data file without some subjects; returns its rows, and the moments that went."""
    import pyarrow.parquet as pq

    rows, went = 0, 0
    with pq.ParquetFile(source) as file:
        schema = file.schema_arrow
        with pq.ParquetWriter(target, schema, compression="zstd", store_schema=False) as writer:
            for batch in file.iter_batches(_BATCH):
                left = contents.filtered(batch, gone)
                rows += left.num_rows
                if "t_ms" not in schema.names:
                    went += batch.num_rows - left.num_rows
                if left.num_rows:
                    writer.write_batch(left)
    return rows, went if "t_ms" not in schema.names else _moments(source, gone)


def _moments(source: Path, gone: frozenset[str]) -> int:
    """Returns how many moments the windows of some subjects hold, each once, in however many windows it is."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    wanted = ["subject", "start", "t_ms", *(["mask"] if "mask" in pq.read_schema(source).names else [])]
    table = pq.read_table(source, columns=wanted, partitioning=None)
    theirs = pc.is_in(table.column("subject").cast(pa.string()), value_set=pa.array(sorted(gone), pa.string()))
    table = table.filter(theirs).combine_chunks()
    of = pc.list_parent_indices(table.column("t_ms"))
    start, unit = table.column("start"), 1
    if pa.types.is_timestamp(start.type):
        start, unit = start.cast(pa.int64()), 1000  # microseconds
    begun = pc.take(start, of)
    at = pc.add(begun, pc.multiply(pc.list_flatten(table.column("t_ms")).cast(pa.int64()), unit))
    moments = pa.table({"subject": pc.take(table.column("subject"), of), "at": at, "start": begun})
    if "mask" in wanted:
        moments = moments.filter(pc.list_flatten(table.column("mask")))
    # two devices may give a subject several moments of one instant: every window around it has them all
    several = moments.group_by(["subject", "at", "start"]).aggregate([([], "count_all")])
    once = several.group_by(["subject", "at"]).aggregate([("count_all", "max")])
    return pc.sum(once.column("count_all_max")).as_py() or 0


def _subjects(source: Path, target: Path, gone: frozenset[str]) -> int:
    import pyarrow.parquet as pq

    with pq.ParquetFile(source) as file:
        table = file.read()
    left = contents.filtered(table, gone)
    pq.write_table(left, target, compression="zstd", store_schema=False)
    return int(left.num_rows)


def _link(source: Path, target: Path) -> None:
    try:
        # a link needs no room and no time, and its bytes are certainly the same; not every file system has them
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _settle(before: Path, after: Path) -> None:
    """Gives a folder the mode of another, and syncs all of it."""
    mode = before.stat().st_mode & 0o777
    paths = sorted(after.rglob("*"))
    for path in paths:
        with suppress(OSError):  # a file that is shared with the one from before has its rights already
            path.chmod(mode if path.is_dir() else mode & 0o666)
    after.chmod(mode)
    for path in (*paths, after):
        durable.sync(path)
