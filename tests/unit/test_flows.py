"""The flows against the protocol: crashes between any two writes, duplicates, conflicts, completions in any order."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sync_core.adapters.sqlite_store import SqliteStore
from sync_core.by_hand import App
from sync_core.close import engine_died, fail, take_result
from sync_core.complete import complete_run
from sync_core.domain.errors import PermanentError, RetryableError, SyncError
from sync_core.domain.run import (
    Outcome,
    PipelineRecord,
    RunKind,
    RunRecord,
    RunResult,
    RunState,
    Seen,
    make_batch_id,
)
from sync_core.domain.watermark import CursorType, Watermark
from sync_core.launch import Stage, launch_batch, make_manifest, make_order
from sync_core.operate import change_watermark
from sync_core.ports import Conflict, Row, Stored
from sync_core.request import Asked, ask, request_run
from tests.support.flows import CONNECTIONS, Crash, Crashes, InProcess, World, nothing, outcomes, pipeline

NOW = datetime(2026, 1, 1, tzinfo=UTC)
EMPTY = PipelineRecord("orders")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def number(value: int) -> Watermark:
    return Watermark(CursorType.NUMBER, str(value))


def asked(identity: str = "1", kind: RunKind = RunKind.INCREMENTAL) -> Asked:
    return ask("orders", identity, kind, None, requested=kind is not RunKind.INCREMENTAL)


def completed(app: App, store: SqliteStore, run_key: str) -> RunRecord | None:
    run = store.run("orders", run_key)
    assert run is not None
    return complete_run(store, app.folder, run, None, NOW)


def begun(world: World, one: Asked) -> tuple[SqliteStore, RunRecord]:
    store = SqliteStore(world.folder)
    return store, request_run(store, one, make_batch_id([one.run_key]), NOW)


@pytest.mark.parametrize("kind", [RunKind.INCREMENTAL, RunKind.FULL_REFRESH])
@pytest.mark.parametrize("loaded", [False, True])
def test_p04_a_crash_between_any_two_writes_then_a_run(tmp_path: Path, kind: RunKind, loaded: bool) -> None:
    at = 0
    while True:
        world = World(tmp_path / str(at))
        world.has(3)
        if loaded:
            world.run()
            world.has(5)
        try:
            world.run(crash_at=at, kind=kind)
        except Crash:
            assert set(outcomes(world.run())) <= {Outcome.SUCCEEDED, Outcome.UNCHANGED}
            world.check_settled()
            at += 1
            continue
        break
    world.check_settled()
    assert at == 14, "begin, manifest, launch, commit, result, launched, complete: before and after each"


def test_p04_crashes_of_the_run_that_heals_too(tmp_path: Path) -> None:
    for first in range(0, 14, 3):
        for second in range(1, 18, 4):
            world = World(tmp_path / f"{first}-{second}")
            world.has(3)
            for at in (first, second):
                try:
                    world.run(crash_at=at)
                except Crash:
                    world.has(world.place.source() + 1)
            world.run()
            world.check_settled()


def test_of_two_pipelines_one_crash_leaves_both_whole(tmp_path: Path) -> None:
    for at in range(0, 24, 2):
        world = World(tmp_path / str(at))
        with pytest.raises(Crash):
            world.run("orders", "items", crash_at=at)
        world.run("items", "orders")
        world.check_settled("orders")
        world.check_settled("items")


def test_p23_a_completion_that_comes_twice_counts_once(world: World) -> None:
    app, _ = world.app()
    result = world.run()[0]
    store = SqliteStore(world.folder)
    before = store.load("orders")
    for _ in range(3):
        completed(app, store, result.run_key)
        fail(store, "orders", result.run_key, engine_died("orders", "presumed dead"), NOW, None)
    assert store.load("orders") == before
    run = store.runs("orders", 1)[0]
    assert run.state is RunState.SUCCEEDED
    assert run.counted_generation == 1
    assert not run.late_success


def test_p23_a_run_presumed_dead_that_committed_counts_late_and_once(world: World) -> None:
    store, run = begun(world, asked())
    app, _ = world.app()
    manifest = app.folder.write_manifest(make_manifest(run.batch_id, [make_order(pipeline(), run, EMPTY)], CONNECTIONS))
    fail(store, "orders", run.run_key, engine_died("orders", "presumed dead"), NOW, None)
    assert store.load("orders").record == replace(EMPTY, first_begun_at=NOW)
    InProcess(world.place).launch(run.batch_id, manifest)
    for _ in range(3):
        late = completed(app, store, run.run_key)
        assert late is not None
        assert (late.state, late.late_success, late.counted_generation) == (RunState.FAILED, True, 1)
        record = store.load("orders").record
        assert (record.generation, record.watermark, record.open_run) == (1, number(3), None)
    assert outcomes(world.run()) == [Outcome.UNCHANGED]
    world.check_settled()


def test_what_a_closed_run_failed_of_stays(world: World) -> None:
    store, run = begun(world, asked())
    failed = fail(store, "orders", run.run_key, engine_died("orders", "presumed dead"), NOW, None)
    assert failed is not None
    nothing_done = RunResult("orders", run.run_key, run.batch_id, run.kind, 1, Outcome.SUPERSEDED)
    assert take_result(EMPTY, failed, nothing_done, None, NOW) == (EMPTY, ())


def test_p21_a_request_that_comes_twice_begins_one_run(world: World) -> None:
    store, run = begun(world, asked())
    assert begun(world, asked())[1] == run
    assert len(store.runs("orders", 9)) == 1
    with pytest.raises(RetryableError, match="Pipeline orders has an open run"):
        begun(world, asked("2"))


def test_p21_a_closed_run_is_never_begun_again(world: World) -> None:
    one = asked()
    store, run = begun(world, one)
    fail(store, "orders", run.run_key, engine_died("orders", "dead"), NOW, None)

    assert request_run(store, one, run.batch_id, NOW).state is RunState.FAILED
    assert store.load("orders").record.open_run is None


def test_p21_two_deliveries_of_one_request_at_once(world: World) -> None:
    """The second loads before the first one's save; meanwhile the run is launched."""
    one = asked()
    other = SqliteStore(world.folder)

    class Racing(SqliteStore):
        def save(self, stored: Stored, record: PipelineRecord, rows: Sequence[Row] = ()) -> None:
            if stored.tag is None:
                run = request_run(other, one, "batch", NOW)
                loaded = other.load("orders")
                other.save(loaded, loaded.record, [replace(run, state=RunState.LAUNCHED)])
            super().save(stored, record, rows)

    assert request_run(Racing(world.folder), one, "batch", NOW).state is RunState.LAUNCHED
    assert other.runs("orders", 9)[0].state is RunState.LAUNCHED


