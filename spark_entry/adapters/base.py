"""What an adapter must do: the contract between the engine and one kind of database.

To add a database, subclass `DatabaseAdapter` (or `JdbcAdapter`, which needs little more than a dialect) and publish the
class in the entry-point group `universal_data_sync.adapters` under the connection type it serves.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from pyspark.sql import DataFrame, SparkSession

from spark_entry.ledger import LedgerEntry
from sync_core.domain.connection import Connection
from sync_core.domain.errors import SyncError
from sync_core.domain.pipeline import Cursor, ReadOptions, Source, Target
from sync_core.domain.run import RunKind
from sync_core.domain.watermark import Watermark

SECRET = Callable[[str, str], str]
"""Resolves (scope, key) to a secret's value; raises PermanentError that names the reference, never the value."""

CURSOR_DIGITS = "__uds_cursor_digits"
"""Column of read frames: the cursor's digits below a microsecond, as an integer; only where the cursor can hold any."""

LOST_DIGITS = "__uds_lost_digits"
"""Column of read frames: how many values of the row had digits below a microsecond cut; only where any can."""


@dataclass(frozen=True)
class Column:
    """A column of a source or target table.

    `type` is the Spark SQL type the engine carries it in (`decimal(38,0)`, `timestamp_ntz`, ...), `native` the
    database's own words. `refused` says why the values cannot be carried without loss (None: they can); a `types:`
    override waives it. `cuts_digits` marks values that may have digits below a microsecond. `character_set` is the
    database's name of the one that bounds a target's text, None where there is none.
    """

    name: str
    type: str
    native: str
    nullable: bool = True
    refused: str | None = None
    cuts_digits: bool = False
    character_set: str | None = None


@dataclass(frozen=True)
class Relation:
    """A source table or query as it is now.

    `sql` stands after FROM. `unique_keys` are the column sets that the database itself keeps unique. `rows` is the
    database's own estimate, None when it has none. `version` is the Delta version that every read of this run sees.
    """

    name: str
    sql: str
    columns: tuple[Column, ...]
    unique_keys: tuple[tuple[str, ...], ...] = ()
    rows: int | None = None
    version: int | None = None
    is_query: bool = False

    def column(self, name: str) -> Column | None:
        """The column of this exact name, else the only one that matches when case is ignored."""
        exact = [column for column in self.columns if column.name == name]
        similar = [column for column in self.columns if column.name.lower() == name.lower()]
        return exact[0] if exact else similar[0] if len(similar) == 1 else None


@dataclass(frozen=True)
class CursorProbe:
    """The source's cursor as one statement saw it.

    `safe`: dates and times, the greatest existing value no later than clock - settle; rowversion,
    MIN_ACTIVE_ROWVERSION() - 1; version, the table's version; numbers have none. `highest` is MAX(cursor).
    `nulls` and `future` count rows (`future`: later than the clock). `clock` is the source's, in UTC.
    `daylight_saving`: values without zone are written in a zone that has, or may have, daylight saving time.
    """

    safe: Watermark | None
    highest: Watermark | None
    nulls: int
    future: int
    clock: datetime
    daylight_saving: bool = False


@dataclass(frozen=True)
class ReadPlan:
    """One scan of the source. `filter` is SQL of the source, None for all rows.

    `predicates` split the rows into disjoint parts that together hold every row, NULLs included; one part: ().
    `snapshot` is the source's own token under which all parts see one state; None where it has no such thing.
    `statements` are the exact texts that will run, one a part.
    """

    relation: Relation
    columns: tuple[Column, ...]
    cursor: Cursor | None
    filter: str | None
    predicates: tuple[str, ...]
    fetch_size: int
    statements: tuple[str, ...]
    snapshot: str | None = None


