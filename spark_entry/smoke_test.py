"""Does this workspace really move rows? One pipeline between two small generated Delta tables, through the engine itself.

It loads, loads again after changes, and a third time when there is nothing new, and compares rows, counts, watermark,
ledger and audit rows with what they must be. Tables and run folders are made for it and removed afterwards.
"""

from __future__ import annotations

import argparse
import json
import secrets as randomness
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pyspark.sql import SparkSession

from spark_entry.adapters.databricks import DatabricksAdapter
from spark_entry.adapters.delta_table import DeltaTables
from spark_entry.dialects.databricks import quote
from spark_entry.events import JsonLines, send_to, take_standard_output, write_event
from spark_entry.ledger import LedgerEntry
from spark_entry.local_session import build_session
from spark_entry.main import read_manifest, run_batch
from spark_entry.secrets import Secrets, find_secrets, secret_keys
from sync_core.domain.codec import from_json, to_json
from sync_core.domain.connection import Connection
from sync_core.domain.errors import PermanentError, SyncError
from sync_core.domain.pipeline import Cursor, LoadMode, Pipeline, Source, Target
from sync_core.domain.run import (
    AuditPlace,
    Manifest,
    Outcome,
    RowCounts,
    RunKind,
    RunOrder,
    RunResult,
    make_batch_id,
    make_run_key,
)
from sync_core.domain.watermark import CursorType, Watermark

PIPELINE = "uds_smoke_test"

PREFIX = "uds_smoke_"

ROWS, CHANGED, ADDED = 1000, 20, 30
"""Rows of the first load; rows changed and rows added before the second."""

LOADS = 3

LEFT_BEHIND = timedelta(days=1)
"""Tables this old are of a smoke test that was killed."""

_STAMP = "%Y%m%d%H%M%S"


@dataclass(frozen=True)
class Place:
    """Where the smoke test works: tables in `catalog`.`schema`, run folders in `folder`, a path to the engine."""

    catalog: str
    schema: str
    folder: Path

    @property
    def connection(self) -> Connection:
        return Connection("smoke", "databricks", catalog=self.catalog, schema=self.schema)


@dataclass
class Findings:
    """What came out otherwise than it must, one sentence each."""

    sentences: list[str] = field(default_factory=list[str])

    def expect(self, what: str, found: object, wanted: object) -> None:
        """Note it when `found` is not what was wanted."""
        if found != wanted:
            self.sentences.append(f"{what} must be {wanted}, but is {found}")


def main(arguments: list[str] | None = None) -> None:
    """Move rows in `--catalog`, `--schema` and `--folder`. Raises SyncError that says what came out wrong."""
    asked = parse(arguments)
    send_to(JsonLines(take_standard_output()))
    spark = build_session([], "uds smoke test")
    if asked.secret_scope:
        require_scope(asked.secret_scope, secret_keys)
    move_rows(spark, Place(asked.catalog, asked.schema, asked.folder), find_secrets(), datetime.now(UTC))
    write_event("smoke.passed", rows=ROWS + ADDED)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The job's parameters."""
    parser = argparse.ArgumentParser(
        prog="uds-smoke-test", description="Move generated rows and check every count.", allow_abbrev=False
    )
    parser.add_argument("--catalog", required=True, help="the catalog of the audit tables")
    parser.add_argument("--schema", required=True, help="the schema of the audit tables")
    parser.add_argument("--folder", required=True, type=Path, help="the folder of the run folders, in a volume")
    parser.add_argument("--secret-scope", default="", help="a secret scope that must be readable; empty: none")
    return parser.parse_args(arguments)


def require_scope(scope: str, keys: Callable[[str], object]) -> None:
    """Raises PermanentError when the run's principal may not list the keys of a secret scope."""
    try:
        keys(scope)
    except Exception as error:
        raise PermanentError(
            "smoke.secret_scope",
            f"The secret scope {scope} cannot be read by the principal that runs the jobs.",
            f"Create it, or grant that principal READ: databricks secrets put-acl {scope} APPLICATION_ID READ.",
        ) from error


