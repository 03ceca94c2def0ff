"""Many pipelines in one Spark application: each in a session of its own, none able to fail its neighbours."""

from __future__ import annotations

import logging
import secrets as randomness
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from pyspark.sql import SparkSession

from spark_entry.adapters.base import DatabaseAdapter
from spark_entry.adapters.registry import adapter_for
from spark_entry.engine import execute
from spark_entry.events import write_event
from spark_entry.execution import Execution
from spark_entry.report import report
from spark_entry.secrets import Secrets
from sync_core.domain.codec import to_json
from sync_core.domain.errors import SyncError
from sync_core.domain.run import Action, Manifest, Outcome, RunError, RunOrder, RunResult, Seen
from sync_core.domain.watermark import CursorType

LOG = logging.getLogger("uds.engine")

THREADS = 4
"""More pipelines at once give nothing: measured on 2 cores, the driver is the bottleneck."""


SETTINGS = {
    "spark.sql.ansi.enabled": "true",
    # Else a filter on a date between 5 and 14 October 1582 reaches Parquet as a date ten days later.
    "spark.sql.datetime.java8API.enabled": "true",
    # Else a full refresh of a partitioned table would leave the partitions that have no new row.
    "spark.sql.sources.partitionOverwriteMode": "static",
    # The meaning of the word TIMESTAMP, of names and of casts is ours, whatever the cluster has set (P9).
    "spark.sql.timestampType": "TIMESTAMP_LTZ",
    "spark.sql.caseSensitive": "false",
    "spark.sql.storeAssignmentPolicy": "ANSI",
}
"""What every pipeline's session is set to."""


class Batch:
    """Runs the orders of one manifest and hands each result to `save` as soon as it is there."""

    def __init__(
        self, spark: SparkSession, manifest: Manifest, secrets: Secrets, save: Callable[[RunResult], None]
    ) -> None:
        self._spark = spark
        self._manifest = manifest
        self._secrets = secrets
        self._save = save

    def run(self) -> list[RunResult]:
        """Run every order; results in the manifest's order."""
        orders = self._manifest.runs
        settling = [order for order in orders if self._must_settle(order)]
        with ThreadPoolExecutor(max_workers=min(THREADS, max(1, len(orders)))) as pool:
            noted = {order.run_key: pool.submit(self._note_maximum, order) for order in settling}
            running = {order.run_key: pool.submit(self._one, order) for order in orders if order not in settling}
            if settling:
                seen = {order.run_key: noted[order.run_key].result() for order in settling}
                self._wait_until_settled(settling)
                for order in settling:
                    running[order.run_key] = pool.submit(self._one, replace(order, seen=seen[order.run_key]))
            return [running[order.run_key].result() for order in orders]

    def _must_settle(self, order: RunOrder) -> bool:
        """The first load of a number cursor: its maximum is safe only after `settle` (R11b)."""
        cursor = order.pipeline.cursor
        return (
            self._manifest.action is Action.RUN
            and cursor is not None
            and cursor.type is CursorType.NUMBER
            and cursor.settle_seconds > 0
            and order.watermark is None
            and order.seen is None
        )

    def _note_maximum(self, order: RunOrder) -> Seen | None:
        """The cursor's maximum now; None when it cannot be read, which the run itself will report."""
        source: DatabaseAdapter | None = None
        try:
            source = self._adapter(order.pipeline.source.connection, self._spark.newSession())
            relation = source.describe_source(order.pipeline.source, order.pipeline.types)
            cursor = order.pipeline.cursor
            probe = source.probe_cursor(relation, cursor) if cursor else None
            return Seen(probe.highest, probe.clock) if probe and probe.highest else None
        except Exception:
            LOG.warning("the first maximum of %s could not be noted", order.pipeline.pipeline_id, exc_info=True)
            return None
        finally:
            if source is not None:
                source.close()

    def _wait_until_settled(self, settling: list[RunOrder]) -> None:
        seconds = max(order.pipeline.cursor.settle_seconds for order in settling if order.pipeline.cursor)
        write_event("settle.waiting", seconds=seconds, pipelines=[order.pipeline.pipeline_id for order in settling])
        time.sleep(seconds)

    def _one(self, order: RunOrder) -> RunResult:
        pipeline = order.pipeline
        event = partial(
            write_event,
            pipeline=pipeline.pipeline_id,
            run_key=order.run_key,
            batch_id=self._manifest.batch_id,
        )
        event("run.started", kind=order.kind.value, attempt=order.attempt)
        started = datetime.now(UTC)
        adapters: list[DatabaseAdapter] = []
        try:
            session = self._spark.newSession()
            for name, value in SETTINGS.items():
                session.conf.set(name, value)
            adapters += [self._adapter(pipeline.source.connection, session)]
            adapters += [self._adapter(pipeline.target.connection, session)]
            execution = Execution(
                order,
                self._manifest.batch_id,
                adapters[0],
                adapters[1],
                randomness.token_hex(8),
                lambda: datetime.now(UTC),
                event,
            )
            result = self._execute(execution, started)
        except Exception as error:
            result = self._failed(order, error, started)
        finally:
            for adapter in adapters:
                adapter.close()
        self._save(result)
        event("result.written")
        summary = {
            key: value for key, value in to_json(result).items() if key in ("kind", "watermark", "rows", "error")
        }
        event("run.finished", state=result.state.value, seconds=result.seconds.total, **summary)
        return result

    def _execute(self, execution: Execution, started: datetime) -> RunResult:
        action = self._manifest.action
        outcome, failure = None, None
        try:
            outcome = execute(execution, action)
        except Exception as error:
            LOG.info("run of %s failed", execution.order.pipeline.pipeline_id, exc_info=True)
            failure = error
        return report(execution, action, outcome, failure, started, self._secrets.redact)

    def _adapter(self, connection: str, session: SparkSession) -> DatabaseAdapter:
        known = self._manifest.connections[connection]
        return adapter_for(known.type)(known, session, self._secrets.get)

    def _failed(self, order: RunOrder, error: Exception, started: datetime) -> RunResult:
        """The result of a run whose adapters could not even be made."""
        if isinstance(error, SyncError):
            fault = RunError(error.code, error.kind, self._secrets.redact(error.message), error.remedy)
        else:
            LOG.exception("run of %s failed", order.pipeline.pipeline_id)
            fault = RunError(
                "engine.internal", "internal", self._secrets.redact(f"{type(error).__name__}: {error}"), ""
            )
        return RunResult(
            order.pipeline.pipeline_id, order.run_key, self._manifest.batch_id, order.kind, order.attempt, Outcome.FAILED,
            order.request_id, error=fault, started_at=started, finished_at=datetime.now(UTC),
        )  # fmt: skip
