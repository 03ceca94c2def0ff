"""The stores that every contract test of a StateStore runs over, and webhooks that are closed after the test."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Generator
from datetime import datetime
from pathlib import Path

import pytest

from sync_core.adapters.sqlite_store import SqliteStore
from sync_core.adapters.webhook_sink import WebhookSink
from sync_core.ports import StateStore
from tests.support.alerts import KEY, SOURCE, now, secrets
from tests.support.stores import tables_of

Open = Callable[[], StateStore]


@pytest.fixture(params=["sqlite", "azure_tables"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Open]:
    """Opens the same store each time, as another process would."""
    if request.param == "sqlite":
        yield lambda: SqliteStore(tmp_path / "state")
        return
    with tables_of(request.getfixturevalue("azurite").connection_string) as opened:
        yield opened


@pytest.fixture
def store(open_store: Open) -> StateStore:
    return open_store()


@pytest.fixture
def open_webhook() -> Generator[Callable[..., WebhookSink]]:
    opened: list[WebhookSink] = []

    def make(
        secret: str = KEY,
        answer_seconds: float = 10.0,
        trusted: ssl.SSLContext | None = None,
        clock: Callable[[], datetime] = now,
    ) -> WebhookSink:
        opened.append(WebhookSink(secrets(secret), SOURCE, clock, answer_seconds, trusted))
        return opened[-1]

    yield make
    for sink in opened:
        sink.close()
