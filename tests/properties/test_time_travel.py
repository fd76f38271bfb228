"""A look back shows what was published but for who does not consent now, whatever happened in between."""

from __future__ import annotations

import os
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest

from deliveries import DAWN, customer, deliver, motion, step
from effort import NIGHTLY
from lakes import BELOW_LANDING, Slate
from stedi.errors import UsageError
from stedi.lake import Lake

SEEDS = range(60) if NIGHTLY else range(3)
STEPS = 7
SQL = " union all ".join(
    f"select '{table}' as t, customer_id, concat_ws('|', {columns}) as row from {table}"
    for table, columns in {
        "customers_trusted": '"email", "lastUpdateDate", "shareWithResearchAsOfDate"',
        "customers_curated": '"email", "lastUpdateDate", "shareWithResearchAsOfDate"',
        "accelerometer_trusted": '"timestamp", x, y, z',
        "step_trainer_trusted": '"sensorReadingTime", "serialNumber", "distanceFromObject"',
        "machine_learning_curated": '"sensorReadingTime", "distanceFromObject", x, y, z',
    }.items()
)
Rows = Counter[tuple[str, str, str]]


def _serial(person: str) -> str:
    return f"s-{person.partition('@')[0]}"


class History:
    """One lake, what happens to it by a seed, and who agrees by what was said last."""

    def __init__(self, lake: Lake, inbox: Path, random: Random, patch: pytest.MonkeyPatch) -> None:
        self.lake, self._inbox, self._random, self._patch = lake, inbox, random, patch
        self.agrees: dict[str, bool] = {}
        self._erased: set[str] = set()
        self._moment = 0
        self.looks: list[int | str] = []

    def step(self) -> str:
        """Lets one thing happen, and says what."""
        what = self._random.choices(
            ["come", "withdraw", "refuse", "agree", "erase", "tag", "key", "build", "maintain"],
            [4, 4, 2, 3, 1, 2, 0.4, 6, 1],
        )[0]
        getattr(self, f"_{what}")()
        return what

    def _now(self) -> int:
        self._moment += 1000
        return self._moment

    def _some(self, *, agreeing: bool) -> list[str]:
        found = [p for p, agrees in self.agrees.items() if agrees is agreeing and p not in self._erased]
        return self._random.sample(found, min(len(found), self._random.randint(1, 2)))

    def _land(self, people: list[str], consent: object, *, readings: bool = False) -> None:
        at = self._now()
        name = f"{at}.json"
        spelt = self._random.choice((str, str.upper))
        records = [customer(spelt(p), consent if consent is ... else at, at, serialNumber=_serial(p)) for p in people]
        deliver(self._inbox, "customer", records, name)
        if readings:
            deliver(self._inbox, "accelerometer", [motion(p, at + n) for p in people for n in (1, 2)], name)
            deliver(self._inbox, "step_trainer", [step(_serial(p), at + n) for p in people for n in (1, 3)], name)
        self.lake.land(self._inbox)
        self.agrees |= dict.fromkeys(people, consent is not ...)

    def _come(self) -> None:
        people = [f"p{len(self.agrees) + n}@x.example" for n in range(self._random.randint(1, 3))]
        self._land(people, 1, readings=True)

    def _withdraw(self) -> None:
        if people := self._some(agreeing=True):
            self.lake.withdraw(people, now=datetime.fromtimestamp((DAWN + self._now()) / 1000, UTC))
            self.agrees |= dict.fromkeys(people, False)

    def _refuse(self) -> None:
        if people := self._some(agreeing=True):
            self._land(people, ...)

    def _agree(self) -> None:
        if people := self._some(agreeing=False):
            self._land(people, 1)

    def _erase(self) -> None:
        if people := self._some(agreeing=self._random.random() < 0.7):
            self.lake.erase(people)
            self._erased.update(people)
            self.agrees |= dict.fromkeys(people, False)

    def _tag(self) -> None:
        self.lake.build()
        name = f"t{self._moment}-{len(self.looks)}"
        self.lake.tag(name)
        self.looks.append(name)

    def _key(self) -> None:
        new = f"{self._random.randbytes(32).hex()} {os.environ['STEDI_PSEUDONYM_KEY']}"
        self._patch.setenv("STEDI_NEXT_PSEUDONYM_KEY", new)
        self.lake.rotate_key()
        self._patch.setenv("STEDI_PSEUDONYM_KEY", new)
        self._patch.delenv("STEDI_NEXT_PSEUDONYM_KEY")
        self.looks.clear()  # nothing older is left under another key

    def _build(self) -> None:
        self.lake.build()
        head = self.lake.history("customers_trusted")[0].id
        if head not in self.looks:
            self.looks.append(head)

    def _maintain(self) -> None:
        self.lake.maintain()


def seen(lake: Lake, at: int | str, *, as_published: bool) -> tuple[Rows, tuple[int, int]]:
    with lake.query(SQL, at=at, role="officer", as_published=as_published) as result:
        return Counter(result.fetchall()), (result.left_out.rows, result.left_out.people)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_look_back_shows_what_was_published_but_for_who_does_not_consent_now(
    seed: int, slate: Slate, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = Random(seed)
    history = History(slate.wiped(), slate.inbox(), random, monkeypatch)
    history._come()
    history._build()
    did = [history.step() for _ in range(STEPS)]
    lake = history.lake
    ids = {lake.key().customer_id(p): agrees for p, agrees in history.agrees.items()}
    looked = 0
    for at in random.sample(history.looks, min(3, len(history.looks))):
        try:
            whole, nothing = seen(lake, at, as_published=True)
        except UsageError:  # it has expired
            continue
        looked += 1
        assert nothing == (0, 0)
        expected = Counter({row: n for row, n in whole.items() if ids.get(row[1], False)})
        hidden = whole - expected
        found, left_out = seen(lake, at, as_published=False)
        assert found == expected, (seed, did, at)
        assert left_out == (hidden.total(), len({person for _, person, _ in hidden})), (seed, did, at)
        if isinstance(at, str):  # a snapshot's id is of a table that a scientist does not see
            sql = "select distinct customer_id from machine_learning_curated"
            people = lake.query(sql, at=at, role="scientist").fetchall()
            assert all(ids[person] for (person,) in people), (seed, did, at)
    assert looked or not history.looks, (seed, did)


def test_every_table_below_landing_is_looked_at() -> None:
    assert all(f"from {table}" in SQL for table in BELOW_LANDING)