def test_p21_launching_any_number_of_times_starts_the_engine_once(world: World) -> None:
    app, _ = world.app()
    store, run = begun(world, asked())
    launcher = InProcess(world.place)

    def launch() -> str | None:
        stage = Stage(store, app.folder, launcher, {"orders": pipeline()}, CONNECTIONS)
        return launch_batch(stage, run.batch_id, [("orders", run.run_key)], NOW)

    assert launch() == launch() == run.batch_id
    assert launcher.launched == [run.batch_id]
    completed(app, store, run.run_key)
    assert launch() is None
    assert store.runs("orders", 9)[0].state is RunState.SUCCEEDED
    assert sorted(app.folder.read_manifest(run.batch_id).connections) == ["lake", "shop"]  # pyright: ignore[reportOptionalMemberAccess]


def test_p05_two_processes_begin_one_run(world: World) -> None:
    """The second begins while the first is between its begin and its launch: it is refused and disturbs nothing."""
    first, _ = world.app()
    second, _ = world.app()
    assert isinstance(first.launcher, InProcess)
    assert isinstance(second.launcher, InProcess)
    second.launcher.running = first.launcher.running
    refused: list[SyncError] = []
    launch = first.launcher.launch

    def meanwhile(batch_id: str, manifest: str, compute: str = "default") -> str:
        results, refusals = second.run([pipeline(), pipeline("items")], CONNECTIONS, nothing)
        assert [result.pipeline_id for result in results] == ["items"]
        refused.extend(refusal.error for refusal in refusals)
        return launch(batch_id, manifest, compute)

    first.launcher.launch = meanwhile
    results, _ = first.run([pipeline()], CONNECTIONS, nothing)
    assert outcomes(results) == [Outcome.SUCCEEDED]
    assert [error.code for error in refused] == ["run.alive"]
    assert "Pipeline orders is running since 20" in refused[0].message
    world.check_settled()
    world.check_settled("items")


