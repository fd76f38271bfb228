"""Others who mention somebody who is erased: what is theirs stays, what tells of the erased goes or is counted."""

from __future__ import annotations

import base64
import json
import random
import re
import unicodedata
import zlib
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import quick
from deliveries import customer, deliver, instant, motion, step
from effort import tries
from erasing import ANA, BO, CY, DEVICE, NOW, SHARED, Stage, erase, looked_for
from lakes import build, conserved, records, rows
from stedi import cli
from stedi.erasure import contents, search
from stedi.erasure.identifiers import PLAIN, Identifiers, is_trace
from stedi.erasure.others import Others
from stedi.errors import IGNORED
from stedi.lake import Lake
from stedi.landing import quarantine
from stedi.landing.quarantine import Relanded
from stedi.privacy import phones, tokens, tombstones
from stedi.privacy.pseudonyms import Key
from stedi.privacy.sought import Sought
from stedi.schema.contracts import has_unseen

BRIEN = "brien@example.com"
CONTAINING = [
    "o'{}", "o\u2019{}", "x.{}", "x+{}", "x-{}", "x%{}", "x_{}", "jo{}", "1{}", "o&{}", "o/{}", "o={}", "o!{}",
    "{}.au", "{}x", "{}-x", "{}1",
]  # fmt: skip
"""Addresses that only contain an erased one."""
MENTIONING = [
    "Otto <{}>", "mailto:{}", "{};", "{},", "a@x.example,{}", "{} ", '"{}"', "'{}'", "({})", "[{}]", "{}\u200b",
    "see {}, please", "<a href='mailto:{}'>", "{} or z@x.example", "\u00ab{}\u00bb", "e-mail:{}", "x\t{}", "x\n{}",
]  # fmt: skip
"""Texts in which it stands by itself."""

MARKS = "\u0301\u0323\u093f\u094d\u0e34\u0e48\u064e\u05b8\u0bcd\u3099"
"""Parts of the letter before them: accents, vowel signs, tones, harakat, points."""
SIGNS = "\u3002\u300c\u2014\u2026\u00bf\u060c\u0964\U0001f642\ufffd\u3000"
"""What no letter is part of: full stops, quotes, dashes, pictures, wide spaces."""
SCRIPTS = [
    "\u0939\u093f\u0928\u094d\u0926\u0940@x.example", "\u0e1c\u0e39\u0e49\u0e43\u0e0a\u0e49@x.example",
    "\u0645\u064f\u062d\u064e\u0645\u0651\u064e\u062f@x.example",
    "\u05e9\u05c1\u05b8\u05dc\u05d5\u05b9\u05dd@x.example",
    "e\u0301ric.nu\u0308ll@x.example", "q\u0323\u0307@x.example", "\u0ba4\u0bae\u0bbf\u0bb4\u0bcd@x.example",
    "ann\U0001f642bob@x.example", "\U0001f469\U0001f3fd@x.example", "ann@\u0939\u093f\u0928\u094d\u0926\u0940.example",
    "ann@q\u0323.\u0e1c\u0e39\u0e49", "\u304b\u3099@x.example", "ann@\u2764.example",
]  # fmt: skip
"""Addresses with letters of several characters, and with pictures."""


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with quick.folder() as folder, quick.quickened():
        yield Stage(folder)


@pytest.mark.parametrize("form", CONTAINING)
def test_an_address_that_contains_another_does_not_mention_it(form: str) -> None:
    address = form.format(BRIEN)
    assert tokens.is_plain(address)
    if not any(sign in form for sign in "&/=!"):
        assert BRIEN not in tokens.addresses(f"see {address}, please")
        assert not tokens.stands(f"see {address}, please", BRIEN)


@pytest.mark.parametrize("form", [form for form in MENTIONING if form != "{} "])
def test_a_text_around_an_address_mentions_it(form: str) -> None:
    text = form.format(BRIEN)
    assert not tokens.is_plain(text)
    assert BRIEN in tokens.addresses(text)
    assert tokens.stands(text, BRIEN)
    assert BRIEN not in tokens.masked(text, [BRIEN])


