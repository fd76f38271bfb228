"""Stale releases: the people who may no longer be used, and the releases with them.

Nobody has to be told that a release has gone stale: it is worked out from the landed records, whether a build has seen
them or not, and from what erasures have left. Who was in a release had once agreed, so those are looked at who agreed
in some record and do not now; and of a release made for the public those who shared with the public once. Under
`since-consent` so are those who agree since a later date than when the release was made: it has readings from before.
From each one's mark comes the subject id that they would have in each release (`subjects`), and the registry says
whether it is there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime

from stedi._frozen import dataclass
from stedi.catalog import TableState
from stedi.context import Context
from stedi.datasets import registry, subjects
from stedi.datasets.registry import Entry
from stedi.engines.duckdb import DuckDB
from stedi.engines.literals import literal
from stedi.privacy import consent, tombstones
from stedi.privacy.pseudonyms import Key, normalise

Stale = Mapping[str, Mapping[str, datetime]]
"""For each release, `NAME@VERSION`, the subjects who may no longer be used, and since when, UTC."""


@dataclass(frozen=True, slots=True)
class Left:
    """People who once consented and may not be used now, by mark, and since when, epoch milliseconds.

    Attributes:
        research: For research.
        public: For the public; those of `research` among them.
    """

    research: Mapping[str, int]
    public: Mapping[str, int]

    def of(self, purpose: str) -> Mapping[str, int]:
        """Returns the people who may not be used for a purpose."""
        return self.public if purpose == "public" else self.research


def left(context: Context, key: Key, now: int) -> Left:
    """Returns the people who may not be used now, by the landed records and the tombstones.

    Args:
        context: The lake.
        key: The lake's key.
        now: The instant, epoch milliseconds: consent that begins later does not count (rule 3).
    """
    with context.temporary() as folder, DuckDB.of(context.config, folder) as engine:
        return _left(context, key, now, engine)


def _left(context: Context, key: Key, now: int, engine: DuckDB) -> Left:
    erased = tombstones.read(context.root, key).people
    catalog = context.catalog
    engine.bind_files("customers_landing", catalog.files(catalog.table("customers_landing")))
    latest: dict[str, int] = {}
    research: list[tuple[str, int, int | None]] = []
    public: list[tuple[str, int, int | None]] = []
    once_research, once_public = set(), set()
    # all records, judged by the code of the build's own proof: no rule of consent is written a third time
    for email, updated, share, shared in engine.stream(
        "select email, lastUpdateDate, shareWithResearchAsOfDate, shareWithPublicAsOfDate from customers_landing"
    ):
        customer = normalise(email)
        latest[customer] = max(updated, latest.get(customer, 0))
        research.append((customer, updated, share))
        public.append((customer, updated, shared))
        if share is not None:
            # any date, valid or not: too many are looked up, and only those who were in a release are found there
            once_research.add(customer)
            if shared is not None:
                once_public.add(customer)
    agree = consent.agreeing(research, now).keys()
    both = agree & consent.agreeing(public, now).keys()
    back = set(tombstones.persons(key, agree)) if erased else set()  # came back as new customers, and consent
    for_ever = {mark: at for mark, at in erased.items() if mark not in back}
    return Left(
        {**for_ever, **_marked(key, once_research - agree, latest)},
        {**for_ever, **_marked(key, once_public - both, latest)},
    )


def stale(context: Context, key: Key, now: int, releases: Iterable[Entry] | None = None) -> Stale:
    """Returns the subjects of each release that is stale.

    Args:
        context: The lake.
        key: The lake's key.
        now: The instant, epoch milliseconds.
        releases: The releases that are looked at, by default all that the lake knows and has not deleted.
    """
    if not registry.exists(context):
        return {}
    with registry.session(context) as engine:  # one for all of it: to start another takes as long as to look
        every = registry.read(context, engine) if releases is None else releases
        wanted = [entry for entry in every if not entry.deleted]
        found = {entry.release: dict(entry.erased) for entry in wanted if entry.erased}
        if wanted:
            gone = dict(_found(key, wanted, _left(context, key, now, engine), engine))
            for entry, people in _later(context, key, now, wanted, engine):
                again = _found(key, [entry], Left(people, people), engine).get(entry.release, {})
                gone[entry.release] = {**again, **gone.get(entry.release, {})}
            for release, theirs in gone.items():
                # of somebody erased, the registry knows when they were taken out of this release
                found[release] = {**theirs, **found.get(release, {})}
    return {release: dict(sorted(people.items())) for release, people in sorted(found.items())}


def holding(context: Context, key: Key, marks: Mapping[str, int]) -> Stale:
    """Returns the releases with some people, including deleted ones, and their subjects.

    The cost depends on these people and the number of releases, not on the people in them.

    Args:
        context: The lake.
        key: The lake's key.
        marks: The people, by mark, and since when they may not be used, epoch milliseconds.
    """
    every = registry.releases(context)
    if not every or not marks:
        return {}
    with registry.session(context) as engine:
        return _found(key, every, Left(marks, marks), engine)


def naming(context: Context, key: Key, marks: Mapping[str, int]) -> tuple[str, ...]:
    """Returns the names of the releases that hold one of some people, deleted ones not; arguments as of `holding`."""
    return _names(context, key, _wanted(context, None), Left(marks, marks))


def members(context: Context, key: Key, addresses: Iterable[str], releases: Collection[Entry]) -> int:
    """Returns how many of some people are in at least one of some releases.

    Args:
        context: The lake.
        key: The lake's key.
        addresses: The people, each once.
        releases: The releases.
    """
    marks = dict.fromkeys(tombstones.persons(key, addresses), 0)
    if not marks or not releases:
        return 0
    with registry.session(context) as engine:
        _look_up(key, releases, Left(marks, marks), engine)
        [(count,)] = engine.rows("select count(distinct place) from theirs")
    return int(count)


def left_by(context: Context, key: Key, before: TableState, after: TableState) -> tuple[str, ...]:
    """Returns the names of releases with somebody who has left `customers_trusted`, or may be used less than before.

    Args:
        context: The lake.
        key: The lake's key.
        before: The table before.
        after: The table now.
    """
    if not registry.exists(context) or (before.current and after.current and before.current.id == after.current.id):
        return ()
    config = context.config
    with (
        context.temporary() as folder,
        DuckDB.of(config, folder) as engine,
    ):
        for name, state in (("before", before), ("after", after)):
            engine.bind_files(name, context.catalog.files(state), table="customers_trusted")
        rows = engine.rows(
            "select email, updated, gone, gone or unshared, coalesce(later, false), coalesce(later or shared_later, "
            "false) from (select b.email, epoch_ms(b.lastUpdateDate) as updated, a.customer_id is null as gone, "
            "b.shareWithPublicAsOfDate is not null and a.shareWithPublicAsOfDate is null as unshared, "
            "a.shareWithResearchAsOfDate > b.shareWithResearchAsOfDate as later, "
            "a.shareWithPublicAsOfDate > b.shareWithPublicAsOfDate as shared_later "
            "from before as b left join after as a using (customer_id)) where gone or unshared or later or shared_later"
        )
    marks = list(tombstones.persons(key, (email for email, *_ in rows)))
    told = [(mark, at, *which) for mark, (_, at, *which) in zip(marks, rows, strict=True)]
    gone, left, later, either = ({mark: at for mark, at, *which in told if which[place]} for place in range(4))
    releases = _wanted(context, None) if told else []
    # those of `_later` that this build has changed
    since = [entry for entry in releases if _counts_since(context, entry)]
    names = {*_names(context, key, releases, Left(gone, left)), *_names(context, key, since, Left(later, either))}
    return tuple(sorted(names))


def _later(
    context: Context, key: Key, now: int, releases: Iterable[Entry], engine: DuckDB
) -> Iterator[tuple[Entry, Mapping[str, int]]]:
    """Yields releases with people who agree since a later date than in the release, by mark, and that date.

    These are releases without readings from before consent (rule 4): now they have some. `_left` has bound the records.
    """
    wanted = [entry for entry in releases if _counts_since(context, entry)]
    if not wanted:
        return
    engine.bind_files("landed_files", context.catalog.files(context.catalog.table("landed_files")))
    spellings: dict[str, set[str]] = {}
    dates: dict[str, set[tuple[int, int | None]]] = {}
    for email, share, shared in engine.stream(
        "select distinct email, shareWithResearchAsOfDate, shareWithPublicAsOfDate from customers_landing"
    ):
        spellings.setdefault(normalise(email), set()).add(email)
        if share is not None:
            dates.setdefault(normalise(email), set()).add((share, shared))
    # whoever has named one date only cannot have moved it; of the few others all records are looked at
    several = (email for customer, named in dates.items() if len(named) > 1 for email in spellings[customer])
    engine.insert_rows("several", {"email": "varchar"}, ((email,) for email in several))
    # a file counts as landed when its last record was, from quarantine: better too many are named than too few
    engine.materialize(
        "records_of_several",
        "select c.*, coalesce(l.batch, '') as batch, coalesce(l.landed, 0) as landed from customers_landing as c "
        "left join (select sha256, max(batch) as batch, max(epoch_ms(landed_at)) as landed from landed_files "
        "where accepted > 0 group by sha256) as l on c._file = l.sha256 where c.email in (select email from several)",
    )
    for entry in wanted:
        as_of = _ms(str(entry.manifest["consent_as_of"]))
        # what has landed later, whatever its dates, the release has not been made from. No time tells that: a landing
        # may begin before the build and end after the release, or end while the build runs
        known = f"batch <= {literal(entry.known)}" if entry.known else f"landed <= {as_of}"
        then, current = _since(engine, entry.purpose, as_of, known), _since(engine, entry.purpose, now)
        moved = {who: at for who, at in current.items() if at > then.get(who, 0)}
        if moved:
            yield entry, _marked(key, moved, moved)


def _counts_since(context: Context, entry: Entry) -> bool:
    """Returns whether readings from before consent may not be used, in the lake now and in a release."""
    return bool(context.config.readings == entry.manifest["policy"]["readings"] == "since-consent")


def _since(engine: DuckDB, purpose: str, at: int, where: str = "true") -> dict[str, int]:
    """Returns since when each of `records_of_several` agrees to a purpose, by those of the records that count."""

    def agreeing(column: str) -> dict[str, int]:
        sql = f"select email, lastUpdateDate, {column} from records_of_several where {where}"
        return consent.agreeing(engine.stream(sql), at)

    found = agreeing("shareWithResearchAsOfDate")
    if purpose == "public":
        shared = agreeing("shareWithPublicAsOfDate")
        return {who: max(date, shared[who]) for who, date in found.items() if who in shared}
    return found


def _ms(told: str) -> int:
    return round(datetime.fromisoformat(told).timestamp() * 1000)


def _wanted(context: Context, releases: Iterable[Entry] | None) -> list[Entry]:
    every = registry.releases(context) if releases is None else releases
    return [release for release in every if not release.deleted]


def _found(key: Key, releases: Collection[Entry], gone: Left, engine: DuckDB) -> Stale:
    """Returns the subjects of releases that are among some people."""
    found: dict[str, dict[str, datetime]] = {}
    people = _look_up(key, releases, gone, engine)
    for release, subject, place in engine.rows("select release, subject, place from theirs"):
        at = gone.of(people[release][0])[people[release][1][place]]
        found.setdefault(release, {})[subject] = datetime.fromtimestamp(at / 1000, UTC)
    return {name: dict(sorted(of.items())) for name, of in sorted(found.items())}


def _names(context: Context, key: Key, releases: Collection[Entry], gone: Left) -> tuple[str, ...]:
    """Returns only the names of releases with some people, since the full rows may be many."""
    if not releases or not gone.public:
        return ()
    with registry.session(context) as engine:
        _look_up(key, releases, gone, engine)
        return tuple(name for (name,) in engine.rows("select distinct release from theirs order by release"))


def _look_up(key: Key, releases: Collection[Entry], gone: Left, engine: DuckDB) -> Mapping[str, tuple[str, list[str]]]:
    """Makes `theirs` in a session: release, subject, and the person's position in the returned list."""
    listed = {purpose: list(gone.of(purpose)) for purpose in ("research", "public")}
    ids = []
    for entry in releases:
        # one text a release: as many rows as there are people and releases take ten times as long on their way
        identifier = subjects.identifier(key, entry.lake, entry.release)
        ids.append((entry.release, " ".join(map(identifier, listed[entry.purpose]))))
    engine.insert_rows("asked", {"release": "varchar", "ids": "varchar"}, ids)
    engine.view(
        "theirs",
        "select s.release, s.subject, a.place from release_subjects as s inner join (select release, "
        "unnest(string_split(ids, ' ')) as subject, unnest(range(len(string_split(ids, ' ')))) as place from asked "
        ") as a on s.release = a.release and s.subject = a.subject",
    )
    return {entry.release: (entry.purpose, listed[entry.purpose]) for entry in releases}


def _marked(key: Key, customers: Collection[str], latest: Mapping[str, int]) -> dict[str, int]:
    listed = sorted(customers)
    return dict(zip(tombstones.persons(key, listed), (latest[customer] for customer in listed), strict=True))
