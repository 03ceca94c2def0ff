"""The status page: what the JSON routes answer, for a browser. Two pages without a script, which reload themselves."""

from __future__ import annotations

from datetime import datetime
from functools import cache
from math import ceil
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from sync_core.control_plane import ControlPlane, upcoming_slot
from sync_core.domain.alert import Condition
from sync_core.domain.pipeline import Pipeline
from sync_core.domain.run import PipelineRecord, RunRecord
from sync_core.domain.schedule import After, Cron, Every, Schedule
from sync_core.formatting import ago, duration, is_told, number, took

ON_ONE_PAGE = 200


def pipelines_page(plane: ControlPlane, page: int = 1) -> str:
    """Every open alert, then the pipelines by name, 200 a page."""
    now = plane.now()
    records = [stored.record for stored in plane.store.load_many(sorted(plane.pipelines))]
    pages = max(1, ceil(len(records) / ON_ONE_PAGE))
    page = min(page, pages)
    shown = records[(page - 1) * ON_ONE_PAGE : page * ON_ONE_PAGE]
    paused = plane.paused(record.pipeline_id for record in shown)
    return _template("pipelines").render(
        total=number(len(records)),
        alerts=[alert for record in records for alert in _alerts(record)],
        pipelines=[_facts(record, plane.pipelines[record.pipeline_id], paused, now) for record in shown],
        now=_time(now),
        page=page,
        pages=pages,
    )


def pipeline_page(plane: ControlPlane, name: str, runs: int = 20) -> str:
    """One pipeline, its latest runs and what was done to it by hand. Raises ConfigError for an unknown name."""
    pipeline_id = plane.one(name)
    now, record = plane.now(), plane.store.load(pipeline_id).record
    facts = _facts(record, plane.pipelines[pipeline_id], plane.paused([pipeline_id]), now)
    return _template("pipeline").render(
        pipeline={
            **facts,
            "alerts": _alerts(record),
            "epoch": record.epoch,
            "generation": number(record.generation),
            "requests": [one.request_id for one in record.pending],
        },
        runs=[_run(run, now) for run in plane.store.runs(pipeline_id, runs)],
        operations=[
            {"at": _time(one.at), "what": one.what, "who": one.who, "reason": one.reason}
            for one in plane.store.operations(pipeline_id, runs)
        ],
        now=_time(now),
    )


def _facts(record: PipelineRecord, pipeline: Pipeline, paused: frozenset[str], now: datetime) -> dict[str, Any]:
    return {
        "pipeline_id": pipeline.pipeline_id,
        "state": _state(record, pipeline.pipeline_id in paused),
        "pending": len(record.pending),
        "last_success": ago(record.last_success_at, now),
        "watermark": record.watermark.value if record.watermark else "—",
        "schedule": schedule_words(pipeline.schedule),
        "next": _ahead(upcoming_slot(pipeline, pipeline.pipeline_id in paused, now), now),
        "owner": pipeline.owner or "",
    }


def _state(record: PipelineRecord, paused: bool) -> str:
    if record.open_run is not None:
        return "running"
    if paused:
        return "paused"
    if any(episode.condition is Condition.FAILED for episode in record.episodes):
        return "failed"
    return "succeeded" if record.last_success_at else "never run"


def _alerts(record: PipelineRecord) -> list[dict[str, str]]:
    return [
        {"pipeline_id": record.pipeline_id, "condition": one.condition.value.replace("_", " "), "message": one.message}
        for one in record.episodes
    ]


def _run(run: RunRecord, now: datetime) -> dict[str, Any]:
    result = run.result
    told = result is not None and is_told(result)
    counts = result.rows if result is not None and told else None
    error = result.error if result else None
    return {
        "began": _time(run.created_at),
        "kind": run.kind.value.replace("_", " "),
        "attempt": run.attempt,
        "requested_by": run.requested_by,
        "state": "running" if run.state.is_open else (result.state if result else run.state).value,
        "rows": [number(one) for one in (counts.read, counts.inserted, counts.updated, counts.deleted)]
        if counts
        else [""] * 4,
        "took": took(result) if result else duration((now - run.created_at).total_seconds()),
        "watermark": result.watermark.value if result and result.watermark else "",
        "notes": [*result.schema_changes, *result.notes] if result is not None else [],
        "error": f"{error.message} {error.remedy}".strip() if error else "",
    }


def schedule_words(schedule: Schedule) -> str:
    """`every 15 m`, `*/5 * * * * in Europe/Oslo`, `after orders, items`, `on demand`."""
    if isinstance(schedule, Cron):
        return f"{schedule.expression} in {schedule.timezone}"
    if isinstance(schedule, Every):
        return f"every {duration(schedule.seconds).removesuffix(' 00 s').removesuffix(' 00 m').removesuffix(' 0 h')}"
    return f"after {', '.join(schedule.pipelines)}" if isinstance(schedule, After) else "on demand"


def _ahead(slot: datetime | None, now: datetime) -> str:
    return "" if slot is None else f"in {duration((slot - now).total_seconds())}"


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


@cache
def _template(name: str) -> Any:
    pages = Environment(
        loader=PackageLoader("sync_core.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return pages.get_template(f"{name}.html")