@dataclass(frozen=True)
class TargetState:
    """The target as the run found it (R10). `version` is the Delta version it was read at.

    `ledger` is this pipeline's last committed entry, `recent` the last ones, newest first. `disturbed` names what a person did to the data after that entry
    (RESTORE, REPLACE, TRUNCATE, unconditional DELETE). `same_object` is False when the ledger names another object id.
    """

    exists: bool
    columns: tuple[Column, ...] = ()
    has_rows: bool = False
    ledger: LedgerEntry | None = None
    recent: tuple[LedgerEntry, ...] = ()
    object_id: str | None = None
    disturbed: str | None = None
    version: int | None = None

    @property
    def fits_ledger(self) -> bool:
        """Whether rows are there as the ledger says; they are looked at one after the other, so a commit may lie between."""
        return self.has_rows == (self.ledger is not None and self.ledger.holds_rows)

    @property
    def same_object(self) -> bool:
        return self.ledger is None or self.ledger.object_id == self.object_id


@dataclass(frozen=True)
class WriteRequest:
    """All that one commit needs. `frame` has exactly the target's columns that are written, under target names.

    `kind` and `keys` decide the statement: full refresh replaces all rows; keys () appends; otherwise merge, where a
    matched row is updated only if it differs and `cursor` is NULL-safe >= the target's, or the target's lies above
    `read_bound` (R14). `expected` is the ledger read at the start, `entry` the one to commit (its `rows` and
    `object_id` are filled in by the adapter). `rows_expected` answers, once the frame has been computed, how many rows
    it held; an adapter that stages rows compares before it commits. `execution` is 16 hex characters, new for every
    execution, for the names of staging tables. `event(name, **fields)` writes a log event.
    """

    frame: DataFrame
    target: Target
    state: TargetState
    kind: RunKind
    keys: tuple[str, ...]
    cursor: str | None
    read_bound: Watermark | None
    expected: LedgerEntry | None
    entry: LedgerEntry
    execution: str
    rows_expected: Callable[[], int]
    event: Callable[..., None]