def move_rows(spark: SparkSession, place: Place, secrets: Secrets, now: datetime) -> None:
    """The whole test at the time `now`. Raises PermanentError with every fault that was found."""
    tables = DeltaTables(place.connection, spark)
    drop_left_behind(tables, place, now)
    stamp = f"{PREFIX}{now.strftime(_STAMP)}_{randomness.token_hex(4)}"
    pipeline = make_pipeline(f"{stamp}_source", f"{stamp}_target")
    runner = Runner(spark, place, secrets, pipeline)
    findings = Findings()
    with tables.faults("target", f"{place.catalog}.{place.schema}"):
        try:
            _load_three_times(runner, tables, findings)
            if len(runner.results) == LOADS:
                _check_records(runner, tables, findings)
        finally:
            runner.clean()
            for name in (f"{stamp}_source", f"{stamp}_target"):
                tables.sql(f"DROP TABLE IF EXISTS {tables.sql_of(name)}").collect()
    if findings.sentences:
        raise PermanentError(
            "smoke.failed", f"The smoke test failed: {'; '.join(findings.sentences)}.", "See the log for each load."
        )


def make_pipeline(source: str, target: str) -> Pipeline:
    """The pipeline that is run, by the column `changed_at` and the key `id`."""
    return Pipeline(
        PIPELINE,
        Source("smoke", source),
        Target("smoke", target),
        LoadMode.MERGE,
        Cursor("changed_at", CursorType.TIMESTAMP),
        ("id",),
    )


def drop_left_behind(tables: DeltaTables, place: Place, now: datetime) -> None:
    """Drop tables of smoke tests that were killed. Raises PermanentError when there is no schema to look into."""
    try:
        found = tables.sql(f"SHOW TABLES IN {quote(place.catalog)}.{quote(place.schema)} LIKE '{PREFIX}*'").collect()
    except Exception as error:
        raise PermanentError(
            "smoke.schema",
            f"The schema {place.catalog}.{place.schema} is not there, or the principal that runs the jobs may not use it.",
            "Deploy the bundle, and grant that principal USE CATALOG on the catalog.",
        ) from error
    for row in found:
        made = str(row["tableName"]).removeprefix(PREFIX).partition("_")[0]
        if made.isdigit() and made < (now - LEFT_BEHIND).strftime(_STAMP):
            tables.sql(f"DROP TABLE IF EXISTS {tables.sql_of(row['tableName'])}").collect()


@dataclass
class Runner:
    """Runs one pipeline as the control plane would: each run's manifest holds what the one before reported."""

    spark: SparkSession
    place: Place
    secrets: Secrets
    pipeline: Pipeline
    results: list[RunResult] = field(default_factory=list[RunResult])

    @property
    def source(self) -> str:
        return self.pipeline.source.table or ""

    @property
    def target(self) -> str:
        return self.pipeline.target.table

    def run(self) -> RunResult:
        """One batch with one run. Raises PermanentError when it left no result."""
        run_key = make_run_key(PIPELINE, f"{self.target} {len(self.results)}", 1)
        order = RunOrder(run_key, self.pipeline, RunKind.INCREMENTAL)
        if self.results:
            last = self.results[-1]
            order = RunOrder(
                run_key,
                self.pipeline,
                RunKind.INCREMENTAL,
                epoch=last.epoch,
                generation=last.generation,
                watermark=last.watermark,
            )
        batch_id = make_batch_id([run_key])
        audit = AuditPlace(self.place.catalog, self.place.schema)
        manifest = Manifest(batch_id, {"smoke": self.place.connection}, (order,), audit=audit)
        folder = self.place.folder / batch_id
        path = folder / "manifest.json"
        try:
            folder.mkdir(parents=True)
            path.write_text(json.dumps(to_json(manifest)), encoding="utf-8")
        except OSError as error:
            raise PermanentError(
                "smoke.folder",
                f"The run folder {self.place.folder} cannot be written: {error.strerror or error}.",
                "Deploy the bundle, and grant the principal that runs the jobs READ VOLUME and WRITE VOLUME.",
            ) from error
        run_batch(self.spark, read_manifest(path), path, self.secrets)
        result = _read_result(folder / "results" / f"{run_key}.json")
        self.results.append(result)
        return result

    def clean(self) -> None:
        """Remove the run folders."""
        for order in range(len(self.results) + 1):
            batch_id = make_batch_id([make_run_key(PIPELINE, f"{self.target} {order}", 1)])
            shutil.rmtree(self.place.folder / batch_id, ignore_errors=True)

    def ledger(self) -> LedgerEntry | None:
        """The target's own record, read by nobody's report."""
        adapter = DatabricksAdapter(self.place.connection, self.spark.newSession(), self.secrets.get)
        return adapter.inspect_target(self.pipeline.target, PIPELINE).ledger


