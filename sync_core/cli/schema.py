"""`uds schema`: the JSON schema by which editors complete and check the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sync_core.catalog.reference import json_schema_text
from sync_core.cli.options import JsonOption, UnusedConfigOption, UnusedEnvironmentOption, UnusedStateOption
from sync_core.cli.output import print_json
from sync_core.domain.errors import PermanentError


def schema(
    write: Annotated[Path | None, typer.Option("--write", metavar="FILE", help="Write it to a file.")] = None,
    as_json: JsonOption = False,
    config: UnusedConfigOption = None,  # noqa: ARG001
    state: UnusedStateOption = None,  # noqa: ARG001
    environment: UnusedEnvironmentOption = None,  # noqa: ARG001
) -> None:
    """Print the JSON schema of the files, for editors."""
    if write is None:
        print(json_schema_text(), end="")
        return
    try:
        write.write_text(json_schema_text(), encoding="utf-8")
    except OSError as error:
        message = f"{write} cannot be written: {error.strerror}."
        raise PermanentError("file.unwritable", message, "Name another file.") from error
    if as_json:
        print_json({"written": [str(write)]})
    else:
        print(f"Written: {write}. In a YAML file: # yaml-language-server: $schema={write.name}")
