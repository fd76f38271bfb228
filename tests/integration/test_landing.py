"""Landing: what becomes of delivered files, whole, broken, hostile, or delivered twice."""

from __future__ import annotations

import gzip
import json
import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from deliveries import customer, deliver, motion, step
from lakes import LANDING, Slate, conserved, heads, records, rows
from reader_files import SHAPES
from stedi.catalog import Catalog
from stedi.errors import LandingError, UsageError
from stedi.lake import Lake
from stedi.landing import deliveries, reader, writing
from stedi.landing.deliveries import local
from stedi.landing.reader import scanner

looking = sys.modules["stedi.landing.inspect"]  # the package's own `inspect` is the function
MEMORY = 1_500_000_000


@pytest.fixture
def lake(slate: Slate) -> Lake:
    return slate.wiped()


def texts(*documents: object) -> list[bytes]:
    return [json.dumps(document, ensure_ascii=False).encode() for document in documents]


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def reasons(lake: Lake) -> Counter[str]:
    return Counter(record.reason for record in lake.quarantine().records())


def times(lake: Lake) -> list[int]:
    """When the step trainer readings that landed were taken, in order."""
    return sorted(row[0] for row in records(lake, "step_trainer_landing").elements())


def test_every_shape_mixed_in_one_file_lands(lake: Lake, inbox: Path) -> None:
    parts = [shape(texts(step(at=2 * n + 1), step(at=2 * n + 2))) for n, shape in enumerate(SHAPES)]
    put(inbox / "step_trainer.json", b"\n".join(parts))
    landed = lake.land(inbox)
    assert (landed.seen, landed.accepted, landed.quarantined) == (2 * len(SHAPES), 2 * len(SHAPES), 0)
    assert times(lake) == list(range(1, 2 * len(SHAPES) + 1))
    conserved(lake)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress], ids=["plain", "gzip", "zstd"])
def test_each_shape_gives_the_same_rows(lake: Lake, inbox: Path, pack: Callable[[bytes], bytes]) -> None:
    good = texts(*(step(at=n, serial="sérial }{") for n in range(1, 4)))
    for shape in SHAPES:
        put(inbox / "step_trainer" / shape.__name__, pack(shape(good)))
    assert len(lake.land(inbox).files) == len(SHAPES)
    rows_of: dict[str, Counter[Any]] = {}
    for *row, file in rows(lake, "step_trainer_landing").elements():
        rows_of.setdefault(file, Counter())[tuple(row)] += 1
    assert len(rows_of) == len(SHAPES)
    for found in rows_of.values():
        assert found == Counter((n, "sérial }{", 246, None) for n in range(1, 4))


def test_an_empty_file_of_a_known_feed_lands_with_no_record(lake: Lake, inbox: Path) -> None:
    nothing = [b"", b" \r\n\t", b"\xef\xbb\xbf", b"[]", b"[ ]\n", gzip.compress(b"", mtime=0), zstandard.compress(b"")]
    for n, content in enumerate(nothing):
        put(inbox / f"customers-{n}.json", content)
    landed = lake.land(inbox)
    assert [file.feed for file in landed.files] == ["customer"] * len(nothing)
    assert (landed.seen, landed.accepted, landed.quarantined, landed.skipped) == (0, 0, 0, ())
    assert all(file.already_landed for file in lake.land(inbox).files)
    conserved(lake)


