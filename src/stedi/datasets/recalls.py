"""The recall file: the signed list of subjects that holders of a copy must drop.

JSON, `{"release", "manifest_sha256", "drop": [{"subject", "since"}], "files", ...}`, the lake's signature of all of it
last. Subjects are ids of that release only, without reasons and addresses. `contents` has of each file that holds one
of them the digest of the values that stay (`contents.digest`), so that a copy can be proved after the recall.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from stedi._frozen import dataclass, field
from stedi.datasets import contents, quality
from stedi.datasets.contents import Manifest
from stedi.datasets.seal import MANIFEST
from stedi.errors import AuditFailed
from stedi.privacy import signatures, state
from stedi.privacy.pseudonyms import Key

PREDICATE = signatures.RECALL
"""The type of a recall's signature."""
_SUBJECT = re.compile(r"[0-9a-f]{16}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_INSTANT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{5,15}Z")


class RecallRefused(AuditFailed):
    """A recall was not signed by a lake, or is for another release."""


@dataclass(frozen=True, slots=True)
class Recall:
    """The signed list of subjects to drop from a release.

    Attributes:
        release: `NAME@VERSION`.
        manifest_sha256: SHA-256 of its original manifest, hex.
        drop: The subjects, each with the time since when they may not be used, ISO 8601, UTC.
        files: The data files that contain one of them.
        contents: For those files and `quality.json`, a digest of the values that stay, if the lake could read them.
        lake: The lake's id.
        at: When it was written, ISO 8601, UTC.
        raw: Its file's bytes.
    """

    release: str
    manifest_sha256: str
    drop: Mapping[str, str]
    files: tuple[str, ...]
    contents: Mapping[str, str]
    lake: str
    at: str
    raw: bytes = field(default=b"", repr=False)


def signed(key: Key, recall: Recall) -> bytes:
    """Returns the file of a recall."""
    plain = {
        "release": recall.release,
        "manifest_sha256": recall.manifest_sha256,
        "drop": [{"subject": subject, "since": since} for subject, since in sorted(recall.drop.items())],
        "files": list(recall.files),
        "contents": dict(sorted(recall.contents.items())),
        "lake": recall.lake,
        "at": recall.at,
    }
    document = signatures.document(key, {MANIFEST: recall.manifest_sha256}, PREDICATE, plain)
    return (json.dumps(document, indent=2) + "\n").encode()


def read(raw: bytes, pem: str | None) -> Recall:
    """Returns the content of a recall.

    Args:
        raw: Its file's bytes.
        pem: The public key that must have signed it, the release's; by default the one in the recall.

    Raises:
        RecallRefused: It is not a recall, or is not signed by this key.
    """
    try:
        document = state.parsed(raw)
        found = _recall(document, raw)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise RecallRefused("the recall: expected a recall that a lake has signed, found something else") from None
    statement = signatures.check_document(document, PREDICATE, pem, name="the recall")
    if statement.subjects != {MANIFEST: found.manifest_sha256}:
        raise RecallRefused("the recall: expected the content that its lake has signed, found another")
    return found


def refuse_other(recall: Recall, manifest: Manifest) -> None:
    """Refuses a recall of another release.

    Args:
        recall: The recall.
        manifest: The release's manifest, or that of a copy from which people were dropped.

    Raises:
        RecallRefused: It is of another one.
    """
    if recall.release != manifest.release or recall.lake != manifest.plain["lake"]:
        raise RecallRefused(f"the recall: expected one of {manifest.release}, found one of another release")
    # after a rollback, a lake can make another release of a name and number that it has given before
    if recall.manifest_sha256 != manifest.origin:
        raise RecallRefused(
            f"the recall: expected one of this {manifest.release}, found one of another release of that name and number"
        )


def _recall(plain: Mapping[str, Any], raw: bytes) -> Recall:
    drop = {entry["subject"]: entry["since"] for entry in plain["drop"]}
    texts = (plain["release"], plain["lake"], plain["at"])
    _told(len(drop) == len(plain["drop"]) and all(isinstance(text, str) for text in texts))
    _told(all(_SUBJECT.fullmatch(subject) and _INSTANT.fullmatch(since) for subject, since in drop.items()))
    # paths of data only: a recall never makes its reader open a file outside of the copy
    _told(all(contents.is_data(path) for path in plain["files"]))
    _told(
        all(
            path in (*plain["files"], quality.NAME) and _SHA256.fullmatch(found)
            for path, found in plain["contents"].items()
        )
    )
    _told(_SHA256.fullmatch(plain["manifest_sha256"]))
    return Recall(
        plain["release"],
        plain["manifest_sha256"],
        drop,
        tuple(plain["files"]),
        dict(plain["contents"]),
        plain["lake"],
        plain["at"],
        raw,
    )


def _told(holds: object) -> None:
    if not holds:
        raise ValueError
