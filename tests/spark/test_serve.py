"""The warm engine with Spark: batches in one application, killed and told to end."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path

import pytest

from spark_entry.secrets import Secrets
from spark_entry.serve import SparkRunner
from spark_entry.server import take_lock
from sync_core.adapters.local_run_folder import LocalRunFolder
from sync_core.adapters.warm_launcher import WarmLauncher
from sync_core.domain.pipeline import Pipeline, ReadOptions
from sync_core.domain.run import Outcome, RunKind, RunOrder, RunResult, make_run_key
from sync_core.launch import make_manifest
from sync_core.ports import LaunchStatus
from tests.support.world import World

ENGINE = [sys.executable, "-m", "spark_entry.serve"]
WAIT = 240
NAP = (
    "CREATE FUNCTION nap(id bigint) RETURNS text LANGUAGE plpgsql STABLE "
    "AS $$ BEGIN PERFORM pg_sleep({}); RETURN id::text; END $$"
)


def wait_until(condition: Callable[[], object]) -> None:
    waited = threading.Event()
    for _ in range(WAIT * 20):
        if condition():
            return
        waited.wait(0.05)
    raise AssertionError("it never came true")


class Machine:
    """A warm engine on the world's lake and databases."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.runs = LocalRunFolder(world.folder / "runs")
        self.done: list[str] = []
        self.launcher = WarmLauncher(world.folder / "runs", ENGINE, on_done=self.done.append)

    def launch(self, batch_id: str, *pipelines: Pipeline) -> None:
        orders = [RunOrder(self.key(batch_id, one), one, RunKind.INCREMENTAL) for one in pipelines]
        self.launcher.launch(
            batch_id, self.runs.write_manifest(make_manifest(batch_id, orders, self.world.connections))
        )

    def key(self, batch_id: str, pipeline: Pipeline) -> str:
        return make_run_key(pipeline.pipeline_id, batch_id, 1)

    def result(self, batch_id: str, pipeline: Pipeline) -> RunResult:
        found = self.runs.read_result(batch_id, self.key(batch_id, pipeline))
        assert found is not None, self.launcher.state(batch_id)
        return found

    def events(self, batch_id: str) -> str:
        path = self.world.folder / "runs" / batch_id / "events.jsonl"
        return path.read_text() if path.exists() else ""


@pytest.fixture
def machine(world: World, monkeypatch: pytest.MonkeyPatch) -> Generator[Machine]:
    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("UDS_DRIVER_MEMORY", "1g")
    opened = Machine(world)
    yield opened
    opened.launcher.stop()


def test_p04_p26_batches_in_one_application_through_stop_and_crash(machine: Machine) -> None:
    world = machine.world
    world.orders(*[(number, str(number), "2024-01-01") for number in range(600)])
    world.sql(
        "CREATE TABLE quick AS SELECT * FROM orders WHERE id < 3",
        NAP.format(1),
        "CREATE VIEW slow AS SELECT id, nap(id) AS name, at FROM orders",
    )
    quick = world.pipelines(table="quick")
    slow = world.pipeline("delta", table="slow", read=ReadOptions(partitions=1, fetch_size=1))

    machine.launch("first", *quick)
    machine.launch("slow", slow)
    machine.launch("third", *quick)
    wait_until(lambda: {"first", "third"} <= set(machine.done))
    assert {machine.result("first", one).state for one in quick} == {Outcome.SUCCEEDED}
    assert {machine.result("third", one).state for one in quick} <= {Outcome.UNCHANGED, Outcome.SUPERSEDED}
    for batch_id in ("first", "third"):
        events = machine.events(batch_id)
        assert events.index("batch.started") < events.index("run.finished") < events.index("batch.finished")
        assert "slow" not in events

    wait_until(lambda: "read.planned" in machine.events("slow"))
    assert machine.launcher.state("slow").status is LaunchStatus.RUNNING
    machine.launcher.cancel("slow")
    stopped = machine.result("slow", slow)
    assert stopped.error is not None
    assert (stopped.state, stopped.error.code) == (Outcome.CANCELLED, "run.stopped")
    engine = machine.launcher._engine
    assert engine is not None
    assert engine.process.poll() is None

    machine.launch("killed", slow)
    wait_until(lambda: "read.planned" in machine.events("killed"))
    os.killpg(engine.process.pid, signal.SIGKILL)
    wait_until(lambda: machine.launcher.state("killed").status is LaunchStatus.ENDED)
    assert machine.launcher.state("killed").reason.startswith("the engine was killed by SIGKILL")
    assert machine.runs.read_result("killed", machine.key("killed", slow)) is None

    world.sql("INSERT INTO quick VALUES (7, 'new', '2024-01-02')")
    machine.launch("after", *quick)
    machine.launch("ending", slow)
    wait_until(lambda: "after" in machine.done and "read.planned" in machine.events("ending"))
    world.assert_equal(*quick)
    machine.launcher.stop()
    ended = machine.result("ending", slow)
    assert ended.error is not None
    assert (ended.state, ended.error.code) == (Outcome.CANCELLED, "engine.stopped")
    assert machine.launcher._engine is not None
    assert machine.launcher._engine.process.returncode == 0
    assert sum(world.target_rows(slow).values()) == 0

    secret = world.postgres.password.encode()
    assert not [path for path in world.folder.rglob("*") if path.is_file() and secret in path.read_bytes()]


