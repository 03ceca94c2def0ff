"""`uds status` and `uds history`: what ran, and how it ended."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from sync_core.by_hand import App
from sync_core.catalog import Catalog
from sync_core.cli.context import open_app, open_catalog
from sync_core.cli.options import Common, takes_common
from sync_core.cli.output import make_console, print_json, print_table
from sync_core.domain.alert import Condition
from sync_core.domain.codec import to_json
from sync_core.domain.lag import lag_of
from sync_core.domain.pipeline import Pipeline
from sync_core.domain.run import RunRecord, RunState
from sync_core.formatting import ago, duration, is_told, result_text, rows_text, took
from sync_core.ports import LaunchStatus
from sync_core.tick import paused_pipelines

STYLES = {
    "succeeded": "green",
    "failed": "bold red",
    "cancelled": "yellow",
    "running": "cyan",
    "stopped": "yellow",
}


@takes_common
def status(common: Common) -> None:
    """Show each pipeline's state, last sync, rows and watermark. Open alerts and errors follow."""
    catalog = open_catalog(common.config, common.environment)
    app = open_app(common.state)
    paused = _paused(app, catalog)
    rows = [
        _status_of(app, catalog, pipeline, pipeline.pipeline_id in paused) for pipeline in catalog.pipelines.values()
    ]
    if common.as_json:
        print_json({"pipelines": rows})
        return
    table = _table("pipeline", "state", "last sync", "rows", "took", "watermark", "lag")
    now = app.now()
    for row in rows:
        table.add_row(
            Text(row["pipeline_id"]),
            Text(row["state"] + (", paused" if row["paused"] else ""), STYLES.get(row["state"], "dim")),
            ago(row["last_sync"], now) if row["last_sync"] else "never",
            "" if row["rows"] is None else rows_text(row["rows"]),
            duration(row["seconds"]),
            row["watermark"],
            duration(row["lag_seconds"]),
        )
    print_table(table)
    for row in rows:
        if row["error"] is not None:
            make_console().print(f"{row['error'].message} {row['error'].remedy}".strip())
        for alert in row["alerts"]:
            # A failure is told by the error of the run.
            if alert["condition"] != Condition.FAILED.value:
                make_console().print(f"Alert {alert['condition']}: {alert['message']}")


def _paused(app: App, catalog: Catalog) -> frozenset[str]:
    records = {name: app.store.load(name).record for name in catalog.pipelines}
    return paused_pipelines(app.store, catalog.pipelines, records, catalog.connections)


def _status_of(app: App, catalog: Catalog, pipeline: Pipeline, paused: bool) -> dict[str, Any]:
    record = app.store.load(pipeline.pipeline_id).record
    last = next(iter(app.store.runs(pipeline.pipeline_id, 1)), None)
    done = app.store.last_success(pipeline.pipeline_id)
    result = last.result if last else None
    return {
        "pipeline_id": pipeline.pipeline_id,
        "state": state_word(app, last) if last else "never run",
        "paused": paused,
        "last_sync": done.closed_at if done else None,
        "rows": result.rows if result and is_told(result) else None,
        "seconds": result.seconds.total if result and is_told(result) else None,
        "watermark": record.watermark.value if record.watermark else None,
        "lag_seconds": lag_of(record.watermark, pipeline, catalog.connections, app.now()),
        "error": result.error if result else None,
        "alerts": [{"condition": one.condition.value, "message": one.message} for one in record.episodes],
    }


def state_word(app: App, run: RunRecord) -> str:
    """The run's state; an open one is running, or stopped when its engine is gone and the next run will settle it."""
    if not run.state.is_open:
        return run.state.value
    alive = app.launcher.state(run.launch_id or run.batch_id).status is LaunchStatus.RUNNING
    return "running" if alive else "stopped"


@takes_common
def history(
    common: Common,
    name: Annotated[str, typer.Argument(metavar="PIPELINE", help="A pipeline's id.")],
    limit: Annotated[int, typer.Option(metavar="NUMBER", min=1, help="How many runs, newest first.")] = 20,
) -> None:
    """Show a pipeline's runs, newest first."""
    pipeline = open_catalog(common.config, common.environment).the_one(name)
    app = open_app(common.state)
    runs = app.store.runs(pipeline.pipeline_id, limit)
    if common.as_json:
        print_json({"pipeline_id": pipeline.pipeline_id, "runs": [to_json(run) for run in runs]})
        return
    if not runs:
        print(f"{pipeline.pipeline_id} has never run.")
        return
    table = _table("begun (UTC)", "kind", "state", "took", "asked by", "what")
    for run in runs:
        begun = f"{run.created_at:%Y-%m-%d %H:%M:%S}"
        asked_by = Text(run.requested_by)
        table.add_row(begun, run.kind.value, _state(app, run), _took(run), asked_by, _what(app, run))
    print_table(table)


def _state(app: App, run: RunRecord) -> Text:
    word = state_word(app, run)
    style = STYLES[word]
    if run.result and run.state is RunState.SUCCEEDED:
        word = run.result.state.value
    return Text(f"{word}, late success" if run.late_success else word, style)


def _took(run: RunRecord) -> str:
    return took(run.result) if run.result else ""


def _what(app: App, run: RunRecord) -> Text:
    if run.result:
        return Text(result_text(run.result))
    stopped = state_word(app, run) == "stopped"
    return Text(f"run {run.run_key[:12]} is open" + ("; the next run takes in what it did" if stopped else ""))


def _table(*headings: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table
