"""`uds run`: request, launch and complete, here and now."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from sync_core.by_hand import Refusal
from sync_core.cli.context import open_app, open_catalog, who
from sync_core.cli.options import Common, takes_common
from sync_core.cli.output import make_console, print_json
from sync_core.cli.progress import show_progress
from sync_core.domain.codec import to_json
from sync_core.domain.errors import ConfigError, SyncError
from sync_core.domain.pipeline import Pipeline
from sync_core.domain.run import Outcome, Range, RunKind, RunResult
from sync_core.domain.watermark import Watermark
from sync_core.formatting import outcome_text, result_text, took

STYLES = {
    Outcome.SUCCEEDED: "green",
    Outcome.UNCHANGED: "dim",
    Outcome.SUPERSEDED: "yellow",
    Outcome.FAILED: "bold red",
    Outcome.CANCELLED: "yellow",
}


@takes_common
def run(
    common: Common,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="PIPELINE", help="Ids, globs like 'sales.*', tag:NAME.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Run every pipeline.")] = False,
    full_refresh: Annotated[bool, typer.Option("--full-refresh", help="Load everything again, in one commit.")] = False,
    since: Annotated[str | None, typer.Option(metavar="VALUE", help="Backfill from this cursor value on.")] = None,
    until: Annotated[str | None, typer.Option(metavar="VALUE", help="Backfill up to this cursor value.")] = None,
) -> None:
    """Run pipelines now and wait for them. A backfill (--since, --until) never moves the watermark."""
    if bool(names) is everything:
        raise ConfigError("call.wrong", "Which pipelines is not clear.", "Name some, or say --all.")
    catalog = open_catalog(common.config, common.environment)
    pipelines = catalog.select(names or ())
    kind, ranges = _what(pipelines, full_refresh, since, until)
    app = open_app(common.state)
    with show_progress([pipeline.pipeline_id for pipeline in pipelines], silent=common.as_json) as on_event:
        results, refusals = app.run(pipelines, catalog.connections, on_event, kind, ranges, who())
    with contextlib.suppress(SyncError):
        # Housekeeping: the next run does it, and what this one did is to be told.
        app.forget()
    if common.as_json:
        refused = [{"pipeline_id": refusal.pipeline_id, "error": _error(refusal)} for refusal in refusals]
        print_json({"runs": [to_json(result) for result in results]} | ({"refused": refused} if refused else {}))
    else:
        print_results(results, refusals)
    if refusals or any(not is_done(result) for result in results):
        raise typer.Exit(1)


def is_done(result: RunResult) -> bool:
    """Whether what was asked has been done. A request that lost to another run was not; an ordinary run was, by it."""
    if result.state is Outcome.SUPERSEDED:
        return result.request_id is None
    return result.state in (Outcome.SUCCEEDED, Outcome.UNCHANGED)


def _what(
    pipelines: Sequence[Pipeline], full_refresh: bool, since: str | None, until: str | None
) -> tuple[RunKind, Mapping[str, Range]]:
    if since is None and until is None:
        return (RunKind.FULL_REFRESH if full_refresh else RunKind.INCREMENTAL), {}
    if full_refresh:
        raise ConfigError("call.wrong", "--full-refresh loads everything.", "Leave out --since and --until.")
    return RunKind.BACKFILL, {pipeline.pipeline_id: _range(pipeline, since, until) for pipeline in pipelines}


def _range(pipeline: Pipeline, since: str | None, until: str | None) -> Range:
    cursor = pipeline.cursor
    if cursor is None or not cursor.column:
        raise ConfigError(
            "call.no_cursor",
            f"Pipeline {pipeline.pipeline_id} has no cursor column, so it has no range to load.",
            "Give it a cursor, or use --full-refresh.",
        )
    try:
        ends = [Watermark.parse(cursor.type, text) if text is not None else None for text in (since, until)]
    except ValueError as error:
        raise ConfigError("call.wrong", f"Pipeline {pipeline.pipeline_id}: {error}.") from error
    if ends[0] is not None and ends[1] is not None and ends[1] < ends[0]:
        raise ConfigError("call.wrong", f"--until {until} lies before --since {since}.")
    return Range(*ends)


def print_results(results: Sequence[RunResult], refusals: Sequence[Refusal]) -> None:
    """A table on a terminal, one line a run when piped."""
    console = make_console()
    if console.is_terminal:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        for heading in ("pipeline", "state", "took", "what"):
            table.add_column(heading, overflow="fold")
        for result in results:
            table.add_row(
                Text(result.pipeline_id),
                Text(result.state.value, STYLES[result.state]),
                took(result),
                Text(result_text(result)),
            )
        console.print(table, soft_wrap=False)
    else:
        for result in results:
            console.print(outcome_text(result))
    for result in results:
        for line in (*result.schema_changes, *result.notes):
            console.print(f"{result.pipeline_id}: {line}")
    for refusal in refusals:
        console.print(Text(f"{refusal.error.message} {refusal.error.remedy}", "yellow"))


def _error(refusal: Refusal) -> dict[str, str]:
    error = refusal.error
    return {"code": error.code, "kind": error.kind, "message": error.message, "remedy": error.remedy}