def test_bad_records_go_to_quarantine_and_the_good_ones_around_them_land(lake: Lake, inbox: Path) -> None:
    bad = {
        b'{"sensorReadingTime": 1000000000001, "serialNumber": "s", "distanceFromObject": }': "malformed",
        b'{"sensorReadingTime":1000000000001,"serialNumber":"s","distanceFromObject":1,"DISTANCE\\u0046romObject":2}': (
            "duplicate_key"
        ),
        b'"a text"': "not_an_object",
        b'{"sensorReadingTime":1000000000001,"serialNumber":"s"}': "missing_required",
        b'{"sensorReadingTime":1000000000001,"serialNumber":"s","distanceFromObject":1.0}': "wrong_type",
        b'{"sensorReadingTime":true,"serialNumber":"s","distanceFromObject":1}': "wrong_type",
        b'{"sensorReadingTime":"1","serialNumber":"s","distanceFromObject":1}': "wrong_type",
        b'{"sensorReadingTime":0,"serialNumber":"s","distanceFromObject":1}': "out_of_range",
        b'{"sensorReadingTime":1000000000001,"serialNumber":"","distanceFromObject":1}': "out_of_range",
        b'{"sensorReadingTime":1000000000001,"serialNumber":"s","distanceFromObject":1,"a":'
        + b"[" * 999
        + b"]" * 999
        + b"}": "too_deep",
        b'{"sensorReadingTime":1000000000001,"serialNumber":"'
        + b"s" * (1 << 20)
        + b'","distanceFromObject":1}': "too_large",
        b'{"sensorReadingTime":1000000000001,"serialNumber":"\xff","distanceFromObject":1}': "bad_encoding",
    }
    good = texts(*(step(at=n) for n in range(1, len(bad) + 1)))
    mixed = b"".join(b"%b\n%b\n" % pair for pair in zip(good, bad, strict=True))
    put(inbox / "step_trainer.json", mixed + b'{"sensorReadingTime":1000000000001,"serial')
    landed = lake.land(inbox)
    assert reasons(lake) == Counter(bad.values()) + Counter(truncated=1)
    assert times(lake) == list(range(1, len(bad) + 1))
    assert landed.seen == 2 * len(bad) + 1
    for record in lake.quarantine().records():
        raw = lake.quarantine().raw(record.handle)
        whole = (mixed + b'{"sensorReadingTime":1000000000001,"serial')[record.offset :][: raw.size].rstrip(b"\n")
        assert whole.startswith(raw.content.rstrip(b"\n")[: 1 << 16])
        assert record.line == 1 + mixed[: record.offset].count(b"\n")
    conserved(lake)


def test_whole_numbers_keep_their_value(lake: Lake, inbox: Path) -> None:
    values = [9007199254740993, -9007199254740993, 2**63 - 1, -(2**63)]
    clean = b"".join(
        b'{"sensorReadingTime":1000000000005,"serialNumber":"s","distanceFromObject":%d}\n' % n for n in values
    )
    put(inbox / "step_trainer-1.json", clean)
    put(inbox / "step_trainer-2.json", clean.replace(b"\n", b" "))
    lake.land(inbox)
    assert records(lake, "step_trainer_landing") == Counter({(5, "s", n, None): 2 for n in values})


def test_the_feed_is_told_by_folder_file_flag_or_fields(lake: Lake, inbox: Path) -> None:
    put(inbox / "customer" / "1.json", texts(customer())[0])
    put(inbox / "customers-2.json", texts(customer("b@x.example"))[0])
    put(inbox / "step-trainer" / "3.json", texts(step())[0])
    put(inbox / "Accelerometer_4.JSON", texts(motion())[0])
    put(inbox / "5.json", texts(motion(at=7))[0])
    landed = lake.land(inbox)
    assert [file.feed for file in sorted(landed.files, key=lambda file: file.name)] == [
        "accelerometer", "accelerometer", "customer", "customer", "step_trainer"
    ]  # fmt: skip
    assert landed.quarantined == 0
    odd = put(inbox.parent / "named" / "customers.json", texts(step(at=9))[0])
    assert lake.land(odd, feed="step_trainer").files[0].feed == "step_trainer"
    with pytest.raises(UsageError, match="expected one of customer, accelerometer, step_trainer"):
        lake.land(inbox, feed="steps")


