"""Estimates what the lake costs on AWS: a function from a workload to dollars a month, and to its limits.

The resources per reading are measured (docs/benchmarks.md and below). The prices are AWS list prices, with their date
and region. The caller gives the workload. It is a model: it shows which factors matter, and does not predict a bill.
"""

from __future__ import annotations

from collections.abc import Iterable

from stedi._frozen import dataclass

TERABYTE = 1 << 40
_GIGABYTE = 1 << 30
_DAYS = 30.4
"""Days in a month."""


@dataclass(frozen=True, slots=True)
class Prices:
    """List prices in US dollars for us-east-1, as assumed on 2026-11-25; check them against AWS's own pages.

    Attributes:
        glue_hour: One DPU for an hour; billed by the second.
        s3_gigabyte: One GB in S3 Standard for a month.
        s3_puts: A thousand PUT and LIST requests.
        s3_gets: A thousand GET requests.
        athena_terabyte: One TB that Athena scans.
        kms_requests: Ten thousand requests to KMS.
        fixed: Fixed costs per month: one KMS key, one secret, one alarm, the weekly crawler.
        logs_gigabyte: One GB of ingested logs.
    """

    glue_hour: float = 0.44
    s3_gigabyte: float = 0.023
    s3_puts: float = 0.005
    s3_gets: float = 0.0004
    athena_terabyte: float = 5.0
    kms_requests: float = 0.03
    fixed: float = 1.0 + 0.4 + 0.1 + 0.3
    logs_gigabyte: float = 0.50


PRICES = Prices()
"""The prices in docs/aws.md."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Measured values, per reading unless stated otherwise.

    Sizes are of the public data set; times are from docs/benchmarks.md.

    Attributes:
        json_bytes: Bytes of newline-delimited JSON.
        lake_bytes: Bytes in all tables of the lake together, after a build.
        training_rows: Rows of the training table.
        training_bytes: Bytes per training row.
        core_seconds: Core seconds in Spark for landing and building, with a script without checks.
        guarded: The assumed factor by which the lake takes longer, because it makes checks that the script does not.
        rewrite_core_seconds: Core seconds to remove some customers from a lake's tables, per reading in the lake.
        start_seconds: Seconds per run in which Spark starts and tables are committed; assumed.
        file_bytes: The size of the files into which maintenance merges small files; a setting.
    """

    json_bytes: float = 94.8
    lake_bytes: float = 6.5
    training_rows: float = 0.37
    training_bytes: float = 2.9
    core_seconds: float = 51.31 * 2 / 13_000_000
    guarded: float = 1.25
    rewrite_core_seconds: float = 4.45 / 15_600_000
    start_seconds: float = 90.0
    file_bytes: float = 128 << 20


MEASURED = Measured()
"""The measured values in docs/aws.md."""


@dataclass(frozen=True, slots=True)
class Workload:
    """The deliveries, runs and queries to estimate the cost of.

    Attributes:
        customers: The number of customers.
        readings: Readings per customer and day, both feeds together.
        files: Files delivered per day.
        runs: Runs of the job per day.
        retention_days: Days that the lake keeps readings.
        inbox_days: Days that delivered files are kept.
        queries: Queries per day over the whole training table.
    """

    customers: int
    readings: int = 650
    files: int = 1_000
    runs: int = 4
    retention_days: int = 730
    inbox_days: int = 400
    queries: int = 20

    @property
    def readings_a_day(self) -> int:
        """Readings of all customers per day."""
        return self.customers * self.readings


@dataclass(frozen=True, slots=True)
class Cost:
    """Dollars per month when the lake is as old as its retention, and the lake's size and runs at that age.

    Attributes:
        glue: The job, for new data.
        rewrites: The job, for customers who withdrew: each night it rewrites the files with their rows, which is every
            file.
        storage: S3 storage of the lake and the inbox.
        requests: Requests to S3 and KMS.
        athena: Queries.
        other: Keys, alarms, crawler, logs.
        workers: Workers of 4 cores, including the driver's, with which a run takes at most about an hour.
        run_minutes: How long a run then takes.
        rebuild_hours: Worker hours of a full rebuild.
        lake_bytes: Bytes of the lake.
        files: Data files of the largest table.
        commits: Commits per hour to one table, on average.
    """

    glue: float
    rewrites: float
    storage: float
    requests: float
    athena: float
    other: float
    workers: int
    run_minutes: float
    rebuild_hours: float
    lake_bytes: float
    files: int
    commits: float

    @property
    def total(self) -> float:
        """The sum of all costs."""
        return self.glue + self.rewrites + self.storage + self.requests + self.athena + self.other


