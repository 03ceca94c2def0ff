"""One SQLite file that threads and processes share: what the embedded store and the embedded queue stand on."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from sync_core.domain.errors import PermanentError, RetryableError

SCHEMA_VERSION = 2
"""Grows when an earlier version of uds could not read what is written. Tables are only ever added."""

BUSY_SECONDS = 30.0
"""How long a call waits for another process's transaction."""


class SqliteFile:
    """`<folder>/state.db`. Every transaction opens its own connection.

    Raises PermanentError when the file cannot be used, RetryableError when another process holds it too long.
    """

    def __init__(self, folder: Path, tables: str) -> None:
        self.path = folder / "state.db"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PermanentError(
                "store.folder",
                f"The state folder {folder} cannot be made: {error.strerror}.",
                "Name another with --state.",
            ) from error
        with self.transaction() as database:
            found = database.execute("PRAGMA user_version").fetchone()[0]
            if found > SCHEMA_VERSION:
                raise PermanentError(
                    "store.too_new",
                    f"{self.path} was written by a later version of uds.",
                    "Use that version, or another --state folder: the targets' ledgers hold what matters.",
                )
            for statement in tables.split(";"):
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @contextmanager
    def transaction(self) -> Generator[sqlite3.Connection]:
        """BEGIN IMMEDIATE to COMMIT, durable; rolled back when the block raises."""
        database: sqlite3.Connection | None = None
        try:
            database = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
            database.execute("PRAGMA synchronous = FULL")
            database.execute("BEGIN IMMEDIATE")
            yield database
            database.execute("COMMIT")
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise RetryableError(
                    "store.locked", f"{self.path} is held by another process.", "Wait until it is done."
                ) from error
            raise PermanentError(
                "store.failed", f"{self.path} cannot be used: {error}.", "Check the disk and the folder's permissions."
            ) from error
        except (sqlite3.DatabaseError, ValueError) as error:
            # ValueError: a body that is not the JSON that was written.
            raise PermanentError(
                "store.damaged",
                f"{self.path} is damaged: {error}.",
                "Delete the state folder: the next run takes over the targets' ledgers.",
            ) from error
        finally:
            if database is not None:
                database.close()
