"""The proof of a release: its files, as they were written, against the landed records as they are now.

Who may be in it is worked out a second time, by the relations of the audit's proof and from addresses straight to
subject ids: nothing here is shared with what chose the people or made the rows. Records that no build has seen count,
so that a withdrawal which was landed a moment ago stops the release. The gate keeps train, validation and test apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from stedi.audit.proof import as_of, expected
from stedi.catalog import Catalog
from stedi.datasets.manifest import File
from stedi.datasets.options import SPLITS, Options
from stedi.engines.duckdb import DuckDB
from stedi.engines.literals import path_literal
from stedi.errors import AuditFailed
from stedi.privacy import tombstones
from stedi.privacy.pseudonyms import Key
from stedi.schema.contracts import INSTANT_BEGIN

_TELLING = 5
"""Samples from which on two windows are hardly equal by chance, if their values differ at all."""

_MEANINGS = {
    "consent": "subjects who consent now, found {} who do not: records were landed meanwhile; run this again",
    "public": "subjects who share with the public, found {} who do not",
    "early": "readings from after consent alone, found those of {} subjects from before",
    "owner": "each subject's own step trainer readings, found {} samples that are not",
    "person": "each subject in one split, found {} in several",
    "device": "customers who share a serial number in one split, found {} serial numbers in several",
    "window": "no window in two splits, found {} with equal values: the same recording seems to have been delivered "
    "for several customers",
    "subjects": "subjects.parquet to say who is in which split with how many rows, found {} differences",
}


def prove(
    engine: DuckDB,
    catalog: Catalog,
    key: Key,
    identifier: Callable[[str], str],
    folder: Path,
    files: Iterable[File],
    options: Options,
    *,
    release: str,
    now: int,
    since_consent: bool,
) -> None:
    """Proves that a release may be handed out.

    Args:
        engine: The session that has written it: `members` and `present` say when each subject's first moment was.
        catalog: The lake's tables; what is landed by now counts.
        key: The lake's key.
        identifier: What gives the subject id of a person's mark.
        folder: The release's folder.
        files: Its data files.
        options: Its options.
        release: `NAME@VERSION`, for the message.
        now: The clock, epoch milliseconds.
        since_consent: Whether readings from before consent are left out (rule 4).

    Raises:
        AuditFailed: It may not.
    """
    states = catalog.tables()
    for name in ("customers_landing", "accelerometer_landing"):
        engine.bind_files(name, catalog.files(states[name]))
    expected.customers(engine, key, as_of.AsOf({}, now, since_consent))
    engine.map_rows(
        "allowed",
        "select c.person, c.customer_id, c.consents, c.shareWithResearchAsOfDate as since, "
        f"c.shareWithPublicAsOfDate as shared, coalesce(shared between {INSTANT_BEGIN} and {now}, false) as public, "
        "p.address from current as c join (select person, min(address) as address from persons group by person) as p "
        "on c.person = p.person",
        {"subject": "varchar"},
        _Identified(key, identifier),
    )
    _written(engine, folder, files, options)
    counts = {
        "consent": "select count(*) from written where subject not in (select subject from allowed where consents)",
        "person": "select count(*) from (select subject from written group by all having count(distinct split) > 1)",
        "device": "select count(*) from (select c.serialNumber from customers_landing as c join persons as p on "
        "c.email = p.address join allowed as a on p.person = a.person join written as w on a.subject = w.subject "
        "group by c.serialNumber having count(distinct w.split) > 1)",
        "subjects": "select count(*) from (select subject, split, rows from written) as w full join "
        f"read_parquet([{path_literal(str(folder / 'subjects.parquet'))}]) as s on w.subject = s.subject and "
        "w.split = s.split and w.rows = s.rows where w.subject is null or s.subject is null",
    }
    if options.resample is None:
        counts["owner"] = (
            f"select count(*) from ({_samples(options)}) as w anti join (select a.subject, "
            "epoch_ms(r.sensorReadingTime) as ms, r.distanceFromObject as distance from step_trainer_trusted as r "
            "join allowed as a on r.customer_id = a.customer_id) as r "
            "on w.subject = r.subject and w.ms = r.ms and w.distance = r.distance"
        )
    if options.purpose == "public":
        counts["public"] = (
            "select count(*) from written where subject not in (select subject from allowed where public)"
        )
    if since_consent:
        also = "or w.earliest < a.shared" if options.purpose == "public" else ""
        counts["early"] = (
            "select count(*) from written as w join allowed as a on w.subject = a.subject "
            f"where w.earliest < a.since {also}"
        )
    if options.window is not None:
        counts["window"] = (
            "select count(*) from (select value from windows_written group by value having count(distinct split) > 1)"
        )
    order = [name for name in _MEANINGS if name in counts]
    found = engine.rows(", ".join(f"({counts[name]}) as {name}" for name in order).join(("select ", "")))[0]
    for name, count in zip(order, found, strict=True):
        if count:
            raise AuditFailed(f"{release}: expected {_MEANINGS[name].format(f'{count:,}')}; nothing was written")


def _written(engine: DuckDB, folder: Path, files: Iterable[File], options: Options) -> None:
    """Reads what was written: `samples_written`; by subject and split `written`; instants are epoch milliseconds."""
    by_split = {
        split: [path_literal(str(folder / file.path)) for file in files if file.path.startswith(f"data/{split}-")]
        for split in SPLITS
    }
    time = "moment" if options.window is None else "start"
    instant = f"epoch_ms({time})" if options.time == "absolute" else f"p.first + {time}"
    first = (
        "(select b.subject, p.first from members as b join present as p on b.person = p.person) as p "
        "on w.subject = p.subject"
    )
    lists = ", ".join(("t_ms", "distance", "x", "y", "z")) if options.window is not None else ""
    varies = " or ".join(f"list_min({name}) <> list_max({name})" for name in ("distance", "x", "y", "z"))
    telling = f"len(t_ms) >= {_TELLING} and ({varies})"
    value = f", hash({lists}, case when {telling} then 0 else {instant} end) as value" if lists else ""
    padded = f", w.t_ms{', w.mask' if options.pad else ''}" if lists else ""
    parts = [
        f"select '{split}' as split, w.subject, {instant} as ms, w.distance{padded} {value} from "
        f"read_parquet([{', '.join(paths)}], hive_partitioning = false) as w left join {first}"
        for split, paths in by_split.items()
    ]
    everything = " union all ".join(parts)
    engine.view("samples_written", everything)
    if lists:
        engine.materialize("windows_written", f"select split, subject, ms, value from ({everything})")
        everything = "select * from windows_written"
    engine.materialize(
        "written",
        f"select subject, split, count(*) as rows, min(ms) as earliest from ({everything}) group by subject, split",
    )


def _samples(options: Options) -> str:
    """Returns the SELECT of subject, instant and distance of each sample that was written."""
    if options.window is None:
        return "select subject, ms, distance from samples_written"
    mask = "unnest(mask)" if options.pad else "true"
    return (
        f"select subject, ms, distance from (select subject, ms + unnest(t_ms) as ms, unnest(distance) as distance, "
        f"{mask} as there from samples_written) where there"
    )


@dataclass(frozen=True, slots=True)
class _Identified:
    """The subject id of whom an address means."""

    key: Key
    identifier: Callable[[str], str]

    def __call__(self, *row: object) -> tuple[str]:
        return (self.identifier(tombstones.person(self.key, str(row[-1]))),)