def test_a_file_whose_feed_cannot_be_told_is_named_and_the_others_land(lake: Lake, inbox: Path) -> None:
    put(inbox / "a.json", b'{"colour": "red"}')
    put(inbox / "b.json", texts(step())[0])
    landed = lake.land(inbox)
    (skipped,) = landed.skipped
    assert skipped.name == "inbox/a.json"
    assert skipped.failed
    assert "found neither; set feed=FEED" in skipped.why
    assert "feed=FEED" in skipped.why
    assert times(lake) == [100]


def test_pipes_loops_and_links_are_passed_over_and_never_hang(lake: Lake, inbox: Path) -> None:
    os.mkfifo(inbox / "customers.fifo")
    (inbox / "loop").symlink_to(inbox)
    (inbox / "customers-lost.json").symlink_to(inbox / "nowhere")
    outside = put(inbox.parent / "outside.json", texts(customer("out@x.example"))[0])
    (inbox / "customers-out.json").symlink_to(outside)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(inbox / "socket"))
    put(inbox / "customers.json", texts(customer())[0])
    landed = lake.land(inbox)
    assert [file.name for file in landed.files] == ["inbox/customers.json"]
    assert {Path(skipped.name).name for skipped in landed.skipped} == {
        "customers.fifo", "loop", "customers-lost.json", "customers-out.json", "socket"
    }  # fmt: skip
    assert records(lake, "customers_landing").total() == 1


def test_the_lake_does_not_land_itself(lake: Lake, slate: Slate, inbox: Path) -> None:
    deliver(inbox, "customer", [customer()])
    lake.land(inbox)
    landed = lake.land(lake.root)
    assert not landed.files
    assert landed.skipped[0].failed


def grows(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"\n" + texts(step(at=999))[0])


@pytest.mark.parametrize("clean", [True, False])
def test_a_file_that_grows_while_it_is_looked_at_is_refused(
    lake: Lake, inbox: Path, monkeypatch: pytest.MonkeyPatch, clean: bool
) -> None:
    file = put(inbox / "step_trainer.json", texts(step())[0] + (b"\n" if clean else b"{"))
    put(inbox / "step_trainer-2.json", texts(step(at=5))[0])
    read = looking._read

    def slow(stream: Any, *rest: Any) -> Any:
        result = read(stream, *rest)
        if os.fstat(stream.fileno()).st_ino == file.stat().st_ino:
            grows(file)
        return result

    monkeypatch.setattr(looking, "_read", slow)
    landed = lake.land(inbox)
    assert [(skipped.name, skipped.failed) for skipped in landed.skipped] == [("inbox/step_trainer.json", True)]
    assert "changed while it was read" in landed.skipped[0].why
    assert times(lake) == [5]
    monkeypatch.undo()
    lake.land(inbox)
    assert 999 in times(lake)
    conserved(lake)


compiled = pytest.mark.skipif(
    scanner.library() is None, reason="the scanner is not compiled (`make`, with a C compiler)"
)


@pytest.mark.parametrize("step_of", ["prepare_all", pytest.param("scan", marks=compiled)])
def test_a_file_that_grows_before_it_is_read_is_refused(
    lake: Lake, inbox: Path, monkeypatch: pytest.MonkeyPatch, step_of: str
) -> None:
    if step_of == "prepare_all":
        monkeypatch.setattr(scanner, "library", lambda: None)
    real = getattr(writing, step_of)
    file = put(inbox / "step_trainer.json", texts(step())[0] + b"{")
    put(inbox / "step_trainer-2.json", texts(step(at=5))[0])

    def late(*arguments: Any, **options: Any) -> Any:
        grows(file)
        return real(*arguments, **options)

    monkeypatch.setattr(writing, step_of, late)
    (skipped,) = lake.land(inbox).skipped
    assert "changed while it was read" in skipped.why
    assert times(lake) == [5]
    conserved(lake)


