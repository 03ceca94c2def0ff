"""Promises about runs: again, two at once, killed, failed, late, and what readers see of a full refresh."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

import spark_entry.batch
from spark_entry.adapters.delta_table import DeltaTables
from spark_entry.adapters.jdbc import JdbcAdapter
from sync_core.domain.pipeline import Cast, Cursor, Filter, LoadMode, Source
from sync_core.domain.run import Outcome, RunKind, RunResult
from sync_core.domain.watermark import CursorType
from sync_core.operate import change_watermark
from tests.support.world import MODES, Gate, World, kill_at

MERGE, APPEND, REFRESH = LoadMode.MERGE, LoadMode.INCREMENTAL, LoadMode.FULL_REFRESH


@pytest.fixture
def all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six pipelines of a batch run at once."""
    monkeypatch.setattr(spark_entry.batch, "THREADS", 6)


def test_p03_a_run_without_changes_writes_nothing(world: World) -> None:
    world.orders((1, "a", "2024-01-01"), (2, "b", "2024-01-02"), (3, "b", "2024-01-02"))
    everything = Cursor("at", CursorType.TIMESTAMP, settle_seconds=0, lookback=1e9)
    plain = world.pipelines(MERGE, APPEND)
    looking_back = [
        replace(one, pipeline_id=f"{one.pipeline_id}_all", target=replace(one.target, table=f"{one.target.table}_all"))
        for one in world.pipelines(MERGE, APPEND, cursor=everything)
    ]
    pipelines = [*plain, *looking_back]
    world.good(*pipelines)
    before = [world.version(pipeline) for pipeline in pipelines]
    for result in world.good(*pipelines):
        assert (result.state, result.rows.inserted, result.rows.updated) == (Outcome.UNCHANGED, 0, 0)
        assert (result.generation, result.counted_generation) == (1, None)
    assert [world.version(pipeline) for pipeline in pipelines] == before
    world.assert_equal(*pipelines)


@pytest.mark.parametrize("event", ["commit.started", "commit.done", "result.written"])
def test_p04_the_watermark_is_that_of_the_rows_and_never_lags_longer_than_one_run(
    world: World, event: str, all_at_once: None
) -> None:
    world.orders((1, "a", "2024-01-01"))
    pipelines = world.pipelines(*MODES)
    world.good(*pipelines)
    world.insert((2, "b", "2024-01-02"), (3, "c", "2024-01-01"))
    with world.events.listening(kill_at(event, *pipelines)):
        world.run(*pipelines)
    committed = event != "commit.started"
    world.assert_equal(*pipelines, where="true" if committed else "id = 1")
    for pipeline, result in zip(pipelines, world.good(*pipelines), strict=True):
        assert result.watermark is not None
        assert result.watermark.value == "2024-01-02T00:00:00"
        assert world.record(pipeline).watermark == result.watermark
        if committed and pipeline.mode is not REFRESH:
            assert (result.state, result.generation) == (Outcome.UNCHANGED, 2)
    world.assert_equal(*pipelines)


@pytest.mark.parametrize(
    ("event", "loaded"), [("write.staged", True), ("commit.started", True), ("commit.started", False)]
)
def test_p05_of_two_runs_at_once_one_commits_and_the_other_writes_nothing(
    world: World, event: str, loaded: bool, all_at_once: None
) -> None:
    world.orders((1, "a", "2024-01-01"))
    pipelines = world.pipelines(*MODES)
    if loaded:
        world.good(*pipelines, state="one")
        world.insert((2, "b", "2024-01-02"), (3, "c", "2024-01-01"))
    gate = Gate(event, len(pipelines))
    with world.events.listening(gate), ThreadPoolExecutor(1) as thread:
        slow = thread.submit(world.run, *pipelines, state="one")
        gate.wait()
        fast = world.run(*pipelines, state="two")
        after = [world.version(pipeline) for pipeline in pipelines]
        gate.open()
        for pipeline, winner, loser in zip(pipelines, fast, slow.result(), strict=True):
            assert winner.state is Outcome.SUCCEEDED, winner
            assert loser.state is Outcome.SUPERSEDED, loser
            assert (loser.rows.inserted, loser.rows.updated, loser.counted_generation) == (0, 0, None)
            assert world.record(pipeline, "one").watermark == winner.watermark
    assert [world.version(pipeline) for pipeline in pipelines] == after
    world.assert_equal(*pipelines)
    world.good(*pipelines, state="one")
    world.assert_equal(*pipelines)
    assert world.staging_tables() == []


