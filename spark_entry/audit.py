"""Two Delta tables for analysts: `sync_runs`, a row a run, and `sync_watermarks`, a row a commit.

They are copies for people. Nothing in the product reads them: a run's truth is its target's ledger.

Each batch appends once to each table, blindly, so that batches never conflict, under a Delta transaction of its own
(`uds/audit/<batch_id>`, version 1): a batch that is executed again in place finds its rows written, and Delta skips the
append. A MERGE on run_key would do the same, but conflicts with every other batch, and costs more as the table grows.
One transaction id for all batches would need versions that rise in the order of commits, which batches at once have not.
Delta forgets these ids after TRANSACTIONS_KEPT, when the batch's folder, without which it cannot be executed, is gone.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from spark_entry.adapters.delta_table import DeltaTables, condition_of, is_conflict, is_creation_conflict, is_missing
from spark_entry.events import write_event
from spark_entry.ledger import LedgerEntry
from sync_core.domain.codec import to_json
from sync_core.domain.connection import Connection
from sync_core.domain.errors import SyncError
from sync_core.domain.run import AuditPlace, RunResult
from sync_core.domain.watermark import Watermark

LOG = logging.getLogger("uds.engine")

Redact = Callable[[str], str]

RUNS = {
    "run_date": "DATE",
    "pipeline_id": "STRING",
    "run_key": "STRING",
    "batch_id": "STRING",
    "kind": "STRING",
    "attempt": "INT",
    "request_id": "STRING",
    "state": "STRING",
    "epoch": "BIGINT",
    "generation": "BIGINT",
    "counted_generation": "BIGINT",
    "watermark_type": "STRING",
    "watermark": "STRING",
    "window_low": "STRING",
    "window_high": "STRING",
    "window_read_bound": "STRING",
    "rows_read": "BIGINT",
    "rows_inserted": "BIGINT",
    "rows_updated": "BIGINT",
    "rows_deleted": "BIGINT",
    "rows_null_cursor": "BIGINT",
    "rows_null_keys": "BIGINT",
    "rows_future": "BIGINT",
    "rows_older": "BIGINT",
    "seconds_total": "DOUBLE",
    "seconds": "MAP<STRING, DOUBLE>",
    "schema_changes": "ARRAY<STRING>",
    "notes": "ARRAY<STRING>",
    "error_code": "STRING",
    "error_kind": "STRING",
    "error_message": "STRING",
    "error_remedy": "STRING",
    "started_at": "TIMESTAMP",
    "finished_at": "TIMESTAMP",
    "engine_version": "STRING",
}
"""Columns of `sync_runs`."""

WATERMARKS = {
    "commit_date": "DATE",
    "pipeline_id": "STRING",
    "epoch": "BIGINT",
    "generation": "BIGINT",
    "watermark_type": "STRING",
    "watermark": "STRING",
    "run_key": "STRING",
    "committed_at": "TIMESTAMP",
}
"""Columns of `sync_watermarks`."""

TABLES: Mapping[str, Mapping[str, str]] = {"sync_runs": RUNS, "sync_watermarks": WATERMARKS}
"""The first column of each is the one it is partitioned by."""

TRANSACTIONS_KEPT = "interval 60 days"

ATTEMPTS = 6
"""Only the creation of a table, or of a column that a later release added, can conflict: it is tried again."""

_TXN = ("spark.databricks.delta.write.txnAppId", "spark.databricks.delta.write.txnVersion")


@dataclass(frozen=True)
class Done:
    """A run that is over, with the ledger's entry of its commit, None when it committed nothing."""

    result: RunResult
    entry: LedgerEntry | None = None


def write_audit(
    spark: SparkSession, place: AuditPlace, batch_id: str, done: Sequence[Done], now: datetime, redact: Redact
) -> None:
    """Append the batch's rows and delete those that are too old. A failure is the event `audit.failed`, never an error."""
    rows = {
        "sync_runs": [run_row(one.result, now, redact) for one in done],
        "sync_watermarks": [watermark_row(one.entry) for one in done if one.entry is not None],
    }
    connection = Connection("audit", "databricks", catalog=place.catalog, schema=place.schema, path=place.path)
    oldest = (now - timedelta(days=place.kept_days)).date()
    for name, columns in TABLES.items():
        try:
            tables = DeltaTables(connection, spark.newSession())
            with tables.faults("target", name):
                _append(tables, name, columns, batch_id, rows[name])
                _forget(tables, name, next(iter(columns)), oldest, now.date())
        except Exception as error:
            LOG.warning("audit rows of batch %s could not be written to %s", batch_id, name, exc_info=True)
            code = error.code if isinstance(error, SyncError) else "audit.internal"
            why = (error.message if isinstance(error, SyncError) else str(error)).splitlines() or [""]
            message = redact(f"The batch's audit rows are not in {name}: {why[0][:500]}")
            write_event("audit.failed", batch_id=batch_id, table=name, code=code, message=message)