def test_tokens_and_places_tell_the_same_whatever_stands_around_an_address() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    around = "ab1.-_+%'\"<>()[]{},;:|=/?&!#$*^~` \n\t@\u2019\u00e9\u200b" + MARKS + SIGNS
    for turn in range(3_000):
        before, after = ("".join(dice.choices(around, k=dice.randrange(4))) for _ in range(2))
        address = tokens.folded(SCRIPTS[turn % len(SCRIPTS)] if turn % 2 else BRIEN)
        text = tokens.folded(f"{before}{address}{after}")
        assert (address in tokens.addresses(text)) == tokens.stands(text, address), repr(text)


@pytest.mark.parametrize("address", SCRIPTS, ids=ascii)
def test_an_address_in_any_script_stands_alone_and_within_no_other(address: str) -> None:
    folded = tokens.folded(address)
    for form in (*MENTIONING, *(f"{sign}{{}}{sign}" for sign in SIGNS)):
        text = tokens.folded(form.format(address))
        assert folded in tokens.addresses(text), form
        assert folded not in tokens.masked(text, [folded]), form
    for mark in MARKS:
        for longer in (f"n{mark}{address}", f"{address}{mark}", f"{address}{mark}.example"):
            text = tokens.folded(f"see {longer}, please")
            assert folded not in tokens.addresses(text), ascii(mark)
            assert tokens.masked(text, [folded]) == text, ascii(mark)
    local, domain = folded.split("@")
    for place in range(1, len(local)):
        # what is left of a letter when its sign is taken away is no address that stands in it
        if unicodedata.category(local[place - 1])[0] in "LM":
            assert f"{local[place:]}@{domain}" not in tokens.addresses(folded)
            assert not tokens.stands(folded, f"{local[place:]}@{domain}")


def _world(stage: Stage, forms: list[str], erased: str) -> tuple[Lake, Path, list[str]]:
    """A lake in which others hold forms of an erased address in every field, each other person one of them."""
    lake, folder = stage.empty()
    people, readings, broken, plain = [customer(erased, customerName="Maria Q", serialNumber="s-erased")], [], [], []
    for number, form in enumerate(forms):
        text = form.format(erased)
        others = [
            customer(text, serialNumber=f"a-{number}"),
            customer(f"n{number}@x.example", serialNumber=f"n-{number}", customerName=f"Otto {text}"),
            customer(f"p{number}@x.example", serialNumber=f"p-{number}", phone=text),
            customer(f"b{number}@x.example", serialNumber=f"b-{number}", birthDay=text),
            customer(f"s{number}@x.example", serialNumber=f"d {text}"),
            customer(f"e{number}@x.example", serialNumber=f"e-{number}", friend={"of": [text]}),
        ]
        people += others
        plain += [str(person["email"]) for person in others]
        readings.append(motion(text, 300 + number))
        late = (customer(f"q{number}@x.example", customerName=text), customer(text, customerName=f"of {text}"))
        broken += [json.dumps({**record, "lastUpdateDate": "late"}) for record in late]
    deliver(folder, "customer", people)
    deliver(folder, "customer", [customer("c@x.example", serialNumber="c")], f"customer of {erased}.json")
    deliver(folder, "customer", [customer("d@x.example", serialNumber="d")], f"customer-o'{erased}.json")
    deliver(folder, "accelerometer", readings)
    (folder / "customer" / "broken.json").write_text("\n".join(broken))
    lake.land(folder)
    build(lake, NOW)
    return lake, folder, plain


