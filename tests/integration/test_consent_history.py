"""Consent over time: what the counts say of withdrawals, returns and erasures, and how they are printed."""

from __future__ import annotations

import csv
import io
import json
import shutil
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from deliveries import customer, deliver
from lakes import Slate
from stedi import ConsentHistory, Lake, Period, cli
from stedi.errors import UsageError

HEADERS = ["start", "known", "consenting", "joined", "rejoined", "withdrew", "erased"]


def on(day: int, month: int = 3) -> int:
    """Noon of a day of 2024, epoch milliseconds."""
    return int(datetime(2024, month, day, 12, tzinfo=UTC).timestamp() * 1000)


def shown(found: ConsentHistory) -> list[tuple[object, ...]]:
    """Each period in which something changed."""
    rows = [tuple(getattr(period, name) for name in HEADERS) for period in found.periods]
    return [row for row, before in zip(rows, [(None, 0, 0), *rows], strict=False) if row[1:3] != before[1:3] or row[6]]


def told(lake: Lake, inbox: Path) -> None:
    """Ana agrees, withdraws and agrees again; Bo refuses; Cy says later since when; Di's last word is of the future."""
    ana = [
        customer("ana@x.example", on(1), on(1), registrationDate=on(1)),
        customer(" ANA@x.example", ..., on(5), registrationDate=on(1)),
        customer("Ana@x.example", on(9), on(11), registrationDate=on(1)),
    ]
    bo = customer("bo@x.example", ..., on(2), registrationDate=on(1))
    cy = customer("cy@x.example", on(4), on(8), registrationDate=on(3))
    di = [
        customer("di@x.example", on(2), on(2), registrationDate=on(2)),
        customer("di@x.example", on(2), on(1, month=12), registrationDate=on(2)),
    ]
    deliver(inbox, "customer", [*ana, bo, cy, *di])
    assert lake.land(inbox).accepted == 7


@pytest.fixture
def lake(slate: Slate) -> Lake:
    return slate.made(told)


def test_each_day_counts_what_the_records_say_of_it(lake: Lake) -> None:
    now = datetime(2024, 3, 12, 18, tzinfo=UTC)
    assert shown(lake.consent("day", now=now)) == [
        (date(2024, 3, 1), 2, 1, 1, 0, 0, 0),
        (date(2024, 3, 2), 3, 2, 1, 0, 0, 0),
        (date(2024, 3, 3), 4, 2, 0, 0, 0, 0),
        (date(2024, 3, 4), 4, 3, 1, 0, 0, 0),  # Cy, by the record of the 8th
        (date(2024, 3, 5), 4, 2, 0, 0, 1, 0),
        (date(2024, 3, 9), 4, 3, 1, 1, 0, 0),  # Ana again, by the record of the 11th
        (date(2024, 3, 12), 4, 2, 0, 0, 1, 0),  # Di's record of December takes consent away as of now
    ]


def test_weeks_begin_on_monday_and_months_on_their_first_day(lake: Lake) -> None:
    now = datetime(2024, 4, 2, tzinfo=UTC)
    weeks = lake.consent("week", now=now).periods
    assert [str(period.start) for period in weeks] == ["2024-02-26", "2024-03-04", "2024-03-11", "2024-03-18",
                                                       "2024-03-25", "2024-04-01"]  # fmt: skip
    assert weeks[1] == Period(date(2024, 3, 4), date(2024, 3, 4), 4, 3, 2, 1, 1, 0)
    assert shown(lake.consent(now=now)) == [
        (date(2024, 3, 1), 4, 3, 4, 1, 1, 0),
        (date(2024, 4, 1), 4, 2, 0, 0, 1, 0),
    ]


def test_a_withdrawal_by_command_and_an_erasure_are_counted(lake: Lake) -> None:
    lake.withdraw("ana@x.example")
    lake.erase("cy@x.example", "nobody@x.example")
    [*_, last] = lake.consent("day").periods
    assert (last.known, last.consenting, last.withdrew, last.erased) == (3, 1, 1, 1), "Di's future has come"
    assert lake.build().consenting == 1


def test_an_erasure_that_is_repeated_or_replayed_counts_nobody_twice(lake: Lake, tmp_path: Path) -> None:
    shutil.copytree(lake.root, tmp_path / "backup")
    lake.erase("cy@x.example")
    lake.erase("cy@x.example", "ana@x.example")
    assert sum(period.erased for period in lake.consent("day").periods) == 2
    shutil.rmtree(lake.root)
    shutil.copytree(tmp_path / "backup", lake.root)
    lake = Lake.open(lake.root)
    lake.replay(lake.context.outside())
    assert sum(period.erased for period in lake.consent("day").periods) == 2


def test_of_an_empty_lake_there_is_no_period(slate: Slate) -> None:
    assert slate.wiped().consent().periods == ()


def test_periods_that_are_none_are_refused(lake: Lake) -> None:
    with pytest.raises(UsageError, match="by: expected one of day, week, month, found 'year'"):
        lake.consent("year")  # type: ignore[arg-type]


def test_csv_and_json_say_the_same_and_the_table_what_changed(
    lake: Lake, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    def said(*words: str) -> tuple[str, str]:
        assert cli.main(["--lake", str(lake.root), *words]) == 0
        out, err = capfdbinary.readouterr()
        return out.decode(), err.decode()

    periods = json.loads(said("--json", "consent", "--by", "week")[0])["periods"]
    text, _ = said("consent", "--by", "week", "--format", "csv")
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert text.count("\r\n") == len(rows)
    assert rows[0] == HEADERS == list(periods[0])
    assert rows[1:] == [[str(value) for value in period.values()] for period in periods]
    table, note = said("consent")
    assert [line.split()[0] for line in table.splitlines()[2:]][:1] == ["2024-03-01"]
    assert "without changes left out" in note
