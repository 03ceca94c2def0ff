"""What there is to tell of runs and doors: records in, spans, measurements and events out. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum

from sync_core.domain.alert import Condition
from sync_core.domain.connection import Connection
from sync_core.domain.errors import SyncError
from sync_core.domain.facts import Facts
from sync_core.domain.lag import lag_of
from sync_core.domain.pipeline import Pipeline
from sync_core.domain.run import PipelineRecord, RowCounts, RunRecord, RunState
from sync_core.domain.trace import TraceContext, begin_trace, read_trace, span_id
from sync_core.telemetry import Attribute, Attributes, Event, Measurement, Span


class Step(StrEnum):
    """What one write did to a run. LATE: a closed run got its result afterwards."""

    BEGUN = "begun"
    LAUNCHED = "launched"
    CLOSED = "closed"
    LATE = "late"


@dataclass(frozen=True)
class Change:
    """A run after a write."""

    step: Step
    run: RunRecord


@dataclass(frozen=True)
class Site:
    """What a run's pipeline is, and where this is."""

    pipelines: Mapping[str, Pipeline]
    connections: Mapping[str, Connection]
    environment: str

    def of(self, pipeline_id: str) -> dict[str, Attribute]:
        """The attributes that every metric of a pipeline has."""
        pipeline = self.pipelines.get(pipeline_id)
        return {
            "pipeline_id": pipeline_id,
            "mode": pipeline.mode.value if pipeline else "removed",
            "environment": self.environment,
        }


def trace_of(run: RunRecord) -> TraceContext:
    """The root of the run's trace. One that was begun before there were traces takes its batch's."""
    found = read_trace(run.trace) or read_trace(begin_trace(run.batch_id))
    assert found is not None  # noqa: S101  # what begin_trace writes can be read
    return found


def step_of(before: PipelineRecord, run: RunRecord) -> Step | None:
    """What a write did to the run that it carried, given the record before; None when it only noted something."""
    was_open = before.open_run == run.run_key
    if run.state is RunState.BEGUN:
        return None if was_open else Step.BEGUN
    if run.state is RunState.LAUNCHED:
        return Step.LAUNCHED
    return Step.CLOSED if was_open else Step.LATE


# ---- spans


def door_spans(
    door: str,
    changes: Sequence[Change],
    started: datetime,
    finished: datetime,
    site: Site,
    caller: TraceContext | None,
    failed_under: TraceContext | None = None,
    error: BaseException | None = None,
) -> list[Span]:
    """One span for each trace that the door touched; it is the root of those that it began.

    A door that failed before it touched any is told under `failed_under`, or in a trace of its own.
    """
    traces: dict[TraceContext, list[Change]] = {}
    for change in changes:
        traces.setdefault(trace_of(change.run), []).append(change)
    said = error_text(error) if error is not None else None
    spans = [_door_span(door, root, some, started, finished, site, caller, said) for root, some in traces.items()]
    if error is not None and not spans:
        lonely = read_trace(begin_trace(f"{door} {started.isoformat()}"))
        root = failed_under or lonely
        assert root is not None  # noqa: S101  # what begin_trace writes can be read
        own = span_id(root.trace_id, door, started.isoformat())
        links = (caller,) if caller else ()
        attributes = {"door": door, "environment": site.environment, **error_attributes(error)}
        context, parent = TraceContext(root.trace_id, own), root.span_id if failed_under else None
        spans.append(Span(context, parent, f"uds.{door}", started, finished, attributes, said, links))
    return spans


def _door_span(
    door: str,
    root: TraceContext,
    changes: Sequence[Change],
    started: datetime,
    finished: datetime,
    site: Site,
    caller: TraceContext | None,
    error: str | None,
) -> Span:
    runs = {change.run.run_key: change.run for change in changes}
    begins = any(change.step is Step.BEGUN and change.run.attempt == 1 for change in changes)
    callers = [caller] if caller else []
    callers += [found for run in runs.values() if begins and (found := read_trace(run.caller)) is not None]
    attributes: dict[str, Attribute] = {"door": door, "environment": site.environment, "runs": len(runs)}
    attributes["batch_id"] = next(iter(runs.values())).batch_id
    if len(runs) == 1:
        attributes |= ids_of(next(iter(runs.values())))
    own = root if begins else TraceContext(root.trace_id, span_id(root.trace_id, door, started.isoformat()))
    parent = None if begins else root.span_id
    links = tuple(dict.fromkeys(callers))
    return Span(own, parent, f"uds.{door}", started, finished, attributes, error, links)