@pytest.mark.parametrize("erased", [BRIEN, "d'or@example.com", "b.r-i+en@ex-ample.co"])
def test_whoever_others_mention_is_erased_and_nobody_else_is_gone(stage: Stage, erased: str) -> None:
    lake, folder, others = _world(stage, [*CONTAINING, *(form for form in MENTIONING if form.isprintable())], erased)
    theirs = {other for other in others if other.strip().lower() != erased}
    before = rows(lake, "quarantine").total()
    search = looked_for(lake, erased)
    receipt = erase(lake, erased)
    assert (receipt["clean"], receipt["scanned"]["found"]) == (True, [])
    known = {row[1] for row in rows(lake, "customers_landing")}
    assert known == {*theirs, "c@x.example", "d@x.example"}
    assert rows(lake, "quarantine").total() == before - 1, "records of others stay, whatever their address"
    odd = {other for other in theirs if not tokens.is_plain(other)}
    assert receipt["removed"]["others"]["quarantine"] == {"raw": len(odd)}
    assert receipt["removed"]["others"]["customers_landing"]["email"] == len(odd)
    _tells_nobody(lake, erased)
    conserved(lake)
    assert not [check for check in lake.audit() if check.found]
    build(lake, NOW, full=True)
    # the same people again, in files that are not known: what was masked stays masked
    again = folder.with_name("again")
    for path in folder.rglob("*.json"):
        copy = again / path.parent.name / path.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes() + b"\n")
    assert lake.land(again).erased == 1 + 2 + 1, "and two that are the same customer, but for blanks"
    _tells_nobody(lake, erased)
    build(lake, NOW)
    assert [name for name in search().found if "(email)" not in name and "(user)" not in name] == []
    conserved(lake)


def _tells_nobody(lake: Lake, erased: str) -> None:
    key = lake.key()
    traces = Identifiers(key, {tombstones.person(key, erased)}, frozenset({erased}))
    for table, columns in (("customers_landing", (0, 2, 3, -2)), ("customers_trusted", (1, 3)), ("landed_files", (1,))):
        for row in rows(lake, table):
            for column in columns:
                assert not traces.found(str(row[column])), (table, row[column])
    for row in rows(lake, "quarantine"):
        owner = tokens.owner(row[6].decode())
        assert owner is not None
        assert not traces.found(tokens.beside(row[6].decode(), owner)), row[6]
        assert not traces.found(row[1])


def test_a_mention_that_is_encoded_is_masked_whatever_others_are_called(stage: Stage) -> None:
    lake, folder = stage.empty()
    names = [*(f"{n}=" for n in range(30)), "".join(f"={ord(letter):02X}" for letter in ANA)]
    others = [customer(f"{n}@x.example", customerName=name) for n, name in enumerate(names)]
    lake.land(deliver(folder, "customer", [customer(ANA, serialNumber="s-1"), *others]))
    receipt = erase(lake, ANA)
    assert receipt["scanned"]["found"] == []
    assert receipt["clean"]
    assert rows(lake, "customers_landing").total() == len(others)


@pytest.mark.parametrize(
    ("field", "value"),
    [("phone", "801 555 9999"), ("customerName", "8015559999"), ("serialNumber", "8015559999")],
)
def test_a_number_that_somebody_else_has_is_not_looked_for(stage: Stage, field: str, value: str) -> None:
    lake, folder = stage.empty()
    people = [customer(ANA, serialNumber="8015559999" if field != "serialNumber" else "s-1", phone="(801) 555-9999")]
    named: dict[str, Any] = {"serialNumber": "s-2", field: value}
    people += [customer(BO, **named)]
    lake.land(deliver(folder, "customer", people))
    receipt = erase(lake, ANA)
    assert receipt["clean"]
    assert receipt["scanned"]["not_looked_for"] == {"phone": 1, "customerName": 2, "serialNumber": 0}[field]
    assert {row[1] for row in rows(lake, "customers_landing")} == {BO}
    assert value in {str(cell) for row in rows(lake, "customers_landing") for cell in row}


@pytest.mark.parametrize("word", ["quarantine", "metadata", "step_trainer", "parquet", "landing", "shared", "python"])
def test_a_device_that_is_called_like_a_word_of_the_lake_can_be_erased(stage: Stage, word: str) -> None:
    lake, folder = stage.empty()
    lake.land(deliver(folder, "customer", [customer(ANA, serialNumber=word, customerName=word), customer(BO)]))
    assert erase(lake, ANA)["clean"]
    assert {row[1] for row in rows(lake, "customers_landing")} == {BO}


