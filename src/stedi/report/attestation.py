"""Attestations: checks what a lake has signed, without the lake and without its key.

    a receipt, a recall      a document that contains its signature
    FILE beside FILE.sig     an audit report, or another file signed as it is
    a release's folder       checked by `datasets.verify`, down to every row
    a folder of these        each of them, and the chain that its receipts form
    a lake's folder          the receipts and releases in it

Only the signature is trusted. The fingerprint identifies the signer: compare it, or pass the public key.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stedi._frozen import dataclass, replace
from stedi.errors import AuditFailed, UsageError
from stedi.privacy import receipts, signatures, state
from stedi.privacy.signatures import SignatureRefused, Statement
from stedi.storage import durable, s3

_WHAT = {
    signatures.ERASURE: "erasure receipt",
    signatures.AUDIT: "audit report",
    signatures.RELEASE: "release",
    signatures.RECALL: "recall",
}
_LARGEST = 1 << 30
"""The largest file that is read into memory, in bytes."""
_RELEASE = ("manifest.json", "manifest.sig")
"""Of a folder, any of these makes it a release: one without the other is a broken one, not a folder of something else.
"""


@dataclass(frozen=True, slots=True)
class Attestation:
    """A signed document and the result of checking it.

    Attributes:
        path: The file or folder.
        what: `erasure receipt`, `audit report`, `release` or `recall`; empty if it cannot be determined.
        name: A receipt's id, a release's `NAME@VERSION`, or a report's file name.
        lake: The id of the lake that signed it; empty if it is not signed.
        public_key: Fingerprint of the signing key: SHA-256, hex, of the raw public key; empty if it is not signed.
        at: When it was signed, ISO 8601, according to the document itself.
        reference: For an erasure receipt, the operator's name for the request.
        problems: What is wrong, as text; empty if it is valid.
    """

    path: Path
    what: str = ""
    name: str = ""
    lake: str = ""
    public_key: str = ""
    at: str = ""
    reference: str = ""
    problems: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether no problem was found."""
        return not self.problems


def verify(path: str | os.PathLike[str], public_key: str | os.PathLike[str] | None = None) -> tuple[Attestation, ...]:
    """Checks a signed file, or each one in a folder, and returns the results.

    Args:
        path: A receipt, a recall, a file beside its signature, a release's folder, or a folder of such files; or a
            lake's folder, to check the receipts and releases in it.
        public_key: A file with the public key of the expected signer; by default the key stored with the signature.

    Raises:
        UsageError: There is nothing there that a lake signs, or `public_key` is not a public key.
    """
    if s3.is_remote(path):
        raise UsageError(f"{s3.at(path)}: expected files on this machine, found a place in S3; copy them here")
    path, pem = Path(path), None
    if public_key is not None:
        public_key = Path(public_key)
        try:
            pem = signatures.read_public_key(public_key)
        except (OSError, AuditFailed):
            raise UsageError(
                f"{public_key}: expected a public key (PEM, Ed25519), found something else or no file"
            ) from None
    if path.is_dir():
        if any((path / name).exists() for name in _RELEASE):
            return (_release(path, public_key),)
        return _lake(path, public_key, pem) if (path / "lake.toml").is_file() else _folder(path, pem)
    if not path.is_file():
        raise UsageError(f"{path}: expected a signed file or folder, found nothing there")
    return (_file(path, pem),)


def _lake(folder: Path, public_key: Path | None, pem: str | None) -> tuple[Attestation, ...]:
    """Checks the receipts and releases in a lake's own folder."""
    from stedi.datasets.folder import RELEASES

    own = folder / receipts.RECEIPTS
    found = _folder(own, pem) if own.is_dir() and any(own.iterdir()) else ()
    made = sorted(manifest.parent for manifest in (folder / RELEASES).glob(f"*/*/{_RELEASE[0]}"))
    if not found and not made:
        raise UsageError(f"{folder}: expected a lake that has signed something, found one without receipts or releases")
    return (*found, *(_release(release, public_key) for release in made))


def _release(folder: Path, public_key: Path | None) -> Attestation:
    from stedi.datasets import verify as releases

    found = releases.verify(folder, public_key=public_key)
    problems = tuple(f"{problem.file}: {problem.what}" for problem in found.problems)
    return Attestation(folder, "release", found.release, found.lake, found.public_key, found.created, problems=problems)