def run_row(result: RunResult, now: datetime, redact: Redact) -> dict[str, Any]:
    """One row of `sync_runs`; `now` dates a run that has no end."""
    rows = {f"rows_{name}": count for name, count in to_json(result.rows).items()}
    window, error = result.window, result.error
    return {
        "run_date": (result.finished_at or now).astimezone(UTC).date().isoformat(),
        "pipeline_id": result.pipeline_id,
        "run_key": result.run_key,
        "batch_id": result.batch_id,
        "kind": result.kind.value,
        "attempt": result.attempt,
        "request_id": result.request_id,
        "state": result.state.value,
        "epoch": result.epoch,
        "generation": result.generation,
        "counted_generation": result.counted_generation,
        **_watermark(result.watermark),
        "window_low": _value(window.low) if window else None,
        "window_high": _value(window.high) if window else None,
        "window_read_bound": _value(window.read_bound) if window else None,
        **rows,
        "seconds_total": result.seconds.total,
        "seconds": dict(result.seconds.steps),
        "schema_changes": [redact(text) for text in result.schema_changes],
        "notes": [redact(text) for text in result.notes],
        "error_code": error.code if error else None,
        "error_kind": error.kind if error else None,
        "error_message": redact(error.message) if error else None,
        "error_remedy": redact(error.remedy) if error else None,
        "started_at": to_json(result.started_at),
        "finished_at": to_json(result.finished_at),
        "engine_version": engine_version(),
    }


def watermark_row(entry: LedgerEntry) -> dict[str, Any]:
    """One row of `sync_watermarks`: the ledger's entry."""
    return {
        "commit_date": (entry.committed_at or "")[:10] or None,
        "pipeline_id": entry.pipeline_id,
        "epoch": entry.epoch,
        "generation": entry.generation,
        **_watermark(entry.watermark),
        "run_key": entry.run_key,
        "committed_at": entry.committed_at,
    }


def engine_version() -> str | None:
    """The release of this wheel; None when it is not installed as one."""
    try:
        return version("universal-data-sync")
    except PackageNotFoundError:
        return None


def _watermark(watermark: Watermark | None) -> dict[str, str | None]:
    return {"watermark_type": watermark.type.value if watermark else None, "watermark": _value(watermark)}


def _value(watermark: Watermark | None) -> str | None:
    return watermark.value if watermark else None


def _append(
    tables: DeltaTables, name: str, columns: Mapping[str, str], batch_id: str, rows: list[dict[str, Any]]
) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            if tables.detail(tables.sql_of(name), name) is None:
                tables.sql(_create(tables, name, columns))
            if rows:
                _write(tables, name, columns, batch_id, rows)
        except Exception as error:
            if condition_of(error) == "DELTA_CONCURRENT_TRANSACTION":
                # Another execution of this very batch has just written them.
                return
            # Missing: another batch is about to create it, and has made its folder.
            if attempt == ATTEMPTS or not (is_conflict(error) or is_creation_conflict(error) or is_missing(error)):
                raise
            time.sleep(0.2 * attempt)
        else:
            return


def _create(tables: DeltaTables, name: str, columns: Mapping[str, str]) -> str:
    listed = ", ".join(f"{column} {kind}" for column, kind in columns.items())
    return (
        f"CREATE TABLE IF NOT EXISTS {tables.sql_of(name)} ({listed}) USING delta PARTITIONED BY ({next(iter(columns))}) "
        f"TBLPROPERTIES ('delta.setTransactionRetentionDuration' = '{TRANSACTIONS_KEPT}')"
    )


def _write(
    tables: DeltaTables, name: str, columns: Mapping[str, str], batch_id: str, rows: list[dict[str, Any]]
) -> None:
    # From one text: rows of Python objects would start a Python worker on the executors.
    shape = ", ".join(f"{column}: {kind}" for column, kind in columns.items())
    parsed = F.from_json(F.lit(json.dumps(rows)), f"ARRAY<STRUCT<{shape}>>", {"mode": "FAILFAST"})
    frame = tables.sql("SELECT 1 AS one").select(parsed.alias("rows")).selectExpr("inline(rows)")
    writer = frame.write.format("delta").mode("append").option("mergeSchema", "true")
    writer = writer.option("txnAppId", f"uds/audit/{batch_id}").option("txnVersion", "1")
    path = tables.path_of(name)
    if path is not None:
        writer.save(path)
    else:
        writer.saveAsTable(tables.sql_of(name))


def _forget(tables: DeltaTables, name: str, column: str, oldest: date, today: date) -> None:
    """Delete rows from before `oldest`; once a day, for Delta skips a transaction version that it has seen.

    A DELETE that finds nothing is not committed: it looks at the partitions' names alone.
    """
    transaction = ("uds/audit/forget", str(today.toordinal()))
    try:
        for setting, value in zip(_TXN, transaction, strict=True):
            tables.spark.conf.set(setting, value)
        tables.sql(f"DELETE FROM {tables.sql_of(name)} WHERE {column} < DATE '{oldest.isoformat()}'")
    except Exception as error:
        if condition_of(error) != "DELTA_CONCURRENT_TRANSACTION" and not is_conflict(error):
            raise
        # Another engine is doing the same.
        LOG.info("old rows of %s are deleted by another engine", name)
    finally:
        for setting in _TXN:
            tables.spark.conf.unset(setting)
