"""The chain of a recalled copy: the original signatures, and the signed recalls that lead from them to the copy.

    chain/manifest.json, chain/SHA256SUMS, chain/manifest.sig    the release as its lake signed it
    chain/recall-1.json, chain/recall-2.json ...                 what was taken out of it since

Whoever holds the copy has no key, so the copy's own manifest is not signed. `check` works out from the chain what must
stand in it: files without any dropped subject to the byte, the values of the others by the recall's digest of them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stedi._frozen import dataclass
from stedi.datasets import contents, quality, recalls
from stedi.datasets.contents import Manifest
from stedi.datasets.options import Options
from stedi.datasets.recalls import Recall
from stedi.datasets.seal import CHAIN, MANIFEST, PREDICATE, SIGNATURE, SUMS
from stedi.errors import AuditFailed
from stedi.privacy import signatures
from stedi.privacy.signatures import SignatureRefused, Statement

_BASE = (MANIFEST, SUMS, SIGNATURE)
_MOST = 1000
"""The most recalls of one copy."""
RECALLED = "recalled or erased since"
"""The account's words for what was removed from a release after its creation."""


@dataclass(frozen=True, slots=True)
class Proof:
    """The findings about the chain of a copy.

    Attributes:
        public_key: Fingerprint of the key that signed all of it.
        dropped: The removed subjects.
        problems: Files of the copy that do not match it, and why.
    """

    public_key: str
    dropped: tuple[str, ...]
    problems: tuple[tuple[str, str], ...]


def signed(envelope: bytes, manifest: Manifest, pem: str | None) -> Statement:
    """Returns the statement in the signature of a release; the caller must compare the files.

    Args:
        envelope: The signature's file.
        manifest: The release's manifest.
        pem: The public key that must have signed it, or None.

    Raises:
        SignatureRefused: It is not a signature of this release.
    """
    statement = signatures.check(envelope, pem, name=SIGNATURE)
    said = statement.predicate
    if statement.predicate_type != PREDICATE or said.get("release") != manifest.release:
        raise SignatureRefused(f"{SIGNATURE}: expected a signature of {manifest.release}, found one of something else")
    if said.get("lake") != manifest.plain["lake"] or manifest.plain["public_key"] != statement.public_key:
        raise SignatureRefused(f"{SIGNATURE}: expected the lake and key that the manifest names, found others")
    if statement.subjects.keys() != {MANIFEST, SUMS}:
        raise SignatureRefused(f"{SIGNATURE}: expected a signature of manifest and checksums, found another")
    return statement


def keep(before: Path, after: Path, recall: Recall) -> None:
    """Writes the chain of a copy from which a recall removes people.

    Args:
        before: The old copy.
        after: The new copy.
        recall: The recall.
    """
    (after / CHAIN).mkdir(0o700)
    # a copy from which people were dropped before has the original's signature in its chain, none of its own
    base = before / CHAIN if (before / CHAIN).is_dir() else before
    for name in _BASE:
        shutil.copyfile(base / name, after / CHAIN / name)
    earlier = _recalls(before)
    for path in earlier:
        shutil.copyfile(path, after / CHAIN / path.name)
    (after / CHAIN / f"recall-{len(earlier) + 1}.json").write_bytes(recall.raw)


def check(folder: Path, manifest: Manifest, digests: Mapping[str, str], pem: str | None) -> Proof:
    """Returns what the chain of a copy proves; the copy's files are compared with its manifest elsewhere.

    Args:
        folder: The copy.
        manifest: Its manifest.
        digests: SHA-256 of its current files.
        pem: The public key that must have signed the chain, or None.

    Raises:
        AuditFailed: The chain itself is not what a lake has signed.
    """
    base = contents.open_manifest(folder / CHAIN / MANIFEST)
    try:
        statement = signed(contents.content(folder / CHAIN / SIGNATURE), base, pem)
        found = [recalls.read(contents.content(path), base.plain["public_key"]) for path in _recalls(folder)]
    except OSError:
        raise AuditFailed(
            f"{CHAIN}: expected the signatures of the release and of its recalls, found some missing"
        ) from None
    for name, found_there in statement.subjects.items():
        if digests.get(f"{CHAIN}/{name}") != found_there:
            raise AuditFailed(f"{CHAIN}/{name}: expected the signed bytes, found others")
    allowed = {*_BASE, *(f"recall-{number}.json" for number in range(1, len(found) + 1))}
    odd = [
        (f"{CHAIN}/{path.name}", "a file too many") for path in (folder / CHAIN).iterdir() if path.name not in allowed
    ]
    if not found:
        raise AuditFailed(f"{CHAIN}: expected a recall that leads from the signed release to this copy, found none")
    for recall in found:
        recalls.refuse_other(recall, base)
    dropped = {subject: since for recall in found for subject, since in recall.drop.items()}
    # the checksums of the original: a recall changes files, but neither adds nor removes one
    listed = {line.partition("  ")[2] for line in contents.content(folder / CHAIN / SUMS).decode("ascii").splitlines()}
    here_now = {name for name in digests if not name.startswith(f"{CHAIN}/")} - {SUMS}
    odd += [(name, "a file too many: it was not signed") for name in sorted(here_now - listed)]
    odd += [(name, "missing") for name in sorted(listed - here_now)]
    odd += [(MANIFEST, what) for what in _differs(manifest, base, dropped)]
    # the last recall has the digests of what stays without all whom it names: usable if these are all who were dropped
    proved = found[-1].contents if found[-1].drop.keys() >= dropped.keys() else {}
    # those that were read: what is no regular file is named already, and to open a pipe would wait
    odd += _files(folder, manifest, base, found, {name: proved[name] for name in proved.keys() & digests.keys()})
    odd += _quality(folder, manifest, proved)
    return Proof(statement.fingerprint, tuple(sorted(dropped)), tuple(odd))


