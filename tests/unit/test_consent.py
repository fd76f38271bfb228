"""The consent proof: who agrees now, and what of a staged table it calls a violation."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracle
import worlds
from lakes import instant, moment
from stedi.privacy import consent
from stedi.privacy.pseudonyms import Key

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
    staged: list[tuple[str, int | None]], all_readings: int, since_consent: int
) -> None:
    consents = {"a": 50}
    assert consent.violations(staged, consents, since_consent=False) == all_readings
    assert consent.violations(staged, consents, since_consent=True) == since_consent
