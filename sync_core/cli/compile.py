"""`uds compile`: the validated configuration as one JSON file, for the Functions app."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from sync_core.catalog import CatalogError
from sync_core.catalog.compiled import compile_catalog
from sync_core.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption, UnusedStateOption
from sync_core.cli.output import count, print_json, refuse_faults
from sync_core.domain.errors import ConfigError

EnvironmentsOption = Annotated[
    list[str] | None,
    typer.Option("--environment", "--env", metavar="NAME", help="Compile for this environment; may stand many times."),
]


def compile_configuration(
    output: Annotated[Path, typer.Option("--output", metavar="FILE", help="The file to write.")],
    config: ConfigOption = DEFAULT_CONFIG,
    environment: EnvironmentsOption = None,
    as_json: JsonOption = False,
    state: UnusedStateOption = None,  # noqa: ARG001
) -> None:
    """Write the checked configuration as one JSON file. Variables are filled in now, secrets never."""
    names: list[str | None] = [*dict.fromkeys(environment or ())] or [None]
    try:
        text = compile_catalog(config, names, os.environ)
    except CatalogError as error:
        refuse_faults(error, as_json)
    _write(output, text)
    if as_json:
        print_json({"written": str(output), "environments": names})
    else:
        print(f"{output}: {count(len(names), 'environment')} compiled.")


def _write(path: Path, text: str) -> None:
    """Under another name first, so that a reader finds the old file or the new one."""
    unfinished = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror}."
        raise ConfigError("call.wrong", message, "Name another file with --output.") from error