def parent(base: Mapping[str, Any], origin: str, drop: Mapping[str, str]) -> dict[str, Any]:
    """Returns a manifest's entry about the release that it comes from.

    Args:
        base: That release's manifest, or one derived from it.
        origin: SHA-256 of the manifest of the original release.
        drop: The removed subjects, and since when they may not be used.
    """
    known = {} if base["parent"] is None else {d["subject"]: d["since"] for d in base["parent"]["drop"]}
    every = sorted({**known, **drop}.items())
    return {
        "release": base["release"],
        "manifest_sha256": origin,
        "drop": [{"subject": subject, "since": since} for subject, since in every],
    }


def account(before: Sequence[Mapping[str, Any]], gone: int) -> list[dict[str, Any]]:
    """Returns a release's account after some of its moments were removed.

    Args:
        before: The account with them.
        gone: How many they are.
    """
    *lines, last = (dict(line) for line in before)
    recalled = {"what": RECALLED, "rows": -gone}
    # one line for all recalls, and for erasures: a later one adds to it
    if lines and lines[-1]["what"] == RECALLED:
        recalled["rows"] += lines.pop()["rows"]
    return [*lines, recalled, {**last, "rows": last["rows"] - gone}]


def _recalls(folder: Path) -> list[Path]:
    found = []
    # up to the first gap: a recall behind it is a file too many
    for number in range(1, _MOST):
        path = folder / CHAIN / f"recall-{number}.json"
        if not path.is_file():
            break
        found.append(path)
    return found


_COUNTED = ("subjects", "rows", "splits", "account", "files", "parent")
"""The parts of a manifest that a recall changes; these are checked when the data are read."""


def _differs(manifest: Manifest, base: Manifest, dropped: Mapping[str, str]) -> Iterable[str]:
    """Yields differences of a copy's manifest that do not follow from the signed one."""
    for name in base.plain.keys() | manifest.plain.keys():
        there = (name in manifest.plain, manifest.plain.get(name))
        if name not in _COUNTED and there != (name in base.plain, base.plain.get(name)):
            yield f"{name}: expected what was signed, found something else"
    if manifest.plain["parent"] != parent(base.plain, base.origin, dropped):
        yield "parent: expected the release that was signed and everybody whom the recalls name, found others"
    if [file.path for file in manifest.files] != [file.path for file in base.files]:
        yield "files: expected those of the release that was signed, found others"
    told, before = manifest.plain["account"], base.plain["account"]
    if not told or not before or told != account(before, before[-1]["rows"] - told[-1]["rows"]):
        yield "account: expected that of the release that was signed, and what was recalled, found another"
    # a row of a release without windows is a moment, and the rows are counted
    elif manifest.plain["options"].get("window") is None and told[-1]["rows"] != manifest.plain["rows"]:
        yield "account: expected as many moments as there are rows, found others"


def _files(
    folder: Path, manifest: Manifest, base: Manifest, found: list[Recall], proved: Mapping[str, str]
) -> Iterable[tuple[str, str]]:
    """Yields the data files of a copy that do not follow from those that were signed."""
    signed = {file.path: file for file in base.files}
    rewritten = {file for recall in found for file in recall.files}
    for file in manifest.files:
        before = signed.get(file.path)
        if before is None or not contents.is_data(file.path):
            continue
        if file.sha256 == before.sha256:
            continue
        if file.path not in rewritten:
            yield file.path, "other bytes than were signed, and no recall concerns it"
        # a file without a digest is only counted: the lake could no longer read the release when it wrote the recall
        elif file.path in proved:
            try:
                same = contents.digest(contents.without(folder / file.path, frozenset())) == proved[file.path]
            except Exception:  # PyArrow raises any kind of error for a damaged file
                same = False
            if not same:
                yield file.path, "other values than the recall leaves"


def _quality(folder: Path, manifest: Manifest, proved: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    """Yields differences in a copy's `quality.json` for the remaining people, or overall."""
    if quality.NAME not in proved:
        return
    try:
        told = contents.content(folder / quality.NAME)
        people = quality.read(folder / quality.NAME)
        whole = quality.of_people(people, Options.from_json(manifest.plain["options"])).text()
    except Exception:  # whatever it contains
        yield quality.NAME, "no quality of the people who stayed"
        return
    # whatever stands there by person is used only where it is what the recall leaves
    if quality.digest(people) != proved[quality.NAME]:
        yield quality.NAME, "other values than the recall leaves"
        return
    if told != whole:
        yield quality.NAME, "over all it says something else than by person"
    lines, moments = manifest.plain["account"], sum(person.get(quality.WITHIN, 0) for person in people)
    if manifest.plain["options"].get("resample") is not None and (not lines or lines[-1]["rows"] != moments):
        yield MANIFEST, "account: expected as many moments as the quality of those who stayed has, found others"
