"""Customers in a session of DuckDB: normal forms of addresses (rule 1) and pseudonyms (rule 7).

SQL normalises most addresses, Python the others with `normalise`. A pseudonym is computed once for each address of a
session: `persons` keeps it, with a number that stands for it there.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from stedi.engines.literals import path_literal, quoted
from stedi.privacy.pseudonyms import normalise
from stedi.schema.tables import DataFile

if TYPE_CHECKING:
    from stedi.engines.duckdb import DuckDB

_PERSONS = "create table if not exists persons (address varchar, customer_id varchar, person bigint)"
_COLUMN = re.compile(r"select (distinct )?\"?\w+\"? as address from (?P<of>\w+)")
"""A SELECT of all addresses in a relation."""
_FEW = 1_000
"""Wanted addresses that Python normalises one by one."""
_BLANKS = " || ".join(f"chr({ord(blank)})" for blank in " \t\n\v\f\r\x1c\x1d\x1e\x1f")
_COMPOSED = "replace(nfc_normalize(address), '\u0130', 'i\u0307')"
"""Only of this letter the lower case is not what it folds to; an I and a dot compose to it."""
NORMAL = (
    "case when strlen(address) = length(address) then case when address >= '!' and address[-1] >= '!' "
    f"then lower(address) else lower(trim(address, {_BLANKS})) end "
    "when not regexp_matches(address, '[^!-~\u00c0-\u00ff]') then replace(lower(address), '\u00df', 'ss') "
    "when not regexp_matches(address, '[^!-~\u00c0-\u0148\u014a-\u017e\u0300-\u0344\u0346-\u036f]') "
    f"then nfc_normalize(replace(lower({_COMPOSED}), '\u00df', 'ss')) end"
)
"""The normal form of an `address` (rule 1) without blanks that is ASCII, Latin-1 or Latin Extended-A, with or without
combining marks; null for all others: Python normalises them.

