"""Signatures that can be checked without the lake and without its key.

`sign` makes one DSSE envelope (https://github.com/secure-systems-lab/dsse) whose payload is an in-toto Statement v1
(https://in-toto.io/Statement/v1): the SHA-256 digests of named things, and a predicate that describes them. The public
key is in the predicate, so `check` needs nothing else; readers compare it with the lake's by its fingerprint or a copy
of `keys/sign.pub`. Ed25519 (RFC 8032), under a seed derived from the lake's first key: a key rotation does not change
it, and the same content under the same key has the same signature.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stedi._frozen import dataclass
from stedi.errors import AuditFailed, LakeError
from stedi.privacy import state
from stedi.privacy.pseudonyms import Key
from stedi.storage import durable

PUBLIC_KEY = Path("keys", "sign.pub")
"""The file of the public key, in the lake's folder: PEM."""
ERASURE = "https://stedi.example/erasure-receipt/v1"
AUDIT = "https://stedi.example/audit-report/v1"
RELEASE = "https://stedi.example/training-set/v1"
RECALL = "https://stedi.example/recall/v1"
"""What a lake signs: the types of predicates. Each predicate has `lake`, the lake's id, and `public_key`."""
SUFFIX = ".sig"
"""What the file of a detached signature is called, after the name of the file that it is of."""
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
_LABEL = "stedi/sign/1"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_PEM = re.compile(r"-----BEGIN PUBLIC KEY-----\n([A-Za-z0-9+/]{59}=)\n-----END PUBLIC KEY-----\n")
_SPKI = bytes.fromhex("302a300506032b6570032100")
"""The prefix of the 32 bytes of an Ed25519 public key in DER form (RFC 8410, section 4)."""
_LARGEST = 1 << 12
"""The largest file of a public key, bytes."""


class SignatureRefused(AuditFailed):
    """A signature does not hold, or is not of the key that it should be of."""


@dataclass(frozen=True, slots=True)
class Statement:
    """What was signed.

    Attributes:
        subjects: SHA-256, hex, of each thing, by its name.
        predicate_type: A URI that says what the predicate is.
        predicate: The statement about them; `public_key` is the signing key.
        public_key: That key, PEM.
    """

    subjects: Mapping[str, str]
    predicate_type: str
    predicate: Mapping[str, Any]
    public_key: str

    @property
    def fingerprint(self) -> str:
        """SHA-256, hex, of the raw public key."""
        return fingerprint(self.public_key)


def public_key(key: Key) -> str:
    """Returns the lake's public key, PEM; a change of the lake's key does not change it."""
    return _pem(_private(key).public_key().public_bytes_raw())


def fingerprint(pem: str) -> str:
    """Returns the fingerprint of a public key: SHA-256, hex, of its 32 raw bytes.

    Raises:
        SignatureRefused: It is no Ed25519 public key.
    """
    return hashlib.sha256(_raw(pem)).hexdigest()


def publish(root: Path, key: Key, *, creating: bool = False) -> str:
    """Returns the lake's public key, PEM, and writes `keys/sign.pub` where it is not there yet.

    Args:
        root: The lake's folder.
        key: The lake's key.
        creating: Whether the lake is being created: an existing file is then left over from an interrupted creation.

    Raises:
        LakeError: The file exists and contains another key.
    """
    pem, path = public_key(key), root / PUBLIC_KEY
    try:
        found = None if creating else durable.content(path, _LARGEST)
    except FileNotFoundError:
        found = None
    if found is None:
        durable.folder(path.parent)
        durable.write(path, pem.encode())
    elif found != pem.encode():
        raise LakeError(
            f"{path}: expected the public key with fingerprint {fingerprint(pem)}, found something else; nothing "
            "was signed: find out who has changed it, then remove the file; it will be written again"
        )
    return pem


def read_public_key(path: Path) -> str:
    """Returns the public key that a file holds, PEM.

    Raises:
        OSError: It cannot be read.
        SignatureRefused: It holds something else.
    """
    try:
        text = durable.content(path, _LARGEST).decode("ascii").replace("\r\n", "\n").strip() + "\n"
    except UnicodeDecodeError:
        text = ""
    return _pem(_raw(text))


def sign(key: Key, subjects: Mapping[str, str], predicate_type: str, predicate: Mapping[str, Any]) -> bytes:
    """Returns the envelope of a statement; the same arguments give the same bytes.

    Args:
        key: The lake's key.
        subjects: SHA-256, hex, of each thing, by its name: at least one.
        predicate_type: A URI that says what the predicate is.
        predicate: Plain values; `public_key` is added.
    """
    pem = public_key(key)
    statement: dict[str, Any] = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in sorted(subjects.items())],
        "predicateType": predicate_type,
        "predicate": {**predicate, "public_key": pem},
    }
    payload = _plain(statement)
    return _envelope(payload, fingerprint(pem), _private(key).sign(_authenticated(payload)))