def test_p05_of_two_saves_at_once_one_is_refused(world: World) -> None:
    store = SqliteStore(world.folder)

    class Racing(SqliteStore):
        def save(self, stored: Stored, record: PipelineRecord, rows: Sequence[Row] = ()) -> None:
            if stored.tag is None:
                request_run(store, asked("other"), "other", NOW)
            super().save(stored, record, rows)

    with pytest.raises(RetryableError, match="has an open run"):
        request_run(Racing(world.folder), asked(), "batch", NOW)
    assert [run.occasion for run in store.runs("orders", 9)] == ["run other"]


def test_a_conflict_without_end_is_told(world: World) -> None:
    class Losing(SqliteStore):
        def save(self, stored: Stored, record: PipelineRecord, rows: Sequence[Row] = ()) -> None:
            raise Conflict(record.pipeline_id)

    with pytest.raises(Conflict, match="orders was changed by somebody else"):
        request_run(Losing(world.folder), asked(), "batch", NOW)


@pytest.mark.parametrize("committed", [False, True])
def test_ctrl_c_closes_as_cancelled_but_counts_what_was_committed(world: World, committed: bool) -> None:
    app, _ = world.app()
    assert isinstance(app.launcher, InProcess)

    def interrupt() -> None:
        if not committed:
            shutil.rmtree(world.folder / "runs")
        raise KeyboardInterrupt

    app.launcher.on_follow = interrupt
    with pytest.raises(KeyboardInterrupt):
        app.run([pipeline()], CONNECTIONS, nothing)
    run = SqliteStore(world.folder).runs("orders", 1)[0]
    assert run.state is (RunState.SUCCEEDED if committed else RunState.CANCELLED)
    assert run.counted_generation == (1 if committed else None)
    world.run()
    world.has(4)
    world.run()
    world.check_settled()


def test_an_error_while_the_engine_lives_leaves_the_run_to_the_next_one(world: World) -> None:
    app, _ = world.app()
    assert isinstance(app.launcher, InProcess)
    launcher = app.launcher

    def fault() -> None:
        launcher.running.update(launcher.launched)
        raise RetryableError("store.locked", "The store is held.")

    launcher.on_follow = fault
    with pytest.raises(RetryableError):
        app.run([pipeline()], CONNECTIONS, nothing)
    store = SqliteStore(world.folder)
    assert store.runs("orders", 1)[0].state is RunState.LAUNCHED
    with pytest.raises(RetryableError, match="is running since"):
        app.settle("orders")
    launcher.running.clear()
    app.settle("orders")
    world.check_settled()


def test_an_engine_that_cannot_start_fails_the_run(world: World) -> None:
    app, _ = world.app()
    assert isinstance(app.launcher, InProcess)

    def fault(batch_id: str, manifest: str, compute: str = "default") -> str:
        raise PermanentError("launch.failed", "There is no engine.")

    app.launcher.launch = fault
    with pytest.raises(PermanentError):
        app.run([pipeline()], CONNECTIONS, nothing, RunKind.FULL_REFRESH)
    store = SqliteStore(world.folder)
    run = store.runs("orders", 1)[0]
    assert run.state is RunState.FAILED
    assert run.result is not None
    assert run.result.error is not None
    assert run.result.error.message == "Pipeline orders: There is no engine."
    assert store.load("orders").record.pending == ()
    world.run()
    world.check_settled()


