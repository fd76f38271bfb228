"""Polars: lazy scans with a schema, streamed into Parquet."""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl

TEXT, LONG, DOUBLE = pl.String(), pl.Int64(), pl.Float64()
FEEDS = {
    "customers_landing": (
        "customer",
        {
            **dict.fromkeys(("customerName", "email", "phone", "birthDay", "serialNumber"), TEXT),
            **dict.fromkeys(("registrationDate", "lastUpdateDate", "shareWithResearchAsOfDate"), LONG),
            **dict.fromkeys(("shareWithPublicAsOfDate", "shareWithFriendsAsOfDate"), LONG),
        },
    ),
    "accelerometer_landing": (
        "accelerometer",
        {"user": TEXT, "timestamp": LONG, "x": DOUBLE, "y": DOUBLE, "z": DOUBLE},
    ),
    "step_trainer_landing": (
        "step_trainer",
        {"sensorReadingTime": LONG, "serialNumber": TEXT, "distanceFromObject": LONG},
    ),
}


def main(landing: Path, out: Path) -> None:
    def keep(frame: pl.LazyFrame, table: str) -> pl.LazyFrame:
        frame.sink_parquet(out / f"{table}.parquet")
        return pl.scan_parquet(out / f"{table}.parquet")

    customers, accelerometer, step_trainer = (
        keep(pl.scan_ndjson(landing / folder / "*.json", schema=schema), table)
        for table, (folder, schema) in FEEDS.items()
    )
    trusted = keep(
        customers.sort("lastUpdateDate", descending=True)
        .unique("email", keep="first", maintain_order=True)
        .filter(pl.col("shareWithResearchAsOfDate") > 0),
        "customers_trusted",
    )
    motion = keep(
        accelerometer.join(trusted, left_on="user", right_on="email", how="semi").unique(),
        "accelerometer_trusted",
    )
    curated = keep(trusted.join(motion, left_on="email", right_on="user", how="semi"), "customers_curated")
    steps = keep(
        step_trainer.join(curated.select("email", "serialNumber"), on="serialNumber").unique(),
        "step_trainer_trusted",
    )
    pairs = steps.join(motion, left_on=["email", "sensorReadingTime"], right_on=["user", "timestamp"])
    keep(
        pairs.select("email", "sensorReadingTime", "distanceFromObject", "x", "y", "z"),
        "machine_learning_curated",
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
