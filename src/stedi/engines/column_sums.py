"""Stores sums of hashes of rows as relations of a session, computed from columns of bound files by `row_sums`.

Each method returns whether it has stored its relation. If not, the caller has to ask the engine for the same sums; the
hashes are others then, and sums of both are not comparable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from stedi.engines import row_sums
from stedi.engines.row_sums import Group, Otherwise, Rows
from stedi.schema.tables import DataFile

if TYPE_CHECKING:
    import pyarrow as pa

MANY = 1_000_000
"""The fewest rows of a table for which C is faster, with the imports that it needs."""
_KINDS = {**dict.fromkeys(("landed", "timely", "counted"), "bigint"), "one": "hugeint", "other": "hugeint"}


class Session(Protocol):
    """The operations of an engine that are needed here."""

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Returns the rows of a SELECT that is known to be small."""

    def arrow(self, sql: str) -> Iterator[pa.RecordBatch]:
        """Yields the rows of a SELECT as Arrow's batches."""

    def insert_rows(self, name: str, columns: Mapping[str, str], rows: Iterable[tuple[object, ...]]) -> None:
        """Stores rows of Python values."""


class Joined(NamedTuple):
    """One side of a join.

    Attributes:
        table: A bound table.
        by: Its text column that tells whose a row is.
        columns: Its columns: the moment first.
        groups: A SELECT of text, number of the group and number of rows; rows with other texts are skipped.
        rest: A SELECT of further rows: number of the group, moment in epoch microseconds, and the other columns.
    """

    table: str
    by: str
    columns: tuple[str, ...]
    groups: str
    rest: str


class ColumnSums:
    """Sums over the bound files of a session.

    Args:
        session: The engine.
        files: The files of each bound table.
        budget: How many bytes may be used.
    """

    def __init__(self, session: Session, files: Mapping[str, tuple[DataFile, ...]], budget: int) -> None:
        self._session, self._files, self._budget = session, files, budget

    def worthwhile(self, table: str) -> bool:
        """Returns whether a table is large enough, and the library there."""
        return sum(file.rows for file in self._files.get(table, ())) >= MANY and row_sums.library() is not None

    def of_distinct(self, view: str, table: str, by: str, columns: Sequence[str], groups: str) -> bool:
        """Stores `who`, `landed`, `timely`, `counted`, `one`, `other`: the rows of each group, and distinct ones' sums.

        Args:
            view: The name of the result.
            table: A bound table of landing, whose moments are epoch milliseconds.
            by: Its text column that tells whose a row is.
            columns: Its columns to hash: the moment first.
            groups: A SELECT of text, number of the group, the first moment that is counted, epoch microseconds, or null
                if none is, and the number of rows.
        """
        return self._stored(view, {"who": "bigint"}, lambda: self._of_distinct(table, by, columns, groups))

    def of_texts(self, view: str, table: str, by: Sequence[str], columns: Sequence[str]) -> bool:
        """Stores for the texts in one or two columns of a bound table its rows and the sums of their hashes.

        The result has the columns `by`, and `landed`, `timely`, `counted`, `one` and `other`.
        """

        def sums() -> Iterator[tuple[object, ...]]:
            found = row_sums.by_key(row_sums.read(self._files[table], by, columns), self._budget)
            return ((*(key if len(by) > 1 else (key,)), *some) for key, some in found)

        return self._stored(view, dict.fromkeys(by, "varchar"), sums)

    def of_join(self, view: str, steps: Joined, motions: Joined) -> bool:
        """Stores for each group its number as `who`, and the sums of its steps joined with its motions.

        `landed` counts steps, `timely` those with a motion at their moment, `counted` joined rows.
        """
        return self._stored(view, {"who": "bigint"}, lambda: self._of_join(steps, motions))

    def joined_rows(self, by: str, steps: tuple[str, Sequence[str]], motions: tuple[str, str]) -> int | None:
        """Returns how many rows two bound tables have if they are joined on a text and a moment; None if it is unknown.

        Args:
            by: The text column of both.
            steps: A table, its moment and another of its columns.
            motions: A table and its moment.
        """

        def rows(table: str, *columns: str) -> Iterator[Rows]:
            return row_sums.read(self._files[table], [by], columns)

        try:
            sizes = row_sums.sizes(rows(steps[0], steps[1][0]))
            groups = {key: Group(number, None, size) for number, (key, size) in enumerate(sizes.items())}
            found = row_sums.of_join(
                lambda: rows(steps[0], *steps[1]), lambda: rows(*motions), (groups, groups), self._budget
            )
            return sum(counted for _, (_, _, counted, _, _) in found)
        except Otherwise:
            return None

    def _of_distinct(self, table: str, by: str, columns: Sequence[str], groups: str) -> Iterator[tuple[object, ...]]:
        of = {
            text: _group(number, None if since is None else since // 1000, rows)
            for text, number, since, rows in self._session.rows(groups)
        }
        found = row_sums.of_distinct(lambda: row_sums.read(self._files[table], [by], columns), of, self._budget)
        return ((number, *some) for number, some in found)

    def _of_join(self, steps: Joined, motions: Joined) -> Iterator[tuple[object, ...]]:
        groups = (self._groups(steps), self._groups(motions))
        found = row_sums.of_join(lambda: self._rows(steps), lambda: self._rows(motions), groups, self._budget)
        return ((number, *some) for number, some in found)

    def _groups(self, side: Joined) -> dict[Any, Group]:
        of = {text: _group(number, None, rows) for text, number, rows in self._session.rows(side.groups)}
        rest = self._session.rows(f"select person, count(*) from ({side.rest}) group by person")
        # keys are texts in the files and numbers in the further rows, so the two never meet
        return of | {number: _group(number, None, rows) for number, rows in rest}

    def _rows(self, side: Joined) -> Iterator[Rows]:
        return chain(
            row_sums.read(self._files[side.table], [side.by], side.columns),
            row_sums.from_batches(self._session.arrow(side.rest)),
        )

    def _stored(self, view: str, keys: Mapping[str, str], sums: Callable[[], Iterable[tuple[object, ...]]]) -> bool:
        try:
            self._session.insert_rows(view, {**keys, **_KINDS}, sums())
        except Otherwise:
            return False
        return True


def _group(number: object, since: int | None, rows: int) -> Group:
    if not isinstance(number, int):  # an engine may leave many values as they are instead of numbering them
        raise Otherwise
    return Group(number, since, rows)
