"""What a warm engine does beyond any engine: many batches, one process, and what they notice of each other's ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from spark_entry.server import take_lock
from sync_core.adapters import warm_launcher
from sync_core.adapters.local_launcher import LocalLauncher
from sync_core.adapters.local_run_folder import LocalRunFolder
from sync_core.adapters.warm_launcher import WarmLauncher
from sync_core.domain.run import Manifest, Outcome, RunKind, RunOrder
from sync_core.ports import LaunchStatus
from tests.support.flows import pipeline

ENGINE = [sys.executable, "-m", "tests.support.fake_server"]
WAIT = 60


def wait_until(condition: Callable[[], object]) -> None:
    waited = threading.Event()
    for _ in range(WAIT * 100):
        if condition():
            return
        waited.wait(0.01)
    raise AssertionError("it never came true")


class Machine:
    """A folder, and a launcher on it."""

    def __init__(self, folder: Path) -> None:
        self.place = folder
        self.runs = LocalRunFolder(folder / "runs")
        self.done: list[str] = []
        self.launcher = WarmLauncher(folder / "runs", ENGINE, on_done=self.done.append)

    def manifest(self, batch_id: str) -> str:
        order = RunOrder(f"key-{batch_id}", pipeline(batch_id), RunKind.INCREMENTAL)
        return self.runs.write_manifest(Manifest(batch_id, {}, (order,)))

    def launch(self, *batches: str) -> None:
        for batch_id in batches:
            self.launcher.launch(batch_id, self.manifest(batch_id))

    def begin(self, *batches: str) -> None:
        """Launch batches that wait, until they run."""
        (self.place / "how").write_text("wait")
        self.launch(*batches)
        for batch_id in batches:
            wait_until((self.place / "runs" / batch_id / "waiting").exists)

    def outcome(self, batch_id: str) -> Outcome | None:
        result = self.runs.read_result(batch_id, f"key-{batch_id}")
        return result.state if result else None

    def status(self, batch_id: str) -> LaunchStatus:
        """As any other process sees it."""
        return LocalLauncher(self.place / "runs", ()).state(batch_id).status

    def text(self, batch_id: str, name: str) -> str:
        return (self.place / "runs" / batch_id / name).read_text()

    def pid(self, batch_id: str) -> int:
        return int(self.text(batch_id, "engine.pid"))

    def release(self) -> None:
        (self.place / "release").touch()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Machine]:
    monkeypatch.setenv("UDS_FAKE_PLACE", str(tmp_path))
    opened = Machine(tmp_path)
    yield opened
    opened.launcher.stop()


def test_one_process_serves_all_batches_each_with_its_own_events_and_log(machine: Machine) -> None:
    for batch_id in ("one", "two"):
        machine.launch(batch_id)
        wait_until(lambda: machine.done and machine.done[-1] == batch_id)  # noqa: B023 - called at once
        assert machine.status(batch_id) is LaunchStatus.ENDED
        assert machine.outcome(batch_id) is Outcome.SUCCEEDED
    assert machine.pid("one") == machine.pid("two")
    for batch_id, other in (("one", "two"), ("two", "one")):
        events = [json.loads(line) for line in machine.text(batch_id, "events.jsonl").splitlines()]
        assert [(event["event"], event["batch_id"]) for event in events] == [("batch.started", batch_id)]
        assert f"a line of the log, {batch_id}\n" in machine.text(batch_id, "engine.log")
        assert f"a line of the log, {other}\n" not in machine.text(batch_id, "engine.log")
    assert machine.launcher.state("one").reason.startswith("the engine ended without a result")


def test_a_batch_that_waits_for_its_turn_is_seen_to_run_all_the_time(machine: Machine) -> None:
    machine.begin("one", "two")
    machine.launch("three")
    for batch_id in ("one", "two", "three"):
        assert machine.status(batch_id) is LaunchStatus.RUNNING
    assert not (machine.place / "runs/three/engine.log").exists()
    machine.release()
    wait_until(lambda: len(machine.done) == 3)
    assert [machine.outcome(batch_id) for batch_id in ("one", "two", "three")] == [Outcome.SUCCEEDED] * 3


def test_p04_a_crash_is_seen_as_the_crash_of_each_batch_and_the_next_one_runs(machine: Machine) -> None:
    machine.begin("one", "two")
    machine.launch("three")
    with Path(machine.launcher._engine.log).open("a") as log:  # type: ignore[union-attr]  # pyright: ignore
        log.write("java.lang.OutOfMemoryError: Java heap space\n")
    os.kill(machine.pid("one"), signal.SIGKILL)
    for batch_id in ("one", "two"):
        wait_until(lambda: machine.status(batch_id) is LaunchStatus.ENDED)  # noqa: B023
        state = machine.launcher.state(batch_id)
        assert state.reason.startswith(
            "the engine was killed by SIGKILL, its last error was java.lang.OutOfMemoryError: Java heap space; its log is "
        )
        assert f"a line of the log, {batch_id}\n" in machine.text(batch_id, "engine.log")
        assert machine.outcome(batch_id) is None
    assert machine.launcher.state("three").reason == "its engine was never started"
    machine.release()
    machine.launch("four")
    wait_until(lambda: machine.done == ["four"])
    assert machine.outcome("four") is Outcome.SUCCEEDED
    assert machine.pid("four") != machine.pid("one")
    assert "killed by SIGKILL" in machine.launcher.state("one").reason
    assert "OutOfMemoryError" in LocalLauncher(machine.place / "runs", ()).state("one").reason


def test_p21_a_batch_that_ended_is_not_launched_again(machine: Machine) -> None:
    machine.launch("one")
    wait_until(lambda: machine.done == ["one"])
    machine.launch("one", "two")
    other = WarmLauncher(machine.place / "runs", ENGINE)
    other.launch("one", machine.manifest("one"))
    wait_until(lambda: len(machine.done) == 2)
    assert (machine.place / "started").read_text().split() == ["one", "two"]
    assert other._engine is None


def test_a_cancelled_batch_stops_by_itself_and_the_others_go_on(machine: Machine) -> None:
    machine.begin("one", "two")
    machine.launch("three")
    machine.launcher.cancel("three")
    assert machine.outcome("three") is Outcome.CANCELLED, "it need not wait for its turn to end"
    WarmLauncher(machine.place / "runs", ENGINE).cancel("one")
    assert machine.outcome("one") is Outcome.CANCELLED
    assert machine.status("two") is LaunchStatus.RUNNING
    machine.release()
    wait_until(lambda: len(machine.done) == 3)
    assert machine.outcome("two") is Outcome.SUCCEEDED
    machine.launcher.cancel("two")
    assert machine.launcher._engine is not None
    assert machine.launcher._engine.process.poll() is None


def test_only_a_batch_that_does_not_obey_ends_the_process(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_launcher, "STOP_SECONDS", 0.2)
    monkeypatch.setattr("sync_core.adapters.local_launcher.GRACE_SECONDS", 1.5)
    machine.begin("good")
    (machine.place / "how").write_text("stubborn")
    machine.launch("stubborn")
    wait_until((machine.place / "runs/stubborn/waiting").exists)
    machine.launcher.cancel("stubborn")
    assert machine.status("stubborn") is LaunchStatus.ENDED
    assert machine.outcome("stubborn") is None
    # It was given the time to stop its runs, and did.
    assert machine.outcome("good") is Outcome.CANCELLED


def test_stop_cancels_what_runs_and_starts_nothing_more(machine: Machine) -> None:
    machine.begin("one", "two")
    machine.launch("three")
    machine.launcher.stop()
    assert [machine.outcome(batch_id) for batch_id in ("one", "two")] == [Outcome.CANCELLED] * 2
    assert machine.launcher.state("three").reason == "its engine was never started"
    assert machine.launcher._engine is not None
    assert machine.launcher._engine.process.returncode == 0
    machine.release()
    machine.launch("four")
    wait_until(lambda: "four" in machine.done)


def test_drained_it_finishes_what_it_has_and_a_new_one_takes_the_rest(machine: Machine) -> None:
    machine.begin("one", "two")
    machine.launch("three")
    engine = machine.launcher._engine
    assert engine is not None
    machine.launcher.drain()
    machine.release()
    assert engine.process.wait(WAIT) == 0
    assert [machine.outcome(batch_id) for batch_id in ("one", "two", "three")] == [Outcome.SUCCEEDED] * 3
    machine.launch("four")
    wait_until(lambda: "four" in machine.done)
    assert machine.pid("four") != machine.pid("one")


def test_p04_it_finishes_what_runs_when_its_launcher_was_killed(machine: Machine) -> None:
    (machine.place / "how").write_text("wait")
    code = (
        "import sys, pathlib\n"
        "from sync_core.adapters.warm_launcher import WarmLauncher\n"
        f"launcher = WarmLauncher(pathlib.Path({str(machine.place / 'runs')!r}), {ENGINE!r})\n"
        f"launcher.launch('one', {machine.manifest('one')!r})\n"
        "print('launched', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"launched\n"
        wait_until((machine.place / "waiting").exists)
        owner.kill()
        owner.wait()
    assert machine.status("one") is LaunchStatus.RUNNING
    machine.release()
    wait_until(lambda: machine.status("one") is LaunchStatus.ENDED)
    assert machine.outcome("one") is Outcome.SUCCEEDED


def test_an_engine_whose_spark_has_died_is_replaced(machine: Machine) -> None:
    (machine.place / "how").write_text("ill")
    machine.launch("one")
    engine = machine.launcher._engine
    assert engine is not None
    assert engine.process.wait(WAIT) == 1
    assert machine.outcome("one") is Outcome.SUCCEEDED
    (machine.place / "how").write_text("")
    machine.launch("two")
    wait_until(lambda: "two" in machine.done)
    assert machine.outcome("two") is Outcome.SUCCEEDED


def test_a_batch_whose_engine_fails_in_it_has_ended(machine: Machine) -> None:
    (machine.place / "how").write_text("raise")
    machine.launch("one")
    wait_until(lambda: machine.done == ["one"])
    reason = machine.launcher.state("one").reason
    assert reason.startswith(
        "the engine ended without a result, its last error was RuntimeError: a fault of the engine"
    )
    (machine.place / "how").write_text("")
    machine.launch("two")
    wait_until(lambda: "two" in machine.done)
    assert machine.outcome("two") is Outcome.SUCCEEDED
    assert machine.pid("one") == machine.pid("two")


def test_many_threads_launch_many_batches(machine: Machine) -> None:
    names = [f"batch-{number}" for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(machine.launch, [*names, *names]))
    wait_until(lambda: len(machine.done) == len(names))
    assert sorted((machine.place / "started").read_text().split()) == sorted(names)
    assert {machine.outcome(name) for name in names} == {Outcome.SUCCEEDED}
    assert len({machine.pid(name) for name in names}) == 1
    assert not machine.launcher._processes


def test_lines_on_a_plain_pipe(machine: Machine) -> None:
    (machine.place / "how").write_text("wait")
    held = machine.manifest("held")
    lock = take_lock(machine.place / "runs/held")
    with subprocess.Popen(ENGINE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as engine:
        assert engine.stdin is not None
        assert engine.stdout is not None
        lines = [
            "no JSON",
            "[]",
            "{}",
            '{"manifest": 1}',
            '{"manifest": "x", "lock": true}',
            json.dumps({"manifest": held}),
        ]
        lines += [json.dumps({"manifest": machine.manifest("one")})]
        engine.stdin.write("\n".join([*lines, ""]).encode())
        engine.stdin.flush()
        assert json.loads(engine.stdout.readline()) == {"done": "held"}, "somebody else runs it"
        wait_until((machine.place / "runs/one/waiting").exists)
        with pytest.raises(BlockingIOError):
            take_lock(machine.place / "runs/one")
        engine.stdin.close()
        machine.release()
        assert json.loads(engine.stdout.readline()) == {"done": "one"}
        assert engine.wait(WAIT) == 0
    os.close(lock)
    assert (machine.outcome("one"), machine.outcome("held")) == (Outcome.SUCCEEDED, None)
