"""`uds validate`: every fault of the configuration at once."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

from sync_core.catalog import Catalog, CatalogError, load_catalog
from sync_core.cli.context import open_app
from sync_core.cli.options import Common, takes_common
from sync_core.cli.output import count, print_json, refuse_faults
from sync_core.cli.progress import show_progress
from sync_core.domain.codec import to_json
from sync_core.domain.run import Action, Outcome, RunResult
from sync_core.formatting import result_text


@takes_common
def validate(
    common: Common,
    live: Annotated[bool, typer.Option("--live", help="Also connect: permissions, tables, columns, types.")] = False,
) -> None:
    """List every fault of the configuration, with file and line."""
    try:
        catalog = load_catalog(common.config, common.environment, os.environ)
    except CatalogError as error:
        refuse_faults(error, common.as_json)
    connections, pipelines = len(catalog.connections), len(catalog.pipelines)
    if not common.as_json:
        print(f"{count(connections, 'connection')}, {count(pipelines, 'pipeline')}: no faults.", flush=True)
    results = _ask(catalog, common) if live else []
    failed = [result for result in results if result.state is Outcome.FAILED or result.problems]
    if common.as_json:
        document: dict[str, Any] = {"faults": [], "connections": connections, "pipelines": pipelines}
        print_json(document | ({"live": [to_json(result) for result in results]} if live else {}))
    else:
        for result in results:
            _print(result)
    if failed:
        raise typer.Exit(1)


def _print(result: RunResult) -> None:
    """One line a pipeline, or one a problem."""
    lines = [f"{problem.message} → {problem.remedy}".removesuffix(" → ") for problem in result.problems]
    if result.state is Outcome.FAILED:
        lines.insert(0, result_text(result))
    for line in lines or ["ready to run"]:
        print(f"{result.pipeline_id}: {line.removeprefix(f'Pipeline {result.pipeline_id}: ')}")


def _ask(catalog: Catalog, common: Common) -> list[RunResult]:
    """Let the engine connect to both ends of every pipeline; it alone has the drivers."""
    pipelines = list(catalog.pipelines.values())
    names = [pipeline.pipeline_id for pipeline in pipelines]
    with show_progress(names, silent=common.as_json or not sys.stderr.isatty()) as on_event:
        return open_app(common.state).ask_engine(pipelines, catalog.connections, Action.CHECK, on_event)
