"""What a lake has signed holds for whoever has the public key, and nothing that somebody has made of it does."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import releases
from stedi.cli import main
from stedi.errors import UsageError
from stedi.privacy import receipts, signatures, state
from stedi.privacy.pseudonyms import Key
from stedi.privacy.receipts import Receipt
from stedi.report import attestation

KEY, OTHER, LAKE = Key(bytes(range(32))), Key(bytes(32)), "0123456789abcdef"
IDS = ("1700000000000-00000001", "1700000001000-00000002", "1700000002000-00000003")
REPORT = b"<!doctype html><title>Audit</title><p>93 of 93 checks hold</p>\n"


def content(id_: str, previous: Receipt | None = None, **more: Any) -> dict[str, Any]:
    removed = {"tables": {"customers_landing": {"rows": 2, "files": 1, "snapshots": 1}}}
    before = receipts.digest(previous) if previous else ""
    at = datetime.fromtimestamp(int(id_[:13]) / 1000, UTC).isoformat()
    plain = {"id": id_, "people": ["a1" * 16], "asked": 1, "known": 1, "clean": True, "began": at, "ended": at}
    return {**plain, "removed": removed, "reference": "R 7", "operator": "ops", "previous": before, **more}


def chain() -> list[dict[str, Any]]:
    """Three receipts of a lake, each of which names the one before it."""
    made: list[dict[str, Any]] = []
    for id_ in IDS:
        made.append(receipts.signed(KEY, LAKE, content(id_, made[-1] if made else None)))
    return made


CHAIN = chain()
ONE, TWO, THREE = CHAIN


def written(folder: Path, documents: list[dict[str, Any]]) -> Path:
    folder.mkdir(exist_ok=True)
    for each in documents:
        (folder / f"{each['id']}.json").write_bytes(receipts.rendered(each))
    return folder


def pinned(folder: Path, key: Key = KEY) -> Path:
    path = folder / "sign.pub"
    path.write_text(signatures.public_key(key))
    return path


def rewritten(document: dict[str, Any], **changed: Any) -> bytes:
    return receipts.rendered({**document, **changed})


def envelope(document: dict[str, Any], **changed: Any) -> dict[str, Any]:
    """A receipt whose envelope has other parts."""
    return {**document, "signature": {**document["signature"], **changed}}


def resigned(document: dict[str, Any], payload: bytes) -> bytes:
    """A receipt whose envelope has another payload under the old signature."""
    return receipts.rendered(envelope(document, payload=base64.b64encode(payload).decode()))


def payload(document: dict[str, Any]) -> bytes:
    return base64.b64decode(document["signature"]["payload"])


def of_another(document: dict[str, Any]) -> bytes:
    """A receipt of an attacker's lake that claims to be of this one."""
    plain = {part: value for part, value in document.items() if part not in receipts.SEAL}
    return receipts.rendered(receipts.signed(OTHER, LAKE, plain))


def sealed_before(document: dict[str, Any]) -> bytes:
    """A receipt as it was before: an HMAC, which tells a stranger nothing."""
    plain = {part: value for part, value in document.items() if part not in ("signature", "public_key")}
    packed = json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()
    return receipts.rendered({**plain, "signature": state.digest("receipt", LAKE, KEY, packed)})


def other_kind(document: dict[str, Any]) -> bytes:
    plain = {part: value for part, value in document.items() if part not in ("signature", "public_key")}
    made = signatures.document(KEY, {f"receipts/{document['id']}": "0" * 64}, signatures.RECALL, plain)
    return receipts.rendered({**made, "signature": made["signature"]})


def other_subject(document: dict[str, Any]) -> bytes:
    plain = {part: value for part, value in document.items() if part not in ("signature", "public_key")}
    made = signatures.document(KEY, {f"receipts/{document['id']}": "0" * 64}, signatures.ERASURE, plain)
    fields = sorted(part for part in made if part != "signature")
    return receipts.rendered({**{part: made[part] for part in fields}, "signature": made["signature"]})


