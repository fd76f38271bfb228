"""`dataset verify`: nothing of a release can be other than it was signed without being named."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pyarrow.parquet as pq
import pytest

import releases
from releases import KEY, OTHER, PEOPLE, made, resealed
from stedi import cli
from stedi.datasets.verify import verify
from stedi.errors import UsageError
from stedi.privacy import signatures

TRAIN, TEST = "data/train-00000-of-00002.parquet", "data/test-00000-of-00001.parquet"
SECOND, THIRD = "data/train-00001-of-00002.parquet", "data/train-00002-of-00002.parquet"
FIRST = sorted(PEOPLE)[0]
Attack = Callable[[Path], object]


def test_a_release_as_it_was_signed_holds(release: Path) -> None:
    found = verify(release)
    assert found.holds, found.problems
    assert (found.release, found.lake, found.created) == ("steps@1", releases.LAKE, releases.CREATED)
    assert found.public_key == signatures.fingerprint(signatures.public_key(KEY))
    assert found.files == 11
    assert found.bytes == sum(path.stat().st_size for path in release.rglob("*") if path.is_file())


def flip(name: str, at: int) -> Attack:
    def change(folder: Path) -> None:
        raw = bytearray((folder / name).read_bytes())
        raw[at] ^= 1
        (folder / name).write_bytes(raw)

    return change


def swap(one: str, other: str) -> Attack:
    def change(folder: Path) -> None:
        first, second = (folder / one).read_bytes(), (folder / other).read_bytes()
        (folder / one).write_bytes(second)
        (folder / other).write_bytes(first)

    return change


def row_more(folder: Path) -> None:
    rows = releases.rows(folder / TRAIN)
    releases.write(folder / TRAIN, [*rows, rows[-1]])


def linked(name: str) -> Attack:
    def change(folder: Path) -> None:
        outside = folder.parent / "outside"
        (folder / name).rename(outside)
        (folder / name).symlink_to(outside)

    return change


def fifo(folder: Path) -> None:
    (folder / TRAIN).unlink()
    os.mkfifo(folder / TRAIN)


def line(change: Callable[[list[str]], list[str]]) -> Attack:
    def changed(folder: Path) -> None:
        lines = (folder / "SHA256SUMS").read_text().splitlines(keepends=True)
        (folder / "SHA256SUMS").write_text("".join(change(lines)))

    return changed


def text(change: Callable[[str], str], name: str = "manifest.json") -> Attack:
    return lambda folder: (folder / name).write_text(change((folder / name).read_text()))


CHANGED: dict[str, tuple[str, Attack]] = {
    "the first byte of data": (TRAIN, flip(TRAIN, 0)),
    "a byte in the middle of data": (TRAIN, flip(TRAIN, 200)),
    "the last byte of data": (TEST, flip(TEST, -1)),
    "a byte of the subjects": ("subjects.parquet", flip("subjects.parquet", 60)),
    "a byte of the manifest": ("manifest.json", flip("manifest.json", 30)),
    "a byte of the checksums": ("SHA256SUMS", flip("SHA256SUMS", 5)),
    "a byte of the signature": ("manifest.sig", flip("manifest.sig", 40)),
    "white space in the manifest": ("manifest.json", text(lambda t: t + " ")),
    "white space behind the signature": ("manifest.sig", text(lambda t: t + "\n", "manifest.sig")),
    "two files of one split swapped": (TRAIN, swap(TRAIN, SECOND)),
    "files of two splits swapped": (TEST, swap(SECOND, TEST)),
    "data cut": (TRAIN, lambda f: os.truncate(f / TRAIN, 100)),
    "data emptied": (TRAIN, lambda f: os.truncate(f / TRAIN, 0)),
    "a row too many": (TRAIN, row_more),
    "data gone": (TRAIN, lambda f: (f / TRAIN).unlink()),
    "subjects gone": ("subjects.parquet", lambda f: (f / "subjects.parquet").unlink()),
    "manifest gone": ("manifest.json", lambda f: (f / "manifest.json").unlink()),
    "checksums gone": ("SHA256SUMS", lambda f: (f / "SHA256SUMS").unlink()),
    "signature gone": ("manifest.sig", lambda f: (f / "manifest.sig").unlink()),
    "a file more": ("notes.txt", lambda f: (f / "notes.txt").write_text("x")),
    "a hidden file more": (".hidden", lambda f: (f / ".hidden").write_text("x")),
    "a file of data more": (THIRD, lambda f: shutil.copy(f / TRAIN, f / THIRD)),
    "a folder more": ("more/", lambda f: (f / "more").mkdir()),
    "a link in the place of data": (TRAIN, linked(TRAIN)),
    "a link in the place of the manifest": ("manifest.json", linked("manifest.json")),
    "a link in the place of the folder of data": ("data", linked("data")),
    "a link more": ("link", lambda f: (f / "link").symlink_to("manifest.json")),
    "a pipe in the place of data": (TRAIN, fifo),
    "a folder in the place of data": (TRAIN, lambda f: ((f / TRAIN).unlink(), (f / TRAIN).mkdir())),
    "a line of the checksums less": (TRAIN, line(lambda lines: [one for one in lines if TRAIN not in one])),
    "a line of the checksums twice": ("SHA256SUMS", line(lambda lines: [*lines, lines[-1]])),
    "the checksums in another order": ("SHA256SUMS", line(lambda lines: lines[::-1])),
    "a line of the checksums that leads out": ("SHA256SUMS", line(lambda lines: ["0" * 64 + "  ../x\n", *lines])),
    "the checksums cut": ("SHA256SUMS", line(lambda lines: [*lines[:-1], lines[-1].rstrip("\n")])),
    "a manifest that is no JSON": ("manifest.json", text(lambda t: t[:-1])),
    "a manifest with a name twice": ("manifest.json", text(lambda t: t.replace('"rows":', '"rows": 1, "rows":', 1))),
    "a manifest nested without end": ("manifest.json", text(lambda t: "[" * 100_000)),
    "a signature that is no JSON": ("manifest.sig", text(lambda t: "x", "manifest.sig")),
}  # fmt: skip
"""What somebody without the key can do who does nothing about it: the file that must be named, and the change."""


@pytest.mark.parametrize("what", CHANGED)
def test_whatever_is_changed_is_named(copy: Path, what: str) -> None:
    file, change = CHANGED[what]
    change(copy)
    found = verify(copy)
    assert not found.holds
    assert file in {problem.file for problem in found.problems}, found.problems


def covered(folder: Path, change: Attack) -> None:
    """Makes a change and covers it: manifest and checksums follow, and another key signs."""
    change(folder)
    resealed(folder, lambda plain: plain.update(public_key=signatures.public_key(OTHER)), OTHER)


def test_what_another_key_has_signed_is_named_where_the_key_is_known(copy: Path, tmp_path: Path) -> None:
    covered(copy, row_and_counts)
    pinned = tmp_path / "sign.pub"
    pinned.write_text(signatures.public_key(KEY))
    found = verify(copy, public_key=pinned)
    assert [problem.file for problem in found.problems] == ["manifest.sig"]
    assert signatures.fingerprint(signatures.public_key(OTHER)) in found.problems[0].what
    assert verify(copy).public_key != signatures.fingerprint(signatures.public_key(KEY))


def row_and_counts(folder: Path) -> None:
    row_more(folder)
    people = {**PEOPLE, releases.rows(folder / TRAIN)[-1][0]: ("train", 4)}
    releases.subjects(folder, [(subject, *found) for subject, found in sorted(people.items())])

    def counts(plain: dict[str, object]) -> None:
        plain["rows"] = sum(rows for _, rows in people.values())
        splits = plain["splits"]
        assert isinstance(splits, dict)
        splits["train"]["rows"] += 1

    resealed(folder, counts)


def test_a_manifest_of_another_keys_release_is_named(copy: Path) -> None:
    resealed(copy, key=OTHER)
    assert "manifest.sig" in {problem.file for problem in verify(copy).problems}


def test_the_signature_of_another_release_is_named(copy: Path, tmp_path: Path) -> None:
    other = made(tmp_path / "other", name="other", release="other@1")
    shutil.copy(other / "manifest.sig", copy / "manifest.sig")
    assert [problem.file for problem in verify(copy).problems] == ["manifest.sig"]


def moved(folder: Path) -> None:
    rows = releases.rows(folder / TEST)
    releases.write(folder / TEST, [*rows, (FIRST, 99, 1, 1.0)])


def other_subjects(change: Callable[[list[tuple[str, str, int]]], Sequence[tuple[object, ...]]]) -> Attack:
    def changed(folder: Path) -> None:
        people = cast(list[tuple[str, str, int]], releases.rows(folder / "subjects.parquet"))
        releases.subjects(folder, [*change(people)])

    return changed


def column(folder: Path) -> None:
    table = pq.read_table(folder / TEST, partitioning=None)
    pq.write_table(table.append_column("email", table.column("subject")), folder / TEST, store_schema=False)


LIES: dict[str, tuple[str, str, Attack, Callable[[dict[str, Any]], object]]] = {
    "somebody in two splits": ("subjects.parquet", f"subject {FIRST} has rows in", moved, lambda m: None),
    "somebody in another split than is said": (
        "subjects.parquet", f"subject {FIRST} is in train",
        other_subjects(lambda people: [(s, "test" if s == FIRST else split, n) for s, split, n in people]),
        lambda m: None,
    ),
    "somebody of whom nothing is said": (
        "subjects.parquet", f"subject {FIRST} has rows", other_subjects(lambda people: people[1:]), lambda m: None,
    ),
    "somebody who has no rows": (
        "subjects.parquet", "subject ffffffffffffffff: expected 3 rows",
        other_subjects(lambda people: [*people, ("f" * 16, "train", 3)]), lambda m: None,
    ),
    "somebody said twice": (
        "subjects.parquet", "is listed twice", other_subjects(lambda people: [*people, people[0]]), lambda m: None,
    ),
    "other rows of somebody": (
        "subjects.parquet", f"subject {FIRST}: expected 7 rows",
        other_subjects(lambda people: [(s, split, 7 if s == FIRST else n) for s, split, n in people]), lambda m: None,
    ),
    "a column more": (TEST, "columns differ", column, lambda m: None),
    "fewer rows in all": ("manifest.json", "expected 29 rows", lambda f: None, lambda m: m.update(rows=29)),
    "more people in all": ("manifest.json", "expected 11 subjects", lambda f: None, lambda m: m.update(subjects=11)),
    "one person in all": ("manifest.json", "expected 1 subject,", lambda f: None, lambda m: m.update(subjects=1)),
    "other counts of a split": (
        "manifest.json", "split test: expected 1 subject,", lambda f: None,
        lambda m: m["splits"]["test"].update(subjects=1),
    ),
    "an account that does not add up": (
        "manifest.json", "does not add up", lambda f: None, lambda m: m["account"][0].update(rows=1),
    ),
    "a file of data that nobody lists": (
        TEST, "it is not in the manifest", lambda f: None,
        lambda m: m.update(files=[file for file in m["files"] if file["path"] != TEST]),
    ),
    "another name than the release's": (
        "manifest.json", "name and version", lambda f: None, lambda m: m.update(version=2),
    ),
    "a manifest without its columns": (
        "manifest.json", "expected the manifest", lambda f: None, lambda m: m.pop("columns"),
    ),
    "a manifest with another type": (
        "manifest.json", "expected the manifest", lambda f: None, lambda m: m.update(rows="30"),
    ),
    "a file that leads out": (
        "manifest.json", "expected the manifest", lambda f: None, lambda m: m["files"][0].update(path="../x"),
    ),
    "no rows as rows of a file": (
        TEST, "expected 7 rows", lambda f: None,
        lambda m: next(f for f in m["files"] if f["path"] == TEST).update(rows=7),
    ),
}  # fmt: skip
"""What the key's holder has signed, and is not true all the same."""