@pytest.mark.parametrize(
    "change",
    [grows, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(texts(step(at=7))[0] + b"\n")],
    ids=["grows", "emptied", "replaced in place"],
)
@pytest.mark.parametrize("read_by", ["typed reader", pytest.param("scanner", marks=compiled)])
def test_a_clean_file_that_changes_before_it_is_written_costs_its_batch_and_nothing_stays(
    lake: Lake, inbox: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], object], read_by: str
) -> None:
    file = deliver(inbox, "step_trainer", [step()])
    os.utime(file, ns=(1, 1))
    before = heads(lake)
    owner, name = (reader, "scan") if read_by == "scanner" else (writing, "as_it_lies")
    real = getattr(owner, name)

    def late(*arguments: Any) -> Any:
        found = real(*arguments)
        change(file)
        return found

    monkeypatch.setattr(owner, name, late)
    if read_by != "scanner":
        monkeypatch.setattr(scanner, "library", lambda: None)
    with pytest.raises(LandingError, match=r"changed while it was landed; nothing of its batch|expected 1 row,"):
        lake.land(inbox)
    monkeypatch.undo()
    assert heads(lake) == before
    assert not list(lake.root.rglob("*.parquet"))
    assert not list((lake.root / "tmp").rglob("*.json"))
    assert lake.land(inbox).skipped == ()
    conserved(lake)


