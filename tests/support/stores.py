"""Rows for the tests of state stores, and stores to put them in."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime

from azure.core.credentials import TokenCredential

from sync_core.adapters.table_service import Patience, open_table_service
from sync_core.adapters.table_store import TableStore
from sync_core.domain.alert import Condition, Episode
from sync_core.domain.run import Operation, Outcome, RunKind, RunRecord, RunResult, RunState
from sync_core.domain.watermark import CursorType, Watermark
from sync_core.ports import Row, StateStore

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
FIVE = Watermark(CursorType.NUMBER, "5")
QUICK = Patience(retries=3, backoff=0.01, longest_pause=0.05)
"""The same retries with shorter pauses."""


def a_run(key: str, state: RunState = RunState.BEGUN, at: datetime = NOW, pipeline: str = "orders") -> RunRecord:
    closed = None if state.is_open else at
    return RunRecord(key, pipeline, RunKind.INCREMENTAL, 1, state, "batch", at, closed_at=closed)


def a_success(key: str, at: datetime = NOW, *, unchanged: bool = False) -> RunRecord:
    outcome = Outcome.UNCHANGED if unchanged else Outcome.SUCCEEDED
    result = RunResult("orders", key, "batch", RunKind.INCREMENTAL, 1, outcome, watermark=FIVE, finished_at=at)
    return RunRecord(
        key, "orders", RunKind.INCREMENTAL, 1, RunState.SUCCEEDED, "batch", at, closed_at=at, result=result
    )


def an_episode(key: str, at: datetime = NOW) -> Episode:
    return Episode("orders", Condition.FAILED, key, f"It failed ({key}).", at, at)


def an_operation(what: str, at: datetime = NOW) -> Operation:
    return Operation(at, "eve", "for a test", what)


def put(store: StateStore, *rows: Row, name: str = "orders") -> None:
    stored = store.load(name)
    store.save(stored, stored.record, rows)


def keys(runs: list[RunRecord]) -> list[str]:
    return [run.run_key for run in runs]


@contextmanager
def tables_of(
    address: str, credential: TokenCredential | None = None, patience: Patience = QUICK, table: str = ""
) -> Generator[Callable[[], TableStore]]:
    """Opens a store in one table of its own as often as it is called, each time with a client of its own."""
    opened: list[TableStore] = []
    table = table or f"t{uuid.uuid4().hex}"

    def open_one() -> TableStore:
        store = TableStore(open_table_service(address, credential, patience), table)
        opened.append(store)
        return store

    try:
        yield open_one
    finally:
        for store in opened:
            store.close()
