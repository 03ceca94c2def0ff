"""The Spark session: the cluster's own on Databricks, a local one with Delta Lake elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pyspark
from pyspark.errors import PySparkRuntimeError
from pyspark.sql import SparkSession

from spark_entry.local_jars import find_jars
from sync_core.domain.errors import PermanentError

DELTA = {"4.0": "io.delta:delta-spark_2.13:4.0.0", "4.1": "io.delta:delta-spark_2.13:4.1.0"}
"""Delta Lake's coordinate by Spark version; from 4.2 on it carries Spark's version in its name."""

UTC_NAMES = ("UTC", "Etc/UTC", "Z", "GMT")

LOGGING = """rootLogger.level = warn
rootLogger.appenderRef.stderr.ref = stderr
appender.stderr.type = Console
appender.stderr.name = stderr
appender.stderr.target = SYSTEM_ERR
appender.stderr.layout.type = PatternLayout
appender.stderr.layout.pattern = %d{HH:mm:ss} %p %c{1}: %m%n%ex{1}
"""


def build_session(packages: Iterable[str], application: str) -> SparkSession:
    """A session in UTC. `packages` are Maven coordinates of JDBC drivers, needed only where a local session is built.

    Raises PermanentError `engine.time_zone` when session or JVM are in another zone.
    """
    if "DATABRICKS_RUNTIME_VERSION" in os.environ:
        spark = SparkSession.builder.getOrCreate()
    else:
        spark = _local(sorted({delta_package(), *packages}), application)
    require_utc(spark)
    return spark


def delta_package() -> str:
    """The Maven coordinate of Delta Lake for the installed pyspark."""
    version = ".".join(pyspark.__version__.split(".")[:2])
    return DELTA.get(version, f"io.delta:delta-spark_{version}_2.13:4.4.0")


def driver_memory() -> str:
    """A quarter of this machine's memory, from 1 to 8 GiB; UDS_DRIVER_MEMORY says otherwise."""
    asked = os.environ.get("UDS_DRIVER_MEMORY")
    if asked:
        return asked
    mebibytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    return f"{min(8192, max(1024, mebibytes // 4))}m"


def _local(packages: list[str], application: str) -> SparkSession:
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "universal-data-sync"
    folder.mkdir(parents=True, exist_ok=True)
    # On the JVM's own class path, not as spark.jars: nothing is resolved or copied at each start.
    jars = find_jars(packages, folder)
    logging = folder / "log4j2.properties"
    if not logging.exists() or logging.read_text(encoding="utf-8") != LOGGING:
        logging.write_text(LOGGING, encoding="utf-8")
    java = f"-Duser.timezone=UTC -Dlog4j2.configurationFile={logging.as_uri()} -Dderby.system.home={folder}"
    java = f"{java} {os.environ.get('UDS_JAVA_OPTIONS', '')}".strip()
    builder = SparkSession.builder.appName(application).master(os.environ.get("UDS_SPARK_MASTER", "local[*]"))
    settings = {
        "spark.driver.extraClassPath": os.pathsep.join(map(str, jars)),
        "spark.driver.memory": driver_memory(),
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.extraJavaOptions": java,
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.ansi.enabled": "true",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        # Small tables on one machine: Delta's own default computes a snapshot in 50 tasks, and planning anew
        # after each shuffle costs a quarter of a small merge.
        "spark.databricks.delta.snapshotPartitions": "2",
        "spark.sql.adaptive.enabled": "false",
        "spark.sql.shuffle.partitions": str(max(2, os.cpu_count() or 2)),
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
    }
    for name, value in settings.items():
        builder = builder.config(name, value)
    try:
        return builder.getOrCreate()
    except (PySparkRuntimeError, OSError) as error:
        raise PermanentError(
            "engine.start",
            "Spark did not start here.",
            "Java 17 or later must be on the PATH; the log says what failed.",
        ) from error


def require_utc(spark: SparkSession) -> None:
    """Refuse any zone but UTC: values without a zone would shift on their way (P9)."""
    session = spark.conf.get("spark.sql.session.timeZone")
    default = "SELECT java_method('java.time.ZoneId', 'systemDefault')"
    zone = str(spark.sql(default).collect()[0][0])  # pyright: ignore[reportUnknownMemberType]
    if session in UTC_NAMES and zone in UTC_NAMES:
        return
    raise PermanentError(
        "engine.time_zone",
        f"Spark runs in the time zone {session}, its JVM in {zone}; both must be UTC.",
        "Set spark.sql.session.timeZone UTC, and -Duser.timezone=UTC in spark.driver.extraJavaOptions and "
        "spark.executor.extraJavaOptions.",
    )
