"""Many pipelines in one Spark application: each in a session of its own, none able to fail its neighbours."""

from __future__ import annotations

import logging
import secrets as randomness
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from spark_entry.adapters.base import DatabaseAdapter
from spark_entry.adapters.registry import adapter_for
from spark_entry.audit import Done, write_audit
from spark_entry.compute_faults import compute_fault
from spark_entry.engine import execute
from spark_entry.events import write_event
from spark_entry.execution import Execution
from spark_entry.report import describe, report
from spark_entry.secrets import Secrets
from spark_entry.stops import Stops, StopSignal
from spark_entry.turns import Turns
from sync_core.domain.codec import to_json
from sync_core.domain.errors import SyncError
from sync_core.domain.run import Action, Manifest, Outcome, RunOrder, RunResult, Seen
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
    # Else a part of the plan that is or turns out empty is cut off, and with it the counts of the rows that were read.
    "spark.sql.adaptive.optimizer.excludedRules": "org.apache.spark.sql.execution.adaptive.AQEPropagateEmptyRelation",
    "spark.sql.optimizer.excludedRules": ",".join(
        f"org.apache.spark.sql.catalyst.optimizer.{rule}" for rule in ("PruneFilters", "PropagateEmptyRelation")
    ),
    # The meaning of the word TIMESTAMP, of names and of casts is ours, whatever the cluster has set (P9).
    "spark.sql.timestampType": "TIMESTAMP_LTZ",
    "spark.sql.caseSensitive": "false",
    "spark.sql.storeAssignmentPolicy": "ANSI",
}
"""What every pipeline's session is set to."""


