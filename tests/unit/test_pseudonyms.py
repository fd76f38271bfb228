"""Who is one customer, and the key that stands between addresses and pseudonyms."""

from __future__ import annotations

import hashlib
import hmac
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path, PosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stedi import cli
from stedi.context import seen
from stedi.errors import KeyRefused, UsageError
from stedi.lake import Lake
from stedi.privacy import pseudonyms
from stedi.privacy.pseudonyms import Key, normalise

SECRET = bytes(range(32))
HEX = SECRET.hex()

letters = st.sampled_from(
    [
        "a",
        "A",
        "@",
        ".",
        " ",
        "\t",
        "ß",
        "ẞ",
        "İ",
        "ı",
        "I",
        "ǰ",
        "ΐ",
        "Σ",
        "ς",
        "ſ",
        "K",
        "\u0345",
        "ᾳ",
        "ᾼ",
        "\u0301",
        "\u0307",
        "\u0308",
        "\u030c",
        "é",
        "e\u0301",
        "Ω",
        "Ꭰ",
        "ꭰ",
        "ŉ",
        "\u00a0",
        "\u3000",
        "\ufb01",
        "가",
    ]
) | st.characters(codec="utf-8")
addresses = st.lists(letters, max_size=8).map("".join)


@pytest.mark.parametrize(
    ("spelling", "normal"),
    [
        ("ana@a.example", "ana@a.example"),
        ("  ANA@A.Example\t\r\n", "ana@a.example"),
        ("\u00a0\u2003Ana@a.example\u3000", "ana@a.example"),
        ("zoe\u0308@a.example", "zoë@a.example"),
        ("ZOË@a.example", "zoë@a.example"),
        ("Groß@a.example", "gross@a.example"),
        ("GROẞ@a.example", "gross@a.example"),
        ("İ@a.example", "i\u0307@a.example"),
        ("I\u0307@a.example", "i\u0307@a.example"),
        ("ǰ@a.example", "ǰ@a.example"),
        ("J\u030c@a.example", "ǰ@a.example"),
        ("ΐ@a.example", "ΐ@a.example"),
        ("Ϊ\u0301@a.example", "ΐ@a.example"),
        ("ΟΔΟΣ@a.example", "οδοσ@a.example"),
        ("οδος@a.example", "οδοσ@a.example"),
        ("\u212aelvin@a.example", "kelvin@a.example"),
        ("a b@a.example", "a b@a.example"),
        ("", ""),
    ],
)
def test_spellings_of_one_address_have_one_normal_form(spelling: str, normal: str) -> None:
    assert normalise(spelling) == normal
    assert normalise(unicodedata.normalize("NFD", spelling)) == normal
    assert normalise(unicodedata.normalize("NFC", spelling)) == normal


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ana@a.example", "ana@b.example"),
        ("ana.bo@a.example", "anabo@a.example"),
        ("ana+1@a.example", "ana@a.example"),
        ("zoe@a.example", "zoë@a.example"),
        ("ana@a.example", "a na@a.example"),
        ("ﬁ\u200b@a.example", "fi@a.example"),
    ],
)
def test_other_addresses_are_other_customers(one: str, other: str) -> None:
    assert normalise(one) != normalise(other)


@given(addresses)
def test_the_normal_form_is_its_own(address: str) -> None:
    assert normalise(normalise(address)) == normalise(address)


@given(addresses)
def test_the_normal_form_is_what_the_rule_says_letter_by_letter(address: str) -> None:
    trimmed = unicodedata.normalize("NFC", address.strip())
    assert normalise(address) == unicodedata.normalize("NFC", trimmed.casefold())


@given(addresses)
def test_composed_and_decomposed_spellings_are_one_customer(address: str) -> None:
    assert normalise(unicodedata.normalize("NFD", address)) == normalise(address)


def test_a_pseudonym_is_the_first_half_of_the_hmac_of_the_normal_form() -> None:
    expected = hmac.new(SECRET, "zoë@a.example".encode(), hashlib.sha256).hexdigest()[:32]
    assert Key(SECRET).customer_id(" ZOE\u0308@A.example") == expected


def test_another_key_gives_another_pseudonym_and_fingerprint() -> None:
    one, other = Key(SECRET), Key(bytes(32))
    assert one.customer_id("a@a.example") != other.customer_id("a@a.example")
    assert one.fingerprint != other.fingerprint


def test_a_fingerprint_is_no_pseudonym_and_no_part_of_the_key() -> None:
    key = Key(SECRET)
    assert len(key.fingerprint) == 16
    assert key.fingerprint not in HEX
    assert key.fingerprint == Key(SECRET).fingerprint


