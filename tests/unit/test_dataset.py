"""`stedi.Dataset`: a release, read without a lake in the forms that models are trained on."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import stedi
from releases import PEOPLE, made, resealed
from stedi import Dataset
from stedi.errors import MissingExtra, UsageError

FIRST = sorted(PEOPLE)[0]
WINDOWS = [
    (FIRST, 0, 0, [0, 20, 40], [1, 2, 3], [0.5, 0.25, 0.125], [1.0, 1.0, 1.0], [-1.0, 0.0, 1.0], "walk"),
    (FIRST, 1, 60, [0, 20], [4, 5], [1.0, 2.0], [0.0, 0.0], [0.0, 0.0], None),
]
NAMES = ("subject", "window", "start", "t_ms", "distance", "x", "y", "z", "label")


@pytest.fixture(scope="module")
def moments(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset.open(made(tmp_path_factory.mktemp("release") / "steps"))


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A release of two windows of one person, of three and of two samples."""
    folder = made(tmp_path_factory.mktemp("windows") / "steps", {FIRST: ("train", 2)}, files=1)
    path = folder / "data" / "train-00000-of-00001.parquet"
    pq.write_table(pa.Table.from_pylist([dict(zip(NAMES, row, strict=True)) for row in WINDOWS]), path)
    columns = [{"name": name, "type": "", "unit": "", "description": ""} for name in NAMES]
    resealed(folder, lambda plain: plain.update(columns=columns))
    return Dataset.open(folder)


def test_every_reader_gives_the_same_rows(moments: Dataset) -> None:
    for split, people in (("train", 6), ("validation", 2), ("test", 2)):
        rows = moments.arrow(split).to_pylist()  # type: ignore[arg-type]
        assert len({row["subject"] for row in rows}) == people
        assert moments.polars(split).to_dicts() == rows  # type: ignore[arg-type]
        assert moments.pandas(split).to_dict("records") == rows  # type: ignore[arg-type]
    assert {row["subject"] for row in moments.subjects().to_pylist()} == set(PEOPLE)
    assert moments.verify().holds


def test_windows_are_arrays_of_one_shape_with_a_mask(windows: Dataset) -> None:
    found = windows.numpy("train")
    assert (found.X.shape, found.X.dtype) == ((2, 4, 3), np.float32)
    assert found.X[0].tolist() == [[1, 2, 3], [0.5, 0.25, 0.125], [1, 1, 1], [-1, 0, 1]]
    assert found.X[1].tolist() == [[4, 5, 0], [1, 2, 0], [0, 0, 0], [0, 0, 0]]
    assert found.mask.tolist() == [[True, True, True], [True, True, False]]
    assert found.t.tolist() == [[0, 20, 40], [0, 20, 0]]
    assert found.y is not None
    assert found.y.tolist() == ["walk", None]
    assert found.groups.tolist() == [FIRST, FIRST]
    assert "(2, 4, 3) float32, 1 subject" in repr(found)


def test_it_says_what_it_is(moments: Dataset) -> None:
    assert repr(moments) == (
        "<stedi.Dataset steps@1: 30 moments, 10 subjects; train 18 rows of 6, validation 4 rows of 2, test 8 rows of 2>"
    )
    assert moments.columns == ("subject", "moment", "distance", "x")
    assert not moments.windows
    assert moments.manifest["lake"]


def test_pytorch_gives_windows_masks_and_labels(windows: Dataset) -> None:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("PyTorch is not installed")
    found = windows.torch("train")
    assert len(found) == 2
    x, mask, label = found[0]
    assert tuple(x.shape) == (4, 3)
    assert mask.tolist() == [True, True, True]
    assert int(label) == 0


@pytest.mark.parametrize(("package", "call", "extra"), [
    ("torch", "torch", "torch"), ("polars", "polars", "readers"), ("pandas", "pandas", "readers"),
    ("numpy", "numpy", "readers"),
])  # fmt: skip
def test_what_is_not_installed_is_named_with_its_extra(
    windows: Dataset, monkeypatch: pytest.MonkeyPatch, package: str, call: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"{package}, which is not installed.*stedi\[{extra}\]"):
        getattr(windows, call)("train")


@pytest.mark.parametrize("path", ["/dev/null", "/dev/null/a", "."])
def test_what_is_no_release_is_refused(path: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="release"):
        stedi.Dataset.open(path)


def test_there_is_no_other_split(moments: Dataset) -> None:
    with pytest.raises(UsageError, match="train, validation, test"):
        moments.arrow("holdout")  # type: ignore[arg-type]
