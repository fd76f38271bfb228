"""Whom a command means: lists of every encoding and shape, through every channel, into every command."""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deliveries import customer, deliver, motion
from lakes import heads
from stedi import cli
from stedi.errors import UsageError
from stedi.lake import Lake
from stedi.privacy import addresses
from stedi.privacy.pseudonyms import normalise
from stedi.schema.contracts import has_unseen

ANN, BO = "ann@x.example", "bo@x.example"
PEOPLE = ("ann@x.example", "o'brien@x", "zoë+tag@müller.example", "анна@пример.рф", "用户@例子.公司")
"""Plain addresses."""

MARKS = {
    "utf-8": b"",
    "utf-8-sig": b"\xef\xbb\xbf",
    "utf-16-le": b"\xff\xfe",
    "utf-16-be": b"\xfe\xff",
    "utf-32-le": b"\xff\xfe\0\0",
    "utf-32-be": b"\0\0\xfe\xff",
}
LINE_ENDS = ("\n", "\r\n", "\r", "\x85", "\u2028", "\n \t\n", "\r\n\r\n")

NOT_PLAIN = {
    "a name and an address": "Ann Testova <ann@x.example>",
    "angle brackets": "<ann@x.example>",
    "a link": "mailto:ann@x.example",
    "a link in capitals": "MAILTO:ann@x.example",
    "a file": "file:///home/ann@x.example",
    "a label": "Email: ann@x.example",
    "an assignment": "email=ann@x.example",
    "double quotes": '"ann@x.example"',
    "single quotes": "'ann@x.example'",
    "curly quotes": "\u201cann@x.example\u201d",
    "a backtick": "`ann@x.example`",
    "a semicolon behind": "ann@x.example;",
    "a comma behind": "ann@x.example,",
    "a full stop behind": "ann@x.example.",
    "two with a comma": "ann@x.example,bo@x.example",
    "two with a blank": "ann@x.example bo@x.example",
    "two with a semicolon": "ann@x.example; bo@x.example",
    "a row": "17,ann@x.example,2026-11-28",
    "a row with tabs": "17\tann@x.example",
    "a row with bars": "17|ann@x.example",
    "a comment": "# ann@x.example",
    "a comment without a blank": "#ann@x.example",
    "an item": "- ann@x.example",
    "an address with a note": "ann@x.example (Ann)",
    "a percent form": "ann%40x.example",
    "a percent form within": "ann%2Btag@x.example",
    "an entity": "ann&#64;x.example",
    "a quoted printable": "=?utf-8?q?ann@x.example?=",
    "a query": "ann@x.example?subject=bye",
    "a path": "ann@x.example/",
    "a name": "Ann Testova",
    "the head of a column": "email",
    "a phone number": "+41 (79) 123-45-67",
    "a serial number": "1b0a8d27-4c5e-4c6a-9d3d-0a1b2c3d4e5f",
    "spelled out": "ann at x.example",
    "no local part": "@x.example",
    "no domain": "ann@",
    "two signs": "ann@bo@x.example",
    "a full-width sign": "ann\uff20x.example",
    "an ideographic full stop": "ann@x\u3002example",
    "an empty label": "ann@x..example",
    "a literal": "ann@[10.0.0.1]",
    "a zero width space": "ann@x.example\u200b",
    "a zero width space within": "a\u200bnn@x.example",
    "a soft hyphen": "ann@x.exam\u00adple",
    "a byte order mark": "\ufeffann@x.example",
    "a direction": "\u202eann@x.example",
    "a control character": "ann\x01@x.example",
    "a form feed": "ann@x.example\x0c",
    "an escape": "\x1b[31mann@x.example",
    "a no-break space within": "ann\u00a0b@x.example",
    "a filler": "ann\u3164@x.example",
    "a private character": "ann\ue000@x.example",
    "much": "a" * 320 + "@x.example",
}
"""What people paste, and no plain address."""


def of(raw: bytes) -> tuple[str, ...]:
    return addresses.taken(addresses.lines_of(raw, "list"))


def test_a_line_of_csv_that_a_shell_cut_out_names_the_customer() -> None:
    assert addresses.taken(addresses.of_call([f"{ANN}\r"])) == addresses.taken(addresses.of_call([ANN]))
    with pytest.raises(UsageError, match=r"^argument 1: .*control character"):
        addresses.taken(addresses.of_call([f"\r{ANN}"]))