def cost(workload: Workload, prices: Prices = PRICES, measured: Measured = MEASURED) -> Cost:
    """Returns the cost of a workload.

    A run takes its start-up time and the core seconds of its readings, divided among workers of four cores (one DPU
    each, G.1X), not counting the driver. The lake holds `retention_days` of readings, and the inbox holds `inbox_days`
    of JSON. Each night the tables built from landing are rewritten once, for customers who withdrew. A delivered file
    is written once and read twice; a run writes about 40 objects per table and reads four times as many. A query reads
    the whole training table; selecting columns or a short time range would cost less. Times are assumed to scale with
    the cores, and sizes with the readings.
    """
    a_day = workload.readings_a_day
    core_seconds = a_day / workload.runs * measured.core_seconds * measured.guarded
    # as many as do the work in about an hour, beside a driver that does none of it
    executors = max(1, -(-int(core_seconds) // (4 * 3_600)))
    workers = 1 + executors
    seconds = core_seconds / (4 * executors) + measured.start_seconds
    held = a_day * workload.retention_days
    worker_hour = 4 * 3_600
    lake = held * measured.lake_bytes
    inbox = a_day * workload.inbox_days * measured.json_bytes
    training = held * measured.training_rows * measured.training_bytes
    files = max(1, round(lake / 3 / measured.file_bytes))  # the largest table holds about a third of all bytes
    objects = workload.runs * (40 * 10 + a_day / workload.runs * measured.lake_bytes / measured.file_bytes)
    puts, gets = workload.files + objects, 2 * workload.files + 4 * objects
    requests = (puts * prices.s3_puts + gets * prices.s3_gets) / 1_000 + (puts + gets) * prices.kms_requests / 10_000
    return Cost(
        glue=_DAYS * workload.runs * workers * seconds / 3_600 * prices.glue_hour,
        rewrites=_DAYS * held * measured.rewrite_core_seconds / worker_hour * prices.glue_hour,
        storage=(lake + inbox) / _GIGABYTE * prices.s3_gigabyte,
        requests=_DAYS * requests,
        athena=_DAYS * workload.queries * max(training, 10 << 20) / TERABYTE * prices.athena_terabyte,
        other=prices.fixed + _DAYS * workload.runs * 0.002 * prices.logs_gigabyte,
        workers=workers,
        run_minutes=seconds / 60,
        rebuild_hours=held * measured.core_seconds * measured.guarded / worker_hour,
        lake_bytes=lake,
        files=files,
        commits=workload.runs / 24,
    )


SIZES = (Workload(10_000), Workload(1_000_000, files=10_000, runs=8), Workload(10_000_000, files=50_000, runs=24))
"""The three workloads in docs/aws.md."""


def lines(workloads: Iterable[Workload] = SIZES) -> tuple[tuple[str, ...], ...]:
    """Returns the costs of workloads as table rows: a label, then a value for each workload; the header comes first."""
    listed = list(workloads)
    found = [cost(workload) for workload in listed]

    def dollars(value: float) -> str:
        return f"{value:,.2f}" if value < 10 else f"{value:,.0f}"

    rows = [
        ("readings a day", [f"{w.readings_a_day:,}" for w in listed]),
        ("runs of the job a day", [f"{w.runs}" for w in listed]),
        ("a run: workers (G.1X), minutes", [f"{c.workers}, {c.run_minutes:.0f}" for c in found]),
        ("the lake after its retention, GB", [f"{c.lake_bytes / _GIGABYTE:,.0f}" for c in found]),
        ("data files of the largest table", [f"{c.files:,}" for c in found]),
        ("a full rebuild, worker hours", [f"{c.rebuild_hours:,.0f}" for c in found]),
        ("Glue, what is new, $ a month", [dollars(c.glue) for c in found]),
        ("Glue, withdrawals", [dollars(c.rewrites) for c in found]),
        ("S3, lake and inbox", [dollars(c.storage) for c in found]),
        ("S3 and KMS, requests", [dollars(c.requests) for c in found]),
        ("Athena", [dollars(c.athena) for c in found]),
        ("keys, alarms, crawler, logs", [dollars(c.other) for c in found]),
        ("together, $ a month", [dollars(c.total) for c in found]),
        (
            "$ a year for a thousand customers",
            # twelve months, a thousand customers
            [dollars(c.total * 12_000 / w.customers) for w, c in zip(listed, found, strict=True)],
        ),
    ]
    head = ("", *(f"{workload.customers:,} customers" for workload in listed))
    return (head, *((name, *cells) for name, cells in rows))
