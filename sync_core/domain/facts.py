"""What one execution of the engine looked like, for traces and lineage: steps with their times, and columns.

The engine only writes these down, for it needs the standard library and pyspark alone; the control plane sends them on.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

FACTS_VERSION = 1


@dataclass(frozen=True)
class StepTime:
    """One step of a run (ledger, window, plan, prepare, compare, write, report), by the engine's clock in UTC."""

    name: str
    started_at: datetime
    finished_at: datetime


@dataclass(frozen=True)
class ColumnFact:
    """A column: `type` is the Spark SQL type it is carried in, `native` the database's own words."""

    name: str
    type: str
    native: str = ""


@dataclass(frozen=True)
class Facts:
    """Steps in the order in which they ended; the source's columns, and those of the target that are written.

    Columns are empty when the run ended before it knew them.
    """

    steps: tuple[StepTime, ...] = ()
    source_columns: tuple[ColumnFact, ...] = ()
    target_columns: tuple[ColumnFact, ...] = ()
    engine_version: str | None = None
    spark_version: str | None = None
    version: int = FACTS_VERSION
