"""Which adapter serves a connection type: the built-in ones, and those that other packages publish."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from importlib import import_module
from importlib.metadata import entry_points

from spark_entry.adapters.base import DatabaseAdapter
from sync_core.domain.connection import Connection
from sync_core.domain.errors import ConfigError

GROUP = "universal_data_sync.adapters"

_BUILT_IN = {
    "oracle": "spark_entry.adapters.oracle:OracleAdapter",
    "azure_sql": "spark_entry.adapters.azure_sql:AzureSqlAdapter",
    "postgresql": "spark_entry.adapters.postgresql:PostgresqlAdapter",
    "databricks": "spark_entry.adapters.databricks:DatabricksAdapter",
}


def known_types() -> tuple[str, ...]:
    """Every connection type that can be served here."""
    return (*_BUILT_IN, *sorted(entry.name for entry in entry_points(group=GROUP) if entry.name not in _BUILT_IN))


def adapter_for(connection_type: str) -> type[DatabaseAdapter]:
    """The adapter's class. Raises ConfigError that names the known types."""
    if connection_type in _BUILT_IN:
        module, _, name = _BUILT_IN[connection_type].partition(":")
        return getattr(import_module(module), name)
    found = next(iter(entry_points(group=GROUP, name=connection_type)), None)
    if found is None:
        near = difflib.get_close_matches(connection_type, known_types(), n=1)
        raise ConfigError(
            "connection.type",
            f"No adapter serves the connection type {connection_type!r}.",
            f"Did you mean {near[0]}?" if near else f"Known types: {', '.join(known_types())}.",
        )
    adapter = found.load()
    if not (isinstance(adapter, type) and issubclass(adapter, DatabaseAdapter)):
        raise ConfigError(
            "connection.type",
            f"The entry point {found.value} of {connection_type!r} is no DatabaseAdapter.",
            "Correct the package.",
        )
    return adapter


def driver_packages(connections: Iterable[Connection]) -> list[str]:
    """Maven coordinates of the JDBC drivers that these connections need."""
    needed = {connection.driver_package or _package(adapter_for(connection.type)) for connection in connections}
    return sorted(needed - {""})


def known_driver_packages() -> list[str]:
    """Maven coordinates of the drivers of every built-in adapter."""
    return sorted({_package(adapter_for(name)) for name in _BUILT_IN} - {""})


def _package(adapter: type[DatabaseAdapter]) -> str:
    return adapter.driver_package or ""