@pytest.mark.parametrize("end", LINE_ENDS, ids=ascii)
@pytest.mark.parametrize("encoding", MARKS)
def test_a_list_in_any_unicode_with_any_line_ends_names_everybody(encoding: str, end: str) -> None:
    text = end.join((*PEOPLE, f" {PEOPLE[0].upper()} "))
    plain = encoding.removesuffix("-sig")
    for raw in (MARKS[encoding] + text.encode(plain), MARKS[encoding] + (text + end).encode(plain)):
        assert of(raw) == tuple(map(normalise, PEOPLE))


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_a_list_of_wide_characters_without_a_mark_is_refused(encoding: str) -> None:
    with pytest.raises(UsageError, match=r"^list: .*UTF-16.*nothing was done$") as caught:
        of("\n".join(PEOPLE).encode(encoding))
    silent(caught.value, *PEOPLE)


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16-le", "utf-32-be"])
def test_bytes_that_do_not_decode_are_refused_with_their_line(encoding: str) -> None:
    before, mark = "ann@x.example\r\n\r\n", MARKS.get(encoding, b"")
    broken = "zoë@x.example\n".encode(encoding) if not mark else "\nann".encode(encoding)[:-1]
    line = 3 if not mark else 4
    with pytest.raises(UsageError, match=rf"^list, line {line}: expected UTF-.*, found other bytes") as caught:
        of(mark + before.encode(encoding) + broken)
    silent(caught.value, "ann", "zoë")


@pytest.mark.parametrize("what", NOT_PLAIN)
def test_what_is_not_one_plain_address_is_refused_with_its_place_in_every_channel(what: str, tmp_path: Path) -> None:
    text = NOT_PLAIN[what]
    (tmp_path / "list").write_bytes(f"{BO}\r\n\r\n{text}\n{ANN}".encode())
    channels: dict[str, Callable[[], Iterator[addresses.Given]]] = {
        "argument 2": lambda: addresses.of_call([BO, text, ANN]),
        "--file, line 3": lambda: addresses.of_call([BO], tmp_path / "list"),
        "stdin, line 2": lambda: addresses.of_call(["-"], stdin=io.BytesIO(f"{BO}\n{text}".encode())),
        "address 2": lambda: addresses.of_values(BO, [text]),
    }
    for place, given_by in channels.items():
        with pytest.raises(UsageError) as caught:
            addresses.taken(given_by())
        assert str(caught.value).startswith(f"{place}: expected one plain email address, ")
        assert str(caught.value).endswith("; nothing was done")
        silent(caught.value, text, "ann@", "@x.example", "Testova")


def silent(error: Exception, *texts: str) -> None:
    """A message has nothing of what was given."""
    for text in texts:
        assert text == "email" or text.strip() not in str(error)


@pytest.mark.parametrize("text", NOT_PLAIN.values(), ids=NOT_PLAIN)
def test_exact_takes_an_address_as_it_was_delivered(text: str) -> None:
    assert addresses.taken(addresses.of_values(text), exact=True) == (normalise(text),)


def test_exact_reads_json_escapes_from_the_command_line_and_no_others() -> None:
    def exact(word: str) -> tuple[str, ...]:
        return addresses.taken(addresses.of_call([word], exact=True), exact=True)

    assert exact(r"ann\u200b\u0000@x") == ("ann\u200b\0@x",)
    assert exact(r"a\\b\"c\/@x") == ('a\\b"c/@x',)
    assert exact(r"\ud83d\ude00@x") == ("\U0001f600@x",)
    for word in (r"a\xb@x", "a\\", r"\u12@x"):
        with pytest.raises(UsageError, match=r"^argument 1: expected only JSON escapes"):
            exact(word)
    with pytest.raises(UsageError, match="not UTF-8"):
        exact(r"\ud83d@x")


@settings(max_examples=300)
@given(st.text(st.characters(), max_size=12), st.text(st.characters(), max_size=12))
def test_no_text_makes_it_fall_over_and_what_is_plain_can_be_seen(local: str, domain: str) -> None:
    for text in (f"{local}@{domain}", local + domain):
        wrong = addresses.complaint(text)
        if wrong is None:
            assert not has_unseen(text)
            assert normalise(text).count("@") == 1
            assert addresses.complaint(normalise(text)) is None
        else:
            # a short text may be a part of the words of the message
            assert text not in wrong or len(text.strip()) < 5


