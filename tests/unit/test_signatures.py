"""Signatures: the lake's own statements hold for whoever has the public key, and nothing else does."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from stedi.errors import LakeError
from stedi.privacy import signatures
from stedi.privacy.pseudonyms import Key
from stedi.privacy.signatures import SignatureRefused

KEY, OTHER = Key(bytes(range(32))), Key(bytes(range(1, 33)))
SUBJECTS = {"manifest.json": "ab" * 32, "SHA256SUMS": "cd" * 32}
KIND = "https://stedi.example/release/v1"
SIGNED = signatures.sign(KEY, SUBJECTS, KIND, {"lake": "0123", "at": 7})


def test_what_was_signed_is_read() -> None:
    found = signatures.check(SIGNED, signatures.public_key(KEY))
    assert found.subjects == SUBJECTS
    assert found.predicate_type == KIND
    assert found.predicate == {"lake": "0123", "at": 7, "public_key": signatures.public_key(KEY)}
    assert found.fingerprint == signatures.fingerprint(signatures.public_key(KEY))
    assert signatures.check(SIGNED) == found


def test_the_same_statement_has_the_same_signature() -> None:
    assert signatures.sign(KEY, dict(reversed(SUBJECTS.items())), KIND, {"at": 7, "lake": "0123"}) == SIGNED


def test_a_change_of_key_keeps_the_signing_key() -> None:
    assert signatures.public_key(Key(bytes(32), (KEY,))) == signatures.public_key(KEY)
    assert signatures.public_key(OTHER) != signatures.public_key(KEY)


def test_the_public_key_is_the_pem_of_the_seed_derived_from_the_first_key() -> None:
    public = Ed25519PrivateKey.from_private_bytes(KEY.derive("stedi/sign/1")).public_key()
    kind, form = serialization.PublicFormat, serialization.Encoding
    assert public.public_bytes(form.PEM, kind.SubjectPublicKeyInfo).decode() == signatures.public_key(KEY)
    digest = hashlib.sha256(public.public_bytes(form.Raw, kind.Raw)).hexdigest()
    assert signatures.fingerprint(signatures.public_key(KEY)) == digest


def test_openssl_verifies_the_envelope(tmp_path: Path) -> None:
    """A stranger's program: DSSE's encoding is built here from its specification alone."""
    envelope = json.loads(SIGNED)
    payload = base64.b64decode(envelope["payload"])
    kind = envelope["payloadType"].encode()
    message = b" ".join([b"DSSEv1", str(len(kind)).encode(), kind, str(len(payload)).encode(), payload])
    (tmp_path / "message").write_bytes(message)
    (tmp_path / "signature").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
    (tmp_path / "key").write_text(signatures.public_key(KEY))
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "key", "-rawin", "-in", "message"]
    try:
        done = subprocess.run([*command, "-sigfile", "signature"], cwd=tmp_path, capture_output=True, timeout=30)
    except FileNotFoundError:
        pytest.skip("no openssl")
    assert done.returncode == 0, done


@given(data=st.data())
def test_any_other_byte_is_refused(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(SIGNED) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != SIGNED[at]))
    with pytest.raises(SignatureRefused):
        signatures.check(SIGNED[:at] + bytes([other]) + SIGNED[at + 1 :], signatures.public_key(KEY))


@given(data=st.data())
def test_a_byte_more_or_less_is_refused(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(SIGNED)))
    more = data.draw(st.binary(min_size=1, max_size=2) | st.just(b" ") | st.just(b"\n"))
    changed = data.draw(st.sampled_from([SIGNED[:at] + more + SIGNED[at:], SIGNED[:at] + SIGNED[at + 1 :]]))
    if changed != SIGNED:
        with pytest.raises(SignatureRefused):
            signatures.check(changed)


def resealed(change: Callable[[dict[str, Any]], None], key: Key = KEY) -> bytes:
    """Returns the envelope with its statement changed and rightly signed by a key's holder."""
    envelope = json.loads(SIGNED)
    statement = json.loads(base64.b64decode(envelope["payload"]))
    change(statement)
    payload = json.dumps(statement, separators=(",", ":"), sort_keys=True).encode()
    kind = signatures.PAYLOAD_TYPE.encode()
    message = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    signature = Ed25519PrivateKey.from_private_bytes(key.derive("stedi/sign/1")).sign(message)
    keyid = signatures.fingerprint(signatures.public_key(key))
    envelope |= {"payload": base64.b64encode(payload).decode()}
    envelope["signatures"] = [{"keyid": keyid, "sig": base64.b64encode(signature).decode()}]
    return json.dumps(envelope, separators=(",", ":"), sort_keys=True).encode() + b"\n"


