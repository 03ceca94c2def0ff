"""What most commands begin with: the catalog and the application."""

from __future__ import annotations

import getpass
import os
import shlex
from dataclasses import replace
from pathlib import Path

from sync_core.app import Service, build, build_service
from sync_core.by_hand import App
from sync_core.catalog import Catalog, load_catalog
from sync_core.domain.errors import ConfigError
from sync_core.settings import Settings


def open_catalog(config: Path, environment: str | None) -> Catalog:
    """The configuration, or CatalogError with every fault."""
    return load_catalog(config, environment, os.environ)


def open_app(state: Path) -> App:
    """Runs by hand on this machine."""
    return build(open_settings(state))


def open_service(config: Path, state: Path, environment: str | None) -> Service:
    """The control plane on this machine. Its engine is started when something is launched, not before."""
    return build_service(open_settings(state), open_catalog(config, environment))


def open_settings(state: Path) -> Settings:
    """`UDS_ENGINE` and `UDS_WARM_ENGINE` replace the commands that start the engine."""
    settings = Settings(state)
    engine, warm = _command("UDS_ENGINE"), _command("UDS_WARM_ENGINE")
    return replace(settings, engine=engine or settings.engine, warm_engine=warm or settings.warm_engine)


def _command(variable: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(os.environ.get(variable, "")))
    except ValueError as error:
        message = f"The environment variable {variable} is not a command: {error}."
        raise ConfigError("call.wrong", message, "Correct it, or unset it.") from error


def who() -> str:
    """The person at this machine, for the record of changes."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        # A container may run as a number that has no name.
        return f"user {os.getuid()}"
