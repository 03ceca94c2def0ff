"""P1, P2, P4, P5 together: a writer that commits late, in ties and out of order; runs killed at random and doubled."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

import spark_entry.batch
from sync_core.domain.pipeline import Cursor, LoadMode, Pipeline
from sync_core.domain.run import RunResult
from sync_core.domain.watermark import CursorType
from tests.support.world import Killed, World

SETTLE = 5.0
WRITERS = 3
SECONDS = 75
PROTOCOL = (
    "run.started",
    "window.fixed",
    "read.planned",
    "write.staged",
    "commit.started",
    "commit.done",
    "result.written",
)
MOMENTS = ("clock_timestamp()::timestamp", "date_trunc('second', clock_timestamp()::timestamp)")


class Writer:
    """Transactions of several connections, open side by side, each shorter than settle by a second or more.

    Each connection keeps to its own rows of `items`, so that none waits for another.
    """

    def __init__(self, world: World, seed: int) -> None:
        self._random = random.Random(seed)
        self._connections = [world.connect() for _ in range(WRITERS)]
        self._open: dict[int, tuple[float, float]] = {}
        self._stop = threading.Event()
        self.committed = 0

    def write(self) -> None:
        while not self._stop.wait(0.02):
            number = self._random.randrange(WRITERS)
            connection = self._connections[number]
            if number not in self._open:
                now = time.monotonic()
                self._open[number] = (now, now + self._random.uniform(0, SETTLE / 3))
                self._change(connection, number)
            elif time.monotonic() >= self._open[number][1]:
                self._end(number)
        for number in list(self._open):
            self._end(number)
        for connection in self._connections:
            connection.close()

    def stop(self) -> None:
        self._stop.set()

    def _change(self, connection: psycopg.Connection[tuple[Any, ...]], number: int) -> None:
        choose = self._random
        for _ in range(choose.randint(1, 4)):
            moment = choose.choice(MOMENTS)
            statements = [
                f"INSERT INTO log (name, at) SELECT 'w{number}', {moment} FROM generate_series(1, {choose.randint(1, 3)})"
            ]
            key = choose.randrange(40) * WRITERS + number
            statements.append(
                f"INSERT INTO items VALUES ({key}, '{choose.random()}', {moment}) ON CONFLICT (id) "
                "DO UPDATE SET name = excluded.name, at = greatest(items.at, excluded.at)"
            )
            for statement in statements:
                connection.execute(statement.encode())

    def _end(self, number: int) -> None:
        begun, _ = self._open.pop(number)
        # The promise is about transactions shorter than settle: what this machine has delayed is taken back.
        if time.monotonic() - begun > SETTLE - 2.5 or self._random.random() < 0.1:
            self._connections[number].rollback()
        else:
            self._connections[number].commit()
            self.committed += 1


def run_at_random(world: World, pipelines: list[Pipeline], choose: random.Random) -> list[RunResult]:
    """One round: plain, killed at random events, doubled with another control plane, or without its state."""
    lock = threading.Lock()

    def kill(event: str, _fields: Mapping[str, Any]) -> None:
        if event in PROTOCOL:
            with lock:
                fatal = choose.random() < 0.12
            if fatal:
                raise Killed

    plan = choose.choice(("plain", "killed", "killed", "doubled", "doubled and killed", "lost state"))
    states = ["one", "two"] if "doubled" in plan else [f"lost{choose.random()}" if plan == "lost state" else "one"]
    if "killed" in plan:
        world.events.listeners.append(kill)
    try:
        with ThreadPoolExecutor(len(states)) as threads:
            running = [threads.submit(world.run, *pipelines, state=state) for state in states]
            return [result for run in running for result in run.result()]
    finally:
        world.events.listeners.clear()


@pytest.mark.parametrize("seed", [20_260_101])
def test_p04_random_runs_and_late_commits_end_in_equality(
    world: World, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spark_entry.batch, "THREADS", 6)
    world.sql(
        "CREATE TABLE items (id bigint PRIMARY KEY, name text, at timestamp NOT NULL)",
        "CREATE TABLE log (id bigserial, name text, at timestamp NOT NULL)",
    )
    by_time, by_number = (
        Cursor("at", CursorType.TIMESTAMP, settle_seconds=SETTLE),
        Cursor("id", CursorType.NUMBER, settle_seconds=SETTLE),
    )
    pipelines: list[Pipeline] = []
    for kind in ("delta", "postgresql"):
        pipelines.append(world.pipeline(kind, LoadMode.MERGE, "items", cursor=by_time))
        pipelines.append(world.pipeline(kind, LoadMode.INCREMENTAL, "log", f"by_time_{kind}", cursor=by_time))
        pipelines.append(world.pipeline(kind, LoadMode.INCREMENTAL, "log", f"by_number_{kind}", cursor=by_number))
    writer, choose = Writer(world, seed), random.Random(seed)
    rounds, failures = 0, list[RunResult]()
    with ThreadPoolExecutor(1) as thread:
        writing = thread.submit(writer.write)
        deadline = time.monotonic() + SECONDS
        try:
            while time.monotonic() < deadline:
                rounds += 1
                failures += [result for result in run_at_random(world, pipelines, choose) if result.error is not None]
        finally:
            writer.stop()
        writing.result()
    for failure in failures:
        assert failure.error is not None
        assert failure.error.kind == "retryable", failure.error
    settled = f"SELECT max(at) < clock_timestamp()::timestamp - interval '{SETTLE} seconds' FROM (SELECT at FROM log UNION ALL SELECT at FROM items) r"
    while not world.sql(settled)[0][0]:
        time.sleep(0.1)
    world.good(*pipelines, state="one")
    world.assert_equal(*pipelines)
    print(f"{rounds} rounds, {writer.committed} transactions, {len(failures)} runs failed or killed")
    assert writer.committed > 50
    assert world.staging_tables() == []
