"""Delta targets for tests: loads as the runs of one pipeline make them."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession

from spark_entry.adapters.base import Column, TargetState, WriteCounts, WriteRequest
from spark_entry.adapters.databricks import DatabricksAdapter
from spark_entry.adapters.delta_table import columns_of
from spark_entry.ledger import LedgerEntry
from sync_core.domain.connection import Connection
from sync_core.domain.pipeline import Target
from sync_core.domain.run import RunKind
from sync_core.domain.watermark import CursorType, Watermark

BOUND = Watermark(CursorType.TIMESTAMP, "2030-01-01T00:00:00")


def adapter(spark: SparkSession, lake: Path) -> DatabricksAdapter:
    """An adapter in a session of its own."""
    connection = Connection("lake", "databricks", path=str(lake))
    return DatabricksAdapter(connection, spark.newSession(), lambda _scope, _key: "")


def rows_of(spark: SparkSession, *rows: tuple[int, str | None, str | None]) -> DataFrame:
    def text(value: str | None) -> str:
        return "CAST(NULL AS string)" if value is None else f"'{value}'"

    values = ", ".join(f"({key}, {text(name)}, CAST({text(at)} AS timestamp_ntz))" for key, name, at in rows)
    return spark.sql(f"SELECT * FROM VALUES {values} AS t(id, name, at)")


@dataclass
class Loader:
    """Loads frames into one target as the runs of one pipeline would."""

    adapter: DatabricksAdapter
    target: Target = Target("lake", "orders")
    cursor: str | None = "at"
    pipeline: str = "orders"
    events: list[str] = field(default_factory=list[str])

    @property
    def spark(self) -> SparkSession:
        return self.adapter.spark

    @property
    def table(self) -> str:
        return self.adapter.tables.sql_of(self.target.table)

    def state(self) -> TargetState:
        return self.adapter.inspect_target(self.target, self.pipeline)

    def rows(self, *rows: tuple[int, str | None, str | None]) -> DataFrame:
        return rows_of(self.spark, *rows)

    def create(self, frame: DataFrame, *keys: str) -> None:
        statements = self.adapter.create_statements(self.target, columns_of(frame, {}), keys)
        self.adapter.prepare_target(self.target, self.pipeline, statements)

    def evolve(self, *, added: tuple[Column, ...] = (), widened: tuple[Column, ...] = ()) -> None:
        statements = self.adapter.evolve_statements(self.target, added, widened)
        self.adapter.prepare_target(self.target, self.pipeline, statements)

    def request(
        self,
        frame: DataFrame,
        *keys: str,
        kind: RunKind = RunKind.INCREMENTAL,
        bound: Watermark | None = BOUND,
        generation: int | None = None,
        event: Callable[..., None] | None = None,
    ) -> WriteRequest:
        state = self.state()
        after = state.ledger.generation + 1 if state.ledger else 1
        return WriteRequest(
            frame=frame,
            target=self.target,
            state=state,
            kind=kind,
            keys=keys,
            cursor=self.cursor,
            read_bound=bound if self.cursor else None,
            expected=state.ledger,
            entry=LedgerEntry(
                self.pipeline,
                0,
                generation or after,
                BOUND,
                secrets.token_hex(32),
                kind,
                "fingerprint",
                columns=tuple(frame.columns),
            ),
            execution=secrets.token_hex(8),
            rows_expected=lambda: 0,
            event=event or (lambda name, **_fields: self.events.append(name)),
        )

    def load(
        self,
        frame: DataFrame,
        *keys: str,
        kind: RunKind = RunKind.INCREMENTAL,
        bound: Watermark | None = BOUND,
    ) -> WriteCounts:
        return self.adapter.write_data(self.request(frame, *keys, kind=kind, bound=bound))

    def sql(self, statement: str) -> None:
        """As another person: in a session of their own. TABLE stands for the target."""
        self.spark.newSession().sql(statement.replace("TABLE_NAME", self.table)).collect()

    def held(self) -> list[tuple[object, ...]]:
        """The target's rows as the engine reads them, sorted."""
        return sorted(
            (tuple(row) for row in self.adapter.read_target(self.target, self.state(), None).collect()), key=repr
        )
