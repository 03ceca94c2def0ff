"""`uds status` and `uds history`: what ran, and how it ended."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from sync_core.by_hand import App
from sync_core.catalog import Catalog
from sync_core.cli.context import open_app, open_catalog
from sync_core.cli.options import (
    DEFAULT_CONFIG,
    DEFAULT_STATE,
    ConfigOption,
    EnvironmentOption,
    JsonOption,
    StateOption,
)
from sync_core.cli.output import make_console, print_json, print_table
from sync_core.domain.codec import to_json
from sync_core.domain.lag import lag_of
from sync_core.domain.pipeline import Pipeline
from sync_core.domain.run import RunRecord, RunState
from sync_core.formatting import ago, duration, is_told, result_text, rows_text, took
from sync_core.ports import LaunchStatus

STYLES = {
    "succeeded": "green",
    "failed": "bold red",
    "cancelled": "yellow",
    "running": "cyan",
    "stopped": "yellow",
}


def status(
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    environment: EnvironmentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show every pipeline's last sync, rows, watermark, lag, state and duration."""
    catalog = open_catalog(config, environment)
    app = open_app(state)
    rows = [_status_of(app, catalog, pipeline) for pipeline in catalog.pipelines.values()]
    if as_json:
        print_json({"pipelines": rows})
        return
    table = _table("pipeline", "state", "last sync", "rows", "took", "watermark", "lag")
    now = app.now()
    for row in rows:
        table.add_row(
            Text(row["pipeline_id"]),
            Text(row["state"], STYLES.get(row["state"], "dim")),
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


def _status_of(app: App, catalog: Catalog, pipeline: Pipeline) -> dict[str, Any]:
    record = app.store.load(pipeline.pipeline_id).record
    last = next(iter(app.store.runs(pipeline.pipeline_id, 1)), None)
    done = app.store.last_success(pipeline.pipeline_id)
    result = last.result if last else None
    return {
        "pipeline_id": pipeline.pipeline_id,
        "state": state_word(app, last) if last else "never run",
        "last_sync": done.closed_at if done else None,
        "rows": result.rows if result and is_told(result) else None,
        "seconds": result.seconds.total if result and is_told(result) else None,
        "watermark": record.watermark.value if record.watermark else None,
        "lag_seconds": lag_of(record.watermark, pipeline, catalog.connections, app.now()),
        "error": result.error if result else None,
    }


def state_word(app: App, run: RunRecord) -> str:
    """The run's state; an open one is running, or stopped when its engine is gone and the next run will settle it."""
    if not run.state.is_open:
        return run.state.value
    alive = app.launcher.state(run.launch_id or run.batch_id).status is LaunchStatus.RUNNING
    return "running" if alive else "stopped"


def history(
    name: Annotated[str, typer.Argument(metavar="PIPELINE")],
    limit: Annotated[int, typer.Option(min=1, help="How many runs, newest first.")] = 20,
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    environment: EnvironmentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a pipeline's runs, newest first."""
    pipeline = open_catalog(config, environment).the_one(name)
    app = open_app(state)
    runs = app.store.runs(pipeline.pipeline_id, limit)
    if as_json:
        print_json({"pipeline_id": pipeline.pipeline_id, "runs": [to_json(run) for run in runs]})
        return
    if not runs:
        print(f"{pipeline.pipeline_id} has never run.")
        return
    table = _table("begun (UTC)", "kind", "state", "took", "what")
    for run in runs:
        table.add_row(
            f"{run.created_at:%Y-%m-%d %H:%M:%S}", run.kind.value, _state(app, run), _took(run), _what(app, run)
        )
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
