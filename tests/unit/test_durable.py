"""Files that are whole or absent, and locks that end with their process."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest

from stedi.errors import LakeBusy
from stedi.storage import durable

HOLD = """
import sys, time
from pathlib import Path
from stedi.storage import durable
with durable.lock(Path(sys.argv[1]), wait=False):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def held(path: Path, seconds: float = 60) -> subprocess.Popen[str]:
    """A process that holds the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path), str(seconds)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_a_written_file_is_whole_and_its_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        durable.write(tmp_path / "a", b"1")
    finally:
        os.umask(before)
    assert (tmp_path / "a").read_bytes() == b"1"
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
    assert names(tmp_path) == ["a"]


def test_reading_takes_the_memory_of_the_file_and_not_of_the_limit(tmp_path: Path) -> None:
    durable.write(tmp_path / "a", b"short")
    tracemalloc.start()
    assert durable.content(tmp_path / "a", 1 << 30) == b"short"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_writing_again_replaces_the_content(tmp_path: Path) -> None:
    durable.write(tmp_path / "a", b"a long first text")
    durable.write(tmp_path / "a", b"short")
    assert (tmp_path / "a").read_bytes() == b"short"


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("ends", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=repr)
def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, ends: BaseException
) -> None:
    durable.write(tmp_path / "a", b"old")

    def fail(*_: object) -> None:
        raise ends

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(type(ends)):
            durable.write(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_content_is_on_disk_before_the_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        done.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        fsync(descriptor)

    def replaced(old: str, new: str) -> None:
        done.append("name")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    durable.write(tmp_path / "a", b"1")
    assert done == ["file", "name", "folder"]
    durable.remove(tmp_path / "a")
    assert done[3:] == ["folder"]


def test_what_a_killed_writer_left_does_not_disturb_the_next(tmp_path: Path) -> None:
    (tmp_path / ".a.partial").write_bytes(b"a torn text that is longer")
    durable.write(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert (tmp_path / ".a.partial").read_bytes() == b"a torn text that is longer", (
        "it may be another writer's, at work"
    )


def test_removing_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    durable.remove(tmp_path / "a")
    durable.write(tmp_path / "a", b"1")
    durable.remove(tmp_path / "a")
    assert names(tmp_path) == []


def test_locks_of_commands_are_taken_in_one_order(tmp_path: Path) -> None:
    """Two commands that name the same ones in two orders would wait for each other forever."""
    for first, second in itertools.combinations(durable.ALL, 2):
        with (
            durable.commands(tmp_path, [first, second], print),
            pytest.raises(LakeBusy, match=f"another {first} is running"),
            durable.commands(tmp_path, [second, first], print, wait=False),
        ):
            pass


def test_a_lock_excludes_another_process(tmp_path: Path) -> None:
    process = held(tmp_path / "build.lock")
    try:
        with (
            pytest.raises(LakeBusy, match="another build is running"),
            durable.lock(tmp_path / "build.lock", wait=False),
        ):
            pass
    finally:
        end(process)


def test_a_lock_excludes_another_thread_of_the_same_process(tmp_path: Path) -> None:
    with durable.lock(tmp_path / "land.lock", wait=False):  # noqa: SIM117 - one inside the other
        with pytest.raises(LakeBusy), durable.lock(tmp_path / "land.lock", wait=False):
            pass


def test_a_lock_ends_with_its_block_even_if_that_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), durable.lock(tmp_path / "land.lock", wait=False):
        _ = 1 / 0
    with durable.lock(tmp_path / "land.lock", wait=False):
        pass


def test_a_lock_ends_with_a_process_that_is_killed(tmp_path: Path) -> None:
    process = held(tmp_path / "land.lock")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    with durable.lock(tmp_path / "land.lock", wait=False):
        pass


def test_waiting_says_so_once_and_goes_on_when_the_holder_has_ended(tmp_path: Path) -> None:
    said: list[str] = []
    process = held(tmp_path / "land.lock", seconds=0.4)
    try:
        started = time.monotonic()
        with durable.lock(tmp_path / "land.lock", wait=True, waiting=lambda: said.append("waiting")):
            waited = time.monotonic() - started
        assert said == ["waiting"]
        assert waited > 0.05
    finally:
        end(process)


def test_a_free_lock_is_taken_without_a_word(tmp_path: Path) -> None:
    said: list[str] = []
    with durable.lock(tmp_path / "land.lock", wait=True, waiting=lambda: said.append("waiting")):
        pass
    assert said == []
    assert (tmp_path / "land.lock").stat().st_mode & 0o777 == 0o600


def test_waiting_for_so_many_seconds_ends_with_a_word_on_who_holds_it(tmp_path: Path) -> None:
    process = held(tmp_path / "catalog.lock")
    try:
        with (
            pytest.raises(LakeBusy, match=r"catalog\.lock: .*held for 0\.1 seconds"),
            durable.lock(tmp_path / "catalog.lock", wait=0.1),
        ):
            raise AssertionError("two hold it")
    finally:
        end(process)
    with durable.lock(tmp_path / "catalog.lock", wait=0.1):
        pass
