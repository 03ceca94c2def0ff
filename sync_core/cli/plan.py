"""`uds plan`: what a run would do now. Nothing is written, in the target or in the store."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.text import Text

from sync_core.cli.context import open_app, open_catalog
from sync_core.cli.options import Common, takes_common
from sync_core.cli.output import make_console, print_json
from sync_core.cli.progress import show_progress
from sync_core.domain.codec import to_json
from sync_core.domain.run import Action, Outcome, RunResult
from sync_core.formatting import result_text


@takes_common
def plan(
    common: Common,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="PIPELINE", help="Ids, globs, tag:NAME; else all.")
    ] = None,
) -> None:
    """Show what a run would do, and write nothing. Window, exact SQL, parts, the target's statements."""
    catalog = open_catalog(common.config, common.environment)
    pipelines = catalog.select(names or ())
    with show_progress(
        [pipeline.pipeline_id for pipeline in pipelines], silent=common.as_json or not sys.stderr.isatty()
    ) as on_event:
        results = open_app(common.state).ask_engine(pipelines, catalog.connections, Action.PLAN, on_event)
    if common.as_json:
        print_json({"plans": [to_json(result) for result in results]})
    else:
        for result in results:
            _print(result)
    if any(result.state is Outcome.FAILED for result in results):
        raise typer.Exit(1)


def _print(result: RunResult) -> None:
    console = make_console()
    console.print(Text(f"{result.pipeline_id} ({result.kind.value})", "bold"))
    if result.plan is None:
        console.print(Text(f"  {result_text(result)}", "red"))
        return
    window = result.window
    if window is not None and window.read_bound is not None:
        low = window.low.value if window.low else "the beginning"
        console.print(f"  window     {low} … {window.read_bound.value}, both inclusive")
        console.print(f"  watermark  {window.high.value if window.high else 'none'} after the run")
    snapshot = f", all of {result.plan.snapshot}" if result.plan.snapshot else ""
    console.print(f"  parts      {result.plan.partitions}{snapshot}")
    for title, statements in (("source", result.plan.source_statements), ("target", result.plan.target_statements)):
        for statement in statements:
            console.print(f"  {title}", style="cyan")
            for line in statement.splitlines():
                console.print(f"    {line}")
    for line in (*result.schema_changes, *result.notes):
        console.print(f"  {line}")
