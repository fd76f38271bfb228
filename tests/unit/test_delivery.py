from __future__ import annotations

import os
import socket
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from stedi.errors import UnreadableFile, UsageError
from stedi.landing.deliveries import local
from stedi.landing.deliveries.local import Delivered, Skipped, feed_of, fingerprint, open_regular, walk


@pytest.fixture
def inbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


def put(path: Path, text: str = "{}") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def taken(*paths: str | Path, **options: Any) -> list[tuple[str, str | None]]:
    return [(item.name, item.feed) for item in walk(paths, **options) if isinstance(item, Delivered)]


def passed(*paths: str | Path, **options: Any) -> dict[str, Skipped]:
    return {item.name: item for item in walk(paths, **options) if isinstance(item, Skipped)}


@pytest.mark.parametrize(
    ("path", "feed"),
    [
        ("customer/landing/x.json", "customer"),
        ("customers_landing/x.json", "customer"),
        ("CUSTOMERS-2023/x.json", "customer"),
        ("accelerometer-landing/x.json", "accelerometer"),
        ("accelerometerReadings.json", "accelerometer"),
        ("step_trainer/landing/x.json", "step_trainer"),
        ("step-trainer-0002.json.gz", "step_trainer"),
        ("StepTrainer/x.json", "step_trainer"),
        ("customersLanding.json", "customer"),
        ("customer.json", "customer"),
        ("accelerometer/customers-0001.json", "customer"),
        ("accelerometer/step_trainer/x.json", "step_trainer"),
        ("customership/x.json", None),
        ("data/old-customers.json", None),
        ("x.json", None),
    ],
)
def test_the_feed_is_told_by_the_file_name_then_by_the_nearest_folder(inbox: Path, path: str, feed: str | None) -> None:
    put(inbox / path)
    assert taken("inbox") == [(f"inbox/{path}", feed)]
    *folders, name = path.split("/")
    assert feed_of(name, folders) == feed


