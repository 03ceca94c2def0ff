"""Our side of the comparison: the engine's batch, in process, as `uds run` starts it."""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from typing import Any, cast

from pyspark.sql import SparkSession

from spark_entry.adapters.registry import known_driver_packages
from spark_entry.batch import Batch
from spark_entry.local_session import build_session
from spark_entry.secrets import Secrets, find_secrets
from sync_core.demo.servers import PostgresServer
from sync_core.domain.connection import Connection, SecretReference
from sync_core.domain.pipeline import Cursor, LoadMode, Pipeline, Source, Target
from sync_core.domain.run import Manifest, Outcome, RunKind, RunOrder, RunResult
from sync_core.domain.watermark import CursorType

SECRET = SecretReference("bench", "pg")


def make_pipeline() -> Pipeline:
    """`orders` merged on its key, by the time of the last change."""
    cursor = Cursor("updated_at", CursorType.TIMESTAMP, timezone="UTC")
    return Pipeline(
        "orders", Source("shop", "public.orders"), Target("lake", "orders"), LoadMode.MERGE, cursor, ("id",)
    )


def make_connections(port: int, lake: str) -> dict[str, Connection]:
    """The server on loopback and a folder."""
    shop = Connection(
        "shop", "postgresql", host="127.0.0.1", port=port, database="postgres", username="sync", secret=SECRET
    )
    return {"shop": shop, "lake": Connection("lake", "databricks", path=lake)}


def run_once(spark: SparkSession, connections: dict[str, Connection], secrets: Secrets, kind: RunKind) -> RunResult:
    """One run of the pipeline. Raises RuntimeError when it did not succeed: a failed run is quick."""
    request = str(uuid.uuid4())
    order = RunOrder(uuid.uuid4().hex * 2, make_pipeline(), kind, request_id=request)
    result = Batch(spark, Manifest(request, connections, (order,)), secrets, lambda _: None).run()[0]
    if result.state is not Outcome.SUCCEEDED:
        raise RuntimeError(f"the run ended as {result.state.value}: {result.error}")
    return result


class Ours:
    """A full refresh, and the merge that follows it."""

    def __init__(self, spark: SparkSession, server: PostgresServer, path: Path) -> None:
        self._spark = spark
        self._connections = make_connections(server.port, str(path))
        self._secrets = Secrets({SECRET.environment_variable: server.password})

    def copy(self) -> None:
        run_once(self._spark, self._connections, self._secrets, RunKind.FULL_REFRESH)

    def merge(self) -> None:
        run_once(self._spark, self._connections, self._secrets, RunKind.INCREMENTAL)


def copy_once(rows: int, port: int, folder: str) -> None:
    """A full refresh in an engine of its own; prints the greatest resident memory of its JVM in KiB."""
    spark = build_session(known_driver_packages(), "bench")
    result = run_once(spark, make_connections(port, folder), find_secrets(), RunKind.FULL_REFRESH)
    if result.rows.read != rows:
        raise RuntimeError(f"{result.rows.read} rows were read instead of {rows}")
    machine = cast("Any", spark).sparkContext._jvm
    pid = machine.java.lang.ProcessHandle.current().pid()
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    if peak is None:
        raise RuntimeError("this system does not tell the peak memory of a process")
    print(peak[1])
