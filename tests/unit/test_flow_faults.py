"""A fault of a dependency at any port call of any flow: the message comes again, or the run closes with its cause."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Generator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sync_core.control_plane import ControlPlane
from sync_core.domain.alert import AlertRules
from sync_core.domain.errors import PermanentError, RetryableError
from sync_core.domain.run import RunState
from sync_core.domain.schedule import Every, OnDemand, Retry
from sync_core.loop import Loop, attempt
from sync_core.messages import QUEUES
from sync_core.ports import Conflict
from tests.support.control import START, Site
from tests.support.flows import pipeline
from tests.support.instances import PORTS, WRITES, Fault, settle, spied

KINDS: dict[str, Callable[[], Exception]] = {
    "retryable": lambda: RetryableError("service.away", "The service cannot answer now (503)."),
    "conflict": lambda: Conflict("orders"),
    "permanent": lambda: PermanentError("service.refused", "The service refuses the sign-in (403).", "Grant the role."),
}


@pytest.fixture
def fast() -> Generator[Path]:
    """A folder in memory where there is one: hundreds of runs write to it."""
    memory = Path("/dev/shm")  # noqa: S108
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


def a_site(folder: Path) -> Site:
    """A pipeline that is asked for, one by schedule that is stale."""
    site = Site(folder)
    site.has(3)
    once = Retry(1, 1, 1)
    rules = AlertRules(stale_after=60)
    site.pipelines = {
        "orders": replace(pipeline(), schedule=OnDemand(), retry=once),
        "items": replace(pipeline("items"), schedule=Every(86_400), compute="other", retry=once, alerts=rules),
    }
    return site


def rounds(site: Site, plane: ControlPlane, count: int) -> None:
    """What `uds up` does in so many minutes: a failing timer or message is told, and the loop goes on."""
    for _ in range(count):
        for name, timer in (("tick", plane.tick), ("watch", plane.watch), ("forget", plane.forget)):
            attempt(name, timer)
        drain(plane)
        for run in (one for name in site.pipelines for one in site.runs(name) if one.launch_id):
            attempt("hint", lambda run=run: plane.hint(run.launch_id or ""))
        drain(plane)
        attempt("reconcile", plane.reconcile)
        drain(plane)
        site.clock.pass_by(minutes=1)


def drain(plane: ControlPlane) -> None:
    for _ in range(3):
        Loop(plane).drain()


def submit(plane: ControlPlane) -> None:
    """Whoever asks hears of it when nobody took the request, and asks again."""
    asked = json.dumps({"request_id": "r", "pipelines": ["orders"]})
    if attempt("submit", lambda: plane.submit(asked)) is None:
        plane.submit(asked)


def recover(site: Site) -> None:
    """All is well again; a person sends dead letters again."""
    queue = site.plane().queue
    for name in QUEUES:
        for number, message in enumerate(queue.dead_letters(name)):
            queue.send(name, message.body, f"again {name} {number}")
    settle(site)


def check_end(site: Site, kind: str, struck: str) -> None:
    """Every run came to its end once; one that did not succeed says why, and its alert does too."""
    for name in site.pipelines:
        runs = [run for run in site.runs(name) if run.created_at < START + timedelta(hours=2)]
        record = site.store.load(name).record
        assert (record.open_run, record.pending, record.outbox) == (None, (), ()), struck
        assert [run.attempt for run in runs] == [1], struck
        (run,) = runs
        if run.state is RunState.SUCCEEDED:
            assert site.place.target(name)["rows"] == [1, 2, 3], struck
            continue
        assert kind == "permanent", (struck, run)
        assert run.state is RunState.FAILED
        assert run.result is not None
        assert run.result.error is not None
        assert run.result.error.code == "service.refused", struck
        assert any("refuses the sign-in" in one.message for one in site.sink.notices if one.pipeline_id == name), struck
    assert len(set(site.launched)) == len(site.launched) <= 2
    raised = [one.episode_id for one in unique(site) if one.phase.value == "raised"]
    assert len(set(raised)) == len(raised)


def unique(site: Site) -> list[Any]:
    return list({one.notice_id: one for one in site.sink.notices}.values())


@pytest.mark.parametrize(
    ("kind", "obeyed", "only"),
    [
        ("retryable", False, None),
        ("permanent", False, None),
        ("retryable", True, WRITES),
        ("permanent", True, WRITES),
        ("conflict", False, frozenset({"store.save", "store.save_connection"})),
    ],
)
def test_p21_p23_a_fault_at_any_port_call_loses_nothing(
    fast: Path, kind: str, obeyed: bool, only: frozenset[str] | None
) -> None:
    """`obeyed`: the service did what it was asked, and its answer was lost."""
    struck: set[str] = set()
    for at in range(2_000):
        fault = Fault(at, KINDS[kind], obeyed, only)
        site = a_site(fast / str(at))
        plane = spied(site.plane(), fault)
        submit(plane)
        rounds(site, plane, 2)
        if not fault.struck:
            break
        struck.add(fault.struck)
        letters = site.dead_letters()
        assert not letters or kind == "permanent", (fault.struck, letters)
        assert all("Grant the role" in letter for letter in letters), letters
        recover(site)
        check_end(site, kind, f"{fault.struck} at {at}")
        shutil.rmtree(site.folder)
    assert struck >= {"store.save"} if kind == "conflict" else {one.partition(".")[0] for one in struck} == set(PORTS)


@pytest.mark.parametrize("kind", ["retryable", "permanent"])
@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("after", [0, 6, 15])
def test_p21_p23_p25_a_dependency_that_stays_away_loses_nothing(fast: Path, port: str, kind: str, after: int) -> None:
    """It is away for longer than a message's deliveries last, then it is back."""
    site = a_site(fast)
    submit(site.plane())
    calls = 0

    def away(name: str, call: Callable[[], Any]) -> Any:
        nonlocal calls
        calls += name.startswith(f"{port}.")
        if name.startswith(f"{port}.") and calls > after:
            raise KINDS[kind]()
        return call()

    rounds(site, spied(site.plane(), away), 14)
    letters = site.dead_letters()
    assert not letters or kind == "permanent", letters
    assert all("Grant the role" in letter for letter in letters), letters
    recover(site)
    check_end(site, kind, f"{port} after {after}")
