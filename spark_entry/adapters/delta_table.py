"""A Delta table as SQL names and describes it, and what Spark's errors about it mean."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager

from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, Row, SparkSession

from spark_entry.adapters.base import Column
from spark_entry.adapters.delta_history import Past, PastCommit, read_past, to_commit
from spark_entry.dialects import databricks as dialect
from sync_core.domain.connection import Connection
from sync_core.domain.errors import AGAIN, PermanentError, RetryableError, SyncError

RECENT_COMMITS = 20
"""Where the ledger is looked for first; the whole history only when it is not there."""

_MISSING = (
    "CATALOG_NOT_FOUND",
    "DELTA_MISSING_DELTA_TABLE",
    "DELTA_PATH_DOES_NOT_EXIST",
    "DELTA_TABLE_NOT_FOUND",
    "DELTA_TABLE_ONLY_OPERATION",
    "NO_SUCH_CATALOG_EXCEPTION",
    "PATH_NOT_FOUND",
    "REQUIRES_SINGLE_PART_NAMESPACE",
    "SCHEMA_NOT_FOUND",
    "TABLE_OR_VIEW_NOT_FOUND",
)
"""A folder that holds no Delta log is missing as well: empty, of Parquet files, or not there at all."""

_CREATION_CONFLICTS = ("DELTA_CREATE_TABLE_WITH_NON_EMPTY_LOCATION", "TABLE_OR_VIEW_ALREADY_EXISTS")

_CONFLICTS = (
    "DELTA_METADATA_CHANGED",
    "DELTA_PROTOCOL_CHANGED",
    "FIELD_ALREADY_EXISTS",
)
"""Another writer was first with a commit, the table's creation, or a column, besides all that begin with DELTA_CONCURRENT."""

APPEARING_LOOKS, APPEARING_PAUSE = 10, 0.5
"""How often, and after how many seconds each, a table is looked for whose folder is there without a first commit."""

_COLUMNS_CHANGED = (
    "DELTA_CHANGE_DATA_FEED_INCOMPATIBLE_DATA_SCHEMA",
    "DELTA_CHANGE_DATA_FEED_INCOMPATIBLE_SCHEMA_CHANGE",
)

NO_DELTA = ("DELTA_ONLY_OPERATION", "EXPECT_TABLE_NOT_VIEW", "EXPECT_TABLE_NOT_VIEW.NO_ALTERNATIVE")
"""DESCRIBE HISTORY of a view or of a table in another format."""

_FILE_GONE = re.compile(r"\[(?:FAILED_READ_FILE\.(?:DBR_)?FILE_NOT_EXIST|DELTA_FILE_NOT_FOUND\w*)\] ([^\n]{1,300})")
_CONDITION = re.compile(r"\[([A-Z][A-Z0-9_]+(?:\.[A-Z0-9_]+)?)\]")