All these characters are as old as Unicode 5, so that DuckDB and Python agree on what they compose. Of Latin-1 nothing
composes further. What does not fold to its lower case is left out, but for two letters."""


class Pseudonyms:
    """The addresses that a session has met, and their customers.

    Args:
        session: The session.
        bound: Its relations that are files, with these; the session keeps it current.
        folder: Its folder, for files that are removed as soon as they are read.
    """

    def __init__(self, session: DuckDB, bound: Mapping[str, tuple[DataFile, ...]], folder: Path) -> None:
        self._session, self._bound, self._folder = session, bound, folder
        self._recognised = False
        self._compared: tuple[str, tuple[DataFile, ...]] | None = None
        """The addresses, and their files, of which `compared_addresses` has those that may be among the wanted ones."""

    def beside(self, session: DuckDB) -> Pseudonyms:
        """Returns the same for another thread, whose session sees the same relations."""
        other = copy.copy(self)
        other._session = session
        return other

    def pseudonymise(self, view: str, sql: str, customer_id: Callable[[str], str]) -> None:
        """Computes a view of addresses once for this session, with the customer of each address.

        Adds `customer_id`, the pseudonym, and `person`, a number that stands for it in this session alone, in every
        view alike: keys of eight bytes halve what joins and distinct rows cost. Numbers follow the order of the
        pseudonyms within the first view that has them, so that rows in the one order are in the other.

        Args:
            view: The view's name.
            sql: A SELECT of one column, `address`, each once.
            customer_id: The pseudonym of an address.
        """
        name = quoted(view)
        self._session.run(_PERSONS)
        known = "select a.address, p.customer_id, p.person from ({}) as a left join persons as p using (address)"
        self._session.materialize(view, known.format(sql))
        if self._recognised:
            if self._session.rows(f"select 1 from {name} where person is null limit 1"):
                self.normal_forms(f"{view}__forms", f"select address from {name} where person is null")
                self._recognise(f"{view}__forms")
                self._session.materialize(view, known.format(f"select address from {name}"))
            return
        # through a file: any parameter has DuckDB import pandas and Arrow, which takes half a second, and to parse
        # constants takes longer than to read a file
        told, new = self._folder / f"told-{os.urandom(8).hex()}.csv", False
        try:
            with open(told, "x", encoding="ascii", opener=_private) as file:
                for batch in self._session.batches_beside(f"select rowid, address from {name} where person is null"):
                    file.writelines([f"{place},{customer_id(address)}\n" for place, address in batch])
                    new = True
            if not new:
                return
            self._number(
                f"select v.address, i.customer_id from {name} as v "
                f"inner join read_csv({path_literal(str(told))}, auto_detect = false, header = false, "
                "hive_partitioning = false, columns = {place: 'bigint', customer_id: 'varchar'}) as i on "
                "v.rowid = i.place"
            )
        finally:
            told.unlink(missing_ok=True)
        self._session.materialize(view, known.format(f"select address from {name}"))

    def recognise(self, addresses: str, known: str) -> bool:
        """Has `pseudonymise` give only some customers their pseudonyms for the rest of this session.

        To compare normal forms in SQL takes less than to compute pseudonyms. In place of other customers'
        pseudonyms it then gives something else, the same for every spelling of an address. Nothing is changed if
        somebody has a pseudonym already.

        Args:
            addresses: A SELECT of `address`, which may repeat: most of those that will be asked for.
            known: A SELECT of `address` and `customer_id` of the customers whose pseudonyms are needed.

        Returns:
            Whether it does, and so whether there are two views with the columns of `pseudonymise`: `recognised__all`
            of all these addresses, and `recognised__known` of those that are a known customer's; both may have more.
        """
        self._session.run(_PERSONS)
        if self._recognised or self._session.rows("select 1 from persons limit 1"):
            return False
        self._recognised = True
        forms = "recognised__forms"
        self.normal_forms(forms, f"{addresses} union all select address from ({known})")
        self._session.materialize(
            "recognised",
            f"select f.normal, k.customer_id from ({known}) as k inner join {forms} as f on k.address = f.address",
        )
        self._recognise(forms)
        self._session.view("recognised__all", "select address, customer_id, person from persons")
        # no pseudonym begins like what `_recognise` gives to others
        self._session.view("recognised__known", "select * from recognised__all where not starts_with(customer_id, '?')")
        return True

    def _recognise(self, forms: str) -> None:
        """Names new addresses, of which the normal forms are given."""
        self._number(
            f"select f.address, coalesce(r.customer_id, '?' || f.normal) as customer_id from {quoted(forms)} as f "
            "left join recognised as r on f.normal = r.normal"
        )

    def _number(self, named: str) -> None:
        """Keeps the customers of some new addresses, and gives new customers numbers.

        Args:
            named: A SELECT of `address` and `customer_id`.
        """
        statement = (
            # `dense_rank` counts persons known already, too: numbers can have gaps
            "insert into persons select i.address, i.customer_id, coalesce(p.person, "
            "(select count(*) from persons) + dense_rank() over (order by i.customer_id)) from "
            f"({named}) as i left join (select distinct customer_id, person from persons) as p "
            "on i.customer_id = p.customer_id"
        )
        self._session.run(statement)

    def spellings(self, view: str, addresses: str, wanted: str) -> None:
        """Stores, as `address`, the addresses of a SELECT whose normal form equals that of one in another SELECT.

        SQL normalises plain addresses (`NORMAL`); Python normalises each of the others.

        Args:
            view: The name of the result.
            addresses: A SELECT of one column, `address`.
            wanted: Likewise.
        """
        few = self._session.rows(f"select distinct address from ({wanted}) limit {_FEW + 1}")
        if not few:
            return self._session.materialize(view, "select null::varchar as address where false")
        if len(few) <= _FEW:  # to prepare a statement with the patterns of `NORMAL` takes longer
            theirs = f"{view}__few"
            self._session.insert_rows(theirs, {"normal": "varchar"}, ((normalise(address),) for (address,) in few))
        else:
            theirs = f"{view}__wanted"
            self.normal_forms(theirs, wanted)
        among = f"select normal from {quoted(theirs)}"
        found = _COLUMN.fullmatch(addresses)
        read = (addresses, self._bound[found["of"]]) if found and found["of"] in self._bound else None
        # a build and its proof ask for the same customers: the same files have been read for them already
        if (
            read is None
            or self._compared != read
            or self._session.rows(
                f"{among} where normal not in (select normal from compared_addresses__wanted) limit 1"
            )
        ):
            self._compared = None
            self._session.materialize("compared_addresses__wanted", among)
            # only what may match is stored; the normal form of an odd address is known after Python has seen it
            self._normalise(
                "compared_addresses",
                f"select distinct * from (select address, {NORMAL} as normal from ({addresses})) "
                "where normal is null or normal in (select normal from compared_addresses__wanted)",
            )
            self._compared = read
        return self._session.materialize(view, f"select address from compared_addresses where normal in ({among})")

    def normal_forms(self, view: str, addresses: str) -> None:
        """Keeps the addresses of a SELECT, each once as `address`, with its normal form as `normal` (rule 1)."""
        self._normalise(view, f"select address, {NORMAL} as normal from (select distinct address from ({addresses}))")

    def _normalise(self, name: str, sql: str) -> None:
        """Keeps a SELECT of addresses, each of which it has once, with its normal form, which may be null there."""
        self._session.materialize(f"{name}__met", sql)
        met, told = quoted(f"{name}__met"), False
        for batch in self._session.batches_beside(f"select rowid, address from {met} where normal is null"):
            if not told:
                empty = "select null::bigint as place, null::varchar as normal where false"
                self._session.materialize(f"{name}__told", empty)
                told = True
            self._session.insert(f"{name}__told", [(place, normalise(address)) for place, address in batch])
        python = f" left join {quoted(f'{name}__told')} as t on m.rowid = t.place"
        self._session.view(
            name,
            f"select m.address, coalesce(m.normal, t.normal) as normal from {met} as m{python}"
            if told
            else f"select address, normal from {met}",
        )


def _private(path: str, flags: int) -> int:
    """Opens a file that its owner alone may read."""
    return os.open(path, flags, 0o600)