def test_a_subkey_is_hkdf_sha_256_of_the_first_key() -> None:
    """RFC 5869, appendix A.3, has no salt, as here; its key and length are others, so it is worked out beside."""
    first = Key(SECRET)
    extracted = hmac.new(bytes(32), SECRET, hashlib.sha256).digest()
    assert first.derive("stedi/sign/1") == hmac.new(extracted, b"stedi/sign/1\x01", hashlib.sha256).digest()
    assert Key(bytes(32), (first,)).derive("stedi/sign/1") == first.derive("stedi/sign/1")
    assert first.derive("stedi/sign/2") != first.derive("stedi/sign/1")


@pytest.mark.parametrize("use", ["tombstone", "tombstones", "receipt", "fingerprint of the pseudonym key", "subkey"])
def test_no_address_has_the_text_of_another_use_of_the_key(use: str) -> None:
    key, content = Key(SECRET), "person\0ana@x.example"
    for text in (f"stedi: {use}\0{content}", f"stedi: {use}", f"stedi/{use}/1", f"stedi/{use}/1\x01", content):
        marks = {key.digest(use, content.encode()).hex()[:32], key.digest(use, b"").hex()[:32]}
        marks |= {key.derive(f"stedi/{use}/1").hex()[:32], key.fingerprint.ljust(32, "0")}
        assert key.customer_id(text) not in marks
        assert not key.customer_id(text).startswith(key.fingerprint)
    before = key.of_version(1)
    assert before.customer_id(f"stedi: {use}\0{content}") == before.digest(use, content.encode()).hex()[:32]
    assert before.customer_id("ana@x.example") == key.customer_id("ana@x.example")


def test_a_key_never_shows_its_secret() -> None:
    key = Key(SECRET)
    for text in (repr(key), str(key), f"{key}", f"{key!r}", repr([key]), repr({"k": key})):
        assert HEX not in text
        assert repr(SECRET) not in text


def test_a_lone_surrogate_is_an_address_like_another() -> None:
    assert len(Key(SECRET).customer_id("a\ud800@a.example")) == 32


def test_a_made_key_is_read_back_and_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "deep" / "a.key"
    key = pseudonyms.make(path)
    assert pseudonyms.from_file(path) == key
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o077 == 0
    assert len(key.secret) == 32
    assert pseudonyms.make(tmp_path / "other.key") != key


def test_making_a_key_never_replaces_one(tmp_path: Path) -> None:
    key = pseudonyms.make(tmp_path / "a.key")
    with pytest.raises(KeyRefused, match="cannot be created"):
        pseudonyms.make(tmp_path / "a.key")
    assert pseudonyms.from_file(tmp_path / "a.key") == key


def test_a_key_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(KeyRefused, match="STEDI_KEY_FILE"):
        pseudonyms.make(tmp_path / "file" / "a.key")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o610, 0o601, 0o644, 0o666])
def test_a_key_that_others_may_reach_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "a.key"
    path.write_text(HEX)
    path.chmod(mode)
    with pytest.raises(KeyRefused, match=f"expected mode 0600, found {mode:04o}; run `chmod 600`") as refused:
        pseudonyms.from_file(path)
    assert HEX not in str(refused.value)


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_key_of_its_owner_alone_is_taken(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "a.key"
    path.write_text(f"  {HEX.upper()}\n")
    path.chmod(mode)
    assert pseudonyms.from_file(path) == Key(SECRET)


def test_a_credential_of_the_service_is_taken_with_the_mode_that_systemd_gives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = 0

    class Owned(PosixPath):
        def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
            found = os.stat(self, follow_symlinks=follow_symlinks)
            return os.stat_result((*found[:4], owner, *found[5:10]))

    path = Owned(tmp_path / "stedi.key")
    path.write_text(HEX)
    path.chmod(0o440)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert pseudonyms.from_file(path) == Key(SECRET)
    path.chmod(0o444)
    with pytest.raises(KeyRefused, match="found 0444"):
        pseudonyms.from_file(path)
    path.chmod(0o440)
    owner = 1000  # whoever sets the variable can make no file of root's
    with pytest.raises(KeyRefused, match="found 0440"):
        pseudonyms.from_file(path)
    owner = 0
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path.parent))
    with pytest.raises(KeyRefused, match="found 0440"):
        pseudonyms.from_file(path)


