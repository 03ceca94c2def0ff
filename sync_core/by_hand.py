"""Runs by hand: request, launch and complete one batch here and now, while a person waits (`uds run`, `uds plan`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sync_core.close import engine_died, fail
from sync_core.complete import complete_run
from sync_core.domain.connection import Connection
from sync_core.domain.errors import RetryableError, SyncError
from sync_core.domain.pipeline import Pipeline
from sync_core.domain.run import (
    Action,
    Outcome,
    Range,
    RunKind,
    RunOrder,
    RunRecord,
    RunResult,
    RunState,
    make_batch_id,
)
from sync_core.launch import Stage, launch_batch, make_manifest, make_order
from sync_core.ports import EventHandler, LaunchStatus, LocalEngine, RunFolder, StateStore
from sync_core.request import Asked, ask, request_run
from sync_core.retention import Retention, forget


@dataclass(frozen=True)
class Refusal:
    """A pipeline that could not be begun, and why."""

    pipeline_id: str
    error: SyncError


@dataclass(frozen=True)
class App:
    """Use cases on one machine. `now` and `new_id` are the only sources of time and randomness."""

    store: StateStore
    folder: RunFolder
    launcher: LocalEngine
    retention: Retention
    now: Callable[[], datetime]
    new_id: Callable[[], str]

    def run(
        self,
        pipelines: Sequence[Pipeline],
        connections: Mapping[str, Connection],
        on_event: EventHandler,
        kind: RunKind = RunKind.INCREMENTAL,
        ranges: Mapping[str, Range] | None = None,
        who: str = "",
    ) -> tuple[list[RunResult], list[Refusal]]:
        """Settle open runs, then begin, launch and complete one batch. KeyboardInterrupt closes its runs as cancelled.

        A pipeline whose run is alive elsewhere is refused; the others run. `who` asks, for the record.
        """
        asked = [
            self._ask(pipeline.pipeline_id, kind, (ranges or {}).get(pipeline.pipeline_id), who)
            for pipeline in pipelines
        ]
        batch_id = make_batch_id([one.run_key for one in asked])
        known = {pipeline.pipeline_id: pipeline for pipeline in pipelines}
        reason = ""
        try:
            with self.launcher.reserve(batch_id):
                runs, refusals = self._begin(asked, batch_id)
                stage = Stage(self.store, self.folder, self.launcher, known, connections)
                launch_id = launch_batch(stage, batch_id, [(run.pipeline_id, run.run_key) for run in runs], self.now())
            if launch_id is not None:
                reason = self.launcher.follow(launch_id, on_event).reason
        except KeyboardInterrupt:
            self.launcher.cancel(batch_id)
            self._close_unless_running(batch_id, asked, "it was interrupted", RunState.CANCELLED)
            raise
        except SyncError as error:
            self._close_unless_running(batch_id, asked, error.message, RunState.FAILED)
            raise
        if not runs:
            self.folder.discard(batch_id)
        return self._close(runs, reason, RunState.FAILED), refusals

    def _begin(self, asked: Sequence[Asked], batch_id: str) -> tuple[list[RunRecord], list[Refusal]]:
        runs: list[RunRecord] = []
        refusals: list[Refusal] = []
        for one in asked:
            try:
                self.settle(one.pipeline_id)
                runs.append(request_run(self.store, one, batch_id, self.now()))
            except RetryableError as error:
                refusals.append(Refusal(one.pipeline_id, error))
        return runs, refusals

    def settle(self, pipeline_id: str) -> RunRecord | None:
        """Close the open run whose engine is gone, by its result or as failed.

        Raises RetryableError while its engine lives. Returns the run that was closed, if any.
        """
        open_run = self.store.load(pipeline_id).record.open_run
        run = self.store.run(pipeline_id, open_run) if open_run else None
        if run is None:
            return None
        # Whether it has ended is asked before its result is: a result that comes in between is not missed.
        found = self.launcher.state(run.launch_id or run.batch_id)
        if found.status is LaunchStatus.RUNNING:
            raise RetryableError(
                "run.alive",
                f"Pipeline {pipeline_id} is running since {run.created_at:%Y-%m-%d %H:%M:%S} UTC.",
                "Wait until it is done.",
            )
        self._close([run], found.reason, RunState.FAILED)
        return self.store.run(pipeline_id, run.run_key)

    def ask_engine(
        self,
        pipelines: Sequence[Pipeline],
        connections: Mapping[str, Connection],
        action: Action,
        on_event: EventHandler,
    ) -> list[RunResult]:
        """Plan or check through the engine, which alone has drivers. Nothing is recorded.

        Its folder is kept only when the engine died in it, for the log.
        """
        now = self.now()
        orders: list[RunOrder] = []
        for pipeline in pipelines:
            asked = self._ask(pipeline.pipeline_id, RunKind.INCREMENTAL, None)
            run = RunRecord(asked.run_key, pipeline.pipeline_id, asked.kind, 1, RunState.BEGUN, "", now)
            orders.append(make_order(pipeline, run, self.store.load(pipeline.pipeline_id).record))
        if not orders:
            return []
        batch_id = make_batch_id([order.run_key for order in orders])
        try:
            manifest = self.folder.write_manifest(make_manifest(batch_id, orders, connections, action))
            reason = self.launcher.follow(self.launcher.launch(batch_id, manifest), on_event).reason
            results = [self._answer(batch_id, order, reason) for order in orders]
        except (KeyboardInterrupt, SyncError):
            self.launcher.cancel(batch_id)
            self.folder.discard(batch_id)
            raise
        if all(result.error is None or result.error.code != "engine.died" for result in results):
            self.folder.discard(batch_id)
        return results

    def _answer(self, batch_id: str, order: RunOrder, reason: str) -> RunResult:
        name = order.pipeline.pipeline_id
        return self.folder.read_result(batch_id, order.run_key) or RunResult(
            name, order.run_key, batch_id, order.kind, 1, Outcome.FAILED, error=engine_died(name, reason)
        )

    def forget(self) -> None:
        """Delete what is older than it is kept."""
        forget(self.store, self.folder, self.retention, self.now())

    def _ask(self, pipeline_id: str, kind: RunKind, asked: Range | None, who: str = "") -> Asked:
        # An ordinary run by hand is no request: what it finds done by another is done.
        requested = kind is not RunKind.INCREMENTAL
        return ask(pipeline_id, self.new_id(), kind, asked, requested=requested, requested_by=who)

    def _close_unless_running(self, batch_id: str, asked: Sequence[Asked], reason: str, state: RunState) -> None:
        """An engine that lives on in spite of an error is left alone: the next run takes in what it did."""
        if self.launcher.state(batch_id).status is not LaunchStatus.RUNNING:
            self._close(asked, reason, state)

    def _close(self, runs: Sequence[Asked | RunRecord], reason: str, state: RunState) -> list[RunResult]:
        """Complete each run by its result; close those that left none."""
        results: list[RunResult] = []
        for one in runs:
            found = self.store.run(one.pipeline_id, one.run_key)
            done = complete_run(self.store, self.folder, found, None, self.now()) if found is not None else None
            if done is not None and done.state.is_open:
                error = engine_died(one.pipeline_id, reason)
                done = fail(self.store, one.pipeline_id, one.run_key, error, self.now(), None, state)
            if done is not None and done.result is not None:
                results.append(done.result)
        return results