def _folder(folder: Path, pem: str | None) -> tuple[Attestation, ...]:
    """Checks each file of a folder that a lake may have signed, and the chain of its receipts."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    signed = {path.name.removesuffix(signatures.SUFFIX) for path in files if path.suffix == signatures.SUFFIX}
    wanted = {folder / name for name in signed} | {path for path in files if path.suffix == ".json"}
    if not wanted:
        raise UsageError(
            f"{folder}: expected receipts (*.json), files beside their signatures (*.sig) or a release, found none"
        )
    found = {path: _file(path, pem) for path in sorted(wanted)}
    every = {path: receipt for path in found if (receipt := _receipt(path)) is not None}
    files_of = {receipt["id"]: path for path, receipt in every.items()}
    # without the lake's key a receipt of an earlier version cannot be checked, but it counts in the chain
    chain = [receipt for path, receipt in every.items() if found[path].holds or not receipts.is_public(receipt)]
    for id_, expected, there in receipts.breaks(chain):
        path = files_of[id_]
        found[path] = replace(found[path], problems=(*found[path].problems, f"expected {expected}, found {there}"))
    return tuple(found.values())


def _receipt(path: Path) -> dict[str, Any] | None:
    """Returns the receipt in a file; None if the file is not a signed receipt."""
    found = receipts.parsed(_content(path)) if path.is_file() else None
    return found if found is not None and "signature" in found else None


def _file(path: Path, pem: str | None) -> Attestation:
    """Checks a file by its own content or by the signature beside it."""
    if path.suffix == signatures.SUFFIX:
        path = path.with_name(path.name.removesuffix(signatures.SUFFIX))
    try:
        beside = path.with_name(path.name + signatures.SUFFIX)
        if beside.exists():
            return _detached(path, beside, pem)
        return _document(path, _content(path), pem)
    except AuditFailed as error:
        return Attestation(path, problems=(str(error).removeprefix(f"{path.name}: "),))
    except OSError as error:
        return Attestation(path, problems=(error.strerror or type(error).__name__,))


def _detached(path: Path, beside: Path, pem: str | None) -> Attestation:
    statement = signatures.check(_content(beside), pem, name=beside.name)
    # the signature of a release covers a manifest and checksums, not a file beside it
    if statement.predicate_type != signatures.AUDIT:
        raise SignatureRefused(f"{beside.name}: expected the signature of a report, found one of something else")
    if not path.is_file():
        raise SignatureRefused(f"{path.name}: expected the signed file beside its signature, found none")
    if list(statement.subjects.values()) != [hashlib.sha256(_content(path)).hexdigest()]:
        raise SignatureRefused(f"{path.name}: expected the bytes that were signed, found others; do not use it")
    return _attested(path, statement, path.name, statement.predicate.get("at"))


def _document(path: Path, raw: bytes, pem: str | None) -> Attestation:
    """Checks a document that contains its signature."""
    try:
        found = state.parsed(raw)
    except ValueError as error:
        if path.suffix == ".json":
            raise SignatureRefused(f"{path.name}: expected a document that a lake has signed, found {error}") from None
        found = {}
    if not isinstance(found, dict):
        raise SignatureRefused(f"{path.name}: expected a document that a lake has signed, found other JSON")
    # what a document is decides only which check it must pass: the signature names the type, too
    if "drop" in found:
        from stedi.datasets import recalls

        recall = recalls.read(raw, pem)
        return _attested(path, signatures.check_document(found, signatures.RECALL, pem), recall.release, recall.at)
    receipt = receipts.parsed(raw)
    if isinstance(found.get("signature"), str):
        raise SignatureRefused(
            f"{path.name}: expected a receipt with a public signature, found one of an earlier version: whoever has "
            "the lake and its key can check it with `stedi erase --verify`"
        )
    if receipt is None or "signature" not in receipt:
        raise SignatureRefused(
            f"{path.name}: expected a document that a lake has signed, or its signature beside it "
            f"({path.name}{signatures.SUFFIX}), found neither"
        )
    statement = receipts.check(receipt, pem, name=path.name)
    # a receipt under the name of another would stand for that erasure
    if _is_id(path.stem) and path.stem != receipt["id"]:
        raise SignatureRefused(f"{path.name}: expected the receipt of that id, found receipt {receipt['id']}")
    return _attested(path, statement, receipt["id"], receipt.get("ended"), receipt)


def _is_id(name: str) -> bool:
    """Returns whether a name has the form of a receipt's id."""
    number, _, rest = name.partition("-")
    return len(number) == 13 and number.isdigit() and len(rest) == 8


def _attested(
    path: Path, statement: Statement, name: str, at: object, document: Mapping[str, Any] | None = None
) -> Attestation:
    reference = (document or {}).get("reference")
    return Attestation(
        path,
        _WHAT[statement.predicate_type],
        name,
        str(statement.predicate.get("lake", "")),
        statement.fingerprint,
        str(at or ""),
        str(reference or ""),
    )


def _content(path: Path) -> bytes:
    return durable.content(path, _LARGEST)