def test_every_way_of_typing_a_plain_address_names_the_same_person() -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    generator = random.Random(seed)
    for _ in range(200):
        text = generator.choice(PEOPLE)
        typed = unicodedata.normalize(generator.choice(("NFC", "NFD")), generator.choice((text, text.upper())))
        typed = generator.choice(("", " ", "\t", "\u00a0")) + typed + generator.choice(("", "  ", "\u3000"))
        assert addresses.taken(addresses.of_values(typed)) == (normalise(text),)


@pytest.mark.parametrize("wrong", [b"ann@x.example", 7, None, [7], [b"ann@x"], [["ann@x.example"]]])
def test_from_python_only_text_is_an_address(wrong: Any) -> None:
    with pytest.raises(UsageError, match="expected text"):
        addresses.taken(addresses.of_values(wrong))


def test_a_list_that_never_ends_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "_MOST_BYTES", 1000)
    with pytest.raises(UsageError, match="at most"):
        addresses.taken(addresses.of_call([], Path("/dev/zero")))


@pytest.fixture(scope="module")
def inbox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inbox")
    deliver(folder, "customer", [customer(ANN, serialNumber="a"), customer(BO, serialNumber="b")])
    deliver(folder, "accelerometer", [motion(who, 100) for who in (ANN, BO)])
    return folder


@pytest.fixture
def lake(new_lake: Callable[..., Lake], inbox: Path) -> Lake:
    lake = new_lake()
    lake.land(inbox)
    return lake


def stedi(lake: Lake, *words: str, stdin: bytes = b"", locale: str = "C.UTF-8") -> subprocess.CompletedProcess[bytes]:

    environment = {**os.environ, "LC_ALL": locale, "LANG": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "stedi", "--lake", str(lake.root), *words]
    return subprocess.run(command, input=stdin, capture_output=True, env=environment, check=False)


@pytest.mark.parametrize(
    "command", ["withdraw --yes", "erase --yes", "erase --dry-run", "explain", "export --output out"]
)
def test_every_command_refuses_what_is_not_plain_and_changes_nothing(
    lake: Lake, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    before = heads(lake)
    name, *options = command.split()
    for number, text in enumerate(NOT_PLAIN.values()):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"\ufeff{text}\n".encode()), "latin-1"))
        words = ["-"] if number % 2 or text.startswith("-") else [text]
        assert cli.main(["--lake", str(lake.root), name, *options, *words]) == 2, text
        out, err = capsys.readouterr()
        assert ("argument 1" if words == [text] else "stdin, line 1") in err
        assert not out
        assert "unforeseen" not in err
        assert text == "email" or text.strip() not in err
    assert heads(lake) == before
    assert not (lake.root / "receipts").exists()


@pytest.mark.parametrize("locale", ["C", "POSIX", "C.UTF-8"])
def test_stdin_is_read_as_bytes_whatever_the_locale(lake: Lake, locale: str) -> None:
    found = stedi(lake, "explain", "-", "--json", stdin=f"\ufeff{ANN}\r\n".encode("utf-16-le"), locale=locale)
    assert json.loads(found.stdout)["known"] is True
    found = stedi(lake, "erase", "--yes", "-", stdin="zoë@x.example\n".encode("latin-1"), locale=locale)
    assert (found.returncode, b"stdin, line 1" in found.stderr) == (2, True)


def test_one_of_two_known_is_said_on_screen_and_in_the_receipt(
    lake: Lake, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "list").write_text(f"{ANN}\n\nan@x.example\n{ANN.upper()}\n", "utf-16")
    assert cli.main(["--lake", str(lake.root), "erase", "--yes", "--file", str(tmp_path / "list")]) == 0
    out, err = capsys.readouterr()
    assert "1 of 2 known" in out
    assert "not known to the lake: --file, line 3;" in err
    [receipt] = lake.receipts()
    assert (receipt.asked, receipt.known, len(receipt.unknown)) == (2, 1, 1)
    assert lake.verify_receipt(receipt.id).holds


