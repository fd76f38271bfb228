"""Locates the rows, files and texts of some customers in a lake. Read-only.

`SubjectRows` creates relations in an engine session that distinguish the customers' rows from other rows. At first it
uses the landed records. When an erasure is resumed and these are already removed, it uses the tombstones' marks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from stedi._frozen import dataclass, replace
from stedi.catalog import Catalog, TableState, checksums
from stedi.catalog.manifests import Mentions, mentions, sizes
from stedi.catalog.snapshots import local_path
from stedi.datasets import subjects
from stedi.engines import Engine
from stedi.engines.duckdb import DuckDB, task_session
from stedi.engines.literals import literal, quoted
from stedi.engines.rewrite import InlineRelation, divided
from stedi.engines.selection import dictionary_texts
from stedi.engines.table_files import scan
from stedi.engines.workers import Workers
from stedi.erasure import devices, identifiers, quarantined
from stedi.erasure.devices import Devices, read_files
from stedi.erasure.identifiers import Identifiers
from stedi.erasure.judge import Judge
from stedi.erasure.others import Others
from stedi.erasure.pending import Found, Pending
from stedi.errors import LakeError
from stedi.privacy import phones, tokens, tombstones
from stedi.privacy.pseudonyms import Key, normalise
from stedi.privacy.tokens import folded
from stedi.privacy.tombstones import Tombstones
from stedi.schema import tables
from stedi.schema.tables import COLUMNS, FREE_TEXTS, ZONES, DataFile
from stedi.storage import durable, s3
from stedi.transform import planning
from stedi.transform.ahead import Ahead

_LANDED = ("customers_landing", "accelerometer_landing", "step_trainer_landing")

_BY_ID = "customer_id in (select customer_id from erased_ids)"
SUBJECT_PREDICATES: dict[str, str] = {
    "customers_landing": "email in (select address from erased_addresses)",
    "accelerometer_landing": '"user" in (select address from erased_addresses)',
    "step_trainer_landing": devices.SUBJECT_STEPS,
    "quarantine": '(sha256, "offset") in (select sha256, "offset" from erased_records)',
    **{name: _BY_ID for name, zone in ZONES.items() if zone != "landing"},
    "release_subjects": "(release, subject) in (select release, subject from erased_subjects)",
    **dict.fromkeys(("releases", "release_events"), "false"),
}
"""For each table except the ledger, the condition under which a row belongs to an erased customer."""

RELATIONS = (
    "erased_addresses",
    "erased_serials",
    "erased_moments",
    "erased_ids",
    "erased_records",
    "erased_subjects",
    "mentions",
    "masks",
    "masked_texts",
    "masked_raws",
)
"""The relations that identify the customers' rows; they hold only these customers' data, so they are small."""


class SubjectRows:
    """The relations that identify the rows of some customers, in an engine session.

    Args:
        engine: The session.
        catalog: The lake's tables.
        key: The lake's key.
        pending: The erasure.
        ahead: What is done in a second thread.
        workers: The workers that search the tables' files; by default this process.
        before: The lake's tombstones, for an erasure whose own file was lost.
        then: The tombstones of erasures that are repeated; they include devices that this lake does not know.
        addresses: The customers' addresses, in any spelling; after an interruption only their marks are known.
    """

    def __init__(
        self,
        engine: DuckDB,
        catalog: Catalog,
        key: Key,
        pending: Pending,
        ahead: Ahead,
        workers: Workers | None = None,
        before: Tombstones | None = None,
        then: Tombstones | None = None,
        addresses: Collection[str] = (),
    ) -> None:
        self.engine = engine
        self.states = catalog.tables()
        self._catalog, self._key, self._people = catalog, key, frozenset(pending.people)
        self._workers, self._before, self._ahead = workers, before, ahead
        for name, state in self.states.items():
            # before anything is read: a copy must not remove the files of its original
            _refuse_elsewhere(state, catalog.folder(name))
            engine.bind_files(name, catalog.files(state))
        self.mentions: dict[str, Mentions] = {name: mentions(state) for name, state in self.states.items()}
        found = pending.found
        stood = found.taints("customers_landing") if found else frozenset(pending.evidence)
        current = {file.path: file for file in catalog.files(self.states["customers_landing"])}
        evidence = [DataFile(path, 0, 0) for path in sorted(stood - current.keys()) if s3.at(path).is_file()]
        # replaced files of their records, from which a second attempt reads what to search for
        self._evidence = () if found else tuple(file.path for file in evidence)
        engine.bind_files("records", [*current.values(), *evidence], table="customers_landing")
        self._addresses(addresses)
        self._ids()
        self._begun = self._begin(ahead) if found is None and workers is None else {}
        self._recovered = found is None and pending.recovered
        self._devices = Devices(engine, key, {name: self._live(name) for name in devices.OWN}, before)
        if found:
            # the rows that told of their devices may be gone: marks are compared instead
            self.tombstones = found.tombstones
            self._devices.of_tombstones(found.tombstones)
        else:
            known = before if self._recovered else None
            self.tombstones = self._devices.of_records(pending.people, pending.started, known=known, then=then)
        self._subjects()
        self.shared = 0
        self.others: dict[str, dict[str, int]] = {}
        self.traces = self._traces(found.left if found else None)
        self._texts()
        if found is None:
            marks = self._record_marks()
            self.tombstones = self.tombstones | Tombstones(records=marks)

    def found(self) -> Found:
        """Returns the result of the first phase.

        Raises:
            DamagedFile: A file that would be rewritten is not as it was written.
        """
        rows: dict[str, int] = {}
        tainted: dict[str, tuple[str, ...]] = {}
        counts: dict[str, list[int]] = {}
        held: dict[str, int] = {}
        mentioned, checked = 0, list[Callable[[], None]]()
        for name, state in self.states.items():
            current = {file.path for file in self._catalog.files(state)}
            holding: set[str] = set()
            for path, content, count, others in self._found_in_files(name):
                holding.add(path)
                held[path] = held.get(path, 0) + count
                if path in current:
                    rows[name] = rows.get(name, 0) + count
                    mentioned += others
                    if content and count:
                        counts.setdefault(content, [0, 0])[name == "quarantine"] += count
            rows.setdefault(name, 0)
            tainted[name] = tuple(sorted(holding))
            if name == "customers_landing":
                tainted[name] = tuple(sorted(holding.union(self._evidence)))
            # a flipped bit must not be rewritten under a new, valid checksum
            rewritten = holding & (current | self._pinned(state, holding))
            checked.append(self._ahead.begin(partial(_check, self._catalog.folder(name), rewritten)))
        if self._recovered:
            for content, accepted, quarantined in self._gone():
                sums = counts.setdefault(content, [0, 0])
                sums[:] = [sums[0] + accepted, sums[1] + quarantined]
        if any(tainted.values()):  # for removed files nobody can tell whose bounds remain in a manifest
            for name, state in self.states.items():
                # those are rewritten, not expired, so their other files stay
                staying = {*state.pins.values(), *([state.current.id] if state.current else [])}
                tainted[name] = tuple(sorted(self.mentions[name].gone(tainted[name], staying)))
        for wait in checked:
            wait()
        [(customers,)] = self.engine.rows(
            "select count(distinct e.person) from customers_landing as c "
            "inner join erased_addresses as e on c.email = e.address"
        )
        before = self._before or Tombstones()
        return Found(
            rows,
            tainted,
            {sha256: (accepted, quarantined) for sha256, (accepted, quarantined) in counts.items()},
            {name: tuple(self._follows(name)) for name in tables.graph().selects if name in ZONES},
            self._devices.withheld(),
            customers,
            mentioned,
            self.tombstones,
            self.others,
            tuple(sorted(self.traces.left)),
            self.shared,
            tuple(sorted(self._known_marks())),
            tuple(sorted(self._whole)),
            held=held,
            claims=planning.built_with(self.states, before.claims_digest(self._key), tables.graph()),
        )

    def _pinned(self, state: TableState, holding: set[str]) -> set[str]:
        """Returns the files of the snapshots under others' tags and branches that contain a file of `holding`.

        Raises:
            DamagedFile: One of them is missing or does not have the size that was written.
            LakeError: Such a snapshot has delete files written by another engine.
        """
        heads = set(state.pins.values())
        tainted = [
            s for s in state.snapshots if s.id in heads and self.mentions[state.name].by_snapshot[s.id] & holding
        ]
        return {file.path for snapshot in tainted for file in self._catalog.files(state, snapshot)}

    def _known_marks(self) -> frozenset[str]:
        """Returns the marks of the customers about whom the lake now holds anything, even only a mention."""
        landed = frozenset(who for (who,) in self.engine.rows("select distinct person from erased_addresses"))
        return landed | self.traces.met()

    def _addresses(self, given: Collection[str]) -> None:
        """Makes `who`, the person of every address, and `erased_addresses`.

        A customer's person is the mark; anybody else's is only the same for every spelling of the address.
        """
        engine = self.engine
        left: list[str] = []

        def users() -> Iterator[tuple[str]]:
            # dictionaries name everybody in a file without its rows
            for file in self._catalog.files(self.states["accelerometer_landing"]):
                texts = dictionary_texts(file.path, "accelerometer_landing", "user")
                if texts is None:
                    left.append(file.path)
                else:
                    yield from zip(chain.from_iterable(texts))

        engine.insert_rows("users", {"address": "varchar"}, users())
        addresses = "select email as address from records union all select address from users"
        if left:
            addresses += f' union all select distinct "user" from {read_files(left)}'
        engine.normal_forms("forms", addresses)
        wanted = {normalise(address): tombstones.person(self._key, address) for address in given}
        if not self._people <= {*wanted.values()}:
            wanted = self._wanted()
        self.keep("wanted", ("normal", "person"), sorted(wanted.items()))
        engine.materialize(
            "who",
            # no mark begins so
            "select f.address, coalesce(w.person, '?' || f.normal) as person from forms as f "
            "left join wanted as w on f.normal = w.normal",
        )
        engine.materialize(
            "erased_addresses",
            "select f.address, w.person from forms as f inner join wanted as w on f.normal = w.normal",
        )

    def _wanted(self) -> dict[str, str]:
        """Returns the mark of each customer by the normal form of the address, from the marks of all addresses."""
        wanted: dict[str, str] = {}
        for batch in self.engine.batches("select address, normal from forms"):
            addresses, forms = zip(*batch, strict=True)
            marks = tombstones.persons(self._key, addresses)
            wanted.update((form, mark) for form, mark in zip(forms, marks, strict=True) if mark in self._people)
        return wanted

    def _live(self, name: str) -> dict[str, bool]:
        """Returns the existing files of a table's snapshots, and for each whether it is current."""
        current = {file.path for file in self._catalog.files(self.states[name])}
        # what is gone was removed by an earlier attempt
        return {path: path in current for path, size in sizes(self.mentions[name].live).items() if size is not None}

    def _gone(self) -> list[tuple[str, int, int]]:
        """Returns for each delivered file how many of its accepted and quarantined records are already removed."""
        landed = " union all ".join(f"select _file from {name}" for name in _LANDED)
        return self.engine.rows(
            "select sha256, (accepted - coalesce(a, 0))::bigint, (quarantined - coalesce(q, 0))::bigint from "
            "(select sha256, sum(accepted) as accepted, sum(quarantined) as quarantined "
            "from landed_files group by all) "
            f"left join (select _file as sha256, count(*) as a from ({landed}) group by all) using (sha256) "
            "left join (select sha256, count(*) as q from quarantine group by all) using (sha256) "
            "where accepted <> coalesce(a, 0) or quarantined <> coalesce(q, 0)"
        )

    def _ids(self) -> None:
        ids = {self._key.customer_id(a) for (a,) in self.engine.rows("select address from erased_addresses")}
        self.keep("erased_ids", ("customer_id",), [(id_,) for id_ in sorted(ids)])

    def _subjects(self) -> None:
        """Makes `erased_subjects`: the ids that the customers have, or would have, in each release."""
        found = []
        if "releases" in self.states:
            for release, manifest in self.engine.rows("select release, manifest from releases"):
                # under the lake that made the release: an adopted copy has releases of its original
                identifier = subjects.identifier(self._key, json.loads(manifest)["lake"], release)
                found += [(release, identifier(mark)) for mark in sorted(self._people)]
        self.keep("erased_subjects", ("release", "subject"), found)

    def _traces(self, left: Sequence[str] | None) -> Identifiers:
        """Returns what identifies the customers, and decides about values of others that mention them.

        A value that somebody else also has, or that is part of somebody else's name, identifies nobody and is not
        searched for. Makes `masked_texts`: names and similar values of others, without the mentions. Identities of
        others stay.

        Args:
            left: The marks of the values that stay, if that was decided before.
        """
        engine = self.engine
        among = "in (select address from erased_addresses)"
        mine = engine.rows(f"select distinct email, customerName, phone from records where email {among}")
        spelled = [(address, None, None) for (address,) in engine.rows("select address from erased_addresses")]
        free = {column: self._text_of_others(column) for column in FREE_TEXTS["customers_landing"]}
        devices, addresses = self._text_of_others("serialNumber"), self._text_of_others("address")
        others = Others(free.values(), devices, addresses)
        numbers = {number for (number,) in engine.rows("select serialNumber from erased_serials")}
        kept = numbers - others.claim(numbers)
        ids = {id_ for (id_,) in engine.rows("select customer_id from erased_ids")}
        texts = {folded(part).strip() for _, *rest in mine for part in rest if part} - {""}
        words = {normalise(address) for address, *_ in (*mine, *spelled) if address and "@" not in address} - {""}
        names = identifiers.of([*mine, *spelled], others.have(texts | words))
        self.shared = len(numbers - kept) + len(texts - names)
        dialled = {name: phones.numbers(name) - {phones.digits(name)} for name in names if phones.is_phone(name)}
        elsewhere = frozenset[str]().union(*dialled.values())
        own = {phones.digits(name) for name in dialled} - {""}
        calls = own | (elsewhere - others.dial(elsewhere))
        told = (name for name in names if not (name in dialled and phones.digits(name)))
        spelled_names = frozenset(s for name in told for s in ({name} if "@" in name else tokens.spellings(name)))
        known = Identifiers(self._key, self._people, spelled_names, frozenset(kept | ids), frozenset(calls))
        masks = [
            # where the mention cannot be cut out, the whole value goes
            (value, known.masked(value) or tokens.ERASED)
            for column, text in free.items()
            if known.found(text)
            for batch in self._others_have(column)
            for value in batch
            if known.found(value)
        ]
        self.keep("masked_texts", ("text", "masked"), sorted(set(masks)))
        self._others_masked = bool(masks)
        if left is None:
            # a plain address mentions nobody else; there may be millions, which the engine leaves out
            odd = self._others_have("address", odd=True)
            mentioning = [value for batch in odd for value in identifiers.mentioning(batch, known)]
            stay = [value for value in mentioning if not tokens.is_plain(value)]
            if identifiers.mentions(devices, known):
                for batch in self._others_have("serialNumber"):
                    stay += identifiers.mentioning(batch, known)
            self._count(stay)
            left = [identifiers.left(self._key, value) for value in stay]
        return replace(known, left=frozenset(left))

    def _others_have(self, column: str, *, odd: bool = False) -> Iterator[list[str]]:
        """Yields, in batches, the distinct values of a column in other people's records, or their addresses.

        Args:
            column: The column, or `address`.
            odd: Whether to yield only values that may not be plain addresses.
        """
        sql = self._of_others(column)
        if odd:
            sql += f" and not regexp_full_match({quoted(column)}, {literal(identifiers.PLAIN)})"
        return ([value for (value,) in rows] for rows in self.engine.batches(sql))

    def _of_others(self, column: str) -> str:
        """Returns the SELECT of the same values."""
        source, whose = ("who", "address") if column == "address" else ("records", "email")
        return (
            f"select distinct {quoted(column)} from {source} "
            f"where {whose} not in (select address from erased_addresses) and {quoted(column)} is not null"
        )

    def _text_of_others(self, column: str) -> str:
        """Returns the same values, with empty lines between them, so that encoded text does not continue in the next.

        One text takes a tenth of the memory of a list of its lines.
        """
        [(text,)] = self.engine.rows(
            f"select string_agg({quoted(column)}, chr(10) || chr(10)) from ({self._of_others(column)})"
        )
        return text or ""

    def _count(self, stay: Collection[str]) -> None:
        """Counts other people's values that stay, by table and column."""
        if not stay:
            return
        self.keep("staying", ("value",), [(value,) for value in sorted(set(stay))])
        for name in ZONES:
            for column in identifiers.IDENTITIES:
                if column in {c.name for c in COLUMNS[name]}:
                    [(count,)] = self.engine.rows(
                        f"select count(distinct {quoted(column)}) from {name} "
                        f"where {quoted(column)} in (select value from staying) and not ({SUBJECT_PREDICATES[name]})"
                    )
                    if count:
                        self.others.setdefault(name, {})[column] = count

    def _texts(self) -> None:
        """Makes `erased_records` and `masked_raws` (quarantine), `mentions` (unknown fields), `masks` (file names)."""
        records: list[tuple[str, int]] = []
        whole: set[tuple[str, int]] = set()
        masked: list[tuple[str, int, bytes]] = []
        moments = {(number, at) for number, at in self.engine.rows("select serialNumber, moment from erased_moments")}
        judge = Judge(self.traces, frozenset(moments))
        staying: dict[tuple[str, int], str] = {}
        for batch in quarantined.batched(self._quarantined(), 4 << 20):
            # a record that an earlier attempt judged is known by its mark, whatever can still be read in it
            for sha256, at, raw in batch if self.tombstones.records else quarantined.suspected(batch, judge):
                kept = quarantined.kept(raw, judge, self.tombstones.records)
                if kept is None:
                    records.append((sha256, at))
                    if quarantined.tells_of_others(raw, judge):
                        whole.add((sha256, at))
                    continue
                if kept != raw:
                    masked.append((sha256, at, kept))
                owner = tokens.owner(kept.decode("utf-8", "replace"))
                if owner is not None and identifiers.names_another(owner, self.traces):
                    staying[sha256, at] = owner
        if staying:
            self.others.setdefault("quarantine", {})["raw"] = len(staying)
            marks = {identifiers.left(self._key, owner) for owner in staying.values()}
            self.traces = replace(self.traces, left=self.traces.left | marks)
        self.engine.insert_rows("erased_records", {"sha256": "varchar", "offset": "bigint"}, sorted(set(records)))
        self.engine.insert_rows(
            "masked_raws", {"sha256": "varchar", "offset": "bigint", "raw": "blob"}, sorted(set(masked))
        )
        unknown = " union ".join(
            f"select _extra from ({self._having(name, '_extra')}) where _extra is not null" for name in _LANDED
        )
        extras = [(text,) for (text,) in self.engine.stream(unknown) if self.traces.found(text)]
        self.keep("mentions", ("text",), extras)
        self.others_mention = bool(extras)
        names = (
            f"select distinct file from {self._everywhere('quarantine')} union "
            f"select distinct name from {self._everywhere('landed_files')}"
        )
        masks = [
            (name, tombstones.masked_name(self._key, name))
            for (name,) in self.engine.stream(names)
            if self.traces.names_file(name)
        ]
        self.keep("masks", ("name", "masked"), masks)
        self._whole = self._named(whole)

    def _named(self, records: Collection[tuple[str, int]]) -> set[str]:
        """Returns the names of quarantined records, FILE:OFFSET, without parts that identify a customer."""
        if not records:
            return set()
        places = ", ".join(f"({literal(sha256)}, {at})" for sha256, at in sorted(records))
        found = self.engine.rows(
            f'select distinct coalesce(m.masked, q.file), q."offset" from {self._everywhere("quarantine")} as q '
            f'left join masks as m on q.file = m.name where (q.sha256, q."offset") in (values {places})'
        )
        return {f"{file}:{at}" for file, at in found}

    def masked(self, name: str, column: str) -> str | None:
        """Returns the SQL of a column with its mentions masked; None if the column has no mentions."""
        if column == "_extra" and name in _LANDED and self.others_mention:
            return "case when _extra in (select text from mentions) then null else _extra end as _extra"
        if column in FREE_TEXTS.get(name, ()) and self._others_masked:
            column = quoted(column)
            return (
                f"coalesce((select m.masked from masked_texts as m where m.text = leaving.{column}), leaving.{column}) "
                f"as {column}"
            )
        if name != "quarantine":
            return None
        if column == "file":
            return "coalesce((select m.masked from masks as m where m.name = leaving.file), leaving.file) as file"
        raw = '(select m.raw from masked_raws as m where m.sha256 = leaving.sha256 and m."offset" = leaving."offset")'
        if column == "raw":
            return f"coalesce({raw}, leaving.raw) as raw"
        if column == "raw_size":
            # a record kept whole must still count as whole: only such records can be landed again
            whole = "octet_length(leaving.raw) = leaving.raw_size"
            return f"case when {whole} then coalesce(octet_length({raw}), raw_size) else raw_size end as raw_size"
        return None

    def mentioning(self, name: str) -> str:
        """Returns the condition under which another person's row mentions one of the customers."""
        conditions = []
        if name in _LANDED and self.others_mention:
            conditions.append("_extra in (select text from mentions)")
        if self._others_masked:
            conditions += [
                f"{quoted(column)} in (select text from masked_texts)" for column in FREE_TEXTS.get(name, ())
            ]
        if name == "quarantine":
            conditions.append("file in (select name from masks)")
            conditions.append('(sha256, "offset") in (select sha256, "offset" from masked_raws)')
        if name == "landed_files":
            conditions.append("name in (select name from masks)")
        return " or ".join(conditions) or "false"

    def _quarantined(self) -> Iterator[tuple[str, int, bytes]]:
        for sha256, offset, raw in self.engine.stream(
            f'select distinct sha256, "offset", raw from {self._everywhere("quarantine")}'
        ):
            yield sha256, offset, bytes(raw or b"")

    def _record_marks(self) -> frozenset[str]:
        raws = self.engine.stream(
            f"select raw from {self._everywhere('quarantine')} where {SUBJECT_PREDICATES['quarantine']}"
        )
        return frozenset(tombstones.record(self._key, bytes(raw or b"")) for (raw,) in raws)

    def _everywhere(self, name: str) -> str:
        """Returns a relation of all rows of a table, including those of older snapshots."""
        return f"({scan(self.mentions[name].live.values(), COLUMNS[name])})"

    def _having(self, name: str, column: str) -> str:
        """Returns a SELECT of the same rows without those of files that have only nulls in a column."""
        having = [file for file in self.mentions[name].live.values() if file.nulls.get(column) != file.rows]
        return scan(having, COLUMNS[name])

    def _found_in_files(self, name: str) -> list[tuple[str, str | None, int, int]]:
        """Returns how many rows of, or about, the customers each file of a table's snapshots holds.

        Returns:
            For each file with such rows, and in landing tables for each delivered file: path, SHA-256 of the delivered
            file, the number of the customers' rows, and of other people's rows that mention them.
        """
        if name in self._begun:
            return self._begun[name]()
        files = list(self._live(name))
        theirs = SUBJECT_PREDICATES.get(name, "false")
        mentioned = self.mentioning(name)
        content = {"quarantine": "sha256", **dict.fromkeys(_LANDED, "_file")}.get(name, "null::varchar")
        # `devices` has read these tables already
        if mentioned == "false" and name in devices.OWN:
            return self.engine.rows(
                f"select filename, {content}, sum(n)::bigint, 0 from {devices.OWN[name]} where {theirs} group by all"
            )
        if theirs == _BY_ID and self._workers is None:
            theirs = f"customer_id in ({self.engine.listed('select customer_id from erased_ids')})"
        if not files:
            return []
        counts = "count(*), 0"
        if mentioned != "false":
            counts = f"count(*) filter (where {theirs}), count(*) filter (where not ({theirs}) and ({mentioned}))"
            mentioned = f"{theirs} or {mentioned}"
        else:
            mentioned = theirs
        sql = f"select filename, {content} as content, {counts} from {{files}} where {mentioned} group by all"
        if self._workers is None:  # a task's session would need copies of relations that this session already has
            return self.engine.rows(sql.format(files=read_files(files)))
        relations = {read: InlineRelation.of(self.engine, read) for read in RELATIONS if read in sql}
        live = self.mentions[name].live
        parts = [
            _Part(tuple(file.path for file in part), sql, relations)
            for part in divided([live[path] for path in files], self._workers.slots)
        ]
        return [row for rows in self._workers.map(_looked, parts) for row in rows]

    def _begin(self, ahead: Ahead) -> dict[str, Callable[[], list[tuple[Any, ...]]]]:
        """Begins to look for the customers' rows where only the customer decides, and nobody else's row mentions one.

        Returns:
            For each such table, what waits for the result of `_found_in_files`.
        """
        ids = self.engine.listed("select customer_id from erased_ids")
        begun = {}
        for name in self.states:
            theirs = SUBJECT_PREDICATES.get(name)
            if theirs == _BY_ID and name not in FREE_TEXTS and (files := list(self._live(name))):
                counted = f"select filename, null::varchar, count(*), 0 from {read_files(files)}"
                begun[name] = ahead.begin(partial(_rows, f"{counted} where customer_id in ({ids}) group by all"))
        return begun

    def _follows(self, name: str) -> Iterator[str]:
        """Yields the inputs of a table that have not changed since it was built from them."""
        current = self.states[name].current
        inputs = json.loads(current.summary.get("stedi.inputs", "{}")) if current else {}
        for read, watermark in inputs.items():
            later = self.states[read].since(watermark)
            # a compaction changes no row
            if later is not None and all(snapshot.keeps_rows for snapshot in later):
                yield read

    def keep(self, name: str, columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
        """Creates a relation whose columns are all text."""
        self.engine.insert_rows(name, dict.fromkeys(columns, "varchar"), rows)


@dataclass(frozen=True, slots=True)
class _Part:
    """Files that one worker searches, with the query and its relations."""

    paths: tuple[str, ...]
    sql: str
    relations: Mapping[str, InlineRelation]


def _looked(part: _Part) -> list[tuple[Any, ...]]:
    """Returns the query's result over a part's files. Runs on a worker."""
    with task_session() as engine:
        for name, relation in part.relations.items():
            engine.insert_rows(name, relation.columns, relation.rows)
        return engine.rows(part.sql.format(files=read_files(part.paths)))


def _rows(sql: str, engine: Engine) -> list[tuple[Any, ...]]:
    """Returns the rows of a SELECT. Runs in a second thread."""
    return engine.rows(sql)


def _check(folder: Path, paths: Collection[str], _: Engine) -> None:
    """Raises DamagedFile if a file of a table is not as it was written. Runs in a second thread."""
    checksums.check(folder, paths)


def _refuse_elsewhere(state: TableState, folder: Path) -> None:
    location = durable.realpath(local_path(state.location))
    if location != durable.realpath(folder):
        raise LakeError(
            f"table {state.name}: expected its files in {folder}, found them in {location}: the lake was copied or "
            "moved, and the original's files must stay; nothing was erased. See docs/operations.md on recovery"
        )
