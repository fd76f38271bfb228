"""The oracle itself, held to cases that were worked out by hand from the rules."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

import deliveries
import oracle
import worlds
from deliveries import instant, moment
from stedi.landing import sample

NOW = 1_000
PUBLIC_DATA = Path(__file__).parents[3] / "shared" / "data" / "stedi-2023"


def pseudonym(email: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", email.strip()).casefold())


def customer(email: str = "ana@a.example", consent: object = 50, update: int = 100, **more: object) -> oracle.Record:
    return deliveries.customer(email, consent, update, **more)


def motion(user: str, time: int, x: float = 0.0) -> oracle.Record:
    return {**deliveries.motion(user, time, x), "z": 1.0}


step = deliveries.step


def tables(
    customers: list[oracle.Record],
    motions: list[oracle.Record] | None = None,
    steps: list[oracle.Record] | None = None,
    readings: str = "all",
) -> oracle.Tables:
    world = {"customer": customers, "accelerometer": motions or [], "step_trainer": steps or []}
    found = oracle.tables(world, instant(NOW), readings, pseudonym)
    moments = {name: [tuple(map(moment, row)) for row in getattr(found, name)] for name in (*oracle.TABLES, "withheld")}
    return oracle.Tables(**moments)


def people(found: list[oracle.Row]) -> list[object]:
    return [row[0] for row in found]


def test_spellings_of_one_address_are_one_customer() -> None:
    composed, apart = "zoë@a.example", unicodedata.normalize("NFD", "Zoë@A.example ")
    found = tables([customer(composed, update=1), customer(apart, update=2)], [motion(" ZOË@a.example", 60)])
    assert people(found.customers_trusted) == [composed]
    assert found.customers_trusted[0][2] == apart
    assert found.accelerometer_trusted == [(composed, 60, 0.0, 0.0, 1.0)]


def test_a_trusted_customer_has_all_columns_in_order() -> None:
    record = customer(
        customerName="Ana",
        phone="1",
        birthDay="2000-02-29",
        shareWithPublicAsOfDate=7,
        shareWithFriendsAsOfDate="never",
    )
    expected = ("ana@a.example", "Ana", "ana@a.example", "1", "2000-02-29", "s1", 10, 100, 50, 7, None)
    assert tables([record]).customers_trusted == [expected]


@pytest.mark.parametrize(
    "birthday", ["2001-02-29", "2001-2-3", " 2001-02-03", "20010203", "0000-01-01", "", 2001, None]
)
def test_a_birthday_that_is_no_date_is_none(birthday: object) -> None:
    assert tables([customer(birthDay=birthday)]).customers_trusted[0][4] is None


@pytest.mark.parametrize(
    "consent", [..., None, 0, -1, "yes", "50", "", True, False, 50.5, 50.0, [50], {}, NOW + 1, 253_402_300_800_000]
)
def test_what_is_no_instant_up_to_now_is_no_consent(consent: object) -> None:
    assert tables([customer(consent=consent)]).customers_trusted == []


@pytest.mark.parametrize("consent", [1, NOW])
def test_an_instant_up_to_now_is_consent(consent: int) -> None:
    assert len(tables([customer(consent=consent)]).customers_trusted) == 1


def test_the_last_update_decides_whatever_came_before() -> None:
    agreed, withdrew, again = customer(update=1), customer(consent=..., update=2), customer(consent=60, update=3)
    assert tables([withdrew, agreed]).customers_trusted == []
    assert tables([again, withdrew, agreed]).customers_trusted[0][8] == 60


def test_of_equal_updates_the_one_without_consent_wins() -> None:
    assert tables([customer(), customer(consent=...)]).customers_trusted == []
    assert tables([customer(), customer(consent=NOW + 1)]).customers_trusted == []


@pytest.mark.parametrize(
    ("less", "greater", "column"),
    [
        ({"consent": 50, "registrationDate": 1000000000011}, {"consent": 51}, 8),
        ({"registrationDate": 1000000000010, "serialNumber": "s2"}, {"registrationDate": 1000000000011}, 6),
        ({"serialNumber": "S2", "customerName": "Z"}, {"serialNumber": "s1"}, 5),
        ({"phone": "9"}, {"customerName": ""}, 1),
        ({"customerName": "Z", "phone": "9"}, {"customerName": "a"}, 1),
        ({"customerName": "\uffee"}, {"customerName": "\U0001f45f"}, 1),
        ({"birthDay": "2001-01-01"}, {"phone": "1"}, 3),
        ({"email": "ana@a.example"}, {"birthDay": "no date", "email": "Ana@a.example"}, 2),
        ({"email": "Ana@a.example", "shareWithPublicAsOfDate": 1000000000002}, {"email": "ana@a.example"}, 2),
        (
            {"shareWithPublicAsOfDate": 1000000000001, "shareWithFriendsAsOfDate": 1000000000009},
            {"shareWithPublicAsOfDate": 1000000000002},
            9,
        ),
        ({}, {"shareWithFriendsAsOfDate": 1000000000001}, 10),
    ],
)
def test_ties_fall_to_the_greater_value_in_the_order_of_the_list(
    less: dict[str, object], greater: dict[str, object], column: int
) -> None:
    one, other = customer(**less), customer(**greater)  # type: ignore[arg-type]
    (expected,) = tables([other]).customers_trusted
    assert tables([one]).customers_trusted[0][column] != expected[column]
    assert tables([one, other]).customers_trusted == tables([other, one]).customers_trusted == [expected]


def test_readings_are_distinct_and_only_of_those_who_agree() -> None:
    motions = [motion("ana@a.example", 60), motion("ANA@a.example", 60), motion("bo@a.example", 60), motion("x", 60)]
    found = tables([customer(), customer("bo@a.example", ..., serialNumber="s2")], motions, [step("s1", 60)] * 2)
    assert found.accelerometer_trusted == [("ana@a.example", 60, 0.0, 0.0, 1.0)]
    assert found.step_trainer_trusted == [("ana@a.example", 60, "s1", 246)]
    assert found.machine_learning_curated == [("ana@a.example", 60, 246, 0.0, 0.0, 1.0)]


def test_a_customer_without_motion_is_not_curated_and_has_no_steps() -> None:
    found = tables([customer()], [], [step("s1", 60)])
    assert people(found.customers_trusted) == ["ana@a.example"]
    assert (found.customers_curated, found.step_trainer_trusted, found.withheld) == ([], [], [])


def test_steps_without_motion_at_their_moment_are_trusted_but_train_nothing() -> None:
    found = tables([customer()], [motion("ana@a.example", 61)], [step("s1", 60)])
    assert found.step_trainer_trusted == [("ana@a.example", 60, "s1", 246)]
    assert found.machine_learning_curated == []


def test_two_people_at_one_moment_are_never_mixed() -> None:
    both = [customer(), customer("bo@a.example", serialNumber="s2")]
    motions = [motion("ana@a.example", 60, -1.0), motion("bo@a.example", 60, 1.0)]
    found = tables(both, motions, [step("s1", 60, 201), step("s2", 60, 202)])
    assert found.machine_learning_curated == [
        ("ana@a.example", 60, 201, -1.0, 0.0, 1.0),
        ("bo@a.example", 60, 202, 1.0, 0.0, 1.0),
    ]


def test_of_a_shared_device_the_one_who_moved_at_that_moment_owns_the_reading() -> None:
    both = [customer(), customer("bo@a.example", ...)]
    motions = [
        motion("ana@a.example", 60),
        motion("bo@a.example", 61),
        motion("ana@a.example", 62),
        motion("bo@a.example", 62),
    ]
    found = tables(both, motions, [step("s1", time) for time in (60, 61, 62, 63)])
    assert found.step_trainer_trusted == [("ana@a.example", 60, "s1", 246)]
    assert found.withheld == [(62, "s1", 246), (63, "s1", 246)]


def test_a_claim_stands_though_a_later_record_names_another_device() -> None:
    resold = [customer(update=1), customer(update=2, serialNumber="s9"), customer("bo@a.example")]
    found = tables(resold, [motion("ana@a.example", 60)], [step("s1", 60), step("s1", 70), step("s9", 70)])
    assert found.step_trainer_trusted == [("ana@a.example", 60, "s1", 246), ("ana@a.example", 70, "s9", 246)]
    assert found.withheld == [(70, "s1", 246)]


def test_unclaimed_devices_are_neither_trusted_nor_withheld() -> None:
    found = tables([customer()], [motion("ana@a.example", 60)], [step("S1", 60)])
    assert (found.step_trainer_trusted, found.withheld) == ([], [])


def test_since_consent_starts_at_the_consent_in_every_table_below() -> None:
    times = (49, 50, 51)
    motions: list[oracle.Record] = [motion("ana@a.example", time) for time in times]
    steps: list[oracle.Record] = [step("s1", time) for time in times]
    found = tables([customer()], motions, steps, "since-consent")
    assert [row[1] for row in found.accelerometer_trusted] == [50, 51]
    assert [row[1] for row in found.step_trainer_trusted] == [50, 51]
    assert [row[1] for row in found.machine_learning_curated] == [50, 51]
    assert found.customers_trusted == found.customers_curated


def test_since_consent_a_customer_who_moved_only_before_is_not_curated() -> None:
    found = tables([customer()], [motion("ana@a.example", 49)], [step("s1", 50)], "since-consent")
    assert len(found.customers_trusted) == 1
    assert (found.customers_curated, found.step_trainer_trusted) == ([], [])


def test_since_consent_a_motion_from_before_still_decides_whose_device_it_was() -> None:
    both = [customer(), customer("bo@a.example", 70)]
    motions = [motion("ana@a.example", 60), motion("bo@a.example", 60), motion("ana@a.example", 61)]
    found = tables(both, motions, [step("s1", 60), step("s1", 61)], "since-consent")
    assert found.withheld == [(60, "s1", 246)]
    assert found.step_trainer_trusted == [("ana@a.example", 61, "s1", 246)]


@pytest.mark.skipif(not PUBLIC_DATA.is_dir(), reason="the public 2023 data set is not part of the project")
def test_the_public_data_set_comes_to_the_known_counts() -> None:
    world = oracle.read_clean(PUBLIC_DATA)
    now = 1_750_000_000_000
    every = oracle.tables(world, now, "all", pseudonym)
    assert list(every.counts().values()) == [482, 40_981, 482, 14_460, 40_981]
    assert every.withheld == []
    since = oracle.tables(world, now, "since-consent", pseudonym)
    assert len(since.machine_learning_curated) == 32_025
    assert len(since.customers_curated) == len(set(people(since.machine_learning_curated))) == 464


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_sample_s_answer_is_what_the_oracle_finds(tmp_path: Path, seed: int) -> None:
    answer = sample.write(tmp_path / "s", customers=90, readings=4_000, seed=seed, dirty=False)
    world = oracle.read_clean(tmp_path / "s")
    assert {feed: len(records) for feed, records in world.items()} == answer.seen == answer.accepted
    for policy in ("all", "since-consent"):
        found = oracle.tables(world, 1_750_000_000_000, policy, pseudonym)
        assert found.counts() == answer.rows(policy)
        assert len(found.withheld) == answer.withheld > 0


@given(worlds.worlds())
def test_every_table_follows_from_the_one_above(world: dict[str, list[dict[str, object]]]) -> None:
    for policy in ("all", "since-consent"):
        found = oracle.tables(world, worlds.NOW, policy, pseudonym)
        trusted, curated = set(people(found.customers_trusted)), set(people(found.customers_curated))
        assert curated == set(people(found.accelerometer_trusted)) <= trusted
        assert set(people(found.machine_learning_curated)) <= set(people(found.step_trainer_trusted)) <= curated
        assert not {row[1:] for row in found.step_trainer_trusted} & set(found.withheld)


@given(worlds.worlds(), st.randoms(use_true_random=False))
def test_the_order_of_records_never_matters(world: dict[str, list[dict[str, object]]], rng: Random) -> None:
    shuffled = {feed: rng.sample(records, len(records)) for feed, records in world.items()}
    results = [oracle.tables(w, worlds.NOW, "all", pseudonym) for w in (world, shuffled)]
    assert results[0] == results[1]


@given(worlds.worlds(), st.randoms(use_true_random=False))
def test_a_written_world_reads_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, world: dict[str, list[dict[str, object]]], rng: Random
) -> None:
    folder = tmp_path_factory.mktemp("world")
    paths = worlds.write_world(world, folder, rng)
    assert len({path.read_bytes() for path in paths}) == len(paths)
    read = oracle.read_clean(folder)
    for feed in worlds.FEEDS:
        assert sorted(map(repr, read[feed])) == sorted(map(repr, world[feed]))


@pytest.mark.parametrize(
    ("landed", "at", "expected"),
    [
        ([], 900, (900, False)),
        ([customer(update=100)], 900, (900, True)),
        ([customer(update=1_000)], 900, (1_000, True)),
        ([customer(update=100, consent=...)], 900, None),
        ([customer(update=100, consent=...)], 60_101, (60_101, True)),
        ([customer(update=100, consent=...), customer(update=101)], 900, (900, True)),
        ([customer(update=100, consent=...), customer(update=100)], 900, None),
        ([customer("other@a.example", consent=...)], 900, (900, False)),
    ],
)
def test_a_withdrawal_by_command_is_the_current_record_without_consent_unless_that_was_just_said(
    landed: list[oracle.Record], at: int, expected: tuple[int, bool] | None
) -> None:
    found = oracle.withdrawal(landed, " Ana@A.example", instant(at), pseudonym)
    if expected is None or found is None:
        assert (found, expected) == (None, None)
    else:
        assert (moment(found["lastUpdateDate"]), "serialNumber" in found) == expected
        assert found.get("shareWithResearchAsOfDate") is None


def test_of_a_withdrawal_of_somebody_unknown_no_device_is_claimed() -> None:
    nobody = {"email": "bo@a.example", "lastUpdateDate": instant(500)}
    found = tables(
        [customer(), nobody, {**nobody, "email": "cy@a.example"}], [motion("ana@a.example", 60)], [step("s1", 60)]
    )
    assert len(found.step_trainer_trusted) == 1
    assert found.withheld == []
