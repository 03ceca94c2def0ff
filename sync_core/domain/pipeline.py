"""A pipeline: source, transformations, target, load mode and cursor, as the engine runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from sync_core.domain.alert import AlertRules
from sync_core.domain.schedule import OnDemand, Retry, Schedule
from sync_core.domain.watermark import CursorType


class LoadMode(StrEnum):
    """How rows reach the target."""

    FULL_REFRESH = "full_refresh"
    INCREMENTAL = "incremental"
    MERGE = "merge"


class NullCursor(StrEnum):
    """What to do with rows whose cursor is NULL (P7)."""

    FAIL = "fail"
    INCLUDE = "include"
    IGNORE = "ignore"


class SchemaChanges(StrEnum):
    """What a new, dropped or widened source column does to the target (P19)."""

    EVOLVE = "evolve"
    FREEZE = "freeze"
    DISCARD = "discard"


@dataclass(frozen=True)
class Source:
    """Where rows come from: exactly one of `table` and `query`."""

    connection: str
    table: str | None = None
    query: str | None = None


@dataclass(frozen=True)
class Target:
    """Where rows go. The table is created when it is missing."""

    connection: str
    table: str


@dataclass(frozen=True)
class Cursor:
    """The column that says which rows are new.

    `column` is a source name; it is empty for the type `version` (a Delta source's own versions).
    `initial` is a cursor value as text: the first load reads from there on, inclusive.
    `settle_seconds` is how long a source transaction may live; `lookback` is seconds for dates and timestamps and
    a distance for numbers; `timezone` is the IANA zone in which values without a zone are written.
    """

    column: str
    type: CursorType
    initial: str | None = None
    settle_seconds: float = 30.0
    lookback: float = 0.0
    nulls: NullCursor = NullCursor.FAIL
    timezone: str | None = None


@dataclass(frozen=True)
class ReadOptions:
    """How the source is read. `partitions` None: from statistics; `fetch_size` is rows a round trip."""

    partitions: int | None = None
    fetch_size: int = 10_000


@dataclass(frozen=True)
class Filter:
    """Keep the rows for which a Spark SQL condition is true."""

    condition: str
    type: Literal["filter"] = "filter"


@dataclass(frozen=True)
class Select:
    """Keep these columns, in this order."""

    columns: tuple[str, ...]
    type: Literal["select"] = "select"


@dataclass(frozen=True)
class Rename:
    """Old name to new name."""

    mapping: Mapping[str, str]
    type: Literal["rename"] = "rename"


@dataclass(frozen=True)
class Cast:
    """Column to Spark SQL type. A value that cannot be cast fails the run."""

    columns: Mapping[str, str]
    type: Literal["cast"] = "cast"


@dataclass(frozen=True)
class Derive:
    """A new column from a Spark SQL expression."""

    column: str
    expression: str
    type: Literal["derive"] = "derive"


@dataclass(frozen=True)
class Drop:
    """Leave these columns out."""

    columns: tuple[str, ...]
    type: Literal["drop"] = "drop"


Transformation = Filter | Select | Rename | Cast | Derive | Drop


@dataclass(frozen=True)
class Pipeline:
    """One source table or query kept in step with one target table.

    `merge_keys` and `cursor.column` are source names. `types` overrides the Spark SQL type of a source column and
    thereby waives a refusal (P17). `null_keys` ignore leaves rows with a NULL merge key out, counted (P12).
    `lossy` decides about digits below a microsecond outside the cursor. What stands from `schedule` on is the control
    plane's: `compute` names the group whose pipelines share a Spark application, `timeout_seconds` stops a run,
    `channels` are where alerts go, `owner` is whom they name.
    """

    pipeline_id: str
    source: Source
    target: Target
    mode: LoadMode
    cursor: Cursor | None = None
    merge_keys: tuple[str, ...] = ()
    null_keys: Literal["fail", "ignore"] = "fail"
    schema_changes: SchemaChanges = SchemaChanges.EVOLVE
    lossy: Literal["cut", "refuse"] = "cut"
    types: Mapping[str, str] = field(default_factory=dict[str, str])
    read: ReadOptions = ReadOptions()
    transformations: tuple[Transformation, ...] = ()
    tags: tuple[str, ...] = ()
    schedule: Schedule = OnDemand()
    paused: bool = False
    compute: str = "default"
    retry: Retry = Retry()
    timeout_seconds: float | None = None
    alerts: AlertRules = AlertRules()
    owner: str | None = None
    channels: tuple[str, ...] = ()

    @property
    def connections(self) -> tuple[str, ...]:
        """Names of the connections that a run uses, each once."""
        return tuple(sorted({self.source.connection, self.target.connection}))

    @property
    def target_names(self) -> dict[str, str]:
        """Source name to target name for every renamed column, chains followed."""
        names: dict[str, str] = {}
        for step in self.transformations:
            if isinstance(step, Rename):
                origin = {new: old for old, new in names.items()}
                # A name that was renamed away before is another column now (derived, say): not this one.
                moves = {old: new for old, new in step.mapping.items() if old in origin or old not in names}
                names |= {origin.get(old, old): new for old, new in moves.items()}
        return names

    @property
    def target_keys(self) -> tuple[str, ...]:
        """The merge keys under the names they have in the target."""
        return tuple(self.target_names.get(key, key) for key in self.merge_keys)

    @property
    def target_cursor(self) -> str | None:
        """The cursor column under the name it has in the target; None without a cursor column."""
        if self.cursor is None or not self.cursor.column:
            return None
        return self.target_names.get(self.cursor.column, self.cursor.column)