@pytest.mark.parametrize("what", LIES)
def test_what_was_signed_and_is_not_true_is_named(copy: Path, what: str) -> None:
    file, words, change, manifest = LIES[what]
    change(copy)
    resealed(copy, manifest)
    found = verify(copy)
    assert not [problem for problem in found.problems if problem.file in ("manifest.sig", "SHA256SUMS")]
    said = [problem.what for problem in found.problems if problem.file == file]
    assert any(words in one for one in said), found.problems


def test_enough_is_tried() -> None:
    assert len(CHANGED) + len(LIES) >= 50


def test_the_command_names_the_file_and_exits_3(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["dataset", "verify", str(copy)]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"signed by {releases.LAKE} (")
    assert said.endswith(": steps@1; holds\n")
    flip(TRAIN, 100)(copy)
    assert cli.main(["dataset", "verify", str(copy)]) == 3
    assert f"{TRAIN}: its bytes differ from SHA256SUMS" in capsys.readouterr().out
    assert cli.main(["--json", "dataset", "verify", str(copy)]) == 3
    found = json.loads(capsys.readouterr().out)
    assert (found["holds"], found["release"]) == (False, "steps@1")
    assert TRAIN in {problem["file"] for problem in found["problems"]}


@pytest.mark.parametrize("words", [["/dev/null/a"], ["COPY", "--public-key", "/dev/null"]])
def test_what_is_no_release_or_no_key_is_a_usage_error(copy: Path, words: list[str]) -> None:
    assert cli.main(["dataset", "verify", *(word.replace("COPY", str(copy)) for word in words)]) == 2


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    assert {"manifest.json", "SHA256SUMS"} <= {problem.file for problem in verify(tmp_path).problems}
    with pytest.raises(UsageError):
        verify(tmp_path / "none")


def test_a_folder_of_any_depth_is_looked_through(copy: Path) -> None:
    """A thousand folders in each other ended the command with a traceback of our own recursion."""
    deep = copy
    for _ in range(1_200):
        deep /= "d"
        deep.mkdir()
    found = verify(copy)
    assert [problem.what for problem in found.problems] == ["an empty folder that does not belong to the release"]
    for _ in range(1_200):
        deep.rmdir()
        deep = deep.parent
    assert verify(copy).holds


def test_a_folder_that_cannot_be_read_is_named(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    def refused(path: str | os.PathLike[str]) -> Any:
        if os.fspath(path).rstrip("/").endswith("/data"):  # a user who may read all runs these tests, too
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", refused)
    found = verify(copy)
    assert not found.holds
    assert ("data/", "cannot be read (Permission denied)") in [(each.file, each.what) for each in found.problems]
