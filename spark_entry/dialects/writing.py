"""The statements of a JDBC commit, in SQL text. Staging columns are c0, c1, ... in the order of the written columns."""

from __future__ import annotations

from dataclasses import dataclass

from spark_entry.dialects.base import Dialect
from spark_entry.dialects.carrier import NativeType
from sync_core.domain.watermark import Watermark

LEDGER = "uds_ledger"
LEDGER_RUNS = "uds_ledger_runs"


@dataclass(frozen=True)
class Written:
    """A column that is written: its name in the target, the target's type, and its name in staging."""

    name: str
    native: NativeType
    staged: str


@dataclass(frozen=True)
class Load:
    """One load from staging into the target. `keys` () appends; `cursor` is the column that tells which row is newer."""

    dialect: Dialect
    target: str
    staging: str
    columns: tuple[Written, ...]
    keys: tuple[Written, ...] = ()
    cursor: Written | None = None
    read_bound: Watermark | None = None

    def count_staging(self) -> str:
        return f"SELECT COUNT(*) FROM {self.staging}"

    def delete_all(self) -> str:
        # Not TRUNCATE, which commits by itself or locks readers out: they are to see the old table until the commit (P15).
        return f"DELETE FROM {self.target}"

    def insert(self) -> str:
        """New rows: all of staging, or those whose key the target does not hold."""
        staged = ", ".join(f"s.{self.dialect.quote(column.staged)}" for column in self.columns)
        statement = self.dialect.insert(self.target, [column.name for column in self.columns])
        statement += f" SELECT {staged} FROM {self.staging} s"
        if self.keys:
            statement += f" WHERE NOT EXISTS (SELECT 1 FROM {self.target} t WHERE {self._same_key('t', 's')})"
        return statement

    def update(self) -> str | None:
        """Rows the target holds and whose staged row is not older and differs; None when there is nothing but the key."""
        others = [column for column in self.columns if column not in self.keys]
        if not others:
            return None
        differs = self.dialect.differs(
            [
                ("t." + self.dialect.quote(column.name), "s." + self.dialect.quote(column.staged), column.native)
                for column in others
            ]
        )
        condition = " AND ".join(filter(None, [self._newer(), differs]))
        return self.dialect.update(
            self.target,
            self.staging,
            [(self.dialect.quote(column.name), self.dialect.quote(column.staged)) for column in others],
            [(self.dialect.quote(column.name), self.dialect.quote(column.staged)) for column in self.keys],
            condition,
        )

    def count_older(self) -> str | None:
        """Rows of staging that are left alone because the target's are newer."""
        newer = self._newer()
        if newer is None:
            return None
        return f"SELECT COUNT(*) FROM {self.staging} s INNER JOIN {self.target} t ON {self._same_key('t', 's')} WHERE NOT ({newer})"

    def _same_key(self, target: str, staged: str) -> str:
        quote = self.dialect.quote
        return " AND ".join(f"{target}.{quote(key.name)} = {staged}.{quote(key.staged)}" for key in self.keys)

    def _newer(self) -> str | None:
        """R14: the staged cursor is at least the target's, which may be NULL, or the target's lies above the read bound."""
        if self.cursor is None or not self.keys:
            return None
        there, here = f"t.{self.dialect.quote(self.cursor.name)}", f"s.{self.dialect.quote(self.cursor.staged)}"
        ways = [f"{there} IS NULL", f"({here} IS NOT NULL AND {here} >= {there})"]
        if self.read_bound is not None:
            ways.append(f"{there} > {self.dialect.literal(self.read_bound, self.cursor.native)}")
        return f"({' OR '.join(ways)})"


@dataclass(frozen=True)
class LedgerTables:
    """The target's own record (R3): one row a pipeline, the fence, and the last runs."""

    dialect: Dialect
    schema: str

    @property
    def fence(self) -> str:
        return self.dialect.table(self.schema, LEDGER)

    @property
    def runs(self) -> str:
        return self.dialect.table(self.schema, LEDGER_RUNS)

    def create(self) -> tuple[tuple[str, str], ...]:
        """(table name, statement) for both."""
        short, long, big = self.dialect.short_text, self.dialect.long_text, self.dialect.big_integer
        shared = f"epoch {big} NOT NULL, generation {big} NOT NULL, run_key {short} NOT NULL, entry {long}"
        return (
            (LEDGER, f"CREATE TABLE {self.fence} (pipeline_id {short} NOT NULL, {shared}, PRIMARY KEY (pipeline_id))"),
            (
                LEDGER_RUNS,
                f"CREATE TABLE {self.runs} (pipeline_id {short} NOT NULL, {shared}, "
                "PRIMARY KEY (pipeline_id, epoch, generation))",
            ),
        )

    def read(self) -> str:
        return f"SELECT entry FROM {self.fence} WHERE pipeline_id = ?"

    def read_runs(self) -> str:
        return f"SELECT epoch, generation, entry FROM {self.runs} WHERE pipeline_id = ? ORDER BY epoch DESC, generation DESC"

    def begin(self) -> str:
        return f"INSERT INTO {self.fence} (epoch, generation, run_key, pipeline_id) VALUES (?, ?, ?, ?)"

    def take(self) -> str:
        return (
            f"UPDATE {self.fence} SET epoch = ?, generation = ?, run_key = ? "
            "WHERE pipeline_id = ? AND epoch = ? AND generation = ? AND run_key = ?"
        )

    def lock(self) -> str | None:
        """Wait for the fence, but not for ever; None where the session has a time limit of its own."""
        suffix = self.dialect.lock_fence
        return f"SELECT run_key FROM {self.fence} WHERE pipeline_id = ? {suffix}" if suffix else None

    def record(self) -> str:
        return f"UPDATE {self.fence} SET entry = ? WHERE pipeline_id = ?"

    def forget_run(self) -> str:
        return f"DELETE FROM {self.runs} WHERE pipeline_id = ? AND epoch = ? AND generation = ?"

    def add_run(self) -> str:
        return f"INSERT INTO {self.runs} (pipeline_id, epoch, generation, run_key, entry) VALUES (?, ?, ?, ?, ?)"

    def prune_runs(self) -> str:
        return f"DELETE FROM {self.runs} WHERE pipeline_id = ? AND (epoch < ? OR (epoch = ? AND generation <= ?))"
