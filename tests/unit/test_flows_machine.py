"""Requests, launches, commits, lost results, completions, failures and resets in any order, any number of times."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.strategies import DataObject, data, integers, sampled_from

from sync_core.adapters.local_run_folder import LocalRunFolder
from sync_core.adapters.sqlite_store import SqliteStore
from sync_core.close import engine_died, fail
from sync_core.complete import complete_run
from sync_core.domain.errors import RetryableError
from sync_core.domain.run import RunKind, RunRecord, make_batch_id
from sync_core.domain.watermark import CursorType, Watermark
from sync_core.launch import Stage, launch_batch
from sync_core.operate import change_watermark
from sync_core.request import Asked, ask, request_run
from tests.support.flows import CONNECTIONS, InProcess, World, pipeline


class Flows(RuleBasedStateMachine):
    """One pipeline, its control plane and its engine, driven by messages that come late, twice or never."""

    @initialize()
    def start(self) -> None:
        self.place = tempfile.TemporaryDirectory()
        self.world = World(Path(self.place.name))
        self.store = SqliteStore(self.world.folder)
        self.folder = LocalRunFolder(self.world.folder / "runs")
        self.launcher = InProcess(self.world.place)
        self.asked: list[Asked] = []
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.rows = 3
        self.before = (0, 0)
        self.was_reset = False

    def teardown(self) -> None:
        if hasattr(self, "place"):
            self.place.cleanup()

    def any_run(self, given: DataObject) -> RunRecord | None:
        one = given.draw(sampled_from(self.asked))
        return self.store.run("orders", one.run_key)

    @rule(kind=sampled_from([RunKind.INCREMENTAL, RunKind.FULL_REFRESH]))
    def request(self, kind: RunKind) -> None:
        identity = str(len(self.asked))
        self.deliver(ask("orders", identity, kind, None, requested=kind is not RunKind.INCREMENTAL))

    @precondition(lambda self: bool(self.asked))
    @rule(given=data())
    def request_again(self, given: DataObject) -> None:
        self.deliver(given.draw(sampled_from(self.asked)))

    def deliver(self, one: Asked) -> None:
        self.now += timedelta(seconds=1)
        open_before = self.store.load("orders").record.open_run
        known = self.store.run("orders", one.run_key)
        self.asked.append(one)
        try:
            run = request_run(self.store, one, make_batch_id([one.run_key]), self.now)
        except RetryableError:
            assert open_before is not None
            return
        assert known is None or run == known

    @precondition(lambda self: bool(self.asked))
    @rule(given=data())
    def launch(self, given: DataObject) -> None:
        run = self.any_run(given)
        if run is not None:
            stage = Stage(self.store, self.folder, self.launcher, {"orders": pipeline()}, CONNECTIONS)
            launch_batch(stage, run.batch_id, [("orders", run.run_key)], self.now)

    @precondition(lambda self: bool(self.asked))
    @rule(given=data())
    def complete(self, given: DataObject) -> None:
        run = self.any_run(given)
        if run is not None:
            complete_run(self.store, self.folder, run, None, self.now)

    @precondition(lambda self: bool(self.asked))
    @rule(given=data())
    def presume_dead(self, given: DataObject) -> None:
        run = self.any_run(given)
        if run is not None:
            fail(self.store, "orders", run.run_key, engine_died("orders", "presumed dead"), self.now, None)

    @rule(more=integers(1, 3))
    def rows_arrive(self, more: int) -> None:
        self.rows += more
        self.world.has(self.rows)

    @rule(value=integers(0, 3))
    def reset(self, value: int) -> None:
        self.was_reset = True
        mark = Watermark(CursorType.NUMBER, str(value)) if value else None
        change_watermark(self.store, "orders", mark, "eve", "why", False, self.now)

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "store"):
            return
        record, target = self.store.load("orders").record, self.world.place.target("orders")
        runs = self.store.runs("orders", -1)
        # The store never goes back, and never claims more than the ledger holds, except right after a reset.
        assert (record.epoch, record.generation) >= self.before
        self.before = (record.epoch, record.generation)
        if record.generation:
            assert (record.epoch, record.generation) <= (target["epoch"], target["generation"])
            assert record.watermark is not None
            assert int(record.watermark.value) <= target["watermark"]
        # One run is open, the one that the record names, and requests wait for nothing but it.
        assert [run.run_key for run in runs if run.state.is_open] == ([record.open_run] if record.open_run else [])
        assert {request.request_id for request in record.pending} <= {
            run.request_id for run in runs if run.run_key == record.open_run
        }
        # No generation is counted twice, none that is not in the ledger.
        counted = {run.run_key: run.counted_generation for run in runs if run.counted_generation}
        assert counted.items() <= target["entries"].items()
        assert len(set(counted.values())) == len(counted)
        # The engine was started at most once a batch.
        assert len(set(self.launcher.launched)) == len(self.launcher.launched)
        assert len(target["rows"]) == len(set(target["rows"]))


TestFlows = Flows.TestCase
TestFlows.settings = settings(
    max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
