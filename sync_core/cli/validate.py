"""`uds validate`: every fault of the configuration at once."""

from __future__ import annotations

import dataclasses
import os

import typer

from sync_core.catalog import CatalogError, load_catalog
from sync_core.cli.options import (
    DEFAULT_CONFIG,
    ConfigOption,
    EnvironmentOption,
    JsonOption,
    UnusedStateOption,
)
from sync_core.cli.output import count, print_faults, print_json


def validate(
    config: ConfigOption = DEFAULT_CONFIG,
    environment: EnvironmentOption = None,
    as_json: JsonOption = False,
    state: UnusedStateOption = None,  # noqa: ARG001
) -> None:
    """Check the configuration and list every fault with its file and line."""
    try:
        catalog = load_catalog(config, environment, os.environ)
    except CatalogError as error:
        if as_json:
            print_json({"faults": [dataclasses.asdict(fault) for fault in error.faults]})
        else:
            print_faults(error.faults)
        raise typer.Exit(2) from error
    connections, pipelines = len(catalog.connections), len(catalog.pipelines)
    if as_json:
        print_json({"faults": [], "connections": connections, "pipelines": pipelines})
    else:
        print(f"{count(connections, 'connection')}, {count(pipelines, 'pipeline')}: no faults.")