def test_a_result_that_cannot_be_read_fails_the_run_and_blocks_nothing(world: World) -> None:
    world.run()
    world.has(4)
    app, crashes = world.app()
    assert isinstance(crashes, Crashes)
    results = world.folder / "runs"

    def garble() -> None:
        for path in results.glob("*/results/*.json"):
            path.write_text("{")

    assert isinstance(app.launcher, InProcess)
    app.launcher.on_follow = garble
    result = app.run([pipeline()], CONNECTIONS, nothing)[0][0]
    assert result.state is Outcome.FAILED
    assert result.error is not None
    assert result.error.code == "run_folder.unreadable"
    assert outcomes(world.run()) == [Outcome.UNCHANGED]
    world.check_settled()


def test_a_reset_wins_over_the_run_that_is_under_way(world: World) -> None:
    world.run()
    store = SqliteStore(world.folder)
    app, _ = world.app()
    assert isinstance(app.launcher, InProcess)

    def reset() -> None:
        change_watermark(store, "orders", number(2), "eve", "because", False, datetime.now(UTC))

    world.has(5)
    app.launcher.on_follow = reset
    assert outcomes(app.run([pipeline()], CONNECTIONS, nothing)[0]) == [Outcome.SUCCEEDED]
    record = store.load("orders").record
    assert (record.generation, record.watermark, record.open_run) == (0, number(2), None)
    world.run()
    world.check_settled()


def test_each_reset_begins_a_greater_epoch(world: World) -> None:
    store = SqliteStore(world.folder)
    times = (NOW, NOW, NOW - timedelta(days=9), NOW + timedelta(1))
    epochs = [change_watermark(store, "orders", None, "eve", "why", False, at)[1].epoch for at in times]
    assert epochs == sorted(set(epochs))
    assert {change.who for change in store.changes("orders", 9)} == {"eve"}


def test_what_was_seen_belongs_to_its_epoch() -> None:
    """A kept pair of another cursor would become the watermark, and rows below it would never be read."""
    old, new = Seen(number(1_000_000), NOW), Seen(number(500), NOW)
    run = RunRecord("key", "orders", RunKind.FULL_REFRESH, 1, RunState.LAUNCHED, "batch", NOW)
    result = RunResult("orders", "key", "batch", run.kind, 1, Outcome.SUCCEEDED, epoch=8, generation=4, seen=new)
    before = PipelineRecord("orders", 7, 3, number(900), "key", seen=old)
    assert take_result(before, run, result, None, NOW)[0].seen == new
    assert take_result(replace(before, epoch=8), run, result, None, NOW)[0].seen == old, "an unripe pair is kept"
    served = replace(before, epoch=8, generation=9, watermark=number(1_000_000))
    assert take_result(served, run, result, None, NOW)[0].seen == new
    assert take_result(replace(before, epoch=9, seen=None), run, result, None, NOW)[0].seen is None


def test_a_request_that_lost_the_fence_is_given_up(world: World) -> None:
    one = asked("1", RunKind.FULL_REFRESH)
    store, run = begun(world, one)
    assert [request.request_id for request in store.load("orders").record.pending] == ["1"]
    result = RunResult("orders", run.run_key, "b", run.kind, 1, Outcome.SUPERSEDED, run.request_id, generation=3)
    record, (after,) = take_result(store.load("orders").record, run, result, None, NOW)
    assert isinstance(after, RunRecord)
    assert (record.open_run, record.pending, record.generation) == (None, (), 3)
    assert after.state is RunState.FAILED
    plain = replace(run, request_id=None)
    (closed,) = take_result(store.load("orders").record, plain, result, None, NOW)[1]
    assert isinstance(closed, RunRecord)
    assert closed.state is RunState.SUCCEEDED