def test_the_folders_of_a_named_file_count_but_not_those_the_call_does_not_name(
    inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(inbox / "customer/landing/x.json")
    assert taken("inbox/customer/landing/x.json") == [("x.json", "customer")]
    assert taken("inbox/customer/landing") == [("landing/x.json", "customer")]
    assert taken(str(inbox / "customer/landing/x.json")) == [("x.json", "customer")]
    monkeypatch.chdir(inbox / "customer/landing")
    assert taken("x.json") == [("x.json", None)]
    monkeypatch.chdir(inbox / "customer")
    assert taken(".") == [("customer/landing/x.json", "customer")]


def test_a_feed_that_the_call_gives_goes_before_every_name(inbox: Path) -> None:
    put(inbox / "customer/x.json")
    assert taken("inbox", feed="accelerometer") == [("inbox/customer/x.json", "accelerometer")]
    with pytest.raises(UsageError, match="expected one of customer, accelerometer, step_trainer, found 'steps'"):
        list(walk(["inbox"], feed="steps"))


def test_a_folder_is_walked_in_the_order_of_its_names(inbox: Path) -> None:
    for name in ("b/2.json", "b/1.json", "a.json", "c.ndjson.gz", "b/d/3", "b/10.txt"):
        put(inbox / name)
    names = ["a.json", "b/1.json", "b/10.txt", "b/2.json", "b/d/3", "c.ndjson.gz"]
    assert [name for name, _ in taken("inbox")] == [f"inbox/{name}" for name in names]
    assert not passed("inbox")


def test_hidden_names_are_passed_over_in_silence_and_foreign_endings_by_name(inbox: Path) -> None:
    for name in (
        ".x.json",
        "_SUCCESS",
        "_temporary/x.json",
        ".git/x.json",
        "x.json",
        "x.CSV",
        "y.parquet",
        "z.csv.gz",
    ):
        put(inbox / name)
    assert taken("inbox") == [("inbox/x.json", None)]
    skipped = passed("inbox")
    assert set(skipped) == {"inbox/x.CSV", "inbox/y.parquet", "inbox/z.csv.gz"}
    assert not any(item.failed for item in skipped.values())


def test_what_the_call_names_is_taken_whatever_it_is_called(inbox: Path) -> None:
    put(inbox / ".hidden.csv")
    assert taken("inbox/.hidden.csv") == [(".hidden.csv", None)]


@pytest.mark.parametrize("name", ["x.zip", "x.json.bz2", "x.tar.gz"])
def test_an_archive_fails_rather_than_being_read_as_garbage(inbox: Path, name: str) -> None:
    put(inbox / "y.json")
    put(inbox / name)
    for path in ("inbox", f"inbox/{name}"):
        (item,) = passed(path).values()
        assert item.failed
        assert "unpack it" in item.why


def test_the_same_file_counts_once_however_it_is_named(inbox: Path) -> None:
    path = put(inbox / "customer/x.json")
    os.link(path, inbox / "customer/z.json")
    (inbox / "a-link.json").symlink_to("customer/x.json")
    assert taken("inbox", "inbox/customer", path, "inbox/customer/../customer/x.json", "inbox/*") == [
        ("inbox/customer/x.json", "customer")
    ]
    assert not passed("inbox", "inbox", "inbox/customer", path)


def test_a_link_that_stays_inside_delivers_its_file_under_its_own_name(inbox: Path) -> None:
    put(inbox / "..data/x.json")
    (inbox / "accelerometer.json").symlink_to("..data/x.json")
    (item,) = walk(["inbox"])
    assert item == Delivered(inbox / "..data/x.json", "inbox/accelerometer.json", "accelerometer")


def test_no_link_leads_out_of_the_delivery_nor_into_a_loop(inbox: Path) -> None:
    put(inbox.parent / "inbox-other/secret.json")
    put(inbox / "x.json")
    put(inbox / "old.csv")
    (inbox / "out.json").symlink_to("../inbox-other/secret.json")
    (inbox / "folder").symlink_to("../inbox-other")
    (inbox / "loop").symlink_to(".")
    (inbox / "self.json").symlink_to("self.json")
    (inbox / "gone.json").symlink_to("nowhere.json")
    (inbox / "old.json").symlink_to("old.csv")
    for path in ("inbox", "inbox/*", "inbox/**/*"):
        assert ("inbox/x.json", None) in taken(path)
        skipped = passed(path)
        assert "out of the named folder" in skipped["inbox/out.json"].why
        assert "out of the named folder" in skipped["inbox/folder"].why
        assert "link to a folder" in skipped["inbox/loop"].why
        assert "cannot be followed" in skipped["inbox/self.json"].why
        assert "link to nothing" in skipped["inbox/gone.json"].why
        assert not any(item.failed for item in skipped.values())
    assert "secret" not in str(taken("inbox", "inbox/*"))


def test_a_link_that_the_call_names_is_followed(inbox: Path) -> None:
    path = put(inbox / "a/x.json")
    (inbox / "customers.json").symlink_to("a/x.json")
    (inbox / "steptrainer").symlink_to("a")
    (item,) = walk(["inbox/customers.json"])
    assert item == Delivered(path, "customers.json", "customer")
    (item,) = walk(["inbox/steptrainer"])
    assert item == Delivered(path, "steptrainer/x.json", "step_trainer")


def test_pipes_sockets_and_devices_are_named_and_never_waited_for(inbox: Path) -> None:
    put(inbox / "x.json")
    os.mkfifo(inbox / "pipe.json")
    (inbox / "link.json").symlink_to("pipe.json")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("inbox/socket.json")
        assert taken("inbox") == [("inbox/x.json", None)]
        skipped = passed("inbox")
        assert "found a FIFO" in skipped["inbox/pipe.json"].why
        assert "found a socket" in skipped["inbox/socket.json"].why
        assert "a link to a FIFO" in skipped["inbox/link.json"].why
        assert not any(item.failed for item in skipped.values())
        named = passed("inbox/pipe.json", "inbox/link.json", "inbox/socket.json", "/dev/null")
        assert len(named) == 4
        assert all(item.failed for item in named.values())
        for name, kind in (("pipe.json", "a FIFO"), ("socket.json", "opened"), ("link.json", "opened")):
            with pytest.raises(UnreadableFile, match=kind):
                open_regular(inbox / name)


def test_what_is_missing_fails_and_the_others_are_taken(inbox: Path) -> None:
    put(inbox / "x.json")
    (inbox / "empty").mkdir()
    (inbox / "link").symlink_to("nothing")
    skipped = passed(
        "inbox/nothing.json", "inbox/empty", "inbox/*.gz", "inbox/link", "", "inbox/\0", "inbox/x.json/y", "["
    )
    assert set(skipped) == {
        "inbox/nothing.json",
        "inbox/empty",
        "inbox/*.gz",
        "inbox/link",
        "",
        "inbox/\\x00",
        "inbox/x.json/y",
        "[",
    }
    assert all(item.failed for item in skipped.values())
    assert taken("inbox/nothing.json", "inbox/x.json") == [("x.json", None)]


def test_a_glob_matches_what_the_shell_would(inbox: Path) -> None:
    for name in ("a/1.json", "a/b/2.json", "a/b/3.gz", "c/4.json", ".h/5.json", "c/_6.json", "c/.7.json"):
        put(inbox / name)
    (inbox / "link").symlink_to("a")

    def names(pattern: str) -> list[str]:
        return [name.removeprefix("inbox/") for name, _ in taken(pattern)]

    assert names("inbox/*/*.json") == ["a/1.json", "c/4.json"]
    assert names("inbox/**/*.json") == ["a/1.json", "a/b/2.json", "c/4.json"]
    assert names("inbox/**/**/b/**") == ["a/b/2.json", "a/b/3.gz"]
    assert names("inbox/**") == ["a/1.json", "a/b/2.json", "a/b/3.gz", "c/4.json"]
    assert names("inbox/?") == ["a/1.json", "a/b/2.json", "a/b/3.gz", "c/4.json"]
    assert names("inbox/[ab]/*.json") == ["a/1.json"]
    assert names("inbox/c/.*") == ["c/.7.json"]
    assert names("inbox/.h/[5]*") == [".h/5.json"]
    assert names(str(inbox / "*/b/2*")) == ["a/b/2.json"]
    assert names("inbox/nowhere/*") == []
    put(inbox / "[x].json")
    assert names("inbox/[x].json") == ["[x].json"]


def test_a_glob_tells_the_feed_by_the_folders_it_names(inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(inbox / "customer/landing/x.json")
    assert taken("inbox/customer/landing/*.json") == [("landing/x.json", "customer")]
    assert taken("inbox/cust*/landing/*.json") == [("inbox/customer/landing/x.json", "customer")]
    monkeypatch.chdir(inbox / "customer")
    assert taken("*/*.json") == [("customer/landing/x.json", "customer")]


def test_nothing_is_taken_from_the_lakes_own_folder(inbox: Path) -> None:
    put(inbox / "lake/data/x.json")
    put(inbox / "y.json")
    (inbox / "link.json").symlink_to("lake/data/x.json")
    lake = Path("inbox/lake")
    assert taken("inbox", avoid=lake) == [("inbox/y.json", None)]
    assert set(passed("inbox", avoid=lake)) == {"inbox/lake", "inbox/link.json"}
    for path in ("inbox/lake", "inbox/lake/data/x.json", "inbox/link.json", "inbox/lake/data/*"):
        assert taken(path, avoid=lake) == []
        assert any(item.failed for item in passed(path, avoid=lake).values())


def test_a_very_deep_folder_is_walked_to_its_bottom(inbox: Path) -> None:
    os.chdir(inbox)
    for _ in range(1200):
        os.mkdir("d")
        os.chdir("d")
    put(Path("x.json"))
    os.chdir(inbox.parent)
    assert len(taken("inbox")) == 1
    assert len(taken("inbox/**/x.json")) == 1
    # pytest's own removal of old folders would recurse as deep.
    os.chdir(inbox)
    for _ in range(1200):
        os.chdir("d")
    os.unlink("x.json")
    for _ in range(1200):
        os.chdir("..")
        os.rmdir("d")
    os.chdir(inbox.parent)


def test_a_folder_that_may_not_be_read_fails_by_name(inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(inbox / "a/x.json")
    put(inbox / "y.json")
    real = os.listdir

    def refuse(path: Path) -> list[str]:
        if str(path).endswith("/a"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(local.os, "listdir", refuse)
    assert taken("inbox") == [("inbox/y.json", None)]
    assert passed("inbox")["inbox/a"] == Skipped(
        "inbox/a", "cannot be read: permission denied", failed=True, passing=True
    )


@pytest.mark.skipif(sys.platform == "darwin", reason="file names are UTF-8 there")
def test_names_are_printable_whatever_their_bytes(inbox: Path) -> None:
    put(inbox / os.fsdecode(b"a\xff\x1b[31m\n\xc3\xa9.json"))
    ((name, _),) = taken("inbox")
    assert name == "inbox/a\\xff\\x1b[31m\\né.json"
    name.encode("utf-8")


def test_a_regular_file_opens_and_its_fingerprint_tells_that_it_grew(inbox: Path) -> None:
    path = put(inbox / "x.json", "{}")
    with open_regular(path) as stream:
        before = fingerprint(stream.fileno())
        assert stream.read() == b"{}"
        assert fingerprint(stream.fileno()) == before
        with path.open("a") as writer:
            writer.write("{}")
        assert fingerprint(stream.fileno()) != before
        assert fingerprint(stream.fileno()).size == 4


def test_what_cannot_be_opened_is_named_with_the_reason(inbox: Path) -> None:
    with pytest.raises(UnreadableFile, match=r"gone\.json: cannot be opened: no such file"):
        open_regular(inbox / "gone.json")
    with pytest.raises(UnreadableFile, match="expected a regular file, found a folder"):
        open_regular(inbox)
    with pytest.raises(UnreadableFile, match="not a valid path"):
        open_regular(Path("a\0b"))


def test_a_kind_of_file_that_is_not_known_has_words_too() -> None:
    assert local._kind(0) == "something unknown"
    assert local._kind(stat.S_IFBLK) == "a device"
