"""From made-up deliveries to a data frame: `python quickstart.py FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl

import stedi
from stedi import sample


def main(folder: Path) -> None:
    sample.write(folder / "inbox", customers=50, readings=2_000, seed=1)

    lake = stedi.Lake.create(folder / "lake")
    landing = lake.land(folder / "inbox")
    print(f"landed {landing.accepted:,} of {landing.seen:,} records, {landing.quarantined:,} in quarantine")

    build = lake.build()
    print(f"built {len(build.tables)} tables; {build.withheld:,} readings withheld")

    # Arrow goes to Polars and pandas without a copy. There is no step label in these data: this is no model.
    steps = pl.from_arrow(lake.query("select * from machine_learning_curated").arrow())
    assert isinstance(steps, pl.DataFrame)
    print(steps.group_by("customer_id").agg(pl.len().alias("rows"), pl.col("distanceFromObject").mean()).head())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