def test_p03_rows_that_are_filtered_out_are_counted_where_plans_adapt(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clusters plan anew while they run, unlike a local session: what turned out empty was cut off with its counts."""
    monkeypatch.setitem(spark_entry.batch.SETTINGS, "spark.sql.adaptive.enabled", "true")
    world.orders((1, "a", "2024-01-01"), (2, "draft", "2024-01-02"))
    pipeline = world.pipeline("delta", APPEND, transformations=(Filter("name <> 'draft'"),))
    world.good(pipeline)
    (result,) = world.good(pipeline)
    assert (result.state, result.rows.read, result.generation) == (Outcome.UNCHANGED, 1, 1)


def test_p03_rows_are_counted_where_the_plan_itself_says_that_none_passes(world: World) -> None:
    """A filter on a derived constant may be false before a row is read."""
    world.orders((1, "a", "2024-01-01"), (2, "b", "2024-01-02"))
    pipelines = world.pipelines(LoadMode.MERGE, APPEND, transformations=(Filter("'test' = 'prod'"),))
    assert [(one.state, one.rows.read) for one in world.good(*pipelines)] == [(Outcome.SUCCEEDED, 2)] * len(pipelines)
    assert [(one.state, one.rows.read) for one in world.good(*pipelines)] == [(Outcome.UNCHANGED, 1)] * len(pipelines)


@pytest.mark.parametrize(
    ("kind", "owner", "look"), [("delta", DeltaTables, "past"), ("postgresql", JdbcAdapter, "_has_rows")]
)
def test_p05_a_first_load_that_lands_between_two_looks_at_the_target_is_seen(
    world: World, kind: str, owner: type, look: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows and ledger are read one after the other: what the other run wrote is neither foreign nor gone."""
    world.orders((1, "a", "2024-01-01"))
    pipeline = world.pipeline(kind, LoadMode.INCREMENTAL)
    with world.events.listening(kill_at("write.staged", pipeline)):
        world.run(pipeline, state="one")
    original, landed = getattr(owner, look), list[RunResult | None]()

    def look_late(*arguments: Any) -> Any:
        if not landed:
            landed.append(None)
            landed[0] = world.run(pipeline, state="two")[0]
        return original(*arguments)

    monkeypatch.setattr(owner, look, look_late)
    (result,) = world.run(pipeline, state="one")
    assert landed[0] is not None
    assert landed[0].state is Outcome.SUCCEEDED, landed[0]
    assert (result.error, result.state, result.generation) == (None, Outcome.UNCHANGED, 1), result
    world.assert_equal(pipeline)


def test_p10_a_changed_cursor_or_source_is_refused_until_it_is_reset(world: World) -> None:
    for table in ("orders", "orders_2"):
        world.sql(f"CREATE TABLE {table} (id bigint PRIMARY KEY, name text, at timestamp, other timestamp)")
        world.insert((1, "a", "2024-01-01", "2024-01-05"), table=table)
    pipelines = world.pipelines(MERGE)
    world.good(*pipelines)
    before = [world.version(pipeline) for pipeline in pipelines]
    changes: list[dict[str, Any]] = [
        {"cursor": Cursor("other", CursorType.TIMESTAMP, settle_seconds=0)},
        {"cursor": Cursor("id", CursorType.NUMBER, settle_seconds=0)},
        {"source": Source("pg", "orders_2")},
        {"source": Source("pg", query="SELECT * FROM orders WHERE id > 0")},
    ]
    for change in changes:
        for result in world.run(*[replace(pipeline, **change) for pipeline in pipelines]):
            assert result.error is not None, change
            assert result.error.code == "ledger.other_source"
            assert f"uds watermark reset {result.pipeline_id}" in result.error.remedy
    assert [world.version(pipeline) for pipeline in pipelines] == before
    moved = [replace(pipeline, source=Source("pg", "orders_2")) for pipeline in pipelines]
    world.insert((2, "only in the second", "2023-01-01", "2023-01-01"), table="orders_2")
    app = world.app()
    for pipeline in moved:
        change_watermark(app.store, pipeline.pipeline_id, None, "tester", "another table", False, app.now())
    world.good(*moved)
    world.assert_equal(*moved)


def test_p15_readers_of_a_full_refresh_see_the_old_rows_or_the_new(world: World) -> None:
    world.sql(
        "CREATE TABLE orders (id bigint PRIMARY KEY, name text, at timestamp)",
        "INSERT INTO orders SELECT i, 'old', timestamp '2024-01-01' FROM generate_series(1, 3000) i",
    )
    pipelines = world.pipelines(REFRESH)
    world.good(*pipelines)
    world.sql(
        "DELETE FROM orders",
        "INSERT INTO orders SELECT i, 'new', timestamp '2024-01-01' FROM generate_series(1, 5000) i",
    )
    delta, postgresql = pipelines
    seen: dict[str, set[tuple[int, str, str]]] = {"delta": set(), "postgresql": set()}
    done = threading.Event()

    def read() -> None:
        session = world.spark.newSession()
        path = world.delta_path(delta)
        with world.connect(autocommit=True) as connection:
            while not done.is_set():
                row = session.read.format("delta").load(path).selectExpr("count(*)", "min(name)", "max(name)").head()
                assert row is not None
                seen["delta"].add((row[0], row[1], row[2]))
                for _ in range(20):
                    found = connection.execute(
                        f"SELECT count(*), min(name), max(name) FROM {world.target}.{postgresql.target.table}".encode()
                    ).fetchone()
                    assert found is not None
                    seen["postgresql"].add((found[0], found[1], found[2]))

    def look(event: str, fields: Mapping[str, Any]) -> None:
        """Inside the transaction too: after its delete, before its commit, nothing of it is seen."""
        if event in ("write.staged", "commit.started", "commit.done") and fields["pipeline"] == postgresql.pipeline_id:
            found = world.sql(f"SELECT count(*), min(name), max(name) FROM {world.target}.{postgresql.target.table}")
            seen["postgresql"].add((found[0][0], found[0][1], found[0][2]))

    with ThreadPoolExecutor(1) as thread, world.events.listening(look):
        reader = thread.submit(read)
        try:
            world.good(*pipelines)
        finally:
            done.set()
        reader.result()
    for kind, states in seen.items():
        assert states <= {(3000, "old", "old"), (5000, "new", "new")}, kind
        assert len(states) >= 1
    world.assert_equal(*pipelines)


def test_p16_a_failed_write_leaves_the_target_as_it_was(world: World, all_at_once: None) -> None:
    world.orders((1, "10", "2024-01-01"))
    pipelines = world.pipelines(*MODES, transformations=(Cast({"name": "int"}),))
    world.good(*pipelines)
    before = [world.version(pipeline) for pipeline in pipelines]
    world.insert((2, "20", "2024-01-02"), (3, "no number", "2024-01-02"))
    for result in world.run(*pipelines):
        assert result.error is not None
        assert (result.state, result.rows.inserted, result.counted_generation) == (Outcome.FAILED, 0, None)
        assert result.error.code == "row.invalid", result.error
        assert "'no number'" in result.error.message
    assert [world.version(pipeline) for pipeline in pipelines] == before
    world.sql("UPDATE orders SET name = '30' WHERE id = 3")
    with world.events.listening(kill_at("write.staged", *pipelines)):
        world.run(*pipelines)
    assert [world.version(pipeline) for pipeline in pipelines] == before
    world.good(*pipelines)
    world.assert_equal(*pipelines)
    assert world.staging_tables() == []


def test_p27_an_older_row_never_overwrites_a_newer_one(world: World) -> None:
    world.orders((1, "new", "2024-03-01"), (2, "b", "2024-04-01"))
    merging, appending = world.pipelines(MERGE), world.pipelines(APPEND)
    world.good(*merging, *appending)
    # The source is restored from a backup: an older state of row 1; and rows that nobody saw so far.
    world.sql("UPDATE orders SET name = 'old', at = '2024-02-01' WHERE id = 1")
    world.insert((3, "found later", "2024-01-15"))
    expected = {
        ("1", "new", "2024-03-01 00:00:00"): 1,
        ("2", "b", "2024-04-01 00:00:00"): 1,
        ("3", "found later", "2024-01-15 00:00:00"): 1,
    }
    for number in (1, 2):
        results = world.good(*merging, kind=RunKind.BACKFILL, since="2024-01-01", until="2024-03-15")
        for pipeline, result in zip(merging, results, strict=True):
            assert (result.rows.updated, result.rows.inserted) == (0, 1 if number == 1 else 0)
            if pipeline.target.connection == "postgresql":
                assert result.rows.older == 1
            assert result.watermark is not None
            assert result.watermark.value == "2024-04-01T00:00:00"
            assert world.target_rows(pipeline) == expected
    looking_back = world.pipelines(MERGE, cursor=Cursor("at", CursorType.TIMESTAMP, settle_seconds=0, lookback=1e9))
    world.insert((4, "d", "2024-05-01"))
    world.good(*looking_back)
    for pipeline in looking_back:
        assert world.target_rows(pipeline) == expected | {("4", "d", "2024-05-01 00:00:00"): 1}
    # In append mode a backfill brings what is missing, once.
    world.sql("DELETE FROM orders WHERE id IN (1, 4)")
    for _ in (1, 2):
        world.good(*appending, kind=RunKind.BACKFILL, since="2024-01-01", until="2024-12-31")
        for pipeline in appending:
            assert world.target_rows(pipeline) == expected


def test_p27_a_late_run_of_older_rows_does_not_win(world: World) -> None:
    world.orders((1, "a", "2024-01-01"))
    pipelines = world.pipelines(MERGE)
    world.good(*pipelines, state="one")
    world.sql("UPDATE orders SET name = 'b', at = '2024-01-02'")
    gate = Gate("read.planned", len(pipelines))
    with world.events.listening(gate), ThreadPoolExecutor(1) as thread:
        late = thread.submit(world.run, *pipelines, state="one")
        gate.wait()
        world.sql("UPDATE orders SET name = 'c', at = '2024-01-03'")
        world.good(*pipelines, state="two")
        gate.open()
        assert {result.state for result in late.result()} == {Outcome.SUPERSEDED}
    world.assert_equal(*pipelines)