def test_no_word_of_the_lakes_own_files_is_taken_for_a_device(stage: Stage) -> None:
    lake, _ = stage.made()
    erase(lake, ANA)
    build(lake, NOW)
    lake.create_dataset("gait")
    lake.tag("first")
    seen: dict[str, str] = {}
    for path in sorted(lake.root.rglob("*")):
        if path.suffix in (".avro", ".json", ".jsonl", ".md", ".toml", ".text"):
            *_, text = contents.texts(path, contents.kind(path))  # the last one is decoded
            found = re.findall(r"(?<![\w.+/=-])[A-Za-z][A-Za-z_.-]{4,60}[A-Za-z](?![\w.+/=-])", text)
            seen |= dict.fromkeys(found, path.name)
    words = {word for word in seen if not re.fullmatch("[0-9a-f-]+", word)}
    assert {"shared", "snapshots", "fingerprint"} < words
    taken = {
        word: seen[word]
        for word in words
        if Identifiers(lake.key(), (), numbers=frozenset({word})).found(f'"{word}"', data=False)
    }
    assert not taken


def test_a_broken_reading_of_a_shared_device_goes_with_the_moment(stage: Stage) -> None:
    lake, folder = stage.made()
    late = [json.dumps({**step(SHARED, at), "distanceFromObject": "far"}) for at in (104, 106, 107, 108)]
    path = folder / "step_trainer" / "far.json"
    path.write_text("\n".join(late))
    lake.land(path)
    erase(lake, ANA)
    left = {json.loads(row[6])["sensorReadingTime"] for row in rows(lake, "quarantine") if b"far" in row[6]}
    assert left == {instant(107), instant(108)}
    path.write_text("\n".join(late) + "\n")
    assert lake.land(path).erased == 2
    conserved(lake)


