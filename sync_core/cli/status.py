"""`uds status` and `uds history`: what ran, and how it ended."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from sync_core.app import App
from sync_core.cli.context import open_app, open_catalog
from sync_core.cli.options import (
    DEFAULT_CONFIG,
    DEFAULT_STATE,
    ConfigOption,
    EnvironmentOption,
    JsonOption,
    StateOption,
)
from sync_core.cli.output import make_console, print_json
from sync_core.cli.words import ago, duration, result_text, rows_text
from sync_core.domain.codec import to_json
from sync_core.domain.run import Outcome, RunRecord, RunState
from sync_core.domain.watermark import Watermark

STYLES = {
    RunState.SUCCEEDED: "green",
    RunState.FAILED: "bold red",
    RunState.CANCELLED: "yellow",
    RunState.BEGUN: "cyan",
    RunState.LAUNCHED: "cyan",
}
DONE = (Outcome.SUCCEEDED, Outcome.UNCHANGED)


def status(
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    environment: EnvironmentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show every pipeline's last sync, rows, watermark, lag, state and duration."""
    catalog = open_catalog(config, environment)
    app = open_app(state)
    rows = [_status_of(app, pipeline_id) for pipeline_id in catalog.pipelines]
    if as_json:
        print_json({"pipelines": rows})
        return
    table = _table("pipeline", "state", "last sync", "rows", "took", "watermark", "lag")
    now = app.now()
    for row in rows:
        state_text = Text(row["state"], STYLES.get(row["state"], "dim"))
        synced = ago(row["last_sync"], now)
        lag = duration(row["lag_seconds"])
        rows_written = row["rows"]
        text = "" if rows_written is None else rows_text(rows_written)
        table.add_row(
            Text(row["pipeline_id"]), state_text, synced, text, duration(row["seconds"]), row["watermark"], lag
        )
    make_console().print(table, soft_wrap=False)


def _status_of(app: App, pipeline_id: str) -> dict[str, Any]:
    record = app.store.load(pipeline_id).record
    runs = app.store.runs(pipeline_id, 50)
    last = runs[0] if runs else None
    done = next((run for run in runs if run.result is not None and run.result.state in DONE), None)
    return {
        "pipeline_id": pipeline_id,
        "state": last.state if last else "never run",
        "last_sync": done.closed_at if done else None,
        "rows": last.result.rows if last and last.result else None,
        "seconds": last.result.seconds.total if last and last.result else None,
        "watermark": record.watermark.value if record.watermark else None,
        "lag_seconds": lag_seconds(record.watermark, app.now()),
        "error": last.result.error if last and last.result else None,
    }


def lag_seconds(watermark: Watermark | None, now: datetime) -> float | None:
    """How far a date or time lies behind now, in seconds, read as UTC; None for other cursors."""
    if watermark is None or not watermark.type.is_temporal:
        return None
    moment = datetime.fromisoformat(watermark.value[:26].removesuffix("Z"))
    return max(0.0, (now - moment.replace(tzinfo=UTC)).total_seconds())


def history(
    name: Annotated[str, typer.Argument(metavar="PIPELINE")],
    limit: Annotated[int, typer.Option(min=1, help="How many runs, newest first.")] = 20,
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    environment: EnvironmentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a pipeline's runs, newest first."""
    pipeline = open_catalog(config, environment).select([name])[0]
    runs = open_app(state).store.runs(pipeline.pipeline_id, limit)
    if as_json:
        print_json({"pipeline_id": pipeline.pipeline_id, "runs": [to_json(run) for run in runs]})
        return
    if not runs:
        print(f"{pipeline.pipeline_id} has never run.")
        return
    table = _table("begun (UTC)", "kind", "state", "took", "what")
    for run in runs:
        table.add_row(f"{run.created_at:%Y-%m-%d %H:%M:%S}", run.kind.value, _state(run), _took(run), _what(run))
    make_console().print(table, soft_wrap=False)


def _state(run: RunRecord) -> Text:
    word = run.result.state.value if run.result and run.state is RunState.SUCCEEDED else run.state.value
    return Text(f"{word}, late success" if run.late_success else word, STYLES[run.state])


def _took(run: RunRecord) -> str:
    return duration(run.result.seconds.total) if run.result else ""


def _what(run: RunRecord) -> Text:
    return Text(result_text(run.result)) if run.result else Text(f"run {run.run_key[:12]} is open")


def _table(*headings: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table