def run_spans(run: RunRecord, facts: Facts | None, site: Site) -> list[Span]:
    """The run from begun to closed, the engine's execution in it, and its steps; ids come from the run_key.

    Told again (a result that came late, a message taken twice) they have the same ids.
    """
    root, result = trace_of(run), run.result
    own = TraceContext(root.trace_id, span_id(run.run_key, "run"))
    ended = [moment for moment in (run.closed_at, result.finished_at if result else None) if moment is not None]
    finished = max(ended, default=run.created_at)
    error = result.error if result and run.state is not RunState.SUCCEEDED else None
    attributes = {**site.of(run.pipeline_id), **ids_of(run), **_outcome_of(run)}
    said = f"{error.code}: {error.message}" if error else None
    spans = [Span(own, root.span_id, "uds.run", run.created_at, max(finished, run.created_at), attributes, said)]
    if result is None or result.started_at is None or result.finished_at is None:
        return spans
    ids = {**site.of(run.pipeline_id), **ids_of(run)}
    versions: dict[str, Attribute] = {}
    if facts is not None:
        known = {"engine_version": facts.engine_version, "spark_version": facts.spark_version}
        versions = {name: value for name, value in known.items() if value}
    engine = TraceContext(root.trace_id, span_id(run.run_key, "engine"))
    begun, ended_at = result.started_at, max(result.started_at, result.finished_at)
    spans.append(Span(engine, own.span_id, "uds.engine", begun, ended_at, {**ids, **versions}, said))
    for number, step in enumerate(facts.steps if facts else ()):
        context = TraceContext(root.trace_id, span_id(run.run_key, "step", str(number), step.name))
        name = f"uds.engine.{step.name}"
        spans.append(Span(context, engine.span_id, name, step.started_at, step.finished_at, ids))
    return spans


def ids_of(run: RunRecord) -> dict[str, Attribute]:
    """What names a run, on every span, event and log record of it."""
    return {"pipeline_id": run.pipeline_id, "run_key": run.run_key, "batch_id": run.batch_id}


def _outcome_of(run: RunRecord) -> dict[str, Attribute]:
    result = run.result
    found: dict[str, Attribute | None] = {
        "kind": run.kind.value,
        "attempt": run.attempt,
        "state": run.state.value,
        "launch_id": run.launch_id,
        "request_id": run.request_id,
        "slot": run.slot.isoformat() if run.slot else None,
    }
    if result is not None:
        found |= {"outcome": result.state.value, "generation": result.counted_generation}
        found |= {f"rows_{name}": value for name, value in _rows(result.rows).items()}
        if result.error is not None:
            found |= {"error_code": result.error.code, "error_kind": result.error.kind}
    return {name: value for name, value in found.items() if value is not None}


def _rows(rows: RowCounts) -> dict[str, int]:
    return {field.name: getattr(rows, field.name) for field in fields(rows)}


# ---- measurements


def measure_change(change: Change, site: Site) -> list[Measurement]:
    """What one change of a run adds to the metrics. A run's rows are counted once, with its first result."""
    run, result, about = change.run, change.run.result, site.of(change.run.pipeline_id)
    if change.step is Step.LAUNCHED and run.launched_at is not None:
        wanted = max(run.created_at, run.not_before or run.created_at)
        return [Measurement("uds.launch.delay", max(0.0, (run.launched_at - wanted).total_seconds()), about)]
    if change.step not in (Step.CLOSED, Step.LATE) or result is None:
        return []
    found: list[Measurement] = []
    if change.step is Step.CLOSED:
        seconds = ((run.closed_at or run.created_at) - run.created_at).total_seconds()
        found.append(Measurement("uds.run.duration", max(0.0, seconds), {**about, "outcome": result.state.value}))
        if run.state is RunState.FAILED:
            code = result.error.code if result.error else "request.superseded"
            found.append(Measurement("uds.failures", 1, {**about, "error_code": code}))
    return found + [
        Measurement("uds.rows", count, {**about, "kind": kind}) for kind, count in _rows(result.rows).items() if count
    ]


def measure_records(
    records: Iterable[PipelineRecord], letters: Mapping[str, int], now: datetime, site: Site
) -> list[Measurement]:
    """Lag of each pipeline, open alerts by condition, dead letters by queue: as they are now."""
    found: list[Measurement] = []
    alerts = dict.fromkeys(Condition, 0)
    for record in records:
        for episode in record.episodes:
            alerts[episode.condition] += 1
        pipeline = site.pipelines.get(record.pipeline_id)
        lag = lag_of(record.watermark, pipeline, site.connections, now) if pipeline else None
        if lag is not None:
            found.append(Measurement("uds.lag", lag, site.of(record.pipeline_id)))
    where = {"environment": site.environment}
    found += [Measurement("uds.alerts.open", n, {"condition": one.value, **where}) for one, n in alerts.items()]
    return found + [Measurement("uds.dead_letters", n, {"queue": name, **where}) for name, n in letters.items()]


# ---- events


def event_of(change: Change, now: datetime, site: Site) -> Event:
    """The log record of one change."""
    run = change.run
    attributes = {**site.of(run.pipeline_id), **ids_of(run), **_outcome_of(run), "step": change.step.value}
    said = run.state.value if change.step in (Step.CLOSED, Step.LATE) else change.step.value
    failed = change.step is Step.CLOSED and run.state is RunState.FAILED
    context = TraceContext(trace_of(run).trace_id, span_id(run.run_key, "run"))
    return Event(now, f"Run of {run.pipeline_id} {said}", attributes, context, failed)


def error_attributes(error: BaseException) -> Attributes:
    """The error's code; of one that nobody foresaw the type alone, for its words may hold anything."""
    return {"error_code": error.code if isinstance(error, SyncError) else type(error).__name__}


def error_text(error: BaseException) -> str:
    """What a span says of an error."""
    return f"{error.code}: {error.message}" if isinstance(error, SyncError) else type(error).__name__
