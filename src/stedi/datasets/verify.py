"""Verifies a release against its signature: needs only the folder, neither lake nor key.

Nothing in the folder is trusted. Its files must equal `SHA256SUMS`, byte for byte; checksums and manifest must equal
the signed ones; splits, people, rows and columns in the data must equal the manifest. After a recall the folder is no
longer what was signed: then it must follow from what was, by the signed recalls that it keeps (`chain`).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from stedi._frozen import dataclass
from stedi.datasets import chain, contents, seal
from stedi.datasets.contents import Manifest
from stedi.datasets.seal import CHAIN, MANIFEST, SIGNATURE, SUMS
from stedi.errors import AuditFailed, UsageError, many
from stedi.privacy import signatures
from stedi.storage import s3

_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9_-][A-Za-z0-9._-]*(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)*)")
"""A line of `SHA256SUMS`; no part of a name begins with a dot, so that none leads out of the folder."""
_REQUIRED = (MANIFEST, SUMS, contents.SUBJECTS)
"""Files that no release lacks."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A difference from what was signed.

    Attributes:
        file: The file, relative to the release's folder.
        what: What is wrong with it, in words.
    """

    file: str
    what: str


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of verifying a release.

    Attributes:
        path: The folder.
        release: `NAME@VERSION`; empty if that cannot be read.
        lake: The id of the lake that signed it; empty likewise.
        public_key: Fingerprint of the key that signed it: SHA-256, hex, of the raw public key; empty likewise.
        created: When the newest table that it was made from was published, ISO 8601, as the manifest says.
        dropped: The subjects that recalls have removed from this copy.
        files: Files that were read.
        bytes: Their size.
        problems: The differences; empty if the release is what was signed.
    """

    path: Path
    release: str
    lake: str
    public_key: str
    created: str
    dropped: tuple[str, ...]
    files: int
    bytes: int
    problems: tuple[Problem, ...]

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify(folder: Path, *, public_key: Path | None = None) -> Verification:
    """Returns whether a release's folder equals what its lake has signed.

    Args:
        folder: The release.
        public_key: A file with the public key that must have signed it; by default the one in the release.

    Raises:
        UsageError: There is no such folder, or the file is not a public key.
    """
    if s3.is_remote(folder):
        raise UsageError(f"{s3.at(folder)}: expected a folder on this machine, found a place in S3; copy it here")
    if not folder.is_dir():
        raise UsageError(f"{folder}: expected the folder of a release, found none")
    pem = None
    if public_key is not None:
        try:
            pem = signatures.read_public_key(public_key)
        except (OSError, AuditFailed):
            raise UsageError(f"{public_key}: expected a public key (PEM, Ed25519), found none") from None
    return _Work(folder, pem).done()


