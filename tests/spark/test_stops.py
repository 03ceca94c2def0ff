"""Runs that are stopped: on request, at their time limit, or with the engine; and what their neighbours notice."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import spark_entry.batch
from spark_entry import stops
from spark_entry.batch import Batch
from spark_entry.main import read_manifest
from spark_entry.secrets import Secrets
from sync_core.domain.pipeline import LoadMode, Pipeline, ReadOptions
from sync_core.domain.run import Outcome, RunKind, RunOrder, RunResult, make_run_key
from sync_core.launch import make_manifest as build_manifest
from tests.support.world import World

ROW_BY_ROW = ReadOptions(partitions=1, fetch_size=1)
"""Else the database works on after the run was stopped, until it has found the first ten thousand rows."""


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stops, "POLL_SECONDS", 0.3)


@pytest.fixture
def slow_world(world: World) -> Generator[World]:
    """`slow` takes two minutes to read, `slow_at` to find its greatest cursor, which `stubborn_at` also does uncancelled."""
    nap = "RETURNS {} LANGUAGE plpgsql STABLE AS $$ BEGIN PERFORM pg_sleep({}); RETURN {}; {} END $$"
    world.orders(*[(number, "a", "2024-01-01") for number in range(600)])
    world.sql(
        f"CREATE FUNCTION nap(id bigint) {nap.format('text', '0.2', 'id::text', '')}",
        f"CREATE FUNCTION doze(id bigint) {nap.format('interval', '120', "interval '0'", '')}",
        "CREATE FUNCTION snore(id bigint) "
        + nap.format(
            "interval", "120", "interval '0'", "EXCEPTION WHEN query_canceled THEN PERFORM pg_sleep(120); RETURN NULL;"
        ),
        "CREATE VIEW slow AS SELECT id, nap(id) AS name, at FROM orders",
        "CREATE VIEW slow_at AS SELECT id, name, at + doze(id) AS at FROM orders",
        "CREATE VIEW stubborn_at AS SELECT id, name, at + snore(id) AS at FROM orders",
        "CREATE TABLE quick AS SELECT * FROM orders WHERE id < 3",
        "CREATE TABLE quick_too AS SELECT * FROM quick",
    )
    yield world
    world.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        f"WHERE pid <> pg_backend_pid() AND query LIKE '%{world.source}%'"
    )


def asking(world: World, event: str, *pipelines: Pipeline, of: Pipeline | None = None) -> Callable[..., None]:
    """A listener that asks for the stop of these runs at an event of each, or at the event of another one."""
    names = [pipeline.pipeline_id for pipeline in pipelines]

    def listener(name: str, fields: Mapping[str, Any]) -> None:
        if name != event or fields["pipeline"] not in ([of.pipeline_id] if of else names):
            return
        folder = world.app().folder
        manifest = folder.read_manifest(fields["batch_id"])
        assert manifest is not None
        for order in manifest.runs:
            if order.pipeline.pipeline_id in names if of else order.run_key == fields["run_key"]:
                folder.ask_to_stop(manifest.batch_id, order.run_key)

    return listener


def check_stopped(result: RunResult, code: str = "run.stopped", state: Outcome = Outcome.CANCELLED) -> None:
    assert result.error is not None, result
    assert (result.state, result.error.code) == (state, code), result
    assert (result.counted_generation, result.rows.inserted, result.rows.updated) == (None, 0, 0)


def test_p16_a_run_stopped_while_it_reads_leaves_everything_as_it_was_and_its_neighbours_alone(
    slow_world: World,
) -> None:
    world = slow_world
    slow = world.pipelines(table="slow", read=ROW_BY_ROW)
    quick = [*world.pipelines(table="quick"), *world.pipelines(LoadMode.INCREMENTAL, table="quick_too")]
    with world.events.listening(asking(world, "read.planned", *slow)):
        results = world.run(*slow, *quick)
    for pipeline, result in zip(slow, results[:2], strict=True):
        check_stopped(result)
        assert result.error is not None
        assert pipeline.pipeline_id in result.error.message
        assert world.events.of("read.planned", pipeline.pipeline_id)
        assert not world.events.of("commit.done", pipeline.pipeline_id)
        assert sum(world.target_rows(pipeline).values()) == 0
    # Staged only when all rows were read, which was interrupted.
    assert not world.events.of("write.staged", slow[1].pipeline_id)
    assert [result.state for result in results[2:]] == [Outcome.SUCCEEDED] * 4
    world.assert_equal(*quick)
    assert world.staging_tables() == []


@pytest.mark.parametrize("table", ["slow_at", "stubborn_at"])
def test_a_statement_on_a_held_connection_is_cancelled_and_one_that_goes_on_is_cut_off(
    slow_world: World, table: str
) -> None:
    world = slow_world
    pipeline, quick = world.pipeline("delta", table=table), world.pipeline("delta", table="quick")
    with world.events.listening(asking(world, "run.started", pipeline)):
        result, neighbour = world.run(pipeline, quick)
    check_stopped(result)
    assert not world.events.of("window.fixed", pipeline.pipeline_id)
    assert neighbour.state is Outcome.SUCCEEDED
    assert not Path(world.delta_path(pipeline)).exists()


def test_a_run_that_has_not_begun_does_not_begin(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spark_entry.batch, "THREADS", 1)
    world.orders((1, "a", "2024-01-01"))
    first, second = world.pipelines()
    stopped = threading.Event()

    def wait(name: str, fields: Mapping[str, Any]) -> None:
        if name == "run.stopping":
            stopped.set()
        if name == "read.planned":
            assert stopped.wait(60)

    with world.events.listening(asking(world, "run.started", second, of=first)), world.events.listening(wait):
        done, cancelled = world.run(first, second)
    assert done.state is Outcome.SUCCEEDED
    check_stopped(cancelled)
    assert not world.events.of("run.started", second.pipeline_id)
    assert world.good(second)[0].rows.inserted == 1


@pytest.mark.parametrize("interrupted", [False, True])
def test_p04_a_run_stopped_after_its_commit_has_succeeded(world: World, interrupted: bool) -> None:
    world.orders((1, "a", "2024-01-01"))
    pipelines = world.pipelines()
    stopping = {pipeline.pipeline_id: threading.Event() for pipeline in pipelines}

    def wait(name: str, fields: Mapping[str, Any]) -> None:
        if name == "run.stopping":
            stopping[fields["pipeline"]].set()
        if name == "commit.done":
            assert stopping[fields["pipeline"]].wait(60)
            if interrupted:
                raise RuntimeError("what the run had in progress was interrupted just then")

    with world.events.listening(asking(world, "commit.done", *pipelines)), world.events.listening(wait):
        results = world.run(*pipelines)
    for result in results:
        assert (result.state, result.error, result.counted_generation) == (Outcome.SUCCEEDED, None, 1), result
        assert result.rows.inserted == 1
    world.assert_equal(*pipelines)


def test_p04_a_batch_executed_again_finds_its_commits_although_it_is_asked_to_stop(world: World) -> None:
    world.orders((1, "a", "2024-01-01"))
    pipelines = world.pipelines()
    first = world.good(*pipelines)
    app, batch_id = world.app(), first[0].batch_id
    folder = world.folder / "state/runs" / batch_id
    for result in first:
        (folder / "results" / f"{result.run_key}.json").unlink()
        app.folder.ask_to_stop(batch_id, result.run_key)
    app.launcher.launch(batch_id, str(folder / "manifest.json"))
    for result in first:
        again = app.folder.read_result(batch_id, result.run_key)
        assert again is not None
        assert (again.state, again.counted_generation, again.watermark) == (Outcome.SUCCEEDED, 1, result.watermark)


def test_a_run_over_its_time_limit_fails_and_says_what_to_do(slow_world: World) -> None:
    world = slow_world
    reading = world.pipelines(table="slow", read=ROW_BY_ROW, timeout_seconds=2.0)
    probing = world.pipeline("delta", table="slow_at", timeout_seconds=1.0)
    patient = world.pipeline("delta", table="quick", timeout_seconds=600.0)
    *late, fine = world.run(*reading, probing, patient)
    for result, seconds in zip(late, (2, 2, 1), strict=True):
        check_stopped(result, "run.timeout", Outcome.FAILED)
        assert result.error is not None
        assert result.error.kind == "retryable"
        assert f"its limit of {seconds} s (timeout)" in result.error.message
        assert "more partitions" in result.error.remedy
    assert fine.state is Outcome.SUCCEEDED
    assert world.staging_tables() == []


def test_an_engine_that_must_end_cancels_what_has_not_committed(slow_world: World) -> None:
    world = slow_world
    pipelines = world.pipelines(table="slow", read=ROW_BY_ROW)
    seen: list[RunResult] = []
    batches: list[Batch] = []
    path = make_manifest(world, *pipelines)

    def stop(name: str, fields: Mapping[str, Any]) -> None:
        if name == "read.planned":
            batches[0].stop()

    batches.append(Batch(world.spark, read_manifest(path), Secrets(world.environment), seen.append))
    with world.events.listening(stop):
        results = batches[0].run()
    assert len(seen) == len(results)
    for result in results:
        check_stopped(result, "engine.stopped")
        assert result.error is not None
        assert result.error.kind == "retryable"


def make_manifest(world: World, *pipelines: Pipeline) -> Path:
    orders = [RunOrder(make_run_key(one.pipeline_id, "x", 1), one, RunKind.INCREMENTAL) for one in pipelines]
    return Path(world.app().folder.write_manifest(build_manifest("batch", orders, world.connections)))


def test_a_connection_serves_no_more_runs_at_once_than_it_may(world: World) -> None:
    world.orders((1, "a", "2024-01-01"))
    world.connections["one"] = replace(world.connections["pg"], name="one", max_concurrent=1)
    limited = [
        replace(pipeline, source=replace(pipeline.source, connection="one"))
        for pipeline in world.pipelines(LoadMode.MERGE, LoadMode.INCREMENTAL)
    ]
    now: set[str] = set()
    most: list[int] = []

    def count(name: str, fields: Mapping[str, Any]) -> None:
        if name == "run.started":
            now.add(fields["pipeline"])
            most.append(len(now))
        if name == "run.finished":
            now.discard(fields["pipeline"])

    with world.events.listening(count):
        world.good(*limited)
    assert most == [1, 1, 1, 1]
    world.assert_equal(*limited)
