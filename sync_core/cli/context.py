"""What most commands begin with: the catalog and the application."""

from __future__ import annotations

import getpass
import os
import shlex
from pathlib import Path

from sync_core.app import App, build
from sync_core.catalog import Catalog, load_catalog
from sync_core.domain.errors import ConfigError
from sync_core.settings import Settings


def open_catalog(config: Path, environment: str | None) -> Catalog:
    """The configuration, or CatalogError with every fault."""
    return load_catalog(config, environment, os.environ)


def open_app(state: Path) -> App:
    """The application on this machine. `UDS_ENGINE` replaces the command that starts the engine."""
    try:
        command = tuple(shlex.split(os.environ.get("UDS_ENGINE", "")))
    except ValueError as error:
        message = f"The environment variable UDS_ENGINE is not a command: {error}."
        raise ConfigError("call.wrong", message, "Correct it, or unset it.") from error
    return build(Settings(state, command) if command else Settings(state))


def who() -> str:
    """The person at this machine, for the record of changes."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        # A container may run as a number that has no name.
        return f"user {os.getuid()}"