class Batch:
    """Runs the orders of one manifest and hands each result to `save` as soon as it is there.

    `stop_folder` is where a file named like a run asks it to stop; None: nobody can.
    """

    def __init__(
        self,
        spark: SparkSession,
        manifest: Manifest,
        secrets: Secrets,
        save: Callable[[RunResult], None],
        stop_folder: Path | None = None,
    ) -> None:
        self._spark = spark
        self._manifest = manifest
        self._secrets = secrets
        self._save = save
        limits = {
            name: connection.max_concurrent
            for name, connection in manifest.connections.items()
            if connection.max_concurrent is not None
        }
        self._turns = Turns(min(THREADS, max(1, len(manifest.runs))), limits)
        self._stops = Stops(stop_folder, manifest.batch_id, manifest.runs, self._turns.give)

    def run(self) -> list[RunResult]:
        """Run every order, then write the audit rows; results in the manifest's order."""
        orders = self._manifest.runs
        settling = [order for order in orders if self._must_settle(order)]
        with self._stops, self._turns:
            noted = {order.run_key: self._add(order, self._note_maximum) for order in settling}
            running = {order.run_key: self._add(order, self._one) for order in orders if order not in settling}
            if settling:
                seen = {order.run_key: noted[order.run_key].result() for order in settling}
                self._wait_until_settled(settling)
                for order in settling:
                    running[order.run_key] = self._add(replace(order, seen=seen[order.run_key]), self._one)
            done = [running[order.run_key].result() for order in orders]
        if self._manifest.audit is not None and self._manifest.action is Action.RUN:
            write_audit(
                self._spark,
                self._manifest.audit,
                self._manifest.batch_id,
                done,
                datetime.now(UTC),
                self._secrets.redact,
            )
        return [one.result for one in done]

    def stop(self) -> None:
        """The engine must end: end every run that has not committed. Returns at once; `run` returns soon."""
        self._stops.stop_all()

    def _add[T](self, order: RunOrder, work: Callable[[RunOrder], T]) -> Future[T]:
        pipeline, signal = order.pipeline, self._stops.signals[order.run_key]

        def needs() -> tuple[str, ...]:
            # A run that does not begin any more only reads its ledger.
            return pipeline.connections if signal.reason is None else (pipeline.target.connection,)

        return self._turns.add(needs, partial(work, order))

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
        signal = self._stops.signals[order.run_key]
        with signal.running():
            try:
                signal.check()
                source = self._adapter(order.pipeline.source.connection, self._session(signal))
                signal.attach_worker(source)
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
        """Wait for the longest `settle`, or until every run that needs it has been stopped."""
        seconds = max(order.pipeline.cursor.settle_seconds for order in settling if order.pipeline.cursor)
        write_event(
            "settle.waiting",
            batch_id=self._manifest.batch_id,
            seconds=seconds,
            pipelines=[order.pipeline.pipeline_id for order in settling],
        )
        end = time.monotonic() + seconds
        for order in settling:
            self._stops.signals[order.run_key].asked.wait(max(0.0, end - time.monotonic()))

    def _one(self, order: RunOrder) -> Done:
        pipeline, signal = order.pipeline, self._stops.signals[order.run_key]
        event = partial(
            write_event,
            pipeline=pipeline.pipeline_id,
            run_key=order.run_key,
            batch_id=self._manifest.batch_id,
            trace=order.trace or None,
        )
        if signal.reason is None:
            event("run.started", kind=order.kind.value, attempt=order.attempt)
        started = datetime.now(UTC)
        adapters: list[DatabaseAdapter] = []
        with signal.running():
            try:
                session = self._session(signal)
                adapters += [self._adapter(pipeline.source.connection, session)]
                adapters += [self._adapter(pipeline.target.connection, session)]
                for adapter in adapters:
                    signal.attach_worker(adapter)
                execution = Execution(
                    order,
                    self._manifest.batch_id,
                    adapters[0],
                    adapters[1],
                    randomness.token_hex(8),
                    lambda: datetime.now(UTC),
                    partial(_event_or_stop, signal, event),
                )
                done = self._execute(execution, signal, started)
            except Exception as error:
                done = Done(self._failed(order, error, started))
            finally:
                for adapter in adapters:
                    adapter.close()
        result = done.result
        self._save(result)
        event("result.written")
        summary = {
            key: value for key, value in to_json(result).items() if key in ("kind", "watermark", "rows", "error")
        }
        event("run.finished", state=result.state.value, seconds=result.seconds.total, **summary)
        return done

    def _execute(self, execution: Execution, signal: StopSignal, started: datetime) -> Done:
        action = self._manifest.action
        outcome, failure = None, None
        try:
            signal.check()
            outcome = execute(execution, action)
        except Exception as error:
            LOG.info("run of %s failed", execution.order.pipeline.pipeline_id, exc_info=True)
            failure = error
        signal.end()
        if failure is not None and signal.reason is not None:
            failure = signal.reason
            # What was interrupted may be broken; the ledger is read over a new connection.
            execution.source.close()
            execution.target.close()
        result = report(execution, action, outcome, failure, started, self._secrets.redact)
        return Done(result, execution.committed)

    def _session(self, signal: StopSignal) -> SparkSession:
        """A session of its own, whose settings are ours and whose jobs can be interrupted."""
        session = self._spark.newSession()
        for name, value in SETTINGS.items():
            session.conf.set(name, value)
        signal.attach(session)
        return session

    def _adapter(self, connection: str, session: SparkSession) -> DatabaseAdapter:
        known = self._manifest.connections[connection]
        adapter = adapter_for(known.type)(known, session, self._secrets.get)
        adapter.hide = self._secrets.hide
        return adapter

    def _failed(self, order: RunOrder, error: Exception, started: datetime) -> RunResult:
        """The result of a run whose adapters could not even be made, or whose Spark is gone: nothing can be asked of it."""
        if not isinstance(error, SyncError):
            LOG.exception("run of %s failed", order.pipeline.pipeline_id)
        fault = error if isinstance(error, SyncError) else compute_fault(error)
        told = describe(order.pipeline.pipeline_id, error, fault, self._secrets.redact)
        return RunResult(
            order.pipeline.pipeline_id, order.run_key, self._manifest.batch_id, order.kind, order.attempt, Outcome.FAILED,
            order.request_id, error=told, started_at=started, finished_at=datetime.now(UTC),
        )  # fmt: skip


def _event_or_stop(signal: StopSignal, write: Callable[..., None], event: str, **fields: Any) -> None:
    """Write an event of the run; the next step is not begun when the run must stop. A commit that is done stays done."""
    write(event, **fields)
    if event != "commit.done":
        signal.check()
