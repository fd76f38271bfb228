"""A release, read from its folder without a lake: Arrow, Polars, pandas, NumPy, PyTorch.

Each format returns the rows of one split, in the order of its files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stedi._frozen import dataclass
from stedi.datasets import contents
from stedi.datasets.contents import Manifest
from stedi.datasets.seal import MANIFEST
from stedi.errors import LakeError, UsageError, many, needing

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    from stedi.datasets.recall import Applied
    from stedi.datasets.verify import Verification

SplitName = Literal["train", "validation", "test"]
CHANNELS = ("distance", "x", "y", "z")
"""The channels of `Arrays.X`, in order."""


@dataclass(frozen=True, slots=True)
class Arrays:
    """The windows of a split as arrays, in the layout of aeon and sktime.

    Attributes:
        X: float32, (windows, channels, samples); 0 where there is no sample. Channels are `CHANNELS`.
        mask: bool, (windows, samples): whether there is a sample.
        y: The label of each window, text; None without labels.
        groups: The subject of each window, text, to split by.
        t: int32, (windows, samples): milliseconds since the window's start; 0 where there is no sample.
    """

    X: np.ndarray[Any, Any]
    mask: np.ndarray[Any, Any]
    y: np.ndarray[Any, Any] | None
    groups: np.ndarray[Any, Any]
    t: np.ndarray[Any, Any]

    def __repr__(self) -> str:
        labels = "no labels" if self.y is None else f"{many(len(set(self.y.tolist())), 'label')}"
        return f"<Arrays: X {self.X.shape} {self.X.dtype}, {many(len(set(self.groups.tolist())), 'subject')}, {labels}>"


class Dataset:
    """A release in a folder; `Dataset.open` returns one.

    Example:
        >>> steps = stedi.Dataset.open("releases/steps/1")
        >>> train = steps.polars("train")
        >>> arrays = steps.numpy("train")
        >>> model.fit(arrays.X, arrays.y)
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        """Its folder."""
        self._manifest = manifest

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Dataset:
        """Opens a release; it needs neither lake nor key. The content is not verified: call `verify`.

        Args:
            path: The release's folder.

        Raises:
            UsageError: The folder holds no release.
        """
        folder = Path(path).expanduser()
        if not (folder / MANIFEST).is_file():
            raise UsageError(f"{path}: expected the folder of a release, with its {MANIFEST}, found none")
        return cls(folder, contents.open_manifest(folder / MANIFEST))

    @property
    def release(self) -> str:
        """`NAME@VERSION`."""
        return self._manifest.release

    @property
    def manifest(self) -> Mapping[str, Any]:
        """What `manifest.json` says."""
        return self._manifest.plain

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of its rows."""
        return tuple(column["name"] for column in self.manifest["columns"])

    @property
    def windows(self) -> bool:
        """Whether a row is a window; else it is a moment."""
        return "t_ms" in self.columns

    def verify(self, *, public_key: str | os.PathLike[str] | None = None) -> Verification:
        """Returns whether it equals what its lake has signed.

        Args:
            public_key: A file with the key that must have signed it.
        """
        from stedi.datasets import verify

        return verify.verify(self.path, public_key=None if public_key is None else Path(public_key))

    def apply_recall(self, file: str | os.PathLike[str]) -> Applied:
        """Drops the people of a recall from this copy, atomically, and reads it again.

        Args:
            file: The recall's file.

        Raises:
            UsageError: There is no such file.
            RecallRefused: It is not a recall of this release, or the copy was changed; nothing was changed.
        """
        from stedi.datasets import recall

        real = Path(os.path.realpath(self.path))  # a new folder takes its place: `.` would go on being the old one
        done = recall.apply(self.path, Path(file).expanduser())
        self.path = real
        self._manifest = contents.open_manifest(self.path / MANIFEST)
        return done

    def subjects(self) -> pa.Table:
        """Returns `subject`, `split` and `rows` of everybody in it."""
        import pyarrow.parquet as pq

        return pq.read_table(self.path / contents.SUBJECTS, partitioning=None)

    def arrow(self, split: SplitName = "train") -> pa.Table:
        """Returns the rows of a split as an Arrow table."""
        import pyarrow.parquet as pq

        # of several files, PyArrow reads a folder named like `user=1` above the release as a column, if it may
        return pq.read_table([str(path) for path in self.files(split)], partitioning=None)

    def polars(self, split: SplitName = "train") -> pl.DataFrame:
        """Returns the rows of a split as a Polars frame.

        Raises:
            MissingExtra: Polars is not installed.
        """
        with needing("polars", "readers"):
            import polars as pl
        return pl.read_parquet(self.files(split), hive_partitioning=False)

    def pandas(self, split: SplitName = "train") -> pd.DataFrame:
        """Returns the rows of a split as a pandas frame; lists are NumPy arrays.

        Raises:
            MissingExtra: pandas is not installed.
        """
        with needing("pandas", "readers"):
            import pandas as pd  # noqa: F401
        found: pd.DataFrame = self.arrow(split).to_pandas()
        return found

    def numpy(self, split: SplitName = "train") -> Arrays:
        """Returns the windows of a split as arrays of one shape; shorter windows are padded with 0.

        A release without windows gives each moment as a window of one sample.

        Raises:
            UsageError: The release has lists of vectors, so there is no single value a sample.
            MissingExtra: NumPy is not installed.
        """
        with needing("numpy", "readers"):
            import numpy as np
        if self.manifest["options"].get("vectors") == "list":
            raise UsageError("numpy: expected one vector a sample, found lists; make the release with vectors mean")
        table = self.arrow(split).combine_chunks()
        lengths = _lengths(table) if self.windows else np.ones(len(table), np.int64)
        samples = int(lengths.max(initial=0))
        mask = np.arange(samples)[None, :] < lengths[:, None]
        there = mask
        if "mask" in table.column_names:  # filled up when it was made: those are no samples
            there = np.zeros_like(mask)
            there[mask] = _flat(table, "mask").astype(bool)
        found = np.zeros((len(table), len(CHANNELS), samples), np.float32)
        times = np.zeros((len(table), samples), np.int32)
        for place, name in enumerate(CHANNELS):
            found[:, place, :][mask] = np.nan_to_num(_flat(table, name)) if self.windows else _column(table, name)
        found *= there[:, None, :]
        if self.windows:
            times[mask] = np.nan_to_num(_flat(table, "t_ms"))
            times *= there
        labels = _texts(table, "label") if "label" in table.column_names else None
        return Arrays(found, there, labels, _texts(table, "subject"), times)

    def torch(self, split: SplitName = "train") -> Any:
        """Returns the windows of a split as a `torch.utils.data.Dataset` of `(X, mask, y)`.

        `y` is the index of the label among the split's sorted labels, or -1 without a label.

        Raises:
            MissingExtra: PyTorch is not installed.
        """
        with needing("torch", "torch"):
            import torch
            from torch.utils.data import TensorDataset
        import numpy as np

        arrays = self.numpy(split)
        known = {} if arrays.y is None else {name: at for at, name in enumerate(sorted({*arrays.y.tolist()} - {None}))}
        labels = [-1] * len(arrays.X) if arrays.y is None else [known.get(name, -1) for name in arrays.y.tolist()]
        parts = (arrays.X, arrays.mask, np.asarray(labels, np.int64))
        return TensorDataset(*(torch.from_numpy(np.ascontiguousarray(part)) for part in parts))

    def files(self, split: SplitName) -> list[Path]:
        """Returns the data files of a split.

        Raises:
            UsageError: There is no such split.
            LakeError: A file is missing.
        """
        if split not in contents.SPLITS:
            raise UsageError(f"split: expected one of {', '.join(contents.SPLITS)}, found {split!r}")
        listed = [f.path for f in self._manifest.files if contents.is_data(f.path)]
        found = [self.path / path for path in listed if contents.split_of(path) == split]
        for path in found:
            if not path.is_file():
                raise LakeError(f"{path}: expected a file of {self.release}, found none; see `stedi dataset verify`")
        return found

    def __repr__(self) -> str:
        plain = self.manifest
        parts = ", ".join(
            f"{name} {many(found['rows'], 'row')} of {found['subjects']:,}" for name, found in plain["splits"].items()
        )
        rows = many(plain["rows"], "window" if self.windows else "moment")
        return f"<stedi.Dataset {self.release}: {rows}, {many(plain['subjects'], 'subject')}; {parts}>"


def _lengths(table: pa.Table) -> Any:
    import pyarrow.compute as pc

    return pc.list_value_length(table.column("t_ms")).to_numpy().astype("int64")


def _flat(table: pa.Table, name: str) -> Any:
    import pyarrow.compute as pc

    return pc.list_flatten(table.column(name)).to_numpy()


def _column(table: pa.Table, name: str) -> Any:
    return table.column(name).to_numpy()


def _texts(table: pa.Table, name: str) -> Any:
    return table.column(name).to_numpy(zero_copy_only=False)