def twice(statement: dict[str, Any]) -> None:
    statement["subject"] = statement["subject"] * 2


ODD: dict[str, Callable[[dict[str, Any]], Any]] = {
    "another type of statement": lambda s: s.update(_type="https://in-toto.io/Statement/v0.1"),
    "a field more": lambda s: s.update(more=1),
    "a field less": lambda s: s.pop("predicateType"),
    "no subject": lambda s: s.update(subject=[]),
    "a subject twice": twice,
    "a digest in capitals": lambda s: s["subject"][0]["digest"].update(sha256="AB" * 32),
    "a digest of another kind": lambda s: s["subject"][0].update(digest={"sha512": "ab" * 64}),
    "a digest that is none": lambda s: s["subject"][0]["digest"].update(sha256=7),
    "a predicate that is a list": lambda s: s.update(predicate=[]),
    "no public key": lambda s: s["predicate"].pop("public_key"),
    "another's public key": lambda s: s["predicate"].update(public_key=signatures.public_key(OTHER)),
    "a public key that is none": lambda s: s["predicate"].update(public_key="here"),
}


@pytest.mark.parametrize("name", ODD)
def test_a_statement_that_is_none_of_the_lakes_is_refused(name: str) -> None:
    with pytest.raises(SignatureRefused, match="expected"):
        signatures.check(resealed(lambda statement: ODD[name](statement)))


def test_a_pinned_key_refuses_what_another_has_signed() -> None:
    forged = resealed(lambda s: s["predicate"].update(public_key=signatures.public_key(OTHER)), OTHER)
    assert signatures.check(forged).public_key == signatures.public_key(OTHER)
    with pytest.raises(SignatureRefused, match="fingerprint"):
        signatures.check(forged, signatures.public_key(KEY))


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b"7", b"null", b'{"a":1,"a":1}', b"[" * 99_999, b"\xff"])
def test_no_envelope_is_refused(raw: bytes) -> None:
    with pytest.raises(SignatureRefused):
        signatures.check(raw)


def test_two_signatures_are_refused() -> None:
    envelope = json.loads(SIGNED)
    envelope["signatures"] *= 2
    with pytest.raises(SignatureRefused):
        signatures.check(json.dumps(envelope, separators=(",", ":"), sort_keys=True).encode() + b"\n")


def test_the_lake_publishes_its_key_once(tmp_path: Path) -> None:
    pem = signatures.publish(tmp_path, KEY)
    path = tmp_path / "keys" / "sign.pub"
    assert path.read_text() == pem == signatures.read_public_key(path)
    written = path.stat().st_mtime_ns
    assert signatures.publish(tmp_path, Key(bytes(32), (KEY,))) == pem
    assert path.stat().st_mtime_ns == written
    with pytest.raises(LakeError, match="fingerprint"):
        signatures.publish(tmp_path, OTHER)


@pytest.mark.parametrize("text", ["", "x", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_a_file_that_is_no_public_key_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "key").write_text(text)
    with pytest.raises(SignatureRefused, match="public key"):
        signatures.read_public_key(tmp_path / "key")