def test_erasing_nobody_known_exits_1_however_often_and_claims_nothing(
    lake: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert cli.main(["--lake", str(lake.root), "erase", "--yes", "an@x.example"]) == 1
        out, _ = capsys.readouterr()
        assert "0 of 1 known" in out
        assert "no trace" not in out
    assert cli.main(["--lake", str(lake.root), "erase", "--dry-run", "an@x.example", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["known"] == 0
    assert cli.main(["--lake", str(lake.root), "erase", "--yes", ANN, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["known"] == 1
    # whom it has erased it knows, though nothing of theirs is left
    assert cli.main(["--lake", str(lake.root), "erase", "--yes", ANN, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["known"] == 1


@pytest.mark.parametrize(
    "where", ["quarantine", "beside another in quarantine", "mention", "name", "readings", "inbox"]
)
def test_who_stands_anywhere_is_known(new_lake: Callable[..., Lake], tmp_path: Path, where: str) -> None:
    lake, folder = new_lake(), tmp_path / "in"
    deliver(folder, "customer", [customer(BO, serialNumber="b")])
    who = "vic@x.example"
    if where == "quarantine":
        deliver(folder, "accelerometer", [{"user": who, "timestamp": "late"}])
    elif where == "beside another in quarantine":
        deliver(folder, "accelerometer", [{"users": f"{BO} {who}"}])
    elif where == "mention":
        deliver(folder, "accelerometer", [{**motion(BO, 100), "note": f"with {who}"}])
    elif where == "name":
        deliver(folder, "customer", [customer("cy@x.example", serialNumber="c")], f"{who}.json")
    elif where == "readings":
        deliver(folder, "accelerometer", [motion(who, 100)])
    lake.land(folder)
    if where == "inbox":
        deliver(folder, "accelerometer", [motion(who, 100), motion(BO, 100)], "later.json")
    [receipt] = lake.erase(who, inbox=[folder] if where == "inbox" else ())
    assert (receipt.asked, receipt.known, receipt.unknown) == (1, 1, ())


def test_withdrawing_and_erasing_take_texts_and_lists_alike(lake: Lake) -> None:
    assert lake.withdraw(ANN, [BO], (f" {ANN} ",)).customers == 2
    assert lake.known(ANN, [BO, "cy@x.example"]) == 2
    [receipt] = lake.erase(ANN, iter([BO]))
    assert receipt.known == 2
    for call in (lake.withdraw, lake.erase, lake.preview_erasure, lake.known, lake.explain):
        with pytest.raises(UsageError, match=r"^address 1: "):
            call(f"Ann <{ANN}>")


ODD = ("Otto <otto@x.example>", "mailto:eve@x.example", "no sign at all", "a\u200bnn@x.example", "nu\0l@x.example")
"""Addresses of customers as lakes have them that are older than the rule."""


@pytest.mark.parametrize("odd", ODD, ids=ascii)
@pytest.mark.sample(full=2)
def test_exact_names_every_customer_of_an_older_lake(
    new_lake: Callable[..., Lake], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, odd: str
) -> None:
    lake = new_lake()
    deliver(tmp_path / "in", "customer", [customer(odd, serialNumber="o"), customer(ANN, serialNumber="a")])
    with monkeypatch.context() as before:
        before.setattr("stedi.landing.reader.fitting.has_unseen", lambda text: False)
        lake.land(tmp_path / "in")
    word = json.dumps(odd)[1:-1]
    cli.main(["--lake", str(lake.root), "explain", "--exact", word, "--json"])
    assert lake.explain(odd, exact=True).known
    assert cli.main(["--lake", str(lake.root), "withdraw", "--yes", "--exact", word]) == 0
    lake.build()
    assert lake.explain(odd, exact=True).consent == "does not agree"
    assert cli.main(["--lake", str(lake.root), "erase", "--yes", "--exact", word]) == 0
    assert lake.receipts()[-1].known == 1
    assert not lake.explain(odd, exact=True).history
    assert lake.explain(ANN).history


COMMANDS = ("withdraw --yes", "withdraw --dry-run", "erase --yes", "erase --dry-run", "explain", "export --output out")


@pytest.mark.parametrize("word", ["Ann Smith", "+1 555 010 2222", "17a34b4a-3018-416d-801c-cafd3bbe4b49"])
def test_of_a_name_or_a_number_no_command_says_that_it_is_not_known(
    lake: Lake, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = heads(lake)
    for command, exact in product(COMMANDS, ([], ["--exact"])):
        name, *options = command.split()
        assert cli.main(["--lake", str(lake.root), name, *options, *exact, word]) == 2
        out, err = capsys.readouterr()
        assert "looks like a" in err
        assert "`stedi query --role officer`" in err
        assert "not known" not in out + err
        assert "does not know" not in out + err
        assert word not in err
    assert heads(lake) == before
    assert not (lake.root / "receipts").exists()