@pytest.mark.parametrize("text", ["", HEX[:-1], HEX[:-2], HEX + "00", "zz" * 32, f"0x{HEX}", HEX[:62] + "é"])
def test_a_key_of_another_length_or_alphabet_is_refused_and_not_shown(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.key"
    path.write_text(text)
    path.chmod(0o600)
    reads: list[Callable[[], object]] = [
        lambda: pseudonyms.from_file(path),
        lambda: pseudonyms.from_environment({"STEDI_PSEUDONYM_KEY": text}),
    ]
    for read in reads:
        with pytest.raises(KeyRefused) as refused:
            read()
        assert not text or text not in str(refused.value)
        assert HEX[:40] not in str(refused.value)


def test_a_missing_key_says_where_it_was_expected(tmp_path: Path) -> None:
    with pytest.raises(KeyRefused, match=r"a\.key: expected a readable file, found none; restore it"):
        pseudonyms.from_file(tmp_path / "a.key")
    with pytest.raises(KeyRefused, match="found a folder"):
        pseudonyms.from_file(tmp_path)


def test_no_key_in_the_environment_is_none() -> None:
    assert pseudonyms.from_environment({}) is None
    assert pseudonyms.from_environment({"STEDI_PSEUDONYM_KEY": HEX}) == Key(SECRET)


def test_the_usual_place_of_a_key_is_the_users_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pseudonyms.default_file("ab", {"XDG_CONFIG_HOME": "/c"}) == Path("/c/stedi/keys/ab.key")
    monkeypatch.setenv("HOME", "/h")
    assert pseudonyms.default_file("ab", {}) == Path("/h/.config/stedi/keys/ab.key")
    assert pseudonyms.default_file("ab", {"XDG_CONFIG_HOME": ""}) == Path("/h/.config/stedi/keys/ab.key")


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("HOME", "", "expected an absolute path in HOME, found an empty one"),
        ("HOME", "here", "expected an absolute path in HOME, found a relative one"),
        ("HOME", "./here", "expected an absolute path in HOME, found a relative one"),
        ("XDG_CONFIG_HOME", "here", "expected an absolute path in XDG_CONFIG_HOME, found a relative one"),
    ],
)
@pytest.mark.parametrize("lake", ["lake", "~/lake"])
def test_a_key_has_no_place_below_the_root_or_the_current_folder(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variable: str,
    value: str,
    said: str,
    lake: str,
) -> None:
    """With an empty HOME the key came into `/.config`, with a relative one into whatever folder the command ran in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STEDI_PSEUDONYM_KEY")
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv(variable, value)
    made = list[Path]()
    monkeypatch.setattr(pseudonyms, "make", lambda path, *_: made.append(path))  # this test may run as root
    assert cli.main(["--lake", lake, "init"]) != 0
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert said in told[0] or (variable, lake) == ("HOME", "~/lake")
    assert ("set HOME or XDG_CONFIG_HOME to the path of a folder from the root on" in told[0]) == (said in told[0])
    assert made == []
    # an empty folder for the lake stays, which the next attempt takes
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] in ([], ["init.lock"])


def test_the_record_of_a_lake_has_no_place_below_the_current_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="expected an absolute path in XDG_STATE_HOME, found a relative one; set HOME"):
        seen.place("ab", "", None, {"XDG_STATE_HOME": "here"})
    monkeypatch.setenv("HOME", "")
    with pytest.raises(UsageError, match="expected an absolute path in HOME, found an empty one; set HOME"):
        seen.place("ab", "", None, {})


def test_a_lake_makes_its_key_outside_of_it_and_finds_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STEDI_PSEUDONYM_KEY")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    lake = Lake.create(tmp_path / "lake")
    [file] = (tmp_path / "config").rglob("*.key")
    assert lake.key() == pseudonyms.from_file(file)
    secret = lake.key().secret
    holders = [path for path in (tmp_path / "lake").rglob("*") if path.is_file()]
    assert not [path for path in holders if secret in path.read_bytes() or secret.hex() in path.read_text("latin-1")]


def test_a_lake_refuses_another_key(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", HEX)
    for work in (lake.key, lake.build, lambda: lake.land("."), lake.withheld):
        with pytest.raises(KeyRefused) as refused:
            work()
        assert lake.config.key_fingerprint in str(refused.value)
        assert HEX not in str(refused.value)


def test_a_lake_remembers_the_file_that_it_was_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STEDI_PSEUDONYM_KEY")
    monkeypatch.setenv("STEDI_KEY_FILE", str(tmp_path / "a.key"))
    first = Lake.create(tmp_path / "first")
    second = Lake.create(tmp_path / "second")  # it takes the key that is there
    monkeypatch.delenv("STEDI_KEY_FILE")
    assert Lake.open(tmp_path / "first").key() == Lake.open(tmp_path / "second").key() == first.key() == second.key()


def test_a_lake_refuses_a_key_inside_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STEDI_PSEUDONYM_KEY")
    monkeypatch.setenv("STEDI_KEY_FILE", str(tmp_path / "lake" / "a.key"))
    with pytest.raises(KeyRefused, match="outside the lake"):
        Lake.create(tmp_path / "lake")
    assert not (tmp_path / "lake" / "a.key").exists()
