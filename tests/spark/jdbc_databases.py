"""The three JDBC databases as the tests use them: PostgreSQL itself, H2 in Oracle's and in SQL Server's place."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql import functions as F

from spark_entry.adapters.base import Column, Relation, WriteCounts, WriteRequest
from spark_entry.adapters.jdbc import JdbcAdapter
from spark_entry.adapters.registry import adapter_for
from spark_entry.ledger import LedgerEntry
from sync_core.demo import servers
from sync_core.demo.servers import H2Server, PostgresServer
from sync_core.domain.connection import Connection, SecretReference
from sync_core.domain.pipeline import ReadOptions, Source, Target
from sync_core.domain.run import RunKind
from sync_core.domain.watermark import CursorType, Watermark

KINDS = ("postgresql", "oracle", "azure_sql")
MODE_SCRIPTS = {"oracle": "oracle_mode.sql", "azure_sql": "sqlserver_mode.sql"}
BOUND = Watermark(CursorType.TIMESTAMP, "2024-06-01T00:00:00")


@dataclass
class Database:
    """One empty database (a schema in PostgreSQL) behind its adapter."""

    kind: str
    connection: Connection
    spark: SparkSession
    password: str
    adapters: list[JdbcAdapter] = field(default_factory=list[JdbcAdapter])

    def adapter(self, **changes: object) -> JdbcAdapter:
        """A new adapter, as each run has its own."""
        connection = replace(self.connection, **changes)  # pyright: ignore[reportArgumentType]
        adapter = adapter_for(self.kind)(connection, self.spark, lambda _scope, _key: self.password)
        assert isinstance(adapter, JdbcAdapter)
        self.adapters.append(adapter)
        return adapter

    def run(self, *statements: str) -> None:
        adapter = self.adapter()
        for statement in statements:
            adapter.held.execute(statement)
        adapter.close()

    def rows(self, query: str) -> list[tuple[str | None, ...]]:
        adapter = self.adapter()
        found = adapter.held.query(query)
        adapter.close()
        return found

    def name(self, table: str) -> str:
        """The quoted name of a table, as SQL needs it."""
        adapter = self.adapter()
        schema = self.connection.schema or adapter.held.current_schema() or ""
        adapter.close()
        return adapter.dialect.table(schema, table)

    def close(self) -> None:
        for adapter in self.adapters:
            adapter.close()


def open_database(kind: str, spark: SparkSession, postgres: PostgresServer, h2: H2Server) -> Database:
    """A database of its own for one test."""
    token = f"t{secrets.token_hex(5)}"
    secret = SecretReference("tests", kind)
    if kind == "postgresql":
        postgres.execute(f"CREATE SCHEMA {token}")
        connection = Connection(
            "pg",
            kind,
            "127.0.0.1",
            postgres.port,
            postgres.database,
            username=postgres.username,
            secret=secret,
            schema=token,
        )
        return Database(kind, connection, spark, postgres.password)
    url = h2.oracle_url(token) if kind == "oracle" else h2.sql_server_url(token)
    script = (Path(servers.__file__).parent / MODE_SCRIPTS[kind]).read_text()
    h2.execute(url, script)
    options = {"url": url, "driver": "org.h2.Driver"}
    return Database(
        kind, Connection(kind, kind, username=h2.username, secret=secret, options=options), spark, h2.password
    )


def read(adapter: JdbcAdapter, table: str, condition: str | None = None, parts: int | None = None) -> DataFrame:
    """Every column of a table, as a run reads it."""
    relation = adapter.describe_source(Source("x", table=table), {})
    plan = adapter.plan_read(relation, relation.columns, None, condition, ReadOptions(partitions=parts))
    return adapter.read_data(plan)


def describe(adapter: JdbcAdapter, table: str, **types: str) -> Relation:
    return adapter.describe_source(Source("x", table=table), types)


def columns_of(frame: DataFrame) -> tuple[Column, ...]:
    return tuple(
        Column(column.name, column.dataType.simpleString(), "", column.nullable) for column in frame.schema.fields
    )


@dataclass
class Loader:
    """Loads frames into one target as the runs of one pipeline would."""

    adapter: JdbcAdapter
    target: Target
    cursor: str | None = None
    pipeline: str = "orders"
    events: list[str] = field(default_factory=list[str])

    def create(self, frame: DataFrame, *keys: str) -> None:
        statements = self.adapter.create_statements(self.target, columns_of(frame), keys)
        self.adapter.prepare_target(self.target, self.pipeline, statements)

    def request(
        self,
        frame: DataFrame,
        *keys: str,
        kind: RunKind = RunKind.INCREMENTAL,
        rows: Callable[[int], int] = lambda rows: rows,
        bound: Watermark | None = BOUND,
    ) -> WriteRequest:
        state = self.adapter.inspect_target(self.target, self.pipeline)
        observed = Observation()
        generation = state.ledger.generation if state.ledger else 0
        entry = LedgerEntry(
            self.pipeline,
            0,
            generation + 1,
            BOUND,
            secrets.token_hex(32),
            kind,
            "fingerprint",
            columns=tuple(frame.columns),
        )
        return WriteRequest(
            frame=frame.observe(observed, F.count(F.lit(1)).alias("rows")),
            target=self.target,
            state=state,
            kind=kind,
            keys=keys,
            cursor=self.cursor,
            read_bound=bound if self.cursor else None,
            expected=state.ledger,
            entry=entry,
            execution=secrets.token_hex(8),
            rows_expected=lambda: rows(int(observed.get["rows"])),
            event=lambda name, **_fields: self.events.append(name),
        )

    def load(self, frame: DataFrame, *keys: str, kind: RunKind = RunKind.INCREMENTAL) -> WriteCounts:
        return self.adapter.write_data(self.request(frame, *keys, kind=kind))

    def held_rows(self) -> list[tuple[object, ...]]:
        """The target's rows as the engine reads them, sorted."""
        state = self.adapter.inspect_target(self.target, self.pipeline)
        rows = [tuple(row) for row in self.adapter.read_target(self.target, state, None).collect()]
        return sorted(rows, key=repr)

    def staging_tables(self) -> list[str]:
        schema = self.adapter.connection.schema or self.adapter.held.current_schema() or ""
        return self.adapter.held.tables_like(schema, "uds_stg_")