class _Work:
    """One verification."""

    def __init__(self, folder: Path, pem: str | None) -> None:
        self._folder, self._pem = folder, pem
        self._problems: list[Problem] = []
        self._sizes: dict[str, int] = {}
        self._digests: dict[str, str] = {}
        self._found: dict[str, dict[str, int]] = {}

    def done(self) -> Verification:
        manifest, dropped, signer = None, tuple[str, ...](), ""
        # first what is there, then what was signed: whatever is signed by nobody must be found, too
        self._walk()
        listed = self._sums()
        try:
            manifest = contents.open_manifest(self._folder / MANIFEST)
        except AuditFailed as error:
            self._say(MANIFEST, str(error))
        good = [name for name in self._sizes if self._is_read(name)]
        # the largest first, so that no thread is left with it at the end
        good.sort(key=lambda name: -self._sizes[name])
        columns = {}
        if manifest is not None:
            shown = [(column["name"], column["type"]) for column in manifest.plain["columns"]]
            columns = {file.path: shown for file in manifest.files if contents.is_data(file.path)}
        # hashing and decoding leave the interpreter free: a thread a core
        with ThreadPoolExecutor(os.cpu_count() or 1) as readers:
            digests = readers.map(lambda name: self._read(name, columns.get(name)), good)
            self._digests = dict(zip(good, digests, strict=True))
        for name, found in self._digests.items():
            if listed.get(name, found) != found:
                self._say(name, "its bytes differ from SHA256SUMS")
        if manifest is not None:
            signer, dropped = self._signed(manifest)
            self._files(manifest)
            self._people(manifest)
        plain = manifest.plain if manifest else {}
        return Verification(
            self._folder,
            str(plain.get("release", "")),
            str(plain.get("lake", "")),
            signer,
            str(plain.get("created", "")),
            dropped,
            len(self._digests),
            sum(self._sizes[name] for name in self._digests),
            tuple(sorted(set(self._problems), key=lambda problem: (problem.file, problem.what))),
        )

    def _say(self, file: str, what: str) -> None:
        self._problems.append(Problem(file, what))

    def _walk(self) -> None:
        """Records every file, and everything else."""
        empty: dict[str, bool] = {}
        pending = [""]  # without recursion: whoever has made the folder has decided how deep it is
        while pending:
            before = pending.pop()
            try:
                with os.scandir(self._folder / before) as entries:
                    # a link could show the reader another file than the one that is verified
                    found = [(f"{before}{entry.name}", entry.stat(follow_symlinks=False)) for entry in entries]
            except OSError as error:
                self._say(before or ".", f"cannot be read ({error.strerror})")
                empty.pop(before.rstrip("/"), None)
                continue
            for name, status in found:
                empty[before.rstrip("/")] = False
                if stat.S_ISDIR(status.st_mode):
                    empty[name] = True
                    pending.append(f"{name}/")
                elif stat.S_ISLNK(status.st_mode):
                    self._say(name, "a link: a release has only files")
                elif not stat.S_ISREG(status.st_mode):
                    self._say(name, "not a regular file: a release has only files")
                else:
                    self._sizes[name] = status.st_size
        for name, is_empty in empty.items():
            if is_empty:
                self._say(f"{name}/", "an empty folder that does not belong to the release")

    def _sums(self) -> Mapping[str, str]:
        """Returns the checksums in `SHA256SUMS`, and reports missing and additional files."""
        if SUMS not in self._sizes:
            self._say(SUMS, "missing")
            return {}
        try:
            lines = contents.content(self._folder / SUMS).decode("ascii").split("\n")
        except (OSError, UnicodeDecodeError):
            # counts as a line without its end, which is named below
            lines = ["?"]
        found: dict[str, str] = {}
        for number, line in enumerate(lines[:-1], start=1):
            match = _LINE.fullmatch(line)
            # of a name that is listed twice readers could take either sum
            if match is None or match[2] in found or match[2] in (SUMS, SIGNATURE):
                self._say(SUMS, f"line {number}: expected a checksum and a file of the release, once")
            else:
                found[match[2]] = match[1]
        if lines[-1]:
            self._say(SUMS, "expected a line end at its end")
        if list(found) != sorted(found):
            self._say(SUMS, "expected its lines ordered by file name")
        for name in found.keys() - self._sizes.keys():
            self._say(name, "missing")
        for name in self._sizes.keys() - found.keys() - {SUMS, SIGNATURE}:
            self._say(name, "an extra file: it is not in SHA256SUMS")
        return found

    def _is_read(self, name: str) -> bool:
        return (self._folder / name).is_file()

    def _read(self, name: str, columns: list[tuple[str, str]] | None) -> str:
        """Returns a file's digest; of one with these columns it counts the rows, while its bytes are at hand."""
        try:
            found = seal.digest(self._folder / name)
        except OSError as error:
            self._say(name, f"cannot be read ({error.strerror})")
            return ""
        if columns is not None:
            self._count(name, columns)
        return found

    def _signed(self, manifest: Manifest) -> tuple[str, tuple[str, ...]]:
        """Checks the signature; returns the signer's fingerprint and the subjects dropped by recalls."""
        # the holder of a copy has no key: after a recall it is the chain that is signed, not the copy
        if SIGNATURE not in self._sizes and manifest.plain["parent"]:
            try:
                proof = chain.check(self._folder, manifest, self._digests, self._pem)
            except AuditFailed as error:
                self._say(CHAIN, str(error))
                return "", ()
            for file, what in proof.problems:
                self._say(file, what)
            return proof.public_key, proof.dropped
        if any(name.startswith(f"{CHAIN}/") for name in self._sizes) and SIGNATURE in self._sizes:
            self._say(CHAIN, "does not belong to a release that is signed as it is")
        return self._signature(manifest), ()

    def _signature(self, manifest: Manifest) -> str:
        try:
            envelope = contents.content(self._folder / SIGNATURE)
        except OSError:
            self._say(SIGNATURE, "missing: nothing shows who has signed this release")
            return ""
        try:
            statement = chain.signed(envelope, manifest, self._pem)
        except AuditFailed as error:
            self._say(SIGNATURE, str(error))
            return ""
        # checksums and manifest are the signed ones, and every other file has its checksum: so all bytes are signed
        for name, signed in statement.subjects.items():
            if self._digests.get(name) != signed:
                self._say(name, "its bytes differ from the signed ones")
        return statement.fingerprint

    def _files(self, manifest: Manifest) -> None:
        """Compares the data files with the manifest."""
        for name in _REQUIRED:
            if name not in self._sizes:
                self._say(name, "missing")
        listed = {file.path: file for file in manifest.files}
        there = {name for name in self._sizes if contents.is_data(name) or name == contents.SUBJECTS}
        for name in there - listed.keys():
            self._say(name, "an extra file: it is not in the manifest")
        for name in self._sizes:
            if name.startswith("data/") and not contents.is_data(name):
                self._say(name, "a file too many: not named as a file of data")
        for name, file in listed.items():
            if name not in there:
                self._say(name, "missing")
                continue
            if self._sizes[name] != file.bytes:
                self._say(
                    name, f"expected {many(file.bytes, 'byte')} as the manifest says, found {self._sizes[name]:,}"
                )
            if self._digests.get(name) != file.sha256:
                self._say(name, "its bytes differ from the manifest")

    def _people(self, manifest: Manifest) -> None:
        """Compares people, rows and columns in the data with `subjects.parquet` and the manifest."""
        of_subject: dict[str, dict[str, int]] = {}
        rows = dict.fromkeys(contents.SPLITS, 0)
        for file in manifest.files:
            found = self._found.get(file.path)
            if found is None:
                continue
            split = contents.split_of(file.path)
            if sum(found.values()) != file.rows:
                self._say(
                    file.path, f"expected {many(file.rows, 'row')} as the manifest says, found {sum(found.values()):,}"
                )
            rows[split] += sum(found.values())
            for subject, count in found.items():
                splits = of_subject.setdefault(subject, {})
                splits[split] = splits.get(split, 0) + count
        for subject, splits in of_subject.items():
            if len(splits) > 1:
                self._say(contents.SUBJECTS, f"subject {subject} has rows in {' and '.join(splits)}")
        known = self._subjects()
        if known is not None:
            self._compare(of_subject, known)
        people = {split: sum(split in splits for splits in of_subject.values()) for split in contents.SPLITS}
        self._counts(manifest, people, rows, len(of_subject))

    def _count(self, name: str, expected: list[tuple[str, str]]) -> None:
        """Notes how many rows of each subject a data file has."""
        try:
            columns = contents.columns(self._folder / name)
            if columns != expected:
                self._say(name, "its columns differ from the manifest")
            found = contents.counts(self._folder / name)
        except Exception:  # PyArrow raises any kind of error for a damaged file
            self._say(name, "not a Parquet file of a release")
            return
        if any(not isinstance(subject, str) for subject in found):
            self._say(name, "a row without a subject")
        self._found[name] = {str(subject): count for subject, count in found.items()}

    def _subjects(self) -> list[tuple[str, str, int]] | None:
        name = contents.SUBJECTS
        if name not in self._digests:
            return None
        try:
            if [column for column, _ in contents.columns(self._folder / name)] != ["subject", "split", "rows"]:
                self._say(name, "expected the columns subject, split and rows")
            return contents.subjects(self._folder / name)
        except Exception:  # as above
            self._say(name, "not a Parquet file of a release")
            return None

    def _compare(self, found: Mapping[str, Mapping[str, int]], known: Iterable[tuple[str, str, int]]) -> None:
        name, told = contents.SUBJECTS, set[str]()
        for subject, split, rows in known:
            if subject in told:
                self._say(name, f"subject {subject} is listed twice")
            told.add(subject)
            there = found.get(subject, {})
            if split not in there and there:
                self._say(name, f"subject {subject} is in {' and '.join(there)}, not in {split}")
            elif there.get(split, 0) != rows or not there:
                self._say(
                    name, f"subject {subject}: expected {many(rows, 'row')} in the data, found {there.get(split, 0)}"
                )
        for subject in found.keys() - told:
            self._say(name, f"subject {subject} has rows in the data and is not listed")

    def _counts(self, manifest: Manifest, people: Mapping[str, int], rows: Mapping[str, int], everybody: int) -> None:
        plain = manifest.plain
        for split in contents.SPLITS:
            for what, found, said in zip(
                ("subject", "row"), (people[split], rows[split]), manifest.splits[split], strict=True
            ):
                if found != said:
                    self._say(MANIFEST, f"split {split}: expected {many(said, what)}, found {found} in the data")
        for what, found in (("subject", everybody), ("row", sum(rows.values()))):
            if (said := plain[f"{what}s"]) != found:
                self._say(MANIFEST, f"expected {many(said, what)}, found {found} in the data")
        if plain["release"] != f"{plain['name']}@{plain['version']}":
            self._say(MANIFEST, "expected the release that its name and version make")
        account = [line["rows"] for line in plain["account"]]
        if len(account) > 1 and sum(account[:-1]) != account[-1]:
            self._say(MANIFEST, "an account that does not add up")