TEXT = receipts.rendered(TWO)
RECEIPTS: dict[str, Callable[[], bytes]] = {
    "an edited count": lambda: TEXT.replace(b'"rows": 2', b'"rows": 99999'),
    "other people": lambda: rewritten(TWO, people=["b2" * 16]),
    "an edited time": lambda: rewritten(TWO, ended="2020-01-01T00:00:00+00:00"),
    "an edited reference": lambda: rewritten(TWO, reference="R 8"),
    "another operator": lambda: rewritten(TWO, operator="somebody"),
    "another lake's name": lambda: rewritten(TWO, lake="fedcba9876543210"),
    "a field more": lambda: rewritten(TWO, more=1),
    "a field less": lambda: receipts.rendered({part: value for part, value in TWO.items() if part != "clean"}),
    "a link taken out": lambda: rewritten(TWO, previous=""),
    "another link": lambda: rewritten(TWO, previous="0" * 64),
    "another lake's key": lambda: of_another(TWO),
    "its own key, another's public key": lambda: rewritten(TWO, public_key=signatures.public_key(OTHER)),
    "the statement of another receipt": lambda: rewritten(TWO, signature=ONE["signature"]),
    "an older receipt in its place": lambda: receipts.rendered(ONE),
    "the payload of another under its signature": lambda: resigned(TWO, payload(ONE)),
    "a payload with an edited count": lambda: resigned(TWO, payload(TWO).replace(b'"rows":2', b'"rows":3')),
    "a payload with a space more": lambda: resigned(TWO, payload(TWO) + b" "),
    "a payload with a name twice": lambda: resigned(TWO, payload(TWO).replace(b"{", b'{"_type":"x",', 1)),
    "another type of payload": lambda: receipts.rendered(envelope(TWO, payloadType="text/plain")),
    "two signatures": lambda: receipts.rendered(envelope(TWO, signatures=TWO["signature"]["signatures"] * 2)),
    "no signature in the envelope": lambda: receipts.rendered(envelope(TWO, signatures=[])),
    "an envelope with a field more": lambda: receipts.rendered(envelope(TWO, more=1)),
    "no envelope": lambda: receipts.rendered({part: value for part, value in TWO.items() if part != "signature"}),
    "the seal of before": lambda: sealed_before(TWO),
    "the signature of a recall": lambda: other_kind(TWO),
    "the digest of something else": lambda: other_subject(TWO),
    "a byte behind it": lambda: TEXT + b"\0",
    "a space behind it": lambda: TEXT + b" ",
    "a document behind it": lambda: TEXT + TEXT,
    "a mark before it": lambda: b"\xef\xbb\xbf" + TEXT,
    "without its last byte": lambda: TEXT[:-1],
    "a name twice": lambda: TEXT.replace(b"{", b'{"asked": 1,', 1),
    "a name twice, once by escape": lambda: TEXT.replace(b"{", b'{"\\u0061sked": 1,', 1),
    "fields in another order": lambda: json.dumps(dict(reversed(TWO.items())), indent=2).encode() + b"\n",
    "no line ends": lambda: json.dumps(TWO).encode(),
    "true for 1": lambda: TEXT.replace(b'"asked": 1', b'"asked": true'),
    "1.0 for 1": lambda: TEXT.replace(b'"asked": 1', b'"asked": 1.0'),
    "UTF-16": lambda: TEXT.decode().encode("utf-16"),
    "nothing": lambda: b"",
    "a list": lambda: b"[]",
    "nested without end": lambda: b'{"a":' * 100_000,
}


@pytest.mark.parametrize("forged", RECEIPTS)
@pytest.mark.parametrize("pins", [True, False], ids=["pinned", "not pinned"])
def test_a_forged_receipt_does_not_hold(tmp_path: Path, forged: str, pins: bool) -> None:
    path = tmp_path / f"{TWO['id']}.json"
    path.write_bytes(RECEIPTS[forged]())
    [found] = attestation.verify(path, pinned(tmp_path) if pins else None)
    if forged == "another lake's key" and not pins:
        assert (found.holds, found.public_key) == (True, signatures.fingerprint(signatures.public_key(OTHER)))
        return  # whose it is only the fingerprint tells
    assert not found.holds
    assert main(["verify", str(path), *(["--public-key", str(pinned(tmp_path))] if pins else [])]) == 3


