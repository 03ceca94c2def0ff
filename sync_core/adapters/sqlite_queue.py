"""The queue on one machine: SQLite, in the store's file."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sync_core.adapters.sqlite_file import SqliteFile
from sync_core.ports import Message

DUPLICATE_WINDOW = timedelta(minutes=10)
"""How long a key is remembered; Service Bus's own default."""

DELIVERIES = 10
"""A message that was received this often without an end is dead-lettered."""

MOST_DEAD_LETTERS = 100

_TABLES = """
CREATE TABLE IF NOT EXISTS messages (
    number INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT NOT NULL, key TEXT NOT NULL, body TEXT NOT NULL,
    due REAL NOT NULL, deliveries INTEGER NOT NULL DEFAULT 0, receipt TEXT, dead TEXT
);
CREATE INDEX IF NOT EXISTS messages_by_due ON messages (queue, due) WHERE dead IS NULL;
CREATE TABLE IF NOT EXISTS sent_keys (
    queue TEXT NOT NULL, key TEXT NOT NULL, until REAL NOT NULL, PRIMARY KEY (queue, key)
) WITHOUT ROWID;
"""

_COLUMNS = "queue, key, body, deliveries, receipt, dead"


class SqliteQueue:
    """A Queue in `<folder>/state.db`."""

    def __init__(self, folder: Path, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._file = SqliteFile(folder, _TABLES)
        self._now = now

    def send(self, queue: str, body: str, key: str, delay: timedelta = timedelta()) -> None:
        now = self._now()
        with self._file.transaction() as database:
            database.execute("DELETE FROM sent_keys WHERE until <= ?", (now.timestamp(),))
            until = (now + DUPLICATE_WINDOW).timestamp()
            statement = "INSERT INTO sent_keys VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
            if database.execute(statement, (queue, key, until)).rowcount == 1:
                statement = "INSERT INTO messages (queue, key, body, due) VALUES (?, ?, ?, ?)"
                database.execute(statement, (queue, key, body, (now + delay).timestamp()))

    def receive(self, queue: str, lock: timedelta = timedelta(minutes=1)) -> Message | None:
        now = self._now()
        worn = "UPDATE messages SET dead = ?, receipt = NULL WHERE queue = ? AND dead IS NULL AND due <= ? AND deliveries >= ?"
        taken = (
            "UPDATE messages SET due = ?, receipt = ?, deliveries = deliveries + 1 WHERE number = "
            "(SELECT number FROM messages WHERE queue = ? AND dead IS NULL AND due <= ? ORDER BY due, number LIMIT 1) "
            f"RETURNING {_COLUMNS}"
        )
        with self._file.transaction() as database:
            reason = f"It was delivered {DELIVERIES} times and never brought to an end."
            database.execute(worn, (reason, queue, now.timestamp(), DELIVERIES))
            values = ((now + lock).timestamp(), uuid.uuid4().hex, queue, now.timestamp())
            rows = database.execute(taken, values).fetchall()
        return _message(rows[0]) if rows else None

    def complete(self, message: Message) -> None:
        self._end("DELETE FROM messages WHERE receipt = ?", message.receipt)

    def abandon(self, message: Message) -> None:
        self._end(
            "UPDATE messages SET due = ?, receipt = NULL WHERE receipt = ?", self._now().timestamp(), message.receipt
        )

    def dead_letter(self, message: Message, reason: str) -> None:
        self._end("UPDATE messages SET dead = ?, receipt = NULL WHERE receipt = ?", reason, message.receipt)

    def reject(self, queue: str, body: str, key: str, reason: str) -> None:
        statement = (
            "INSERT INTO messages (queue, key, body, due, dead) SELECT ?, ?, ?, ?, ? WHERE NOT EXISTS (SELECT 1 FROM "
            # Without a key of its own a message is known by what it says.
            "messages WHERE queue = ? AND key = ? AND dead IS NOT NULL AND (key <> '' OR body = ?))"
        )
        with self._file.transaction() as database:
            values = (queue, key, body, self._now().timestamp(), reason)
            database.execute(statement, (*values, queue, key, body))

    def dead_letters(self, queue: str) -> list[Message]:
        statement = f"SELECT {_COLUMNS} FROM messages WHERE queue = ? AND dead IS NOT NULL ORDER BY number LIMIT ?"
        with self._file.transaction() as database:
            return [_message(row) for row in database.execute(statement, (queue, MOST_DEAD_LETTERS)).fetchall()]

    def send_again(self, queue: str, key: str) -> int:
        statement = (
            "UPDATE messages SET dead = NULL, deliveries = 0, due = ? WHERE queue = ? AND key = ? AND dead IS NOT NULL"
        )
        with self._file.transaction() as database:
            return database.execute(statement, (self._now().timestamp(), queue, key)).rowcount

    def _end(self, statement: str, *values: str | float) -> None:
        """Act on the message that still carries this receipt; a receipt is void once the message went to another."""
        with self._file.transaction() as database:
            database.execute(statement, values)


def _message(row: sqlite3.Row | tuple[str, str, str, int, str | None, str | None]) -> Message:
    queue, key, body, deliveries, receipt, dead = row
    return Message(queue, key, body, deliveries, receipt or "", dead or "")
