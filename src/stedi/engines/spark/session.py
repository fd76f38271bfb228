"""A Spark session for a lake: found or started, quiet, in UTC, with the lake's Iceberg catalog under the name `stedi`.

Under `spark-submit`, and on AWS Glue, Spark runs already and has its jars; elsewhere it is started here, on this
machine alone, with the jars that are named or that Maven has fetched.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stedi._startup import with_dataframes
from stedi.errors import LakeError, MissingExtra

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

JARS = "STEDI_SPARK_JARS"
"""Holds the paths of the jars, divided as those of PATH are."""
CATALOG = "stedi"
"""The name of the lake's catalog in SQL: its tables are `stedi.stedi.<table>`."""
ICEBERG = "org.apache.iceberg:iceberg-spark-runtime-4.1_2.13:1.11.0"
SQLITE = "org.xerial:sqlite-jdbc:3.50.3.0"
AWS = "org.apache.iceberg:iceberg-aws-bundle:1.11.0"

_JVM = "spark.driver.extraJavaOptions"

_ALWAYS = {
    "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.caseSensitive": "false",
    "spark.sql.requireAllClusterKeysForCoPartition": "false",  # what lies together by customer is joined as it lies
    # nobody reads the texts of plans, and they are made for every statement
    "spark.sql.maxPlanStringLength": "65536",
    "spark.sql.ui.explainMode": "simple",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}
_LOCAL = {
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.memory": "4g",
    "spark.sql.shuffle.partitions": "8",
}
"""For a Spark that is started here: nobody outside of this machine reaches it."""


def session(
    lake: str | Path | None = None,
    *,
    master: str = "local[*]",
    options: Mapping[str, str] | None = None,
    with_s3: bool = False,
) -> SparkSession:
    """Returns a session of the running Spark, or of one that is started; sessions of several lakes do not meet.

    Temporary views and settings are the session's own. `DataFrame.mapInArrow` asks for pandas, which nothing here
    needs: see `mapped`. A landing table has a column `_file`, a name that Iceberg reserves: Spark refuses to read it
    through a catalog, so the engine reads pinned files instead (`SparkEngine.bind`).

    Args:
        lake: The lake's folder, or `s3://bucket/prefix`; its tables are then `stedi.stedi.<table>`.
        master: Where Spark runs, if it is started here.
        options: Further settings of Spark; those that Spark reads only when it starts count only then.
        with_s3: Whether it has to read and write objects of S3, if it is started here, whatever the lake is.

    Raises:
        MissingExtra: There is no Java, no PySpark, or no jar of Iceberg.
        LakeError: Spark does not start.
    """
    with_dataframes()
    try:
        from pyspark import SparkContext
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise MissingExtra("Spark needs PySpark, which is not installed: pip install 'stedi[spark]'") from error
    settings = {**_ALWAYS, **(options or {})}
    # these log every failed statement to stderr, values and all
    for name in ("SQLQueryContextLogger", "DataFrameQueryContextLogger"):
        logging.getLogger(name).disabled = True
    if SparkContext._active_spark_context is None and "PYSPARK_GATEWAY_PORT" not in os.environ:
        settings = {**_LOCAL, **settings, **_started(master, with_s3 or _on_s3(lake))}
        settings[_JVM] = " ".join([settings[_JVM], *_flags((options or {}).get(_JVM, ""))])
    builder = SparkSession.builder.appName("stedi")
    for name, value in settings.items():
        builder = builder.config(name, value)
    try:
        running = builder.getOrCreate()
    except Exception as error:
        raise LakeError(f"Spark did not start ({type(error).__name__}); it runs on Java 17 or 21") from error
    running.sparkContext.setLogLevel("OFF")
    own = running.newSession()
    for name, value in {**_ALWAYS, **(options or {})}.items():
        if own.conf.isModifiable(name):
            own.conf.set(name, value)
    _check_iceberg(own)
    if lake is not None:
        attach(own, lake)
    return own


def attach(spark: SparkSession, lake: str | Path) -> None:
    """Makes a lake's tables known to a session as `stedi.stedi.<table>`.

    Args:
        spark: A session that has not used its catalog `stedi` yet.
        lake: The lake's folder, or `s3://bucket/prefix`.
    """
    for name, value in catalog_settings(lake).items():
        spark.conf.set(f"spark.sql.catalog.{CATALOG}{name and '.' + name}", value)


def catalog_settings(lake: str | Path) -> dict[str, str]:
    """Returns what Iceberg's catalog of a lake is told, by the part of the setting's name after the catalog's.

    A local lake's catalog is its own SQLite file; one on S3 is the Glue Data Catalog.
    """
    settings = {"": "org.apache.iceberg.spark.SparkCatalog", "cache-enabled": "false"}
    if not _on_s3(lake):
        root = Path(lake).absolute()
        return {
            **settings,
            "catalog-impl": "org.apache.iceberg.jdbc.JdbcCatalog",
            "uri": f"jdbc:sqlite:{root}/catalog.db?busy_timeout=30000",
            "jdbc.schema-version": "V1",
            "warehouse": f"file://{root}",
        }
    settings |= {
        "catalog-impl": "org.apache.iceberg.aws.glue.GlueCatalog",
        "io-impl": "org.apache.iceberg.aws.s3.S3FileIO",
        "warehouse": str(lake).rstrip("/"),
    }
    return settings | file_settings()