def _read_result(path: Path) -> RunResult:
    try:
        return from_json(RunResult, json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise PermanentError("smoke.no_result", f"The engine left no result in {path}.", "See its log.") from error


def _load_three_times(runner: Runner, tables: DeltaTables, findings: Findings) -> None:
    """Load, change and load, load when nothing is new. Stops after the first load that failed."""
    source = tables.sql_of(runner.source)
    rows = "SELECT id, concat('row ', id) AS name, TIMESTAMP_NTZ '2024-01-01 00:00:00' + make_dt_interval(0, 0, 0, id)"
    tables.sql(f"CREATE TABLE {source} USING delta AS {rows} AS changed_at FROM range({ROWS})").collect()
    steps = (
        ("the first load", Outcome.SUCCEEDED, RowCounts(read=ROWS, inserted=ROWS), 1, "2024-01-01T00:16:39"),
        ("the second load", Outcome.SUCCEEDED, RowCounts(0, ADDED, CHANGED), 2, "2024-02-01T00:00:01"),
        ("the third load", Outcome.UNCHANGED, RowCounts(), 2, "2024-02-01T00:00:01"),
    )
    for number, (what, state, counts, generation, watermark) in enumerate(steps):
        if number == 1:
            later = "TIMESTAMP_NTZ '2024-02-01 00:00:0{}'"
            tables.sql(
                f"UPDATE {source} SET name = 'changed', changed_at = {later.format(0)} WHERE id < {CHANGED}"
            ).collect()
            added = f"SELECT id, 'added', {later.format(1)} FROM range({ROWS}, {ROWS + ADDED})"
            tables.sql(f"INSERT INTO {source} {added}").collect()
        result = runner.run()
        if result.error is not None:
            findings.sentences.append(f"{what} failed: {result.error.message} {result.error.remedy}".strip())
            return
        findings.expect(f"the state of {what}", result.state.value, state.value)
        for name in ("inserted", "updated", "deleted"):
            findings.expect(f"rows {name} by {what}", getattr(result.rows, name), getattr(counts, name))
        if number == 0:
            findings.expect(f"rows read by {what}", result.rows.read, counts.read)
        findings.expect(f"the generation after {what}", result.generation, generation)
        findings.expect(f"the watermark after {what}", result.watermark, Watermark(CursorType.TIMESTAMP, watermark))
    for one, other, what in ((runner.source, runner.target, "missing in"), (runner.target, runner.source, "only in")):
        difference = f"SELECT * FROM {tables.sql_of(one)} EXCEPT ALL SELECT * FROM {tables.sql_of(other)}"
        (row,) = tables.sql(f"SELECT count(*) AS rows FROM ({difference})").collect()
        findings.expect(f"the number of rows {what} the target", row["rows"], 0)


def _check_records(runner: Runner, tables: DeltaTables, findings: Findings) -> None:
    """The ledger in the target, and the audit rows, which nothing else would miss."""
    last = runner.results[1]
    ledger = runner.ledger()
    found = (ledger.generation, ledger.run_key, ledger.watermark) if ledger else None
    findings.expect("the target's ledger", found, (2, last.run_key, last.watermark))
    batches = ", ".join(f"'{result.batch_id}'" for result in runner.results)
    keys = ", ".join(f"'{result.run_key}'" for result in runner.results)
    for name, condition, wanted in (
        ("sync_runs", f"batch_id IN ({batches})", len(runner.results)),
        ("sync_watermarks", f"run_key IN ({keys})", 2),
    ):
        try:
            (row,) = tables.sql(f"SELECT count(*) AS rows FROM {tables.sql_of(name)} WHERE {condition}").collect()
        except Exception as error:
            findings.sentences.append(
                f"the audit table {name} cannot be read: {str(error).partition(chr(10))[0][:300]}"
            )
        else:
            findings.expect(f"the number of rows of this test in {name}", row["rows"], wanted)


if __name__ == "__main__":
    try:
        main()
    except SyncError as error:
        sys.exit(str(error))