def test_a_batch_that_needs_another_driver_gets_an_engine_of_its_own(machine: Machine) -> None:
    world = machine.world
    world.orders((1, "a", "2024-01-01"))
    (pipeline,) = world.pipelines(kinds=("delta",))
    order = RunOrder(machine.key("alone", pipeline), pipeline, RunKind.INCREMENTAL)
    path = Path(machine.runs.write_manifest(make_manifest("alone", [order], world.connections)))
    runner = SparkRunner(Secrets(world.environment))
    runner._spark = world.spark
    stops: list[Callable[[], None]] = []
    lock = take_lock(path.parent)
    runner.run(path, lock, stops.append)
    os.close(lock)
    assert len(stops) == 1
    assert machine.result("alone", pipeline).state is Outcome.SUCCEEDED
    assert "batch.finished" in machine.events("alone")
    assert not world.events.seen, "this process did nothing of it"
    world.assert_equal(pipeline)


def test_a_spark_that_dies_ends_its_engine_and_the_next_batch_gets_another(machine: Machine) -> None:
    world = machine.world
    world.orders((1, "a", "2024-01-01"))
    world.sql(NAP.format(600), "CREATE VIEW slow AS SELECT id, nap(id) AS name, at FROM orders")
    (pipeline,) = world.pipelines(kinds=("postgresql",))
    dying = world.pipelines(table="slow", kinds=("delta", "postgresql"))
    machine.launch("one", pipeline)
    wait_until(lambda: "one" in machine.done)
    engine = machine.launcher._engine
    assert engine is not None
    machine.launch("dying", *dying)
    wait_until(lambda: machine.events("dying").count("read.planned") == len(dying))
    for java in children(engine.process.pid):
        os.kill(java, signal.SIGKILL)
    assert engine.process.wait(WAIT) == 1
    # The server does not notice that its client is gone, and its locks keep the view from being dropped.
    world.sql("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE relation = 'slow'::regclass")
    for one in dying:
        result = machine.result("dying", one)
        assert result.error is not None
        assert (result.state, result.error.code, result.error.kind) == (
            Outcome.FAILED,
            "engine.spark_gone",
            "retryable",
        )
        assert result.error.message.startswith(f"Pipeline {one.pipeline_id}: Spark ended while the engine was at work")
    world.insert((2, "b", "2024-01-02"))
    machine.launch("two", replace(pipeline))
    wait_until(lambda: "two" in machine.done)
    assert machine.result("two", pipeline).rows.inserted == 1


def children(parent: int) -> list[int]:
    """Java processes of the process's group."""
    found: list[int] = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, fields = status.read_text().partition(") ")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields.split()[2]) == parent and name.endswith("(java"):
            found.append(int(status.parent.name))
    assert found
    return found
