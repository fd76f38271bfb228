"""PySpark on all local cores, written as the public AWS Glue jobs for this data are.

Five jobs, each from JSON or the job before; inferred schemas; joins by data frame; and, as in all of them,
steps joined with motion on the timestamp alone. One session serves all five, where Glue starts one a job.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession


def main(landing: Path, out: Path) -> None:
    spark = (
        SparkSession.builder.master("local[*]")
        .appName("stedi")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.memory", "4g")
        .getOrCreate()
    )

    def landed(feed: str) -> DataFrame:
        return spark.read.json(f"{landing}/{feed}")

    def keep(frame: DataFrame, table: str) -> None:
        frame.write.mode("overwrite").parquet(f"{out}/{table}")

    def kept(table: str) -> DataFrame:
        return spark.read.parquet(f"{out}/{table}")

    customers = landed("customer")
    keep(customers.filter("shareWithResearchAsOfDate is not null"), "customers_trusted")

    motion = landed("accelerometer")
    agreed = kept("customers_trusted").select("email").distinct()
    joined = motion.join(agreed, motion["user"] == agreed["email"])
    keep(joined.drop("email").dropDuplicates(), "accelerometer_trusted")

    trusted, moved = kept("customers_trusted"), kept("accelerometer_trusted")
    joined = trusted.join(moved, trusted["email"] == moved["user"])
    keep(joined.drop("user", "timestamp", "x", "y", "z").dropDuplicates(), "customers_curated")

    steps, curated = landed("step_trainer"), kept("customers_curated").select("serialNumber").distinct()
    keep(steps.join(curated, "serialNumber").dropDuplicates(), "step_trainer_trusted")

    steps, moved = kept("step_trainer_trusted"), kept("accelerometer_trusted")
    joined = steps.join(moved, steps["sensorReadingTime"] == moved["timestamp"])
    keep(
        joined.select("user", "sensorReadingTime", "distanceFromObject", "x", "y", "z"),
        "machine_learning_curated",
    )
    spark.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
