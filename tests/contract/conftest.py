"""The stores that every contract test of a StateStore runs over."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from sync_core.adapters.sqlite_store import SqliteStore
from sync_core.ports import StateStore
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
