"""What every Launcher does, with real processes. The engine is tests/support/fake_engine.py."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sync_core.adapters.databricks_client import DatabricksWorkspace
from sync_core.adapters.databricks_launcher import DatabricksLauncher
from sync_core.adapters.local_launcher import LocalLauncher
from sync_core.adapters.local_run_folder import LocalRunFolder
from sync_core.adapters.volume_run_folder import VolumeRunFolder
from sync_core.domain.errors import RetryableError
from sync_core.domain.run import Manifest, make_batch_id
from sync_core.ports import Launcher, LaunchState, LaunchStatus, RunFolder
from tests.conftest import FAKE_ENGINE
from tests.support.databricks_api import FOLDER, DatabricksApi

BATCH, OTHER = make_batch_id(["one"]), make_batch_id(["other"])


@dataclass
class Site:
    """Where batches are launched: each `open` is another process."""

    place: Path
    folder: RunFolder
    make: Callable[[], Launcher]
    opened: list[Launcher] = field(default_factory=list[Launcher])

    def open(self) -> Launcher:
        self.opened.append(self.make())
        return self.opened[-1]

    def manifest(self, batch_id: str = BATCH) -> str:
        return self.folder.write_manifest(Manifest(batch_id, {}, ()))

    def started(self) -> list[str]:
        path = self.place / "started"
        return path.read_text().splitlines() if path.exists() else []

    def wait_until_waiting(self) -> None:
        while not (self.place / "waiting").exists():
            threading.Event().wait(0.01)

    def release(self) -> None:
        (self.place / "release").touch()


def end_of(launcher: Launcher, launch_id: str) -> LaunchState:
    while (state := launcher.state(launch_id)).status is LaunchStatus.RUNNING:
        threading.Event().wait(0.01)
    return state


def local(request: pytest.FixtureRequest, place: Path) -> Site:
    command = FAKE_ENGINE[:-2]
    return Site(place, LocalRunFolder(place / "runs"), lambda: LocalLauncher(place / "runs", command))


def databricks(request: pytest.FixtureRequest, place: Path) -> Site:
    api: DatabricksApi = request.getfixturevalue("databricks")

    def workspace() -> DatabricksWorkspace:
        return DatabricksWorkspace(api.url, token=api.token)

    jobs = {"default": api.job_id}
    return Site(place, VolumeRunFolder(workspace(), FOLDER), lambda: DatabricksLauncher(workspace(), jobs))


@pytest.fixture(params=[local, databricks], ids=lambda make: make.__name__)
def site(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Site]:
    monkeypatch.setenv("UDS_FAKE_PLACE", str(tmp_path))
    made: Site = request.param(request, tmp_path)
    yield made
    for launcher in made.opened:
        for process in launcher._processes.values() if isinstance(launcher, LocalLauncher) else ():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def test_it_runs_the_engine_on_the_manifest_and_ends(site: Site) -> None:
    launcher = site.open()
    launch_id = launcher.launch(BATCH, site.manifest())
    assert launch_id
    assert end_of(launcher, launch_id).status is LaunchStatus.ENDED
    assert site.started() == [BATCH]


def test_it_runs_until_the_engine_has_ended(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UDS_FAKE", "wait")
    launch_id = site.open().launch(BATCH, site.manifest())
    site.wait_until_waiting()
    assert site.open().state(launch_id).status is LaunchStatus.RUNNING
    site.release()
    assert end_of(site.open(), launch_id).status is LaunchStatus.ENDED


def test_p21_many_launches_of_a_batch_start_it_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UDS_FAKE", "wait")
    one, two, path = site.open(), site.open(), site.manifest()
    launch_id = one.launch(BATCH, path)
    assert {one.launch(BATCH, path), two.launch(BATCH, path), site.open().launch(BATCH, path)} == {launch_id}
    site.release()
    assert end_of(one, launch_id).status is LaunchStatus.ENDED
    assert {one.launch(BATCH, path), two.launch(BATCH, path), site.open().launch(BATCH, path)} == {launch_id}
    assert end_of(two, launch_id).status is LaunchStatus.ENDED
    assert site.started() == [BATCH]


def test_p21_a_batch_that_ended_dead_is_not_started_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UDS_FAKE", "killed")
    launcher, path = site.open(), site.manifest()
    launch_id = launcher.launch(BATCH, path)
    dead = end_of(launcher, launch_id)
    assert dead.reason
    monkeypatch.setenv("UDS_FAKE", "")
    assert site.open().launch(BATCH, path) == launch_id
    assert end_of(launcher, launch_id) == dead
    assert site.started() == [BATCH]


def test_batches_do_not_disturb_each_other(site: Site) -> None:
    launcher = site.open()
    ids = [launcher.launch(batch, site.manifest(batch)) for batch in (BATCH, OTHER)]
    assert [end_of(launcher, launch_id).status for launch_id in ids] == [LaunchStatus.ENDED] * 2
    assert len(set(ids)) == 2
    assert sorted(site.started()) == sorted([BATCH, OTHER])


def test_p23_the_batch_of_a_launch(site: Site) -> None:
    ids = {batch: site.open().launch(batch, site.manifest(batch)) for batch in (BATCH, OTHER)}
    assert {batch: site.open().batch_of(launch_id) for batch, launch_id in ids.items()} == {BATCH: BATCH, OTHER: OTHER}


@pytest.mark.parametrize("launch_id", ["", "..", "../runs", "1", "99999999999999999999999", "²", "abc", BATCH])
def test_a_launch_that_is_not_there(site: Site, launch_id: str) -> None:
    launcher = site.open()
    state = launcher.state(launch_id)
    assert state.status is LaunchStatus.UNKNOWN
    assert state.reason
    assert launcher.batch_of(launch_id) is None
    launcher.cancel(launch_id)


@pytest.mark.parametrize("how", ["wait", "stubborn"])
def test_cancel_stops_it(site: Site, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setenv("UDS_FAKE", how)
    monkeypatch.setattr("sync_core.adapters.local_launcher.GRACE_SECONDS", 0.2)
    monkeypatch.setattr("tests.support.databricks_jobs.GRACE_SECONDS", 0.2)
    launch_id = site.open().launch(BATCH, site.manifest())
    site.wait_until_waiting()
    canceller = site.open()
    canceller.cancel(launch_id)
    ended = end_of(canceller, launch_id)
    assert ended.status is LaunchStatus.ENDED
    canceller.cancel(launch_id)
    assert canceller.state(launch_id) == ended


def test_p21_launches_at_one_moment_start_it_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """One process of this machine is refused while another starts it, and comes again: the message is redelivered."""
    monkeypatch.setenv("UDS_FAKE", "wait")
    launchers, path = [site.open() for _ in range(8)], site.manifest()

    def launch(launcher: Launcher) -> str:
        while True:
            try:
                return launcher.launch(BATCH, path)
            except RetryableError:
                threading.Event().wait(0.01)

    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(launch, launchers))
    assert len(ids) == 1
    site.release()
    assert end_of(site.open(), ids.pop()).status is LaunchStatus.ENDED
    assert site.started() == [BATCH]
