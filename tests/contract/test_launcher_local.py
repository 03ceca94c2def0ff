"""What a LocalEngine does beyond what every Launcher does, cold and warm. The engine is tests/support/fake_engine.py, kept warm by fake_server.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from sync_core.adapters import local_launcher, warm_launcher
from sync_core.adapters.local_launcher import LocalLauncher
from sync_core.adapters.local_run_folder import LocalRunFolder
from sync_core.adapters.warm_launcher import WarmLauncher
from sync_core.domain.errors import PermanentError, RetryableError
from sync_core.domain.run import Manifest, RunKind, RunOrder
from sync_core.ports import LaunchStatus
from tests.support.flows import pipeline

SUPPORT = Path(__file__).parent.parent / "support"
ENGINE = [sys.executable, str(SUPPORT / "fake_engine.py")]
WARM = [sys.executable, "-m", "tests.support.fake_server"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UDS_FAKE_PLACE", str(tmp_path))
    return tmp_path


@pytest.fixture(params=["local", "warm"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def open_launcher(place: Path, kind: str) -> Generator[Callable[[], LocalLauncher]]:
    """Opens a launcher on the same folder each time, as another process would; ends what is left at the end."""
    made: list[LocalLauncher] = []

    def make() -> LocalLauncher:
        made.append(LocalLauncher(place / "runs", ENGINE) if kind == "local" else WarmLauncher(place / "runs", WARM))
        return made[-1]

    yield make
    for launcher in made:
        if isinstance(launcher, WarmLauncher):
            launcher.stop()
            continue
        for batch in list(launcher._processes):
            os.killpg(launcher._processes[batch].pid, signal.SIGKILL) if not launcher._has_ended(batch) else None
            launcher._processes[batch].wait()


def manifest(place: Path) -> str:
    order = RunOrder("key", pipeline(), RunKind.INCREMENTAL)
    return LocalRunFolder(place / "runs").write_manifest(Manifest("batch", {}, (order,)))


def follow(launcher: LocalLauncher) -> tuple[list[str], str]:
    events: list[dict[str, Any]] = []
    state = launcher.follow("batch", events.append)
    assert state.status is LaunchStatus.ENDED
    assert launcher.state("batch") == state
    return [event["event"] for event in events], state.reason


def wait_until_waiting(place: Path) -> None:
    while not (place / "waiting").exists():
        threading.Event().wait(0.01)


def test_events_come_as_they_happen_and_the_rest_goes_to_the_log(
    place: Path, open_launcher: Callable[[], LocalLauncher], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UDS_FAKE", "wait")
    launcher = open_launcher()
    launch_id = launcher.launch("batch", manifest(place))
    events: list[str] = []

    def release(event: dict[str, Any]) -> None:
        events.append(event["event"])
        if event["event"] == "batch.started":
            assert launcher.state(launch_id).status is LaunchStatus.RUNNING
            (place / "release").touch()

    assert launcher.follow(launch_id, release).status is LaunchStatus.ENDED
    assert events[0] == "batch.started"
    assert "a line of the log" in (place / "runs/batch/engine.log").read_text()
    assert launcher.batch_of(launch_id) == "batch"
    assert [launcher.batch_of(name) for name in ("other", "", "..", "../runs")] == [None] * 4


def test_p21_many_launches_of_a_batch_start_it_once(
    place: Path, open_launcher: Callable[[], LocalLauncher], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UDS_FAKE", "wait")
    one, two = open_launcher(), open_launcher()
    path = manifest(place)
    assert one.launch("batch", path) == one.launch("batch", path) == two.launch("batch", path)
    (place / "release").touch()
    assert follow(two)[0][0] == "batch.started"
    follow(one)
    assert two.launch("batch", path) == open_launcher().launch("batch", path)
    assert (place / "started").read_text().splitlines() == ["batch"]


def test_an_engine_whose_pid_was_never_written_is_not_started_twice(
    place: Path, open_launcher: Callable[[], LocalLauncher], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UDS_FAKE", "wait")
    launcher, path = open_launcher(), manifest(place)
    launcher.launch("batch", path)
    wait_until_waiting(place)
    (place / "runs/batch/engine.pid").unlink()
    open_launcher().launch("batch", path)
    (place / "release").touch()
    follow(launcher)
    assert (place / "started").read_text().splitlines() == ["batch"]


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("refuse", "There is no Java. Install Java 17."),
        ("killed", "the engine was killed by SIGKILL; its log is "),
        ("exit", "the engine ended with exit status 3; its log is "),
        ("", "the engine ended without a result; its log is "),
    ],
)
def test_how_it_ended(
    place: Path,
    open_launcher: Callable[[], LocalLauncher],
    monkeypatch: pytest.MonkeyPatch,
    how: str,
    reason: str,
) -> None:
    monkeypatch.setenv("UDS_FAKE", how)
    launcher = open_launcher()
    launcher.launch("batch", manifest(place))
    assert follow(launcher)[1].startswith(reason)
    if how == "refuse":
        assert open_launcher().state("batch").reason == reason


@pytest.mark.parametrize("how", ["wait", "stubborn"])
@pytest.mark.parametrize("by_another", [False, True])
def test_cancel_returns_when_it_cannot_write_any_more(
    place: Path,
    open_launcher: Callable[[], LocalLauncher],
    monkeypatch: pytest.MonkeyPatch,
    how: str,
    by_another: bool,
) -> None:
    monkeypatch.setenv("UDS_FAKE", how)
    monkeypatch.setattr(local_launcher, "GRACE_SECONDS", 0.2)
    monkeypatch.setattr(warm_launcher, "STOP_SECONDS", 0.2 if how == "stubborn" else 60)
    launcher = open_launcher()
    launcher.launch("batch", manifest(place))
    wait_until_waiting(place)
    canceller = open_launcher() if by_another else launcher
    canceller.cancel("batch")
    assert canceller.state("batch").status is LaunchStatus.ENDED
    canceller.cancel("batch")
    canceller.cancel("never launched")


def test_a_reservation_counts_as_running_and_ends_with_it(
    place: Path, open_launcher: Callable[[], LocalLauncher]
) -> None:
    one, two = open_launcher(), open_launcher()
    assert two.state("batch").status is LaunchStatus.UNKNOWN
    with one.reserve("batch"):
        assert two.state("batch").status is LaunchStatus.RUNNING
        with pytest.raises(RetryableError), two.reserve("batch"):
            pass
    assert two.state("batch").status is LaunchStatus.ENDED
    assert two.state("batch").reason == "its engine was never started"


def test_the_engine_keeps_the_reservation(
    place: Path, open_launcher: Callable[[], LocalLauncher], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UDS_FAKE", "wait")
    launcher = open_launcher()
    with launcher.reserve("batch"):
        launcher.launch("batch", manifest(place))
    assert open_launcher().state("batch").status is LaunchStatus.RUNNING
    (place / "release").touch()
    follow(launcher)


def test_a_reservation_dies_with_its_process(place: Path, open_launcher: Callable[[], LocalLauncher]) -> None:
    code = (
        "import sys, pathlib\n"
        "from sync_core.adapters.local_launcher import LocalLauncher\n"
        f"with LocalLauncher(pathlib.Path({str(place / 'runs')!r}), []).reserve('batch'):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert open_launcher().state("batch").status is LaunchStatus.RUNNING
        holder.kill()
        holder.wait()
    assert open_launcher().state("batch").status is LaunchStatus.ENDED


@pytest.mark.parametrize("make", [LocalLauncher, WarmLauncher])
def test_a_command_that_is_not_there(place: Path, make: type[LocalLauncher]) -> None:
    launcher = make(place / "runs", ["/nowhere/engine"])
    with pytest.raises(PermanentError, match="/nowhere/engine cannot be started: No such file"):
        launcher.launch("batch", manifest(place))
    assert launcher.state("batch").status is LaunchStatus.ENDED


def test_a_folder_that_cannot_be_written(place: Path) -> None:
    (place / "runs").write_text("")
    with pytest.raises(PermanentError, match="cannot be used"):
        LocalLauncher(place / "runs", ENGINE).launch("batch", "x")


def test_a_launch_id_from_outside_leads_nowhere_else(place: Path, open_launcher: Callable[[], LocalLauncher]) -> None:
    (place / "elsewhere").mkdir(parents=True)
    for folder in (place, place / "elsewhere"):
        (folder / "engine.lock").touch()
    (place / "runs").mkdir()
    for launch_id in ("..", "../elsewhere", str(place / "elsewhere")):
        assert open_launcher().batch_of(launch_id) is None
