"""Finds or starts a Spark session for a lake: quiet, in UTC, with the lake's Iceberg catalog under the name `stedi`.

Under `spark-submit` and on AWS Glue, Spark is already running and has its jars. Elsewhere it is started here, on this
machine only, with the jars that are named or that Maven has fetched.
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
from stedi.errors import LakeError, MissingExtra, needing

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

JARS = "STEDI_SPARK_JARS"
"""The environment variable with the paths of the jars, separated like those in PATH."""
CATALOG = "stedi"
"""The name of the lake's catalog in SQL: its tables are `stedi.stedi.<table>`."""
ICEBERG = "org.apache.iceberg:iceberg-spark-runtime-4.1_2.13:1.11.0"
SQLITE = "org.xerial:sqlite-jdbc:3.50.3.0"
AWS = "org.apache.iceberg:iceberg-aws-bundle:1.11.0"

_JVM = "spark.driver.extraJavaOptions"
_LATER = (
    "-XX:Tier4InvocationThreshold=50000",
    "-XX:Tier4MinInvocationThreshold=6000",
    "-XX:Tier4CompileThreshold=150000",
    "-XX:Tier4BackEdgeThreshold=400000",
)
"""Ten times as many calls and loops as usual before Java's second compiler compiles a method."""

_ALWAYS = {
    "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.caseSensitive": "false",
    "spark.sql.requireAllClusterKeysForCoPartition": "false",  # joins by customer reuse the partitions by customer
    # the texts of plans are made for every statement, and nobody reads them
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
"""For a Spark that is started here: it is not reachable from outside this machine."""


def session(
    lake: str | Path | None = None,
    *,
    master: str = "local[*]",
    options: Mapping[str, str] | None = None,
    with_s3: bool = False,
    brief: bool = False,
) -> SparkSession:
    """Returns a new session of the running Spark, or starts Spark; sessions of several lakes are isolated.

    Each session has its own temporary views and settings. `DataFrame.mapInArrow` requires pandas, which is not needed
    here: see `mapped`. A landing table has a column `_file`, a name that Iceberg reserves. Spark refuses to read such
    a table through a catalog, so the engine reads pinned files instead (`SparkEngine.bind_files`).

    Args:
        lake: The lake's folder, or `s3://bucket/prefix`; its tables are then `stedi.stedi.<table>`.
        master: Where Spark runs, if it is started here.
        options: Further settings of Spark; start-up settings have an effect only if Spark is started here.
        with_s3: Whether a Spark that is started here must read and write S3 objects, even if the lake is not in S3.
        brief: Whether a Spark that is started here runs many statements over few rows each.

    Raises:
        MissingExtra: Java, PySpark or Iceberg's jar is missing.
        LakeError: Spark does not start.
    """
    with_dataframes()
    with needing("PySpark", "spark", "Spark"):
        from pyspark import SparkContext
        from pyspark.sql import SparkSession
    settings = {**_ALWAYS, **(options or {})}
    # these loggers write every failed statement to stderr, including its values
    for name in ("SQLQueryContextLogger", "DataFrameQueryContextLogger"):
        logging.getLogger(name).disabled = True
    if SparkContext._active_spark_context is None and "PYSPARK_GATEWAY_PORT" not in os.environ:
        settings = {**_LOCAL, **settings, **_started(master, with_s3 or _on_s3(lake))}
        settings[_JVM] = " ".join([settings[_JVM], *_flags((options or {}).get(_JVM, ""), brief)])
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
    """Returns the settings of a lake's Iceberg catalog; a key is the part of the setting's name after the catalog name.

    A local lake's catalog is its own SQLite file; the catalog of a lake on S3 is the Glue Data Catalog.
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
    """Returns a catalog's settings for the endpoints of S3 and Glue.

    The AWS SDK for Java does not read all environment variables for them.
    """
    settings = {}
    everywhere = os.environ.get("AWS_ENDPOINT_URL")
    for service, setting in (("S3", "s3.endpoint"), ("GLUE", "glue.endpoint")):
        endpoint = os.environ.get(f"AWS_ENDPOINT_URL_{service}", everywhere)
        if endpoint:
            settings[setting] = endpoint
    if "s3.endpoint" in settings:  # emulators serve one host, not one host per bucket
        settings["s3.path-style-access"] = "true"
    return settings


def jars(*artifacts: str) -> tuple[Path, ...] | None:
    """Returns the jars that STEDI_SPARK_JARS names or, if it is not set, those of artifacts that Maven has fetched.

    Returns:
        The paths; None if one is missing.

    Raises:
        MissingExtra: A path in STEDI_SPARK_JARS is not a file.
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
    """Returns the settings with which Spark is started here."""
    home = os.environ.get("JAVA_HOME")
    if not (Path(home, "bin/java").is_file() if home else shutil.which("java")):
        raise MissingExtra(
            "Spark needs Java 17, which was not found: install it (Debian, Ubuntu: apt install "
            "openjdk-17-jre-headless), or set JAVA_HOME"
        )
    # workers must run the driver's Python; that of an environment that is not activated is not on PATH
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    # PySpark would search next to the current folder first and run the Spark that it finds there
    os.environ.setdefault("SPARK_HOME", _home())
    quiet = Path(__file__).with_name("log4j2.properties")
    mask = os.umask(0o077)
    os.umask(mask)
    settings = {
        "spark.master": master,
        "spark.hadoop.fs.permissions.umask-mode": f"{mask:03o}",  # Hadoop has its own umask
        "spark.executorEnv.PYTHONSAFEPATH": "1",  # else `python -m` puts the current folder on a worker's path
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
    """Returns the folder of the Spark that PySpark contains."""
    import pyspark

    found = Path(pyspark.__file__).parent
    beside = found / "spark-distribution"
    return str(beside if (beside / "bin" / "spark-submit").is_file() else found)


def _flags(given: str, brief: bool) -> list[str]:
    """Returns further flags of the JVM: the given ones, and a garbage collector and compiler unless chosen already.

    Pauses do not matter here: the parallel collector, which pauses for all of its work, saved a tenth of a build's
    time and half of its memory. Brief work ends before what Java's second compiler spends on it is regained. In a
    build, too, it spent a quarter of the CPU time, half of that on code that ran little more.
    """
    chosen = given + " ".join(os.environ.get(name, "") for name in ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS"))
    collector = [] if re.search(r"-XX:\+Use\w+GC\b", chosen) else ["-XX:+UseParallelGC"]
    compiler = ["-XX:TieredStopAtLevel=1"] if brief else _LATER
    return [*collector, *(compiler if "Tier" not in chosen else ()), *given.split()]


def _check_iceberg(spark: SparkSession) -> None:
    """Raises MissingExtra if Iceberg is not on Spark's class path."""
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
    # if executors share the driver's JVM, this writes no .crc files: tables have their own checksums
    jvm.org.apache.hadoop.fs.FileSystem.getLocal(spark._jsc.hadoopConfiguration()).setWriteChecksum(False)