def test_a_receipt_holds_wherever_its_file_lies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "from the lake.json"
    path.write_bytes(TEXT)
    assert main(["verify", str(path), "--public-key", str(pinned(tmp_path))]) == 0
    print_ = signatures.fingerprint(signatures.public_key(KEY))
    captured = capsys.readouterr()
    at = "2023-11-14T22:13:21+00:00"
    assert captured.out == f"signed by {LAKE} ({print_}) at {at}: erasure receipt {IDS[1]} for request R 7; holds\n"
    assert captured.err == ""
    assert main(["verify", str(path), "--json"]) == 0
    [found] = json.loads(capsys.readouterr().out)["checked"]
    assert (found["what"], found["name"], found["lake"]) == ("erasure receipt", IDS[1], LAKE)


def test_any_other_byte_of_a_receipt_is_refused() -> None:
    for at in range(0, len(TEXT), 7):
        other = receipts.parsed(TEXT[:at] + bytes([TEXT[at] ^ 1]) + TEXT[at + 1 :])
        if other is not None:
            with pytest.raises(signatures.SignatureRefused):
                receipts.check(other, signatures.public_key(KEY))


def without(*ids: str) -> Callable[[Path], None]:
    def removed(folder: Path) -> None:
        for id_ in ids:
            (folder / f"{id_}.json").unlink()

    return removed


def put(folder: Path, id_: str, document: dict[str, Any]) -> None:
    (folder / f"{id_}.json").write_bytes(receipts.rendered(document))


CHAINS: dict[str, tuple[Callable[[Path], object], str]] = {
    "the first is gone": (without(IDS[0]), IDS[1]),
    "one between is gone": (without(IDS[1]), IDS[2]),
    "two are exchanged": (lambda folder: (put(folder, IDS[0], TWO), put(folder, IDS[1], ONE)), IDS[0]),
    "an older one stands in the place of the last": (lambda folder: put(folder, IDS[2], ONE), IDS[2]),
    "one that follows another's lake": (
        lambda folder: put(folder, IDS[1], receipts.signed(KEY, LAKE, content(IDS[1], known=0))),
        IDS[2],
    ),
    "one whose clock ran back": (
        lambda folder: put(
            folder,
            "1700000003000-00000004",
            receipts.signed(KEY, LAKE, content("1700000003000-00000004", THREE, ended="2023-11-14T21:00:00+00:00")),
        ),
        "1700000003000-00000004",
    ),
    "a second one that follows the first": (
        lambda folder: put(
            folder, "1700000001500-00000004", receipts.signed(KEY, LAKE, content("1700000001500-00000004", ONE))
        ),
        "1700000001500-00000004",
    ),
}


@pytest.mark.parametrize("broken", CHAINS)
def test_a_broken_chain_of_receipts_is_named(tmp_path: Path, broken: str) -> None:
    folder = written(tmp_path / "receipts", CHAIN)
    assert all(found.holds for found in attestation.verify(folder))
    breaking, named = CHAINS[broken]
    breaking(folder)
    assert named in [found.path.stem for found in attestation.verify(folder) if not found.holds]
    assert main(["verify", str(folder)]) == 3


def test_a_chain_may_begin_after_receipts_of_before(tmp_path: Path) -> None:
    before = json.loads(sealed_before(ONE))
    after = receipts.signed(KEY, LAKE, content(IDS[1], before))
    folder = written(tmp_path / "receipts", [before, after])
    assert [found.holds for found in attestation.verify(folder)] == [False, True], "the first tells a stranger nothing"
    without(IDS[0])(folder)
    assert [found.holds for found in attestation.verify(folder)] == [False]


def test_the_end_of_a_chain_may_be_handed_out_alone(tmp_path: Path) -> None:
    folder = written(tmp_path / "receipts", CHAIN)
    assert all(found.holds for path in sorted(folder.iterdir()) for found in attestation.verify(path))
    without(IDS[2])(folder)
    assert all(found.holds for found in attestation.verify(folder)), "that the last is gone the lake alone can tell"