class DeltaTables:
    """The tables of one connection, as one session sees them."""

    def __init__(self, connection: Connection, spark: SparkSession) -> None:
        self.connection = connection
        self.spark = spark

    def path_of(self, name: str) -> str | None:
        """The folder of a table when the connection is a folder, else None."""
        base = self.connection.path
        if base is None:
            return None
        if "://" not in base and not base.startswith("/Volumes/"):
            base = os.path.abspath(base)  # noqa: PTH100 - a lake may lie where pathlib has no words
        return "/".join([base.rstrip("/"), *split_name(name)])

    def sql_of(self, name: str) -> str:
        """The table as SQL names it; parts that are missing come from the connection."""
        path = self.path_of(name)
        if path is not None:
            return f"delta.{dialect.quote(path)}"
        parts = split_name(name)
        context = [self.connection.catalog, self.connection.schema]
        missing = 3 - len(parts)
        return ".".join(dialect.quote(part) for part in [*context[:missing], *parts] if part)

    def sql(self, statement: str) -> DataFrame:
        return self.spark.sql(statement)  # pyright: ignore[reportUnknownMemberType] - pyspark leaves its **kwargs untyped

    def history(self, table: str, limit: int | None) -> list[PastCommit]:
        """Commits, newest first."""
        rows = self.sql(f"DESCRIBE HISTORY {table}" + (f" LIMIT {limit}" if limit else "")).collect()
        return [to_commit(row.asDict()) for row in rows]

    def past(self, table: str, pipeline_id: str) -> tuple[Past, int]:
        """One pipeline's entries, and the table's version."""
        commits = self.history(table, RECENT_COMMITS)
        found = read_past(commits, pipeline_id)
        if not found.entries and len(commits) == RECENT_COMMITS:
            commits = self.history(table, None)
            found = read_past(commits, pipeline_id)
        return found, commits[0].version

    def detail(self, table: str, name: str) -> Row | None:
        """DESCRIBE DETAIL; None when there is no table. Raises PermanentError `target.not_delta`."""
        try:
            row = self.sql(f"DESCRIBE DETAIL {table}").head()
        except Exception as error:
            if is_missing(error):
                return None
            raise
        if row is None or row["format"] != "delta":
            raise not_delta(name)
        return row

    def appears(self, name: str) -> bool:
        """Whether there is a table now, or soon: who creates one makes its folder before its first commit."""
        for look in range(APPEARING_LOOKS):
            if self.detail(self.sql_of(name), name) is not None:
                return True
            if look + 1 < APPEARING_LOOKS:
                time.sleep(APPEARING_PAUSE)
        return False

    @contextmanager
    def faults(self, role: str, name: str) -> Generator[None]:
        """Errors about a source's or target's table as what a person can do about them."""
        try:
            yield
        except SyncError:
            raise
        except Exception as error:
            meaning = self._meaning(error, role, name) or self.translate(error)
            if meaning is None:
                raise
            raise meaning from error

    def _meaning(self, error: Exception, role: str, name: str) -> SyncError | None:
        condition = condition_of(error)
        if is_missing(error) or condition in NO_DELTA:
            return PermanentError(
                f"{role}.missing", f"Connection {self.connection.name} has no Delta table {name}.", "Correct the name."
            )
        # A change feed is read when the target is written, which is when some of its faults are found.
        source = name if role == "source" else "The source"
        if condition in _COLUMNS_CHANGED:
            return PermanentError(
                "source.columns_changed",
                f"{source} changed its columns within the versions to read; its change feed cannot be read across that.",
                "Load it again in full: uds run PIPELINE --full-refresh.",
            )
        if "CHANGE_DATA" in condition or "CHANGE_TABLE_FEED" in condition or "_CDC_" in condition:
            return PermanentError(
                "source.no_change_feed",
                f"{source} does not keep a change feed for all the versions to read.",
                "Set its table property delta.enableChangeDataFeed to true, then load it again in full: "
                "uds run PIPELINE --full-refresh.",
            )
        return None

    def translate(self, error: BaseException) -> SyncError | None:
        """What an error from anywhere in Spark means, None when it is none of Delta's."""
        text = str(error)
        if "No space left on device" in text or "Disk quota exceeded" in text:
            return PermanentError(
                "target.full", f"Connection {self.connection.name}: the disk is full.", "Make room, then run it again."
            )
        if gone := _FILE_GONE.search(text):
            return RetryableError(
                "delta.file_gone",
                f"a data file of a Delta table is gone: {gone[1].split(' It is possible')[0].rstrip('.')}.",
                f"{AGAIN} If it fails each time, load in full: uds run PIPELINE --full-refresh. If that fails, too, a file of "
                "the source is missing: bring it back in its storage.",
            )
        lines = text.splitlines() or [""]
        named = next((line for line in lines if _CONDITION.search(line)), lines[0])
        first = f"Connection {self.connection.name}: {named[max(0, named.find('[')) :][:300]}"
        if "PERMISSION_DENIED" in text or "INSUFFICIENT_PERMISSIONS" in text or "AccessControlException" in text:
            return PermanentError("database.denied", first, "Grant the run's principal what is named there.")
        if is_conflict(error):
            return RetryableError(
                "target.conflict", f"{first} Somebody else changed the table at the same moment.", AGAIN
            )
        if condition_of(error) == "DELTA_CANNOT_CREATE_LOG_PATH":
            return PermanentError("target.unwritable", first, "Check the path and who may write there.")
        if condition_of(error).startswith("DELTA_"):
            return PermanentError("delta.failed", first, "")
        return None


def condition_of(error: BaseException) -> str:
    """Spark's name for an error; "" when it has none. Some come as plain Java exceptions with it in their text."""
    if isinstance(error, PySparkException):
        return error.getCondition() or ""
    match = _CONDITION.search(str(error))
    return match[1] if match else ""


def is_missing(error: BaseException) -> bool:
    """Whether an error says that there is no Delta table of that name."""
    return condition_of(error) in _MISSING


def is_creation_conflict(error: BaseException) -> bool:
    """Whether a CREATE TABLE found its place taken: by another creator at the same moment, or by what is no Delta table."""
    return condition_of(error) in _CREATION_CONFLICTS


def is_conflict(error: BaseException) -> bool:
    """Whether another writer's commit came in between: nothing was written, and the same may be done again."""
    condition = condition_of(error)
    # Of some, Delta gives the class alone.
    classed = "Concurrent" in str(error)[:2000] and "io.delta" in str(error)
    return condition.startswith("DELTA_CONCURRENT") or condition in _CONFLICTS or classed


def not_delta(name: str) -> PermanentError:
    """A target's place that is taken by something else."""
    return PermanentError(
        "target.not_delta", f"{name} is there but is no Delta table.", "Give the pipeline another target table."
    )


def split_name(name: str) -> list[str]:
    """`silver.orders` as its parts; backticks keep a dot inside one part."""
    found = re.findall(r"`((?:[^`]|``)+)`|([^.`]+)", name)
    return [quoted.replace("``", "`") or plain for quoted, plain in found]


def columns_of(frame: DataFrame, overrides: Mapping[str, str]) -> tuple[Column, ...]:
    """The columns of a frame; `overrides` gives carried types by lower-case name."""
    return tuple(
        Column(
            field.name,
            overrides.get(field.name.lower(), field.dataType.simpleString()),
            field.dataType.simpleString(),
            field.nullable,
        )
        for field in frame.schema.fields
    )