def file_settings() -> dict[str, str]:
    """Returns what a catalog is told of where S3 and Glue are; the SDK for Java does not read it from all variables."""
    settings = {}
    everywhere = os.environ.get("AWS_ENDPOINT_URL")
    for service, setting in (("S3", "s3.endpoint"), ("GLUE", "glue.endpoint")):
        endpoint = os.environ.get(f"AWS_ENDPOINT_URL_{service}", everywhere)
        if endpoint:
            settings[setting] = endpoint
    if "s3.endpoint" in settings:  # emulators serve one host, not one a bucket
        settings["s3.path-style-access"] = "true"
    return settings


def jars(*artifacts: str) -> tuple[Path, ...] | None:
    """Returns the jars of Maven artifacts: those that STEDI_SPARK_JARS names, or else those that Maven has fetched.

    Returns:
        The paths; None if one is missing.

    Raises:
        MissingExtra: A path in STEDI_SPARK_JARS is no file.
    """
    named = os.environ.get(JARS)
    if named is not None:
        paths = tuple(Path(path) for path in named.split(os.pathsep) if path)
        for path in paths:
            if not path.is_file():
                raise MissingExtra(f"{JARS}: expected paths of jars, found no file at {path}")
        return paths
    found = []
    for artifact in artifacts:
        group, name, version = artifact.split(":")
        path = Path.home() / ".m2/repository" / group.replace(".", "/") / name / version / f"{name}-{version}.jar"
        if not path.is_file():
            return None
        found.append(path)
    return tuple(found)


def _on_s3(lake: str | Path | None) -> bool:
    return lake is not None and str(lake).startswith(("s3://", "s3a://"))


def _started(master: str, with_s3: bool) -> dict[str, str]:
    """Returns what a Spark is started with here."""
    home = os.environ.get("JAVA_HOME")
    if not (Path(home, "bin/java").is_file() if home else shutil.which("java")):
        raise MissingExtra(
            "Spark needs Java 17, which was not found: install it (Debian, Ubuntu: apt install "
            "openjdk-17-jre-headless), or set JAVA_HOME"
        )
    # workers run what the driver runs; an environment without a name of its own is not on PATH
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    # PySpark would look beside the current folder first, and run what it finds there
    os.environ.setdefault("SPARK_HOME", _home())
    quiet = Path(__file__).with_name("log4j2.properties")
    mask = os.umask(0o077)
    os.umask(mask)
    settings = {
        "spark.master": master,
        "spark.hadoop.fs.permissions.umask-mode": f"{mask:03o}",  # Hadoop sets modes by a mask of its own
        "spark.executorEnv.PYTHONSAFEPATH": "1",  # workers are `python -m`: the current folder is not on their path
        _JVM: f"-Dlog4j2.configurationFile={quiet}",
    }
    found = jars(ICEBERG, SQLITE)
    if found is not None and with_s3 and JARS not in os.environ:
        aws = jars(AWS)
        found = None if aws is None else (*found, *aws)
    if found:
        path = os.pathsep.join(map(str, found))
        settings |= {"spark.driver.extraClassPath": path, "spark.executor.extraClassPath": path}
    return settings


def _home() -> str:
    """Returns the Spark that PySpark brings along."""
    import pyspark

    found = Path(pyspark.__file__).parent
    beside = found / "spark-distribution"
    return str(beside if (beside / "bin" / "spark-submit").is_file() else found)


def _flags(given: str) -> list[str]:
    """Returns further flags of the JVM: those that are given, and a collector unless one is chosen somewhere.

    Pauses matter to nobody here: the one that stops for all of its work saved a tenth of a build's time, and half of
    its memory.
    """
    chosen = given + " ".join(os.environ.get(name, "") for name in ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS"))
    return [*([] if re.search(r"-XX:\+Use\w+GC\b", chosen) else ["-XX:+UseParallelGC"]), *given.split()]


def _check_iceberg(spark: SparkSession) -> None:
    """Raises MissingExtra if Spark's class path has no Iceberg."""
    jvm: Any = spark._jvm
    try:
        jvm.java.lang.Class.forName(
            "org.apache.iceberg.spark.SparkCatalog", False, jvm.Thread.currentThread().getContextClassLoader()
        )
    except Exception as error:
        wanted = " and ".join((ICEBERG, SQLITE))
        raise MissingExtra(
            f"Spark needs Iceberg's jar, which was not found: fetch {wanted} with `mvn dependency:get -Dartifact=...`, "
            f"or name the jars in {JARS}"
        ) from error
    # where executors share the driver's JVM, no file gets a .crc beside it: tables have checksums of their own
    jvm.org.apache.hadoop.fs.FileSystem.getLocal(spark._jsc.hadoopConfiguration()).setWriteChecksum(False)