def test_receipts_that_a_replay_repeats_are_part_of_the_chain() -> None:
    again = content("1700000009000-00000009", ONE, replays={each["id"]: receipts.digest(each) for each in (TWO, THREE)})
    merged = receipts.signed(KEY, LAKE, again)
    assert list(receipts.breaks([ONE, TWO, THREE, merged])) == []
    assert receipts.newest([THREE, merged, ONE, TWO]) == merged
    [(id_, expected, _)] = receipts.breaks([ONE, TWO, merged])
    assert (id_, receipts.digest(THREE) in expected) == (merged["id"], True)


def test_adopted_receipts_are_known_by_what_they_were() -> None:
    lake, adopted = "fedcba9876543210", []
    for each in CHAIN[:2]:
        plain = {part: value for part, value in each.items() if part not in receipts.SEAL}
        adopted.append(receipts.signed(KEY, lake, {**plain, "adopted_sha256": list(receipts.digests(each))}))
    following = receipts.signed(KEY, lake, content(IDS[2], adopted[1]))
    assert list(receipts.breaks([*adopted, following])) == []
    assert receipts.newest(adopted) == adopted[1]


def signed_report(folder: Path, report: bytes = REPORT, key: Key = KEY, **more: Any) -> Path:
    """A report of an audit beside its signature."""
    folder.mkdir(exist_ok=True)
    path = folder / "audit.html"
    path.write_bytes(report)
    about = {"lake": LAKE, "at": "2026-11-29T03:00:00Z", "holds": True, **more}
    digest = hashlib.sha256(report).hexdigest()
    beside = signatures.sign(key, {"audit.html": digest}, more.pop("kind", signatures.AUDIT), about)
    path.with_name("audit.html.sig").write_bytes(beside)
    return path


def edit(old: bytes, new: bytes) -> Callable[[bytes, bytes], tuple[bytes, bytes]]:
    return lambda report, beside: (report.replace(old, new, 1), beside)


def beside(change: Callable[[dict[str, Any]], Any]) -> Callable[[bytes, bytes], tuple[bytes, bytes]]:
    """Changes the envelope, and writes it as the lake would."""

    def changed(report: bytes, raw: bytes) -> tuple[bytes, bytes]:
        found = change(json.loads(raw))
        return report, json.dumps(found, separators=(",", ":"), sort_keys=True).encode() + b"\n"

    return changed


def statement(change: Callable[[bytes], bytes]) -> Callable[[bytes, bytes], tuple[bytes, bytes]]:
    def changed(found: dict[str, Any]) -> dict[str, Any]:
        return {**found, "payload": base64.b64encode(change(base64.b64decode(found["payload"]))).decode()}

    return beside(changed)


def signed_by(key: Key, report: bytes = REPORT, kind: str = signatures.AUDIT) -> bytes:
    return signatures.sign(key, {"audit.html": hashlib.sha256(report).hexdigest()}, kind, {"lake": LAKE, "at": "x"})


def swapped_signature(found: dict[str, Any]) -> dict[str, Any]:
    other = json.loads(signed_by(KEY))
    return {**found, "signatures": other["signatures"]}


