"""The consent proof: who agrees now, and what of a staged table it calls a violation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import oracle
import worlds
from deliveries import instant, moment
from stedi.engines import Engine
from stedi.engines.duckdb import DuckDB
from stedi.privacy import consent
from stedi.privacy.pseudonyms import Key
from stedi.transform import consent_check

KEY = Key(bytes(32))
NOW = instant(1_000)
ANA, BO = "ana@a.example", "bo@a.example"
records = st.lists(
    st.tuples(
        st.sampled_from([ANA, " ANA@a.example", BO, "Zoë@a.example", "zoe\u0308@A.example"]),
        st.integers(1, 3).map(instant) | st.sampled_from([NOW, NOW + 1]),
        st.none() | st.sampled_from([instant(1), instant(2), NOW - 1, NOW, NOW + 1, 10**13]),
    ),
    max_size=8,
)


def agreed(*found: consent.Record, now: int = NOW) -> dict[str, int]:
    names = {KEY.customer_id(name): name for name in (ANA, BO)}
    dated = [(email, instant(updated), share if share is None else instant(share)) for email, updated, share in found]
    return {names[customer]: moment(since) for customer, since in consent.consenting(dated, KEY, now).items()}


def test_who_agrees_is_known_with_the_date() -> None:
    assert agreed((ANA, 1, 50), (BO, 1, None)) == {ANA: 50}


def test_the_last_update_decides_whatever_came_before() -> None:
    assert agreed((ANA, 1, 50), (ANA, 2, None)) == {}
    assert agreed((ANA, 1, None), (ANA, 2, 50)) == {ANA: 50}
    assert agreed((ANA, 2, 50), (ANA, 1, None), (ANA, 1, 70)) == {ANA: 50}


def test_of_equal_updates_one_without_consent_is_enough_to_refuse() -> None:
    assert agreed((ANA, 1, 50), (ANA, 1, None), (ANA, 1, 60)) == {}


def test_of_equal_updates_that_all_agree_the_later_date_is_in_force() -> None:
    assert agreed((ANA, 1, 50), (ANA, 1, 60), (ANA, 1, 55)) == {ANA: 60}


@pytest.mark.parametrize(("share", "agrees"), [(1000, True), (1001, False), (1, True), (0, False), (-1, False)])
def test_consent_counts_from_its_instant_to_the_start_of_the_build(share: int, agrees: bool) -> None:
    assert agreed((ANA, 1, share)) == ({ANA: share} if agrees else {})


@pytest.mark.parametrize(("share", "agrees"), [(946_684_799_999, False), (946_684_800_000, True)])
def test_what_is_before_the_first_instant_is_no_consent_though_it_was_landed(share: int, agrees: bool) -> None:
    assert agreed((ANA, 1, share)) == ({ANA: share} if agrees else {})


@pytest.mark.parametrize(("updated", "agrees"), [(999, True), (1000, True), (1001, False)])
def test_a_record_from_the_future_gives_no_consent_until_its_time_has_come(updated: int, agrees: bool) -> None:
    assert agreed((ANA, 1, 50), (ANA, updated, 60)) == ({ANA: 60} if agrees else {})


def test_a_record_from_the_future_takes_consent_away_with_or_without_one() -> None:
    assert agreed((ANA, 1, 50), (ANA, 2000, None)) == {}
    assert agreed((ANA, 1, 50), (ANA, 2000, 50), (ANA, 2, 50)) == {}
    assert agreed((ANA, 1, 50), (ANA, 2000, 50), (ANA, 2000, None), now=instant(2000)) == {}
    assert agreed((ANA, 1, 50), (ANA, 2000, 50), now=instant(2000)) == {ANA: 50}


def test_spellings_of_one_address_withdraw_for_each_other() -> None:
    assert agreed((ANA, 1, 50), (" ANA@a.EXAMPLE\t", 2, None)) == {}


@given(records, st.randoms(use_true_random=False))
def test_the_order_of_records_never_matters(found: list[consent.Record], random: Any) -> None:
    shuffled = list(found)
    random.shuffle(shuffled)
    assert consent.consenting(shuffled, KEY, NOW) == consent.consenting(found, KEY, NOW)


@given(st.lists(worlds.customers(), max_size=8), st.integers(-2, 3))
def test_consent_is_what_the_oracle_says(customers: list[dict[str, object]], later: int) -> None:
    now = worlds.NOW + later
    expected = oracle.tables({"customer": customers}, now, "all", KEY.customer_id).customers_trusted
    landed = [oracle._as_landed(record) for record in customers]
    found = consent.consenting(
        ((r["email"], r["lastUpdateDate"], r["shareWithResearchAsOfDate"]) for r in landed),  # type: ignore[misc]
        KEY,
        now,
    )
    assert found == {row[0]: row[8] for row in expected}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DuckDB]:
    with DuckDB(memory="200MB", threads=1, temporary=tmp_path_factory.mktemp("engine")) as session:
        yield session


def hold(engine: DuckDB, name: str, found: Iterable[consent.Record]) -> None:
    """Makes a relation of landed records."""
    kinds = {"email": "varchar", "lastUpdateDate": "bigint", "shareWithResearchAsOfDate": "bigint"}
    engine.insert_rows(name, kinds, found)


def agreeing(engine: DuckDB) -> set[tuple[str, int]]:
    return set(engine.rows("select customer_id, since from proof__agreed"))


def followed(
    engine: DuckDB, before: list[consent.Record], landed: list[consent.Record], then: int, now: int
) -> set[tuple[str, int]]:
    """Who agrees by a proof that follows the one of an earlier build."""
    hold(engine, "customers_landing", before)
    consent_check.agree(engine, KEY, then)
    engine.materialize(
        "proven",
        "select customer_id, make_timestamptz(since * 1000) as shareWithResearchAsOfDate from proof__agreed",
    )
    hold(engine, "customers_landing", [*before, *landed])
    hold(engine, "landed", landed)
    suspects = consent_check.news(engine, "landed", min(then, now), max(then, now))
    consent_check.agree(engine, KEY, now, "proven", suspects)
    return agreeing(engine)


def whole(engine: DuckDB, found: list[consent.Record], now: int) -> set[tuple[str, int]]:
    """Who agrees by a proof of all."""
    hold(engine, "customers_landing", found)
    consent_check.agree(engine, KEY, now)
    return agreeing(engine)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records, records, st.integers(NOW - 1, NOW + 2), st.integers(NOW - 1, NOW + 2))
def test_a_proof_of_those_whom_a_change_concerns_and_the_one_before_are_the_whole_proof(
    engine: DuckDB, before: list[consent.Record], landed: list[consent.Record], then: int, now: int
) -> None:
    assert followed(engine, before, landed, then, now) == whole(engine, [*before, *landed], now)


def _deaf(engine: Engine, landed: str, low: int, high: int) -> str:
    return "select email from customers_landing where false"


def _without_dates(engine: Engine, landed: str, low: int, high: int) -> str:
    return f"select email from {landed}"


def _as_spelled(engine: DuckDB, view: str, addresses: str, wanted: str) -> None:
    engine.materialize(view, f"select distinct address from ({addresses}) where address in (select * from ({wanted}))")


@pytest.mark.parametrize(
    ("at", "name", "mutant", "before", "landed", "then", "now"),
    [
        (consent_check, "news", _deaf, [(ANA, 1, 50)], [(ANA, 2, None)], NOW, NOW),
        (consent_check, "news", _without_dates, [(ANA, 1, 1_001)], [], NOW, NOW + 1),
        (consent_check, "news", _without_dates, [(ANA, 1, 1_001)], [], NOW + 1, NOW),
        (DuckDB, "spellings", _as_spelled, [(" ANA@a.example", 2, None)], [(ANA, 1, 50)], NOW, NOW),
        (consent_check, "_names", lambda *_: None, [(ANA, 1, 50)], [(ANA, 2, None)], NOW, NOW),
    ],
    ids=["who-landed-is-not-asked", "a-date-comes", "a-date-goes", "other-spellings-are-not-asked", "they-stay-proven"],
)
def test_a_proof_that_forgets_somebody_is_not_the_whole_proof(
    at: Any,
    name: str,
    mutant: object,
    before: list[consent.Record],
    landed: list[consent.Record],
    then: int,
    now: int,
    engine: DuckDB,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def dated(found: list[consent.Record]) -> list[consent.Record]:
        return [(email, instant(updated), share and instant(share)) for email, updated, share in found]

    before, landed = dated(before), dated(landed)
    expected = whole(engine, [*before, *landed], now)
    assert followed(engine, before, landed, then, now) == expected
    engine.insert_rows("proof__suspects", {"customer_id": "varchar"}, [])
    monkeypatch.setattr(at, name, mutant)
    assert followed(engine, before, landed, then, now) != expected


@pytest.mark.parametrize(
    ("staged", "all_readings", "since_consent"),
    [
        ([], 0, 0),
        ([("a", None)], 0, 0),
        ([("a", 50)], 0, 0),
        ([("a", 49)], 0, 1),
        ([("b", None)], 1, 1),
        ([("b", 60)], 1, 1),
        ([("a", 50), ("b", 1), ("c", 1)], 2, 2),
        ([("a", 49), ("b", 1)], 1, 2),
        ([("", None)], 1, 1),
    ],
)
def test_rows_of_others_and_readings_from_before_are_violations(
    staged: list[tuple[str, int | None]], all_readings: int, since_consent: int, engine: DuckDB
) -> None:
    engine.insert_rows("proof__agreed_then", {"customer_id": "varchar", "since": "bigint"}, [("a", 50)])
    engine.run("drop view if exists proof__agreed")
    engine.view("proof__agreed", "select * from proof__agreed_then")
    engine.insert_rows("staged", {"customer_id": "varchar", "earliest": "bigint"}, staged)
    people = ["select * from staged", "select * from staged where false"]
    assert consent_check.violations(engine, people, since_consent=False) == [all_readings, 0]
    assert consent_check.violations(engine, people, since_consent=True) == [since_consent, 0]
    assert consent_check.violations(engine, [], since_consent=True) == []
