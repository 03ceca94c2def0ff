"""Keep the audit tables small: copy old rows into archive tables, then compact and vacuum.

The engine deletes audit rows once they are older than the retention (AuditPlace.kept_days). Rows are copied here some
time before that, so that a maintenance that fails for weeks loses none: for that time a row is in both tables. The
audit tables themselves are never deleted from, and old run folders are the control plane's to remove.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from spark_entry.adapters.delta_table import DeltaTables
from spark_entry.audit import TABLES
from spark_entry.events import JsonLines, send_to, take_standard_output, write_event
from spark_entry.local_session import build_session
from sync_core.domain.connection import Connection
from sync_core.domain.errors import ConfigError, PermanentError, SyncError
from sync_core.domain.run import AuditPlace

ARCHIVE_AFTER_DAYS = 370
"""Thirty days before the engine deletes: that long maintenance may fail without losing a row."""

KEYS: Mapping[str, tuple[str, ...]] = {
    "sync_runs": ("batch_id", "run_key"),
    "sync_watermarks": ("pipeline_id", "epoch", "generation", "run_key"),
}
"""What tells two rows of a table apart, besides its day."""


@dataclass(frozen=True)
class Maintained:
    """What was done to one audit table: rows that the archive did not have before."""

    table: str
    archived: int


def main(arguments: list[str] | None = None) -> None:
    """Maintain the audit tables of `--catalog` and `--schema`. Raises SyncError that names each table that failed."""
    asked = parse(arguments)
    send_to(JsonLines(take_standard_output()))
    spark = build_session([], "uds maintenance")
    tables = DeltaTables(Connection("audit", "databricks", catalog=asked.catalog, schema=asked.schema), spark)
    maintain(tables, datetime.now(UTC).date(), asked.archive_after_days)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The job's parameters. Raises ConfigError when rows would be deleted before they are archived."""
    parser = argparse.ArgumentParser(
        prog="uds-maintenance", description="Archive and tidy the audit tables.", allow_abbrev=False
    )
    parser.add_argument("--catalog", required=True, help="the catalog of the audit tables")
    parser.add_argument("--schema", required=True, help="the schema of the audit tables")
    parser.add_argument(
        "--archive-after-days", type=int, default=ARCHIVE_AFTER_DAYS, help="rows older than this are archived"
    )
    asked = parser.parse_args(arguments)
    kept = AuditPlace().kept_days
    if not 0 < asked.archive_after_days < kept:
        raise ConfigError(
            "maintenance.days",
            f"Audit rows would be archived after {asked.archive_after_days} days, but they are deleted after {kept}.",
            f"Set --archive-after-days to less than {kept}.",
        )
    return asked


def maintain(tables: DeltaTables, today: date, archive_after_days: int = ARCHIVE_AFTER_DAYS) -> list[Maintained]:
    """Archive, compact and vacuum each audit table that is there; a failure of one leaves the other to be done.

    Raises PermanentError that names what failed.
    """
    done: list[Maintained] = []
    failed: list[str] = []
    before = today - timedelta(days=archive_after_days)
    for name in TABLES:
        try:
            with tables.faults("target", name):
                maintained = _maintain(tables, name, before)
        except Exception as error:
            why = error.message if isinstance(error, SyncError) else (str(error).splitlines() or [repr(error)])[0]
            write_event("maintenance.failed", table=name, message=why)
            failed.append(f"{name}: {why}")
            continue
        if maintained is not None:
            write_event("maintenance.done", table=name, archived=maintained.archived)
            done.append(maintained)
    if failed:
        raise PermanentError(
            "maintenance.failed",
            f"Audit tables could not be maintained. {'; '.join(failed)}.",
            "Correct what is named there; the next run does what is left.",
        )
    return done


def _maintain(tables: DeltaTables, name: str, before: date) -> Maintained | None:
    """None when the engine has not made the table yet."""
    if tables.detail(tables.sql_of(name), name) is None:
        write_event("maintenance.absent", table=name)
        return None
    archived = archive(tables, name, before)
    # Days that the engine may be deleting are left alone: two writers of one file would be a conflict.
    _compact(tables, tables.sql_of(name), f" WHERE {_day_of(name)} >= DATE '{before.isoformat()}'")
    if archived:
        _compact(tables, tables.sql_of(archive_of(name)), "")
    return Maintained(name, archived)


def _compact(tables: DeltaTables, table: str, condition: str) -> None:
    tables.sql(f"OPTIMIZE {table}{condition}").collect()
    tables.sql(f"VACUUM {table}").collect()


def archive_of(name: str) -> str:
    """The table that keeps the old rows of an audit table."""
    return f"{name}_archive"


def _day_of(name: str) -> str:
    return next(iter(TABLES[name]))


def archive(tables: DeltaTables, name: str, before: date) -> int:
    """Copy the rows from before `before` that the archive does not have, and return how many there were.

    By key and not by day: a row that is written late belongs to a day that has been archived already.
    """
    day, live, archived = _day_of(name), tables.sql_of(name), tables.sql_of(archive_of(name))
    old = f"{day} < DATE '{before.isoformat()}'"
    (row,) = tables.sql(f"SELECT min({day}) AS oldest FROM {live} WHERE {old}").collect()
    if row.oldest is None:
        return 0
    if tables.detail(archived, archive_of(name)) is None:
        tables.sql(f"CREATE TABLE IF NOT EXISTS {archived} USING delta AS SELECT * FROM {live} WHERE false").collect()
    same = " AND ".join(f"archive.{column} <=> live.{column}" for column in (day, *KEYS[name]))
    (merged,) = tables.sql(
        # The engine's later releases add columns to the live table.
        f"MERGE WITH SCHEMA EVOLUTION INTO {archived} AS archive USING (SELECT * FROM {live} WHERE {old}) AS live "
        f"ON {same} AND archive.{day} >= DATE '{row.oldest.isoformat()}' WHEN NOT MATCHED THEN INSERT *"
    ).collect()
    return int(merged["num_inserted_rows"])


if __name__ == "__main__":
    try:
        main()
    except SyncError as error:
        sys.exit(str(error))