REPORTS: dict[str, Callable[[bytes, bytes], tuple[bytes, bytes]]] = {
    "an edited count": edit(b"93 of 93", b"94 of 94"),
    "an edited verdict": edit(b"hold<", b"held<"),
    "an edited title": edit(b"Audit", b"audit"),
    "a script more": edit(b"<p>", b"<script></script><p>"),
    "a comment more": edit(b"<p>", b"<!-- --><p>"),
    "another case": lambda report, raw: (report.upper(), raw),
    "other line ends": edit(b"\n", b"\r\n"),
    "a byte behind it": lambda report, raw: (report + b"\0", raw),
    "a space behind it": lambda report, raw: (report + b" ", raw),
    "a report behind it": lambda report, raw: (report + report, raw),
    "a mark before it": lambda report, raw: (b"\xef\xbb\xbf" + report, raw),
    "its beginning": lambda report, raw: (report[:-9], raw),
    "nothing": lambda report, raw: (b"", raw),
    "an older report in its place": lambda report, raw: (b"<p>92 of 93 checks hold</p>\n", raw),
    "the signature of an older report": lambda report, raw: (report, signed_by(KEY, b"older")),
    "another lake's key": lambda report, raw: (report, signed_by(OTHER)),
    "the signature of a receipt": lambda report, raw: (report, signed_by(KEY, kind=signatures.ERASURE)),
    "the signature of a release": lambda report, raw: (report, signed_by(KEY, kind=signatures.RELEASE)),
    "a swapped statement": statement(lambda raw: raw.replace(b'"holds":true', b'"holds":null')),
    "another time": statement(lambda raw: raw.replace(b"2026-11-29", b"2026-11-30")),
    "another lake's name": statement(lambda raw: raw.replace(LAKE.encode(), b"fedcba9876543210")),
    "another digest": statement(lambda raw: raw.replace(hashlib.sha256(REPORT).hexdigest().encode(), b"0" * 64)),
    "a statement with a name twice": statement(lambda raw: raw.replace(b"{", b'{"_type":"x",', 1)),
    "a statement with a byte behind it": statement(lambda raw: raw + b"\0"),
    "a statement without subjects": statement(lambda raw: raw.replace(b'"subject":[', b'"subject":[],"x":[')),
    "the signature of another statement": beside(swapped_signature),
    "a signature of zeros": beside(
        lambda found: {**found, "signatures": [{**found["signatures"][0], "sig": "A" * 86 + "=="}]}
    ),
    "another key's id": beside(lambda found: {**found, "signatures": [{**found["signatures"][0], "keyid": "0" * 64}]}),
    "two signatures": beside(lambda found: {**found, "signatures": found["signatures"] * 2}),
    "no signature": beside(lambda found: {**found, "signatures": []}),
    "another type of payload": beside(lambda found: {**found, "payloadType": "text/html"}),
    "an envelope with a name twice": lambda report, raw: (report, raw.replace(b"{", b'{"payload":"",', 1)),
    "an envelope with a byte behind it": lambda report, raw: (report, raw + b" "),
    "an envelope written otherwise": lambda report, raw: (report, json.dumps(json.loads(raw), indent=1).encode()),
    "an empty envelope": lambda report, raw: (report, b""),
    "an envelope nested without end": lambda report, raw: (report, b"[" * 100_000),
}


@pytest.mark.parametrize("forged", REPORTS)
def test_a_forged_report_does_not_hold(tmp_path: Path, forged: str) -> None:
    path = signed_report(tmp_path)
    beside = path.with_name("audit.html.sig")
    assert attestation.verify(path, pinned(tmp_path))[0].holds
    report, raw = REPORTS[forged](path.read_bytes(), beside.read_bytes())
    assert (report, raw) != (path.read_bytes(), beside.read_bytes())
    path.write_bytes(report)
    beside.write_bytes(raw)
    [found] = attestation.verify(path, pinned(tmp_path))
    assert not found.holds