def test_replay_lands_nothing_of_the_erased(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    lake, folder = stage.made()
    erase(lake, ANA)
    before = {row[6] for row in rows(lake, "quarantine")}
    known = tombstones.read(lake.root, lake.key())
    broken = {
        "step_trainer": [
            {**step(serial, at), "distanceFromObject": "7"} for serial, at in ((SHARED, 104), (DEVICE, 100))
        ],
        "accelerometer": [{**motion(user, 101), "x": "7"} for user in (ANA, BO)],
        "customer": [{**customer(CY, 60, customerName=f"friend of {ANA}"), "lastUpdateDate": "7"}],
    }
    with monkeypatch.context() as patch:  # a landing by an older version let them in
        patch.setattr(type(known), "without_erased", lambda self, key, raw: raw)
        for feed, values in broken.items():
            lake.land(deliver(folder, feed, values, "old.json"))
    real = quarantine._record
    monkeypatch.setattr(quarantine, "_record", lambda raw: real(raw.replace(b'"7"', b"%d" % instant(7))))
    assert lake.quarantine().replay() == Relanded(2, len(before))
    assert {row[6] for row in rows(lake, "quarantine")} == before
    assert not [row for row in records(lake, "accelerometer_landing") if str(row[0]).lower() == ANA]
    assert {row[0] for row in rows(lake, "customers_landing")} >= {f"friend of {tokens.ERASED}"}
    conserved(lake)


def test_what_reads_encoded_is_found_wherever_it_stands() -> None:
    key = tombstones.Key(bytes(32))
    known = Identifiers(
        key,
        {tombstones.person(key, ANA)},
        frozenset({ANA, "ana bo lund", "lund, ana bo"}),
        phones=frozenset({"8015559999"}),
    )
    for text, wrap in product(ENCODED, WRAPPED):
        assert known.found(WRAPPED[wrap](ENCODED[text])), (text, wrap)


DIALLED = {
    "+46 (0)70-123 45 67": ("46", "70"),
    "0046 70 123 45 67": ("46", "70"),
    "\uff0b\uff14\uff16 70\u2013123\u202f45\u00a067": ("46", "70"),
    "+1 (801) 555-9999": ("1", "801"),
    "+358 40 1234567": ("358", "40"),
}
"""Phone numbers as delivered: the country's digits, and the first after them."""
BETWEEN = (*" .-/_", "", "  ", " - ", "\u2011", "\u2013", "\u202f", "\u00a0", "\u2007", "\u00b7", ")(")


@pytest.mark.parametrize("delivered", DIALLED)
def test_a_phone_number_is_found_however_it_is_dialled_and_written(delivered: str) -> None:
    country, first = DIALLED[delivered]
    known = Identifiers(tombstones.Key(bytes(32)), (), phones=phones.numbers(delivered))
    typed = phones.digits(delivered.replace("(0)", "")).removeprefix("00")
    parts = [first, *(typed[len(country) + len(first) :][at : at + 3] for at in (0, 3, 6))]
    written = {"+": [f"+{country}", *parts], "00": [f"00{country}", *parts], "": [country, *parts]}
    written |= {"(0)": [f"+{country}(0)", *parts], "0": [f"0{parts[0]}", *parts[1:]]}
    for between, zero in product(BETWEEN, (0x30, 0xFF10, 0x660)):
        digits = {0x30 + digit: zero + digit for digit in range(10)}
        for how, those in written.items():
            assert known.found(f"call {between.join(filter(None, those)).translate(digits)}, please"), (how, between)
    assert not known.found(f"{typed}0")
    assert not known.found(f"9{typed[::-1]}")


def test_a_name_is_found_with_other_spaces_dashes_and_apostrophes() -> None:
    name = "anna-karin o'neil lund"
    known = Identifiers(tombstones.Key(bytes(32)), (), frozenset(tokens.spellings(name)))
    curly = Identifiers(tombstones.Key(bytes(32)), (), frozenset(tokens.spellings(name.replace("'", "\u2019"))))
    for space, dash, mark in product(
        (" ", "  ", "\t", "\u00a0", "\u2009 "), "-\u2010\u2011\u2013", "'\u2019\u02bc\uff07"
    ):
        for order in ("Anna-Karin O'Neil Lund", "LUND, Anna-Karin O'Neil", "Lund Anna-Karin O'Neil"):
            text = order.replace("-", dash).replace("'", mark).replace(" ", space)
            assert known.found(text), ascii(text)
            assert curly.found(text), ascii(text)
    assert not known.found("Anna-Karin O'Neil\nLund")  # two values, one a line


def test_addresses_that_differ_in_an_apostrophe_are_two_peoples() -> None:
    key = tombstones.Key(bytes(32))
    known = Identifiers(key, {tombstones.person(key, "o'neil@x.example")}, frozenset({"o'neil@x.example", "bo lund"}))
    assert not known.found("  o\u2019neil@x.example  ")
    assert known.found("  o'neil@x.example  ")


ENCODED = {
    "plain": ANA, "name": "Lund, Ana Bo", "phone": "(801) 555-9999", "phone with dots": "+1 801.555.9999",
    "percent": quote(ANA, safe=""), "entity": ANA.replace("@", "&#64;"), "entity in hex": ANA.replace("@", "&#x40;"),
    "named entity": ANA.replace("@", "&commat;"), "base64": base64.b64encode(f"to {ANA}".encode()).decode(),
    "zlib in base64": base64.b64encode(zlib.compress(f"to {ANA}".encode())).decode(),
    "base64 for addresses": base64.urlsafe_b64encode(f"<{ANA}>??".encode()).decode().rstrip("="),
    "quoted-printable": ANA.replace("@", "=40"), "soft hyphen": ANA.replace("bo", "b\u00ado"),
    "zero width": ANA.replace("@", "\u200b@"),
}  # fmt: skip
_HIDDEN = [
    *(c for c in map(chr, (*range(0x2100), *range(0x2800, 0x2801), *range(0xFE00, 0x10000))) if has_unseen(f"a{c}a")),
    *IGNORED, "\U000110bd", "\U0001d173", "\U000e0041", "\ue000", "\u0378",
]  # fmt: skip
"""Characters that nobody can see."""
HIDDEN_FEW = ("\u200b", "\u00ad", "\ufeff", "\0")


def _hiding(dice: random.Random, address: str, count: int) -> list[str]:
    """Ways of hiding an address: one or two such characters, anywhere within it."""
    found = []
    for character in dice.sample(_HIDDEN, count):
        at, other = sorted(dice.sample(range(1, len(address)), 2))
        found += [f"{address[:at]}{character}{address[at:]}"]
        found += [f"{address[:at]}\u200b{address[at:other]}{character}{address[other:]}"]
    return [*found, address.replace("@", "\0@"), f"\ufeff\u202a{address}\u202c", address.replace("@", "@\u00ad")]


def test_no_character_that_nobody_can_see_hides_anybody_wherever_it_stands() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    key = tombstones.Key(bytes(32))
    known = Identifiers(key, {tombstones.person(key, ANA)}, frozenset({ANA}))
    stones = tombstones.Tombstones({tombstones.person(key, ANA): instant(NOW)})
    for hidden in _hiding(dice, ANA, 200):
        for plain in (True, False):
            raw = json.dumps({"note": "seen", "user": hidden, "timestamp": "late"}, ensure_ascii=plain)
            assert known.found(raw), ascii(hidden)
            assert stones.bars(key, raw.encode("utf-8", "surrogatepass")), ascii(hidden)
        if hidden[0].isalpha():
            assert not known.found(json.dumps({"user": f"jo{hidden}"})), ascii(hidden)
        if not re.search(r"[\t\n\r]", hidden):
            assert known.names_file(f"customer-{hidden}.json")
            assert stones.names_file(key, f"customer-{hidden}.json")


def test_lengths_in_files_of_machines_tie_no_two_values_together() -> None:
    key = tombstones.Key(bytes(32))
    known = Identifiers(key, {tombstones.person(key, "joann@x.example")}, frozenset({"joann@x.example"}))
    assert not known.found("jo\x1aann@x.example", data=False)
    assert known.found("jo\x1aann@x.example")


def test_whoever_hides_in_quarantine_and_inbox_goes_and_stays_out(stage: Stage) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    lake, folder = stage.empty()
    hiding = _hiding(dice, ANA, 20)
    lines = [
        json.dumps(record, ensure_ascii=dice.random() < 0.5)
        for hidden in hiding
        for record in (customer(hidden, serialNumber="s-1"), {"data": [customer(BO), customer(hidden)]})
    ]
    lake.land(deliver(folder, "customer", [customer(ANA, serialNumber="s-1"), customer(BO, serialNumber="s-2")]))
    path = folder / "customer" / "hidden.json"
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    moved = [json.dumps(motion(hidden, 100)) for hidden in hiding]
    (folder / "accelerometer").mkdir(exist_ok=True)
    (folder / "accelerometer" / "hidden.json").write_text("\n".join(moved))
    lake.land(folder)
    held = rows(lake, "quarantine").total()
    assert held == 3 * len(hiding)
    receipt = erase(lake, ANA, delivered=[str(folder)])
    assert receipt["clean"], receipt["scanned"]
    assert rows(lake, "quarantine").total() == len(hiding), "of envelopes the other stays"
    assert all(b"bo@test.example" in row[6] for row in rows(lake, "quarantine"))
    assert (folder / "accelerometer" / "hidden.json").read_text() == ""
    again = folder / "accelerometer" / "late.json"
    again.write_text("\n".join([*moved, ""]))
    assert lake.land(again).erased == len(hiding)
    assert rows(lake, "quarantine").total() == len(hiding)
    conserved(lake)


def test_a_refused_record_whose_address_hides_a_character_is_the_same_persons_and_nobody_elses(stage: Stage) -> None:
    lake, folder = stage.empty()
    forms = [form for c in HIDDEN_FEW for form in (ANA.replace("@", f"{c}@"), f"{ANA}{c}", f"{c}{ANA}")]
    hidden = [customer(form, serialNumber="s-9", customerName="Otto Other") for form in forms]
    lake.land(deliver(folder, "customer", [customer(ANA), customer("ann@x.example", serialNumber="s-2"), *hidden]))
    assert rows(lake, "quarantine").total() == len(hidden)
    receipt = erase(lake, ANA)
    assert receipt["clean"], receipt["scanned"]
    assert not receipt["removed"].get("quarantined_whole")
    assert not rows(lake, "quarantine")
    assert {row[1] for row in rows(lake, "customers_landing")} == {"ann@x.example"}


@pytest.mark.parametrize("character", ["\u200b", "\0", "\u00ad", "\u3000"], ids=ascii)
def test_an_older_lakes_customer_with_such_an_address_is_somebody_else(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], character: str
) -> None:
    lake, folder = stage.empty()
    other = ANA.replace("@", f"{character}@")
    with monkeypatch.context() as before:
        before.setattr("stedi.landing.reader.fitting.has_unseen", lambda text: False)
        people = [customer(ANA, serialNumber="s-1"), customer(other, serialNumber="s-2")]
        lake.land(deliver(folder, "customer", people))
    build(lake, NOW)
    assert cli.main(["--lake", str(lake.root), "audit"]) == 0
    shown = capsys.readouterr().out
    assert "customers whose address has an invisible character: 1; name them with --exact" in shown
    assert "@" not in shown
    raw = [json.dumps(customer(other, 3, customerName=name), ensure_ascii=e) for name, e in (("x", True), ("y", False))]
    path = folder / "customer" / "later.json"
    path.write_text("\n".join(raw))
    lake.land(path)
    receipt = erase(lake, ANA, delivered=[str(folder)])
    assert receipt["clean"], receipt["scanned"]
    assert receipt["removed"]["others"]["customers_landing"]["email"] == 1
    assert {row[1] for row in rows(lake, "customers_landing")} == {other}
    assert sorted(row[6].decode() for row in rows(lake, "quarantine")) == sorted(raw)
    assert path.read_text().splitlines() == raw
    conserved(lake)


