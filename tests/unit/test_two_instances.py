"""Two and three instances of every flow at once: whatever the order of their port calls, it ends as if one came first."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sync_core.control_plane import ControlPlane
from sync_core.domain.alert import AlertRules
from sync_core.domain.connection import Connection
from sync_core.domain.errors import PermanentError
from sync_core.domain.run import RunState
from sync_core.domain.schedule import After, Retry
from sync_core.loop import Loop
from sync_core.messages import REQUESTS, RUNS
from sync_core.ports import Conflict
from tests.support.busy_site import (
    DAILY,
    FLOWS,
    Flow,
    Stage,
    ask,
    body_of,
    busy,
    in_memory,
    instance,
    outcome,
)
from tests.support.control import START, Site, fail_runs
from tests.support.flows import CONNECTIONS, pipeline
from tests.support.instances import WRITES, Around, interleave, orders, settle, spied


@pytest.fixture
def fast() -> Generator[Path]:
    with in_memory() as folder:
        yield folder


@pytest.fixture(autouse=True)
def _broken_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """The source of the pipeline `broken` is gone."""
    fail_runs(monkeypatch, "permanent", only="broken")


# ---- every flow with itself and with every other


def test_every_flow_does_something_on_the_busy_site(fast: Path) -> None:
    stage = Stage(fast)
    assert tuple(stage.flows) == FLOWS
    for name in FLOWS:
        assert stage.play([name], []).steps[0] > 0, name


@pytest.mark.parametrize("name", FLOWS)
def test_p21_p23_two_instances_of_a_flow_end_as_one(fast: Path, name: str) -> None:
    stage = Stage(fast)
    once = stage.play([name], [])
    twice = stage.play([name, name], []).end
    if name not in ("pause", "resume", "pause a connection"):
        # Those are recorded each time.
        assert twice == once.end
    for order in orders(once.steps * 2, 2):
        assert stage.play([name, name], order).end == twice, order


@pytest.mark.parametrize("name", FLOWS)
def test_p21_p23_a_flow_within_any_other_ends_as_if_one_came_first(fast: Path, name: str) -> None:
    stage = Stage(fast)
    steps = stage.play([name], []).steps * 2
    for other in FLOWS:
        if other == name:
            continue
        ends = [stage.play(pair, []).end for pair in ((name, other), (other, name))]
        for order in orders(steps, 1):
            assert stage.play([name, other], order).end in ends, (other, order)


@pytest.fixture(scope="module")
def stage() -> Generator[Stage]:
    with in_memory() as folder:
        yield Stage(folder)


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(st.sampled_from(FLOWS), min_size=3, max_size=3), turns=st.data())
def test_p21_p23_three_instances_in_any_order_of_their_calls(
    stage: Stage, names: list[str], turns: st.DataObject
) -> None:
    ends = [stage.play(some, []).end for some in itertools.permutations(names)]
    end = stage.play(names, lambda left: turns.draw(st.sampled_from(left)), None).end
    assert end in ends


# ---- an instance that was slow: it goes on after hours, by what it read before


def slow(site: Site, flow: Flow, calls: int, meanwhile: Callable[[], object], only: frozenset[str] = WRITES) -> None:
    """Stop the flow before its write number `calls`, counted from 1, until `meanwhile` is over."""

    def other(_: Around) -> None:
        meanwhile()

    interleave([instance(site, flow), other], [(0, calls), (1, 1)], only)


def test_p22_a_slow_tick_begins_no_slot_that_was_passed(fast: Path) -> None:
    site = Site(fast)
    site.has(3)

    def hours_pass() -> None:
        site.clock.pass_by(hours=7)
        settle(site)

    slow(site, lambda plane: plane.tick(), 1, hours_pass)
    settle(site)
    assert [run.slot for run in site.runs()] == [START + timedelta(hours=7)]
    site.check()


def test_a_slow_tick_does_not_follow_successes_that_were_followed(fast: Path) -> None:
    site = Site(fast)
    site.has(3)
    site.pipelines["report"] = replace(pipeline("report"), schedule=After(("orders",)))
    plane = site.plane()
    plane.tick()
    for message in [plane.queue.receive(RUNS)]:
        assert message is not None
        plane.handle(RUNS, message.body)
        plane.queue.complete(message)
    plane.reconcile()

    def another_success() -> None:
        site.clock.pass_by(hours=1)
        del site.pipelines["report"]
        settle(site)
        site.pipelines["report"] = replace(pipeline("report"), schedule=After(("orders",)))
        settle(site)

    assert site.store.load("orders").record.successes == 1
    slow(site, lambda plane: plane.tick(), 1, another_success)
    settle(site)
    assert [run.occasion for run in site.runs("report")] == ["after orders=2"]
    assert site.store.load("report").record.consumed == {"orders": 2}


def test_p25_a_slow_watch_tells_nothing_that_is_over(fast: Path) -> None:
    site = Site(fast)
    site.has(3)
    site.pipelines["orders"] = replace(site.pipelines["orders"], alerts=AlertRules(stale_after=7200))
    settle(site)
    site.clock.pass_by(hours=5)

    def mended() -> None:
        plane = site.plane()
        plane.tick()
        message = plane.queue.receive(RUNS)
        assert message is not None
        plane.handle(RUNS, message.body)
        plane.queue.complete(message)
        plane.reconcile()

    slow(site, lambda plane: plane.watch(), 1, mended)
    settle(site)
    assert site.sink.notices == []


def test_p21_a_request_doubled_after_a_part_of_it_ran_carries_out_the_rest(fast: Path) -> None:
    """`items` was busy when the request came first; the second time it would join a batch that was launched without it."""
    site = Site(fast)
    site.has(3)
    site.pipelines = {name: replace(pipeline(name), retry=Retry(1, 1, 1)) for name in ("orders", "items")}
    plane = site.plane()
    plane.handle(REQUESTS, ask("earlier", "items"))
    message = plane.queue.receive(RUNS)
    assert message is not None
    asked = ask("r", "orders", "items")
    plane.handle(REQUESTS, asked)
    batch = plane.queue.receive(RUNS)
    assert batch is not None
    plane.handle(RUNS, batch.body)
    plane.queue.complete(batch)
    plane.handle(RUNS, message.body)
    plane.queue.complete(message)
    plane.reconcile()
    plane.handle(REQUESTS, asked)
    settle(site)
    assert sorted((run.request_id or "", run.attempt, run.state) for run in site.runs("items")) == [
        ("earlier", 1, RunState.SUCCEEDED),
        ("r", 1, RunState.SUCCEEDED),
    ]
    assert site.sink.notices == []
    site.check("orders")
    site.check("items")


@pytest.mark.parametrize("calls", range(1, 8))
def test_two_ticks_of_which_one_is_held_up_by_an_open_run_leave_nothing_behind(fast: Path, calls: int) -> None:
    site = Site(fast)
    site.has(3)
    site.pipelines = {
        name: replace(pipeline(name), schedule=DAILY, retry=Retry(1, 1, 1)) for name in ("orders", "items")
    }
    blocked = site.plane()
    blocked.handle(REQUESTS, ask("earlier", "items"))
    site.clock.pass_by(minutes=5)

    def other() -> None:
        site.plane().tick()
        settle(site)

    slow(site, lambda plane: plane.handle(REQUESTS, ask("r", "orders", "items")), calls, other)
    settle(site)
    assert {run.state for name in site.pipelines for run in site.runs(name)} == {RunState.SUCCEEDED}
    assert site.sink.notices == []
    for name in site.pipelines:
        site.check(name)


def test_p21_a_launched_run_is_not_closed_by_a_double_that_cannot_be_launched(fast: Path) -> None:
    site = Site(fast)
    site.has(3)
    plane = site.plane()
    plane.tick()
    body = body_of(site, RUNS)
    plane.handle(RUNS, body)

    def refuse(name: str, call: Callable[[], Any]) -> Any:
        if name == "launcher.launch":
            raise PermanentError("databricks.sign_in", "Databricks does not accept the sign-in.")
        return call()

    spied(site.plane(), refuse).handle(RUNS, body)
    assert [run.state for run in site.runs()] == [RunState.LAUNCHED]
    settle(site)
    assert [run.state for run in site.runs()] == [RunState.SUCCEEDED]
    assert site.sink.notices == []


@pytest.mark.parametrize("calls", range(1, 4))
def test_a_run_that_is_cancelled_while_it_is_launched_is_asked_to_stop(fast: Path, calls: int) -> None:
    site = Site(fast)
    site.has(3)
    site.plane().tick()
    run, body = site.runs()[0], body_of(site, RUNS)
    slow(site, lambda plane: plane.handle(RUNS, body), calls, lambda: site.plane().cancel("orders", "eve", "no"))
    assert site.runs()[0].state is RunState.CANCELLED
    assert (site.folder / "runs" / run.batch_id / "stop" / run.run_key).exists()


def test_two_batches_at_once_share_what_a_connection_may_serve(fast: Path) -> None:
    """Neither launches beyond the limit, and neither is put aside for losing the race."""
    for order in orders([6, 6], 2):
        site = Site(fast / repr(order))
        site.has(3)
        site.connections = {**CONNECTIONS, "shop": Connection("shop", "postgresql", max_concurrent=1)}
        site.pipelines = {name: replace(pipeline(name), schedule=DAILY, compute=name) for name in ("orders", "items")}
        plane = site.plane()
        plane.tick()
        bodies = [message.body for _ in range(2) if (message := plane.queue.receive(RUNS)) is not None]
        flows = [instance(site, lambda plane, body=body: plane.handle(RUNS, body)) for body in bodies]
        interleave(flows, order, WRITES)
        assert len(site.launched) == 1
        settle(site)
        assert {run.state for name in site.pipelines for run in site.runs(name)} == {RunState.SUCCEEDED}
        for name in site.pipelines:
            site.check(name)


# ---- two instances that really run at once


def test_p21_p25_two_loops_at_once_over_one_state_folder_end_as_one(fast: Path) -> None:
    ends: list[dict[str, Any]] = []
    for instances in (1, 2):
        site = busy(fast / str(instances))
        site.clock.pass_by(minutes=3)
        for number in range(6):
            site.plane().submit(ask(f"r{number}", "idle", "orders", "items", kind="full_refresh"))
        at_once(site, [site.plane() for _ in range(instances)])
        settle(site)
        end = outcome(site)
        follows_to_the_last_success(site, end.pop("report"))
        ends.append(end)
    assert ends[0] == ends[1]


def follows_to_the_last_success(site: Site, report: dict[str, Any]) -> None:
    """How many successes of `orders` one run of `report` follows is a matter of when the ticks come; none is left out."""
    record = site.store.load("report").record
    assert record.consumed == {"orders": site.store.load("orders").record.successes}
    followed = [int(occasion.removeprefix("after orders=")) for occasion, *_ in report["runs"]]
    assert max(followed) == record.consumed["orders"]
    assert len(set(followed)) == len(followed) == record.successes
    assert {(kind, attempt, state) for _, kind, attempt, state in report["runs"]} == {("incremental", 1, "succeeded")}
    assert (report["rows"], report["episodes"]) == ([1, 2, 3], [])


def at_once(site: Site, planes: Sequence[ControlPlane]) -> None:
    """Each control plane in a thread of its own: every timer and every message, a few rounds."""
    errors: list[BaseException] = []
    together = threading.Barrier(len(planes))

    def run(plane: ControlPlane) -> None:
        try:
            for _ in range(4):
                together.wait()
                for timer in (plane.tick, plane.reconcile, plane.watch):
                    # One that lost every race for a record is called again in the next round, as by the loop.
                    with suppress(Conflict):
                        timer()
                while Loop(plane).drain():
                    pass
        except BaseException as error:
            errors.append(error)
            together.abort()
            raise

    threads = [threading.Thread(target=run, args=(plane,)) for plane in planes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
