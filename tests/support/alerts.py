"""A notice, its channels and their secrets, as tests of alerts use them."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sync_core.adapters.environment_secrets import EnvironmentSecrets
from sync_core.adapters.sqlite_queue import SqliteQueue
from sync_core.adapters.sqlite_store import SqliteStore
from sync_core.domain.alert import Condition, Notice, Phase
from sync_core.domain.connection import Channel, SecretReference

KEY = "whsec_" + base64.b64encode(b"a key of thirty-two bytes, yes!!").decode()
OLD_KEY = "whsec_" + base64.b64encode(b"the key before it, also long one").decode()
REFERENCE = SecretReference("alerts", "key")
SOURCE = "/universal-data-sync/test"
HIDDEN = "hidden-2b7e1516"
"""Stands in each address where a secret could stand; nobody may ever read it."""
AT = datetime(2026, 1, 1, 12, tzinfo=UTC)


def notice(**changes: Any) -> Notice:
    values: dict[str, Any] = {
        "notice_id": "0123456789abcdef0123456789abcdef",
        "pipeline_id": "orders",
        "condition": Condition.FAILED,
        "phase": Phase.RAISED,
        "episode_id": "e1",
        "message": "The run of orders failed: the table SALES.ORDERS is not there. Æøå",
        "remedy": "Create the table, or mend its name in pipelines.yml.",
        "opened_at": AT,
        "at": AT,
        "count": 1,
        "owner": "team-sales",
    }
    return Notice(**(values | changes))


def secrets(value: str) -> EnvironmentSecrets:
    return EnvironmentSecrets({REFERENCE.environment_variable: value})


def webhook(url: str, name: str = "ops", conditions: tuple[str, ...] = ()) -> Channel:
    return Channel(name, "webhook", url, REFERENCE, conditions)


def now() -> datetime:
    return datetime.now(UTC)


class Clock:
    def __init__(self) -> None:
        self.time = AT

    def __call__(self) -> datetime:
        return self.time

    def pass_by(self, time: timedelta) -> None:
        self.time += time


class AlertQueue(SqliteQueue):
    """The embedded queue, which puts aside what a trigger rejects as if it had been received and dead-lettered."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        SqliteStore(folder)
        super().__init__(folder, clock)

    def reject(self, queue: str, body: str, key: str, reason: str) -> None:
        with self._file.transaction() as database:
            statement = (
                "INSERT INTO messages (queue, key, body, due, dead) SELECT ?, ?, ?, 0, ? "
                "WHERE NOT EXISTS (SELECT 1 FROM messages WHERE queue = ? AND key = ? AND dead IS NOT NULL)"
            )
            database.execute(statement, (queue, key, body, reason, queue, key))