RECALLED: dict[str, Callable[[bytes], bytes]] = {
    "one dropped less": lambda raw: json.dumps({**json.loads(raw), "drop": []}, indent=2).encode() + b"\n",
    "another release": lambda raw: raw.replace(b'"release": "', b'"release": "x', 1),
    "another time": lambda raw: raw.replace(b"2026-11-28T", b"2026-11-27T"),
    "a name twice": lambda raw: raw.replace(b"{", b'{"drop": [],', 1),
    "a byte behind it": lambda raw: raw + b"\0",
    "without its signature": lambda raw: json.dumps(
        {part: value for part, value in json.loads(raw).items() if part != "signature"}
    ).encode(),
}


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release, its recall beside it, and the public key of their lake."""
    folder = releases.made(tmp_path_factory.mktemp("release") / "steps")
    dropped = dict.fromkeys(sorted(releases.PEOPLE)[:1], "2026-11-28T12:00:00.000Z")
    folder.with_name("recall.json").write_bytes(releases.recall(folder, dropped))
    pinned(folder.parent, releases.KEY)
    return folder


def test_a_release_and_its_recall_hold_by_the_public_key_alone(release: Path, tmp_path: Path) -> None:
    recall, key = release.with_name("recall.json"), release.with_name("sign.pub")
    found = [*attestation.verify(release, key), *attestation.verify(recall, key)]
    assert [(each.what, each.holds) for each in found] == [("release", True), ("recall", True)]
    assert len({(each.name, each.lake, each.public_key) for each in found}) == 1
    other = pinned(tmp_path, OTHER)
    assert not any(each.holds for path in (release, recall) for each in attestation.verify(path, other))


def test_of_a_lake_its_receipts_and_its_releases_are_checked(release: Path, tmp_path: Path) -> None:
    (tmp_path / "lake.toml").touch()
    with pytest.raises(UsageError, match="one without receipts or releases"):
        attestation.verify(tmp_path)
    written(tmp_path / "receipts", CHAIN)
    shutil.copytree(release, tmp_path / "releases" / "steps" / "1")
    found = attestation.verify(tmp_path)
    assert [(each.what, each.holds) for each in found] == [("erasure receipt", True)] * 3 + [("release", True)]


@pytest.mark.parametrize("forged", RECALLED)
def test_a_forged_recall_does_not_hold(release: Path, tmp_path: Path, forged: str) -> None:
    raw = release.with_name("recall.json").read_bytes()
    path = tmp_path / "recall.json"
    path.write_bytes(RECALLED[forged](raw))
    assert path.read_bytes() != raw
    assert not attestation.verify(path)[0].holds


def test_there_are_thirty_forgeries_of_each_kind_at_least() -> None:
    assert min(len(RECEIPTS), len(REPORTS)) >= 30


def test_a_report_is_known_by_either_of_its_files_and_by_their_folder(tmp_path: Path) -> None:
    path = signed_report(tmp_path / "reports")
    names = (path, path.with_name("audit.html.sig"), path.parent)
    assert [found.what for each in names for found in attestation.verify(each)] == ["audit report"] * 3
    path.rename(path.with_name("of november.html"))
    path.with_name("audit.html.sig").rename(path.with_name("of november.html.sig"))
    assert attestation.verify(path.with_name("of november.html"))[0].holds
    path.with_name("of november.html").unlink()
    assert not attestation.verify(path.with_name("of november.html.sig"))[0].holds


def test_what_nobody_has_signed_is_said_to_be_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "page.html").write_text("<p>all is well</p>")
    (tmp_path / "plain.json").write_text('{"holds": true}')
    for name in ("page.html", "plain.json"):
        assert main(["verify", str(tmp_path / name)]) == 3
        assert capsys.readouterr().out.startswith("not signed: ")
    (tmp_path / "empty").mkdir()
    for word in ("empty", "none.json"):
        assert main(["verify", str(tmp_path / word)]) == 2
    os.mkfifo(tmp_path / "pipe.json")
    for word in ("pipe.json", "/dev/null"):
        assert main(["verify", str(tmp_path / word)]) in (2, 3), "nothing is waited for"


def test_a_file_that_holds_no_public_key_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "receipts", CHAIN)
    (tmp_path / "no.pub").write_text("-----BEGIN PUBLIC KEY-----\n")
    with pytest.raises(UsageError, match="expected a public key"):
        attestation.verify(tmp_path / "receipts", tmp_path / "no.pub")


@pytest.mark.parametrize("whole", [False, True], ids=["receipts and a report", "a release and its recall"])
def test_a_stranger_needs_the_files_and_the_public_key_alone(tmp_path: Path, release: Path, whole: bool) -> None:
    """Another process, without home, key, lake or settings; nothing heavy is loaded for receipts and reports."""
    words = ["verify", str(release), str(release.with_name("recall.json"))]
    words += ["--public-key", str(release.with_name("sign.pub"))]
    if not whole:
        written(tmp_path / "receipts", CHAIN)
        words = ["verify", "receipts", str(signed_report(tmp_path)), "--public-key", str(pinned(tmp_path))]
    heavy: tuple[str, ...] = ("stedi.lake",)
    if not whole:
        heavy += ("stedi.catalog", "duckdb", "pyarrow", "pyiceberg", "numpy", "sqlglot")
    code = (
        f"import sys; from stedi.cli import main; code = main({words!r}); "
        f"sys.exit(code or ', '.join(name for name in {heavy!r} if name in sys.modules) or 0)"
    )
    environment = {"PATH": os.defpath, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("; holds\n") == (2 if whole else 4)