def test_what_the_engine_takes_for_plain_is_one_plain_address() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    signs = "aZ09_.+-@@=%'|:to\u00e9 "
    plain = 0
    for _ in range(20_000):
        text = "".join(dice.choices(signs, k=dice.randrange(3, 9))) + dice.choice(["@x.example", "", ".co"])
        if re.fullmatch(PLAIN, text):
            plain += 1
            assert tokens.is_plain(text), text
    assert plain > 100


@pytest.mark.parametrize("named", [True, False], ids=["by name", "by mark"])
def test_addresses_searched_together_are_told_as_each_one_is(named: bool) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    key = Key(bytes(32))
    hits = 0
    for _ in range(tries(200, 500, 5_000)):
        traces = Identifiers(key, {tombstones.person(key, BRIEN)}, frozenset({BRIEN} if named else ()))
        forms = [BRIEN.upper(), "ann@x.example", "{}", dice.choice(CONTAINING), dice.choice(MENTIONING)]
        values = [form.format(BRIEN) for form in dice.sample(forms, dice.randrange(len(forms)))]
        hit = any(is_trace(value, "email", traces) for value in values)
        assert search._among(values, "email", traces) == hit, values
        hits += hit
    assert hits > 10


WRAPPED: dict[str, Callable[[str], str]] = {
    "alone": lambda text: text,
    "JSON": lambda text: json.dumps({"a": text}),
    "JSON in JSON": lambda text: json.dumps({"a": json.dumps({"b": text})}),
    "JSON in JSON in JSON": lambda text: json.dumps([json.dumps([json.dumps([text])])]),
    "address of a page": lambda text: f"https://x.example/?to={quote(text, safe='')}&x=1",
    "base64": lambda text: "data:;base64," + base64.b64encode(json.dumps({"x": text}).encode()).decode(),
}


def test_what_stands_alone_is_always_among_the_candidates_and_what_others_have_is_told_the_same_by_words() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    parts = [
        "abcdef",
        "abc-def",
        "ab_cd1",
        "ann lund",
        "lund, ann",
        "a-b--c",
        "\u00e9t\u00e9-1",
        "d.e.f",
        "-abcdef",
        BRIEN,
        "s1",
    ]
    many = [f"nobody{number}" for number in range(100)]
    around = "ab1.-_+%'\" ,\n\t@\u2019\u00e9"
    filler = "\n" + "x y " * 2_000
    for _ in range(1_000):
        part = dice.choice(parts)
        before, after = ("".join(dice.choices(around, k=dice.randrange(4))) for _ in range(2))
        text = f"{before}{part}{after}{filler}"
        stand = Others((), text, "").claim([*many, *parts])
        assert stand == {each for each in parts if tokens.stands(text, each)}, (before, part, after)
        if tokens.stands(text, part):
            assert part in Sought([*many, part]).among(text), (before, part, after)
