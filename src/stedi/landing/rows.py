"""The SELECTs that turn a batch's files into rows of the landing tables, of quarantine, and of the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from stedi._frozen import dataclass
from stedi.engines.duckdb import DuckDB
from stedi.engines.literals import literal, path_literal, quoted
from stedi.schema.feeds import CONTRACTS
from stedi.schema.tables import COLUMNS, DUCKDB_TYPES

if TYPE_CHECKING:  # the reader takes time to import, and a withdrawal does without it
    from stedi.landing.prepare import Prepared

LINE = 4 << 20
"""Bytes that a clean line may have: a record is at most 1 MiB as delivered, but escapes may lengthen it."""


@dataclass(frozen=True, slots=True)
class LandedFile:
    """The outcome of landing one file.

    Attributes:
        name: The file's name, as given.
        feed: Its feed.
        sha256: SHA-256 of its bytes, hex, which identifies it.
        size: Bytes as delivered.
        seen: Records in it: accepted + quarantined + erased.
        accepted: Records in the landing table.
        quarantined: Records in quarantine.
        erased: Records of erased customers, dropped.
        already_landed: It was landed before; the counts are those of its first landing.
    """

    name: str
    feed: str
    sha256: str
    size: int
    seen: int
    accepted: int
    quarantined: int
    erased: int
    already_landed: bool

    @property
    def fruitless(self) -> bool:
        """Whether no record was accepted: then it may be landed again as another feed."""
        return self.accepted == 0 and self.quarantined > 0


def landed(engine: DuckDB, contents: Iterable[str]) -> dict[str, LandedFile]:
    """Returns what became of the files that a ledger knows, by SHA-256; a session has bound it as `landed_files`.

    Args:
        engine: The session.
        contents: The SHA-256 of each file that is asked for.
    """
    # SQL has no empty list
    wanted = ", ".join(map(literal, contents)) or "''"
    found = engine.rows(
        # corrections (`replay`, another feed) are entries of their own without a size: counts are sums, and the newest
        # entry has the feed; DuckDB's sum of BIGINT is HUGEINT
        "select '' as name, arg_max(feed, (landed_at, batch)), sha256, max(size), sum(seen)::bigint, "
        "sum(accepted)::bigint, sum(quarantined)::bigint, sum(erased)::bigint, true from landed_files "
        f"where sha256 in ({wanted}) group by sha256"
    )
    return {file.sha256: file for file in (LandedFile(*row) for row in found)}


def fruitless(engine: DuckDB) -> set[str]:
    """Returns the SHA-256 of the files of which nothing could be taken; a session has bound `landed_files`."""
    found = engine.rows(
        "select sha256 from landed_files group by sha256 having sum(accepted) = 0 and sum(quarantined) > 0"
    )
    return {sha256 for (sha256,) in found}


def accepted(table: str, group: Iterable[Prepared]) -> str:
    """Returns the SELECT of the accepted records of some files of one feed, in the columns of its landing table."""
    alike: dict[tuple[bool, tuple[tuple[str, str], ...]], list[Prepared]] = {}
    for ready in group:
        alike.setdefault((ready.rewritten, tuple(ready.spelling.items())), []).append(ready)
    return " union all ".join(
        _accepted(table, dict(spelling), same, rewritten=rewritten) for (rewritten, spelling), same in alike.items()
    )


def _accepted(table: str, spelled: dict[str, str], group: Sequence[Prepared], *, rewritten: bool) -> str:
    types = {column.name: DUCKDB_TYPES[column.type] for column in COLUMNS[table]}
    contract = next(contract for contract in CONTRACTS.values() if contract.table == table)
    spelling = {field.name: spelled.get(field.name, field.name) for field in contract.fields}
    columns = ", ".join(f"{literal(spelling[name])}: {literal(types[name])}" for name in spelling)
    names = ", ".join(f"r.{quoted(spelled)} as {quoted(name)}" for name, spelled in spelling.items())
    paths = ", ".join(path_literal(str(ready.lines)) for ready in group)
    files = ", ".join(literal(str(ready.lines)) for ready in group)
    contents = ", ".join(literal(ready.file.sha256) for ready in group)
    # looked up once a vector, where a join by name would hash each row: a sixth of
    # the time of the whole read
    content = f"list_extract([{contents}], enum_code(r.filename::enum({files}))::bigint + 1)::enum({contents})"
    # only the record reader's own lines can have more than the contract's fields
    extra, more = ("r._extra", ", _extra: 'VARCHAR'") if rewritten else ("null::varchar as _extra", "")
    return (
        # DuckDB would guess a compression from a file's ending, and columns from folders such as `day=1`
        f"select {names}, {extra}, {content} as _file from read_json([{paths}], format = 'newline_delimited', "
        f"maximum_object_size = {LINE}, compression = 'uncompressed', filename = true, hive_partitioning = false, "
        f"columns = {{{columns}{more}}}) as r"
    )


def quarantined(group: Iterable[Prepared], batch: str, at: int) -> str:
    """Returns the SELECT of the rejected records of some files, in the columns of `quarantine`."""
    paths, files = [], []
    for ready in group:
        if ready.rejects is not None:
            file, path = ready.file, str(ready.rejects)
            paths.append(path_literal(path))
            values = (path, file.contract.feed, file.delivered.name, file.sha256)
            files.append(f"({', '.join(map(literal, values))})")
    columns = "'offset': 'BIGINT', line: 'BIGINT', reason: 'VARCHAR', raw: 'VARCHAR', raw_size: 'BIGINT'"
    return (
        'select f.feed, f.file, f.sha256, r."offset", r.line, r.reason, from_base64(r.raw) as raw, r.raw_size, '
        f"{literal(batch)} as batch, instant({at}) as landed_at from read_json([{', '.join(paths)}], "
        "format = 'newline_delimited', compression = 'uncompressed', filename = true, hive_partitioning = false, "
        f"columns = {{{columns}}}) as r join (values {', '.join(files)}) as f (path, feed, file, sha256) "
        "on r.filename = f.path"
    )


def ledger(files: Iterable[LandedFile], batch: str, at: int) -> str:
    """Returns the SELECT of the ledger's rows of some files, in the columns of `landed_files`."""
    rows = []
    for file in files:
        texts = ", ".join(map(literal, (file.sha256, file.name, file.feed)))
        numbers = (file.size, file.seen, file.accepted, file.quarantined, file.erased)
        counts = ", ".join(f"{number}::bigint" for number in numbers)
        rows.append(f"({texts}, {counts}, {literal(batch)}, instant({at}))")
    names = ", ".join(quoted(column.name) for column in COLUMNS["landed_files"])
    return f"select * from (values {', '.join(rows)}) as files ({names})"
