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

from sync_core.alert_delivery import QUEUE as ALERTS
from sync_core.alert_delivery import owe
from sync_core.control_plane import ControlPlane
from sync_core.domain.alert import AlertRules
from sync_core.domain.errors import PermanentError, RetryableError
from sync_core.domain.run import RunState
from sync_core.domain.schedule import Every, OnDemand, Retry
from sync_core.loop import Loop, attempt
from sync_core.messages import COMPLETIONS, QUEUES, RUNS, CompletionHint, encode
from sync_core.outbox import send_again
from sync_core.ports import Conflict
from tests.support.alerts import notice
from tests.support.control import START, Clock, Queue, Site
from tests.support.flows import pipeline
from tests.support.instances import PORTS, WRITES, Fault, settle, spied, stored

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
    alert = owe(notice())
    if attempt("alert", lambda: plane.queue.send(ALERTS, alert.body, alert.key) or True) is None:
        plane.queue.send(ALERTS, alert.body, alert.key)


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
        if not run.late_success:
            # A launch that was obeyed though it was refused is taken in late, and no retry loads it twice.
            assert run.result.error is not None
            assert run.result.error.code == "service.refused", struck
        assert any("refuses the sign-in" in one.message for one in site.sink.notices if one.pipeline_id == name), struck
    assert notice().notice_id in {one.notice_id for one in site.sink.notices}, struck
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
    states: set[str] = set()
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
        # Many faults leave the same state behind, and what comes after is decided by it.
        if (state := stored(site)) not in states:
            states.add(state)
            recover(site)
            check_end(site, kind, f"{fault.struck} at {at}")
        shutil.rmtree(site.folder)
    ports = {"store"} if kind == "conflict" else set(PORTS)
    assert {one.partition(".")[0] for one in struck} == ports


@pytest.mark.parametrize("kind", ["retryable", "permanent"])
@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("after", [0, 9])
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


# ---- messages


@pytest.mark.parametrize("late", [timedelta(), timedelta(minutes=11), timedelta(days=2)])
@pytest.mark.parametrize("queue", QUEUES)
def test_p21_p23_p25_messages_of_every_queue_come_again_in_another_order_and_late(
    fast: Path, queue: str, late: timedelta
) -> None:
    """Two days are beyond the window in which a queue drops doubles; eleven minutes are just beyond it."""
    site = a_site(fast)
    bodies: list[str] = []

    def note(name: str, call: Callable[[], Any]) -> Any:
        answer = call()
        if name == "queue.receive" and answer is not None and answer.queue == queue:
            bodies.append(answer.body)
        return answer

    plane = spied(site.plane(), note)
    submit(plane)
    rounds(site, plane, 3)
    assert bodies
    settle(site)
    told = [one.notice_id for one in unique(site)]
    assert notice().notice_id in told
    del site.pipelines["items"]
    site.clock.pass_by(seconds=late.total_seconds())
    for body in (*reversed(bodies), *bodies):
        plane.handle(queue, body)
        plane.handle(queue, body)
    settle(site)
    assert [(run.request_id, run.attempt, run.state) for run in site.runs()] == [("r", 1, RunState.SUCCEEDED)]
    assert len(site.runs("items")) == 1
    assert [one.notice_id for one in unique(site)] == told
    assert site.dead_letters() == []
    site.check()


def test_p23_completions_that_are_all_lost_are_found_and_strangers_are_ignored(fast: Path) -> None:
    site = a_site(fast)
    plane = site.plane()
    submit(plane)
    plane.tick()
    drain(plane)
    plane.handle(COMPLETIONS, encode(CompletionHint(launch_id="a launch of somebody else")))
    plane.handle(COMPLETIONS, encode(CompletionHint(batch_id="0" * 64)))
    assert {run.state for name in site.pipelines for run in site.runs(name)} == {RunState.LAUNCHED}
    plane.reconcile()
    assert {run.state for name in site.pipelines for run in site.runs(name)} == {RunState.SUCCEEDED}


def test_p21_a_message_that_comes_again_is_never_taken_for_its_own_double(fast: Path) -> None:
    """By clocks that are half a minute apart, each failure leaves one message more, and doubles of a minute one."""
    clock = Clock(START)
    queue = Queue(fast, clock, lambda: None)
    for round_ in range(30):
        behind = timedelta(seconds=29 if round_ % 2 else 0)
        for _ in range(2):
            send_again(queue, RUNS, "body", None, clock() - behind)
        clock.pass_by(seconds=91)
        message = queue.receive(RUNS)
        assert message is not None
        queue.complete(message)
        assert queue.receive(RUNS) is None
    send_again(queue, RUNS, "body", timedelta(days=9), clock())
    clock.pass_by(minutes=59)
    assert queue.receive(RUNS) is None
    clock.pass_by(minutes=3)
    assert queue.receive(RUNS) is not None
