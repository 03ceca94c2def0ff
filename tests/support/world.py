"""A source in PostgreSQL, a target of each kind, and the real flows around the real engine, in this process.

One batch runs many pipelines: a test asks for its pipelines in every target and mode it means to prove, runs them
together, and compares rows exactly.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import reduce
from pathlib import Path
from typing import Any

import psycopg
from pyspark.sql import DataFrame, SparkSession

from spark_entry.batch import Batch
from spark_entry.events import EVENTS
from spark_entry.main import read_manifest, write_result
from spark_entry.secrets import Secrets
from sync_core.adapters.local_launcher import LocalLauncher
from sync_core.adapters.local_run_folder import LocalRunFolder
from sync_core.adapters.sqlite_store import SqliteStore
from sync_core.by_hand import App
from sync_core.demo.servers import PostgresServer
from sync_core.domain.connection import Connection, SecretReference
from sync_core.domain.pipeline import Cursor, LoadMode, Pipeline, Source, Target
from sync_core.domain.run import PipelineRecord, Range, RunKind, RunResult
from sync_core.domain.watermark import CursorType, Watermark
from sync_core.ports import EventHandler, LaunchState, LaunchStatus
from sync_core.retention import Retention

KINDS = ("delta", "postgresql")
MODES = (LoadMode.MERGE, LoadMode.INCREMENTAL, LoadMode.FULL_REFRESH)
SECRET = SecretReference("tests", "pg")

Rows = Counter[tuple[str | None, ...]]
Listener = Callable[[str, Mapping[str, Any]], None]


class Killed(BaseException):
    """Ends a run at an event as nothing in the engine may survive: no `except Exception` sees it."""


class InProcessLauncher(LocalLauncher):
    """The engine's batch in this process, with the session it is given. Killed is taken for the process's death."""

    def __init__(self, folder: Path, spark: SparkSession, environment: Mapping[str, str]) -> None:
        super().__init__(folder, ())
        self._spark = spark
        self._environment = environment

    def launch(self, batch_id: str, manifest: str, compute: str = "default") -> str:
        path = Path(manifest)
        results = path.parent / "results"
        results.mkdir(exist_ok=True)
        (path.parent / "engine.lock").touch()
        with suppress(Killed):
            Batch(
                self._spark,
                read_manifest(path),
                Secrets(self._environment),
                lambda result: write_result(results, result),
                path.parent / "stop",
            ).run()
        return batch_id

    def follow(self, launch_id: str, on_event: EventHandler) -> LaunchState:
        return LaunchState(LaunchStatus.ENDED, "the engine was killed")


class Events(logging.Filter):
    """Hands every event to its listeners, from within the event: what they raise ends the run there.

    A filter rather than a handler: handlers hold a lock, so that a listener that waits would stop every pipeline.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, Any]]] = []
        self.listeners: list[Listener] = []

    def filter(self, record: logging.LogRecord) -> bool:
        event, fields = record.__dict__["event"], record.__dict__["fields"]
        self.seen.append((event, fields))
        for listener in tuple(self.listeners):
            listener(event, fields)
        return True

    def of(self, event: str, pipeline: str) -> list[dict[str, Any]]:
        return [fields for name, fields in self.seen if name == event and fields.get("pipeline") == pipeline]

    @contextmanager
    def listening(self, listener: Listener) -> Generator[None]:
        self.listeners.append(listener)
        try:
            yield
        finally:
            self.listeners.remove(listener)


@contextmanager
def watch_events() -> Generator[Events]:
    """Every event of the engine in this process, while the block lasts."""
    events, level, propagate = Events(), EVENTS.level, EVENTS.propagate
    EVENTS.addFilter(events)
    EVENTS.setLevel(logging.INFO)
    EVENTS.propagate = False
    try:
        yield events
    finally:
        EVENTS.removeFilter(events)
        EVENTS.setLevel(level)
        EVENTS.propagate = propagate