def test_a_file_that_is_gone_when_it_is_opened_is_named(
    lake: Lake, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(inbox, "step_trainer", [step()])
    gone = deliver(inbox, "step_trainer", [step(at=3)], "gone.json")
    walk = local.walk

    def late(*arguments: Any, **options: Any) -> Iterator[Any]:
        found = list(walk(*arguments, **options))
        gone.unlink()
        yield from found

    monkeypatch.setattr(local, "walk", late)
    (skipped,) = lake.land(inbox).skipped
    assert skipped.name.endswith("gone.json")
    assert skipped.failed
    assert times(lake) == [100]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_named_and_the_others_land(lake: Lake, inbox: Path) -> None:
    deliver(inbox, "step_trainer", [step()])
    deliver(inbox, "step_trainer", [step(at=3)], "secret.json").chmod(0)
    (skipped,) = lake.land(inbox).skipped
    assert skipped.failed
    assert times(lake) == [100]


def test_a_compressed_file_that_does_not_decode_is_refused_whole_and_lands_once_it_is_repaired(
    lake: Lake, inbox: Path
) -> None:
    content = b"".join(text + b"\n" for text in texts(*(step(at=n) for n in range(1, 2000))))
    cut = put(inbox / "step_trainer-cut.json.gz", gzip.compress(content)[:-9])
    put(inbox / "step_trainer-cut.json.zst", zstandard.compress(content)[:-9])
    put(inbox / "step_trainer-plain.json.gz", content)
    put(inbox / "step_trainer.json", texts(step(at=5000))[0])
    landed = lake.land(inbox)
    assert len(landed.skipped) == 3
    assert all(skipped.failed for skipped in landed.skipped)
    assert times(lake) == [5000]
    assert reasons(lake) == Counter()
    cut.write_bytes(gzip.compress(content))
    assert lake.land(cut).accepted == 1999
    assert times(lake) == [*range(1, 2000), 5000]
    conserved(lake)


def test_a_consent_of_the_wrong_type_does_not_cost_the_record_but_does_not_land_either(lake: Lake, inbox: Path) -> None:
    odd: list[Any] = ["1655564400000", True, 1.5, -1, 0, [1], {"a": 1}, 2**63, "yes"]
    deliver(inbox, "customer", [customer(f"c{n}@x.example", consent=value) for n, value in enumerate(odd)])
    twice = (
        b'{"email":"t@x.example","serialNumber":"s","registrationDate":1000000000001,"lastUpdateDate":1000000000001,'
    )
    twice += b'"shareWithResearchAsOfDate":1000000000005,"SHAREWithResearchAsOfDate":1000000000006}'
    put(inbox / "customer" / "twice.json", twice)
    landed = lake.land(inbox)
    assert (landed.accepted, landed.quarantined) == (len(odd) + 1, 0)
    drift = {what: n for what, n in landed.drift["customer"].items() if "shareWithResearchAsOfDate" in what}
    assert sum(drift.values()) == len(odd) + 1, landed.drift
    extras = {}
    for row in records(lake, "customers_landing"):
        assert row[7] is None
        extras[row[1]] = json.loads(row[-1])
    kept = [extras[f"c{n}@x.example"]["shareWithResearchAsOfDate"] for n in range(len(odd))]
    assert [value[0] if isinstance(value, list) and value != [1] else value for value in kept] == odd
    assert str(extras["t@x.example"]).count("5") == 1
    assert str(extras["t@x.example"]).count("6") == 1


def test_unknown_fields_are_kept_and_reported(lake: Lake, inbox: Path) -> None:
    deliver(inbox, "step_trainer", [{**step(), "firmware": "1.2", "battery": None}, step(at=7)])
    landed = lake.land(inbox)
    assert sum("firmware" in what for what in landed.drift["step_trainer"]) == 1
    extra = {row[0]: row[-1] for row in records(lake, "step_trainer_landing")}
    assert json.loads(extra[100]) == {"firmware": "1.2", "battery": None}
    assert extra[7] is None


def test_the_same_content_lands_once_under_any_name(lake: Lake, inbox: Path) -> None:
    deliver(inbox, "step_trainer", [step()], "1.json")
    deliver(inbox, "step_trainer", [step()], "2.json")
    first = lake.land(inbox)
    assert [file.already_landed for file in first.files] == [False, True]
    assert {(file.seen, file.accepted) for file in first.files} == {(1, 1)}
    before = heads(lake)
    deliver(inbox, "step_trainer", [step()], "3.json")
    again = lake.land(inbox)
    assert [(file.already_landed, file.seen, file.accepted) for file in again.files] == [(True, 1, 1)] * 3
    assert heads(lake) == before
    assert times(lake) == [100]
    conserved(lake)


def test_the_same_content_in_two_batches_lands_once(lake: Lake, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliveries, "_MOST", 1)
    for n, at in enumerate([1, 2, 1]):
        deliver(inbox, "step_trainer", [{**step(at=at), "new": 1}], f"{n}.json")
    landed = lake.land(inbox)
    assert [file.already_landed for file in landed.files] == [False, False, True]
    assert times(lake) == [1, 2]
    assert list(landed.drift["step_trainer"].values()) == [2]
    conserved(lake)


def test_two_processes_that_land_the_same_files_add_them_once(lake: Lake, inbox: Path) -> None:
    deliver(inbox, "step_trainer", [step(at=n) for n in range(1, 500)])
    put(inbox / "step_trainer" / "dirty.json", b"".join(texts(*(step(at=n) for n in range(500, 900)), 7)))
    command = [sys.executable, "-m", "stedi.cli", "--lake", str(lake.root), "--json", "land", str(inbox)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    answers = []
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        answers.append(json.loads(out))
    assert sorted(file["already_landed"] for answer in answers for file in answer["files"]) == [False] * 2 + [True] * 2
    assert {(answer["seen"], answer["quarantined"]) for answer in answers} == {(900, 1)}
    assert times(lake) == list(range(1, 900))
    conserved(lake)


ODD_NAMES = [
    "it's.json", "a*b[c]?.json", "k=v.json", 'quote".json', "new\nline.json", "tab\t.json", "Ω.json", "a b;--.json",
    "%41.json", "$HOME.json", "back\\slash.json", "{a,b}.json", "~.json", "#frag.json", "dot..json", "'); drop.json",
]  # fmt: skip


def test_files_of_any_name_land(lake: Lake, inbox: Path) -> None:
    for n, name in enumerate(ODD_NAMES):
        deliver(inbox, "step_trainer", [step(at=n + 1)], name)
        put(inbox / "step_trainer" / f"dirty {name}", texts(step(at=n + 101))[0] + b"!")
    raw = os.path.join(os.fsencode(inbox), b"step_trainer", b"not-utf8-\xff.json")
    with open(raw, "wb") as stream:
        stream.write(texts(step(at=99))[0])
    landed = lake.land(inbox)
    assert landed.skipped == ()
    assert times(lake) == sorted([*range(1, len(ODD_NAMES) + 1), 99, *range(101, len(ODD_NAMES) + 101)])
    for record in lake.quarantine().records():
        assert record.file.isprintable()
        assert lake.quarantine().raw(f"{record.file}:{record.offset}").content == b"!"
    conserved(lake)


def test_a_folder_named_like_a_partition_adds_no_column(lake: Lake, inbox: Path) -> None:
    deliver(inbox / "serialNumber=x" / "_file=y".removeprefix("_"), "step_trainer", [step()])
    lake.land(inbox)
    assert records(lake, "step_trainer_landing") == Counter({(100, "s1", 246, None): 1})


def test_files_that_are_not_clean_are_rewritten_side_by_side_and_give_the_same(
    lake: Lake, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanner, "library", lambda: None)
    for n in range(4):
        put(inbox / "step_trainer" / f"{n}.json", b"".join(texts(step(at=2 * n + 1), step(at=2 * n + 2))) + b"?")
    put(inbox / "step_trainer" / "cut.json.gz", gzip.compress(b"{}")[:-3])
    landed = lake.land(inbox)
    assert (landed.seen, landed.accepted, landed.quarantined) == (12, 8, 4)
    assert [skipped.failed for skipped in landed.skipped] == [True]
    assert times(lake) == list(range(1, 9))
    conserved(lake)


@pytest.mark.parametrize("survived", range(3))
def test_a_landing_that_dies_between_its_commits_is_finished_by_the_next(
    lake: Lake, inbox: Path, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    put(inbox / "step_trainer.json", texts(step())[0] + b"?")
    append, calls = Catalog.append, list[str]()

    def dying(self: Catalog, table: str, *rest: Any, **named: Any) -> int | None:
        calls.append(table)
        if len(calls) > survived:
            raise KeyboardInterrupt
        return append(self, table, *rest, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Catalog, "append", dying)
        with pytest.raises(KeyboardInterrupt):
            lake.land(inbox)
    landed = lake.land(inbox)
    assert [file.already_landed for file in landed.files] == [True]
    assert times(lake) == [100]
    assert reasons(lake) == Counter(malformed=1)
    assert not list((lake.root / "pending").iterdir())
    conserved(lake)


def test_an_open_landing_is_also_finished_by_a_build(lake: Lake, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deliver(inbox, "customer", [customer()])
    with monkeypatch.context() as patch:
        patch.setattr(Catalog, "append", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space"):
            lake.land(inbox)
    lake.build()
    assert rows(lake, "customers_trusted").total() == 1
    conserved(lake)


def test_the_sample_lands_with_its_known_answer_and_a_second_time_adds_nothing(lake: Lake, sample_inbox: Path) -> None:
    answer = json.loads((sample_inbox / "_answer.json").read_text())
    landed = lake.land(sample_inbox)
    assert landed.skipped == ()
    for feed, table in zip(answer["seen"], LANDING, strict=True):
        files = [file for file in landed.files if file.feed == feed and not file.already_landed]
        assert sum(file.seen for file in files) == answer["seen"][feed]
        assert records(lake, table).total() == answer["accepted"][feed]
        refused = Counter(r.reason for r in lake.quarantine().records() if r.feed == feed)
        assert refused == answer["quarantined"][feed]
    conserved(lake)
    before = heads(lake)
    again = lake.land(sample_inbox)
    assert all(file.already_landed for file in again.files)
    assert heads(lake) == before


def test_delivered_files_are_never_touched(lake: Lake, inbox: Path) -> None:
    files = [deliver(inbox, "step_trainer", [step()]), put(inbox / "customers.json", b"{bad}")]
    seen = [(file.read_bytes(), file.stat().st_mtime_ns) for file in files]
    lake.land(inbox)
    assert [(file.read_bytes(), file.stat().st_mtime_ns) for file in files] == seen
    assert sorted(path.name for path in inbox.rglob("*") if path.is_file()) == ["customers.json", "delivered.json"]


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'])
def test_nesting_without_end_is_one_record(lake: Lake, inbox: Path, opening: bytes) -> None:
    put(inbox / "step_trainer.json", opening * 100_000 + b"\n" + texts(step())[0])
    landed = lake.land(inbox)
    assert landed.seen <= 2
    assert reasons(lake)["too_deep"] == 1


def land_apart(lake: Lake, path: Path) -> tuple[int, dict[str, Any], str, int]:
    """Lands in a process of its own: exit code, answer, messages, and the most memory that any process of it had."""
    command = [sys.executable, "-m", "stedi.cli", "--lake", str(lake.root), "--json", "land", str(path)]
    out, err = lake.root.parent / "out", lake.root.parent / "err"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        pid = os.posix_spawn(
            sys.executable, command, dict(os.environ),
            file_actions=[(os.POSIX_SPAWN_DUP2, stdout.fileno(), 1), (os.POSIX_SPAWN_DUP2, stderr.fileno(), 2)],
        )  # fmt: skip
        _, status, usage = os.wait4(pid, 0)
    unit = 1 if sys.platform == "darwin" else 1024
    answer = json.loads(out.read_bytes())
    return os.waitstatus_to_exitcode(status), answer, err.read_text(), usage.ru_maxrss * unit


@pytest.mark.parametrize("pack", ["gzip", "zstd"])
@pytest.mark.thorough
def test_a_bomb_is_one_refused_file(lake: Lake, inbox: Path, pack: str) -> None:
    (inbox / "accelerometer").mkdir()
    file = inbox / "accelerometer" / "bomb"
    block = bytes(1 << 20)
    if pack == "gzip":
        part = gzip.compress(block * 64, 9)
        file.write_bytes(part * 160)  # ten gigabytes, member by member
    else:
        part = zstandard.compress(block * 64, 9)
        file.write_bytes(part * 160)
    deliver(inbox, "step_trainer", [step()])
    code, answer, _, memory = land_apart(lake, inbox)
    assert code == 1
    assert [skipped["name"] for skipped in answer["skipped"] if skipped["failed"]] == ["inbox/accelerometer/bomb"]
    assert answer["accepted"] == 1
    assert memory < MEMORY


@pytest.mark.thorough
def test_a_line_of_a_gigabyte_is_one_record_in_quarantine(lake: Lake, inbox: Path) -> None:
    good = texts(motion())[0]
    with (inbox / "accelerometer.json").open("wb") as stream:
        stream.write(good + b'\n{"user":"')
        for _ in range(1024):
            stream.write(b"u" * (1 << 20))
        stream.write(b'","timestamp":1000000000001,"x":1,"y":1,"z":1}\n' + good + b"\n")
    code, answer, _, memory = land_apart(lake, inbox)
    (inbox / "accelerometer.json").unlink()
    assert code == 0
    assert (answer["seen"], answer["accepted"], answer["quarantined"]) == (3, 2, 1)
    (record,) = lake.quarantine().records()
    assert (record.reason, record.line, record.offset) == ("too_large", 2, len(good) + 1)
    assert record.size == (1 << 30) + len(b'{"user":"') + len(b'","timestamp":1000000000001,"x":1,"y":1,"z":1}')
    assert memory < MEMORY