@dataclass(frozen=True)
class WriteCounts:
    """Rows a commit changed. `older`: rows left alone because the target's are newer."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    older: int = 0


class DatabaseAdapter(ABC):
    """One connection of one run. Vendor errors leave as `SyncError`, translated here and nowhere else.

    An adapter lives for one pipeline's run in one Spark session of its own; `close` gives up what it holds.
    """

    driver_package: ClassVar[str | None] = None
    """Maven coordinate of the JDBC driver, for sessions that are built on this machine."""

    def __init__(self, connection: Connection, spark: SparkSession, secret: SECRET) -> None:
        self.connection = connection
        self.spark = spark
        self.secret = secret
        self.hide: Callable[[str], None] = lambda _value: None
        """Takes a value out of every text that leaves the engine. The engine sets it; what `secret` gave is hidden
        already, what an adapter signs in with otherwise (an access token) is for the adapter to hide."""

    @abstractmethod
    def build_jdbc_url(self) -> str:
        """The JDBC address without user, password or token; "" where there is none."""

    @abstractmethod
    def get_credentials(self) -> Mapping[str, str]:
        """Driver properties that sign in, resolved now. Never stored, logged or put into an address."""

    # ---- as a source

    @abstractmethod
    def describe_source(self, source: Source, types: Mapping[str, str]) -> Relation:
        """Columns, keys and size of a table or query; `types` overrides carried types by column name.

        Raises PermanentError: `source.missing`, `source.denied`, `source.unreachable` (RetryableError) ...
        """

    @abstractmethod
    def probe_cursor(self, relation: Relation, cursor: Cursor) -> CursorProbe:
        """Look at the cursor in ONE statement, without reading rows."""

    @abstractmethod
    def get_incremental_filter(
        self,
        relation: Relation,
        cursor: Cursor,
        low: Watermark | None,
        high: Watermark | None,
        with_nulls: bool,
    ) -> str | None:
        """SQL for low <= cursor <= high, both inclusive, with literals of the column's own type and full precision.

        NULL cursors pass when `with_nulls`, and only then. None means every row: both ends open and `with_nulls`.
        """

    @abstractmethod
    def plan_read(
        self,
        relation: Relation,
        columns: tuple[Column, ...],
        cursor: Cursor | None,
        condition: str | None,
        options: ReadOptions,
    ) -> ReadPlan:
        """Split the scan into parts and open a snapshot where the source can."""

    @abstractmethod
    def read_data(self, plan: ReadPlan) -> DataFrame:
        """The rows of a plan, lazily: its columns in order in their carried types, then the `__uds_` columns if any."""

    @abstractmethod
    def count_nulls(self, relation: Relation, columns: tuple[str, ...], condition: str | None) -> int:
        """How many rows have a NULL in one of the columns; asked only to explain a failure."""

    # ---- as a target

    @abstractmethod
    def inspect_target(self, target: Target, pipeline_id: str) -> TargetState:
        """The target and this pipeline's ledger as they are now. Never creates anything."""

    def read_ledger(self, target: Target, pipeline_id: str) -> tuple[LedgerEntry, ...]:
        """This pipeline's last entries alone, newest first; () when target or ledger are not there."""
        return self.inspect_target(target, pipeline_id).recent

    @abstractmethod
    def create_statements(self, target: Target, columns: tuple[Column, ...], keys: tuple[str, ...]) -> tuple[str, ...]:
        """DDL that creates the target with these carried types (primary key on `keys` where the database has one)."""

    @abstractmethod
    def evolve_statements(
        self, target: Target, added: tuple[Column, ...], widened: tuple[Column, ...]
    ) -> tuple[str, ...]:
        """DDL that adds and widens columns."""

    @abstractmethod
    def prepare_target(self, target: Target, pipeline_id: str, statements: tuple[str, ...]) -> None:
        """Run DDL, create what the ledger needs, drop staging tables that dead runs of this pipeline left."""

    @abstractmethod
    def read_target(self, target: Target, state: TargetState, condition: str | None) -> DataFrame:
        """Rows of the target as of `state`, in carried types under target names; `condition` is SQL of the target."""

    @abstractmethod
    def target_filter(
        self,
        state: TargetState,
        column: str,
        cursor: Cursor,
        low: Watermark | None,
        high: Watermark | None,
        with_nulls: bool,
    ) -> str | None:
        """`get_incremental_filter` for the target's column of that name and the target's type of it."""

    def kept(self, column: Column) -> str:
        """Spark SQL for what the target's column gives back for a value `{}`: the form in which rows are compared (R12).

        A value that the column would round raises `unfit` (schema.py): digits are never lost in silence (P17).
        """
        return "{}"

    @abstractmethod
    def write_statements(self, request: WriteRequest) -> tuple[str, ...]:
        """The statements `write_data` would run, for `uds plan`."""

    @abstractmethod
    def write_data(self, request: WriteRequest) -> WriteCounts:
        """Commit data and ledger in one atomic step, only if the ledger still is `request.expected` (R14).

        Emits write.staged, commit.started and commit.done. Raises FenceLost when another run was first, RetryableError on
        lock time-outs, conflicts and lost connections, PermanentError otherwise; the target is then as it was.
        """

    def check(self, source: Source | None, target: Target | None) -> tuple[str, ...]:
        """What the live check finds wrong beyond describing and inspecting: missing privileges. Empty when fine."""
        return ()

    def translate_error(self, error: BaseException) -> SyncError | None:
        """What an error raised inside a Spark job means in this database's terms; None when it is none of its own."""
        return None

    def interrupt(self) -> None:
        """Make what runs on held connections fail soon: the run must stop. Spark jobs are not the adapter's to stop.

        Called by another thread, and again while the run goes on. Never raises, never touches a commit in progress.
        """
        return

    def close(self) -> None:
        """Give up held connections and snapshots. Never raises."""
        return