@dataclass
class World:
    """One test's source schema, lake, target schema and state folder."""

    spark: SparkSession
    postgres: PostgresServer
    folder: Path
    events: Events
    source: str = field(default_factory=lambda: f"s{secrets.token_hex(5)}")
    target: str = field(default_factory=lambda: f"t{secrets.token_hex(5)}")
    connections: dict[str, Connection] = field(default_factory=dict[str, Connection])
    secrets: dict[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        self.sql(f"CREATE SCHEMA {self.source}", f"CREATE SCHEMA {self.target}")
        server = self.postgres
        pg = Connection(
            "pg", "postgresql", "127.0.0.1", server.port, server.database, username=server.username, secret=SECRET
        )
        self.connections |= {
            "pg": replace(pg, schema=self.source),
            "postgresql": replace(pg, name="postgresql", schema=self.target),
            "delta": Connection("delta", "databricks", path=str(self.lake)),
        }

    @property
    def lake(self) -> Path:
        return self.folder / "lake"

    @property
    def environment(self) -> dict[str, str]:
        """Where the engine finds the secrets."""
        return {SECRET.environment_variable: self.postgres.password, **self.secrets}

    # ---- the source

    def sql(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements at the source, where tables need no schema; the last one's rows."""
        rows: list[tuple[Any, ...]] = []
        with self.connect(autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement.encode())
                rows = cursor.fetchall() if cursor.description else []
        return rows

    def connect(self, *, autocommit: bool = False) -> psycopg.Connection[tuple[Any, ...]]:
        """A connection of its own, for transactions that stay open."""
        options = f"-csearch_path={self.source}"
        return psycopg.connect(self.postgres.conninfo, autocommit=autocommit, options=options)

    def orders(self, *rows: tuple[object, str, str], table: str = "orders", key: bool = True) -> None:
        """Create `orders (id, name, at)` with these rows."""
        primary = " PRIMARY KEY" if key else ""
        self.sql(f"CREATE TABLE {table} (id bigint{primary}, name text, at timestamp)")
        self.insert(*rows, table=table)

    def insert(self, *rows: tuple[object, ...], table: str = "orders") -> None:
        if rows:
            places = ", ".join(["%s"] * len(rows[0]))
            with self.connect(autocommit=True) as connection, connection.cursor() as cursor:
                cursor.executemany(f"INSERT INTO {table} VALUES ({places})".encode(), rows)

    # ---- pipelines

    def pipeline(
        self, kind: str, mode: LoadMode = LoadMode.MERGE, table: str = "orders", name: str | None = None, **changes: Any
    ) -> Pipeline:
        """From a table of the source to a target of the same name as the pipeline.

        The cursor is `at` without settle, the key of a merge is `id`; `changes` replace any field.
        """
        pipeline_id = name or f"{table}_{kind}_{mode.value}"
        pipeline = Pipeline(
            pipeline_id,
            Source("pg", table),
            Target(kind, pipeline_id),
            mode,
            Cursor("at", CursorType.TIMESTAMP, settle_seconds=0),
            ("id",) if mode is LoadMode.MERGE else (),
        )
        return replace(pipeline, **changes)

    def pipelines(
        self, *modes: LoadMode, table: str = "orders", kinds: Sequence[str] = KINDS, **changes: Any
    ) -> list[Pipeline]:
        """One for each mode (merge) and kind of target."""
        return [self.pipeline(kind, mode, table, **changes) for mode in modes or (LoadMode.MERGE,) for kind in kinds]

    # ---- runs

    def app(self, state: str = "state") -> App:
        """The control plane of this name, with its own state folder."""
        folder = self.folder / state
        return App(
            store=SqliteStore(folder),
            folder=LocalRunFolder(folder / "runs"),
            launcher=InProcessLauncher(folder / "runs", self.spark, self.environment),
            retention=Retention(),
            now=lambda: datetime.now(UTC),
            new_id=lambda: secrets.token_hex(8),
        )

    def run(
        self,
        *pipelines: Pipeline,
        kind: RunKind = RunKind.INCREMENTAL,
        since: str | None = None,
        until: str | None = None,
        state: str = "state",
    ) -> list[RunResult]:
        """One batch through request, launch and complete; results in the pipelines' order."""

        def mark(pipeline: Pipeline, text: str | None) -> Watermark | None:
            assert pipeline.cursor is not None
            return Watermark.parse(pipeline.cursor.type, text) if text is not None else None

        ranges: dict[str, Range] = {}
        if kind is RunKind.BACKFILL:
            ranges = {one.pipeline_id: Range(mark(one, since), mark(one, until)) for one in pipelines}
        results, refusals = self.app(state).run(
            pipelines, self.connections, lambda _event: None, kind=kind, ranges=ranges
        )
        assert not refusals, refusals
        return results

    def good(self, *pipelines: Pipeline, **arguments: Any) -> list[RunResult]:
        """`run` whose every result must be fine."""
        results = self.run(*pipelines, **arguments)
        for result in results:
            assert result.error is None, result
        return results

    def record(self, pipeline: Pipeline, state: str = "state") -> PipelineRecord:
        return self.app(state).store.load(pipeline.pipeline_id).record

    # ---- rows

    def source_rows(self, table: str = "orders", where: str = "true") -> Rows:
        """A source table's rows as texts, with their multiplicity."""
        return self._rows_of(self.source, table, where)

    def target_rows(self, pipeline: Pipeline) -> Rows:
        """The target's rows as texts, columns in the target's order."""
        return self._all_target_rows([pipeline])[pipeline.pipeline_id]

    def _all_target_rows(self, pipelines: Sequence[Pipeline]) -> dict[str, Rows]:
        """Rows of many targets; those in Delta by one Spark job, which is what takes time."""
        found: dict[str, Rows] = {}
        frames: list[DataFrame] = []
        for pipeline in pipelines:
            if pipeline.target.connection == "delta":
                frame = self.delta(pipeline)
                texts = ", ".join(f"CAST(`{name}` AS STRING)" for name in frame.columns)
                frames.append(frame.selectExpr(f"'{pipeline.pipeline_id}' AS pipeline", f"array({texts}) AS texts"))
                found[pipeline.pipeline_id] = Counter()
            else:
                found[pipeline.pipeline_id] = self._rows_of(self.target, pipeline.target.table, "true")
        for row in reduce(DataFrame.unionAll, frames).collect() if frames else ():
            found[row["pipeline"]][tuple(row["texts"])] += 1
        return found

    def delta(self, pipeline: Pipeline) -> DataFrame:
        return self.spark.read.format("delta").load(self.delta_path(pipeline))

    def delta_path(self, pipeline: Pipeline) -> str:
        return str(self.lake / pipeline.target.table)

    def _rows_of(self, schema: str, table: str, where: str) -> Rows:
        columns = self.sql(
            "SELECT column_name, data_type FROM information_schema.columns "
            f"WHERE table_schema = '{schema}' AND table_name = '{table}' ORDER BY ordinal_position"
        )
        names = [
            f"""("{name}"{" AT TIME ZONE 'UTC'" if kind == "timestamp with time zone" else ""})::text"""
            for name, kind in columns
        ]
        return Counter(self.sql(f"SELECT {', '.join(names)} FROM {schema}.{table} WHERE {where}"))

    def assert_equal(self, *pipelines: Pipeline, where: str = "true") -> None:
        """Source and target hold the same rows, each as often."""
        targets = self._all_target_rows(pipelines)
        for pipeline in pipelines:
            table = pipeline.source.table
            assert table is not None
            expected, found = self.source_rows(table, where), targets[pipeline.pipeline_id]
            missing, extra = expected - found, found - expected
            assert not missing, f"{pipeline.pipeline_id} lacks {missing.total()}: {list(missing)[:5]}"
            assert not extra, f"{pipeline.pipeline_id} has {extra.total()} too many: {list(extra)[:5]}"

    def version(self, pipeline: Pipeline) -> str:
        """What changes whenever anything is written to the target."""
        if pipeline.target.connection == "delta":
            return str(max(path.name for path in (Path(self.delta_path(pipeline)) / "_delta_log").glob("*.json")))
        fence = self.sql(
            f"SELECT xmin::text, generation FROM {self.target}.uds_ledger WHERE pipeline_id = '{pipeline.pipeline_id}'"
        )
        rows = self.sql(f"SELECT ctid::text, xmin::text FROM {self.target}.{pipeline.target.table} ORDER BY ctid")
        return json.dumps([fence, rows])

    def staging_tables(self) -> list[str]:
        found = self.sql(
            f"SELECT table_name FROM information_schema.tables WHERE table_schema = '{self.target}' "
            "AND table_name LIKE 'uds_stg_%'"
        )
        return [str(row[0]) for row in found]


class Gate:
    """A listener that stops the first runs that reach an event until it is opened; later ones pass."""

    def __init__(self, event: str, runs: int) -> None:
        self._event = event
        self._wanted = runs
        self._lock = threading.Lock()
        self._full = threading.Event()
        self._open = threading.Event()
        self._held = 0

    def __call__(self, event: str, fields: Mapping[str, Any]) -> None:
        if event != self._event:
            return
        with self._lock:
            self._held += 1
            number = self._held
        if number >= self._wanted:
            self._full.set()
        if number <= self._wanted:
            assert self._open.wait(300), f"nobody let the run go on at {self._event}"

    def wait(self) -> None:
        """Until every run it stops is there."""
        assert self._full.wait(300), f"{self._held} of {self._wanted} runs reached {self._event}"

    def open(self) -> None:
        self._open.set()


def kill_at(event: str, *pipelines: Pipeline) -> Listener:
    """Ends the runs of these pipelines at an event."""
    names = {pipeline.pipeline_id for pipeline in pipelines}

    def listener(name: str, fields: Mapping[str, Any]) -> None:
        if name == event and fields.get("pipeline") in names:
            raise Killed

    return listener