def document(key: Key, subjects: Mapping[str, str], predicate_type: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a document that carries its signature: its content, the public key, and `signature`, the envelope.

    Args:
        key: The lake's key.
        subjects: As for `sign`.
        predicate_type: As for `sign`.
        content: What the document says, which is the whole predicate; plain values.
    """
    plain: dict[str, Any] = {**content, "public_key": public_key(key)}
    return {**plain, "signature": json.loads(sign(key, subjects, predicate_type, content))}


def check_document(
    document: Mapping[str, Any], predicate_type: str, pem: str | None = None, *, name: str = "the document"
) -> Statement:
    """Returns the statement of a document that contains its signature, if the document equals what was signed.

    Args:
        document: As `document` gave it, read with `state.parsed`.
        predicate_type: What it must be.
        pem: As for `check`.
        name: As for `check`.

    Raises:
        SignatureRefused: It does not hold.
    """
    plain = {part: value for part, value in document.items() if part != "signature"}
    try:
        envelope = _plain(document["signature"])
    except (KeyError, ValueError):
        raise _refused(name, "a document that a lake has signed", "one without a signature") from None
    statement = check(envelope, pem, name=name)
    if statement.predicate_type != predicate_type:
        raise _refused(name, f"a signature of {predicate_type}", "one of something else")
    if _plain(statement.predicate) != _plain(plain):  # 1 and true are equal and not the same
        raise _refused(name, "what its lake has signed", "another content")
    return statement


def check(envelope: bytes, pem: str | None = None, *, name: str = "the signature") -> Statement:
    """Returns the statement of an envelope, if its signature is valid.

    The envelope must have exactly the expected bytes: the same content in another form is refused, so no byte of a
    signed file can change.

    Args:
        envelope: As returned by `sign`.
        pem: The public key that must have signed it; by default the one in the statement.
        name: Its name in messages, such as its file.

    Raises:
        SignatureRefused: It does not hold.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    payload, keyid, signature = _opened(envelope, name)
    statement = _statement(payload, name)
    found = statement.fingerprint
    if pem is not None and fingerprint(pem) != found:
        raise _refused(name, f"one of the key with fingerprint {fingerprint(pem)}", f"one of {found}")
    # the id is outside of what is signed: a reader may show it, so it must not lie
    if keyid != found:
        raise _refused(name, f"keyid {found}", "another")
    try:
        Ed25519PublicKey.from_public_bytes(_raw(statement.public_key)).verify(signature, _authenticated(payload))
    except (InvalidSignature, ValueError):
        raise _refused(name, "an Ed25519 signature of what it says", "one that does not hold") from None
    return statement


def _private(key: Key) -> Any:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(key.derive(_LABEL))


def _pem(raw: bytes) -> str:
    return f"-----BEGIN PUBLIC KEY-----\n{base64.b64encode(_SPKI + raw).decode()}\n-----END PUBLIC KEY-----\n"


def _raw(pem: str) -> bytes:
    match = _PEM.fullmatch(pem)
    der = base64.b64decode(match[1]) if match else b""
    # the last character of base64 has two unused bits: of its four spellings one is accepted
    if not der.startswith(_SPKI) or _pem(der[len(_SPKI) :]) != pem:
        raise _refused("public key", "an Ed25519 public key (PEM)", "something else")
    return der[len(_SPKI) :]


def _authenticated(payload: bytes) -> bytes:
    """Returns the signed bytes: DSSE's pre-authentication encoding of type and payload."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _envelope(payload: bytes, keyid: str, signature: bytes) -> bytes:
    signatures = [{"keyid": keyid, "sig": base64.b64encode(signature).decode()}]
    return _plain(
        {"payload": base64.b64encode(payload).decode(), "payloadType": PAYLOAD_TYPE, "signatures": signatures}
    )


def _opened(envelope: bytes, name: str) -> tuple[bytes, str, bytes]:
    """Returns payload, keyid and signature of an envelope that is written exactly as `sign` writes it."""
    try:
        found = state.parsed(envelope)
        [entry] = found["signatures"]
        payload, signature = (base64.b64decode(part, validate=True) for part in (found["payload"], entry["sig"]))
        keyid = entry["keyid"]
        # base64 and JSON can say one thing in many ways, and only one of them was signed here
        same = isinstance(keyid, str) and _envelope(payload, keyid, signature) == envelope
    except (ValueError, KeyError, TypeError):  # every error of base64 is a ValueError
        same = False
    if not same:
        raise _refused(name, "a DSSE envelope with one signature, as the lake writes it", "something else")
    return payload, keyid, signature


def _statement(payload: bytes, name: str) -> Statement:
    try:
        found = state.parsed(payload)
        # a field that no reader here knows could say something else to another reader
        if found.keys() != {"_type", "subject", "predicateType", "predicate"} or found["_type"] != STATEMENT_TYPE:
            raise ValueError
        subjects = {}
        for entry in found["subject"]:
            digest = entry["digest"]["sha256"]
            # readers differ in which of two equal names counts
            if entry["name"] in subjects or not _DIGEST.fullmatch(digest):
                raise ValueError
            subjects[str(entry["name"])] = digest
        kind, predicate = found["predicateType"], found["predicate"]
        if not subjects or not isinstance(kind, str) or not isinstance(predicate, dict):
            raise ValueError
        return Statement(subjects, kind, predicate, str(predicate["public_key"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _refused(name, "an in-toto Statement v1 with SHA-256 digests", "something else") from None


def _plain(value: object) -> bytes:
    return json.dumps(value, allow_nan=False, separators=(",", ":"), sort_keys=True).encode() + b"\n"


def _refused(name: str, expected: str, found: str) -> SignatureRefused:
    return SignatureRefused(f"{name}: expected {expected}, found {found}; do not use what it signs")
