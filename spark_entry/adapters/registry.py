"""Which adapter serves a connection: the built-in ones, and those that other packages publish as entry points."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from importlib.metadata import entry_points

from spark_entry.adapters.base import DatabaseAdapter
from sync_core.domain.connection import Connection
from sync_core.domain.errors import ConfigError

ENTRY_POINTS = "universal_data_sync.adapters"

BUILT_IN = {
    "azure_sql": "spark_entry.adapters.azure_sql:AzureSqlAdapter",
    "databricks": "spark_entry.adapters.databricks:DatabricksAdapter",
    "oracle": "spark_entry.adapters.oracle:OracleAdapter",
    "postgresql": "spark_entry.adapters.postgresql:PostgresqlAdapter",
}


def adapter_for(connection_type: str) -> type[DatabaseAdapter]:
    """The adapter class of a connection's `type`. Raises ConfigError that names the known types."""
    if connection_type in BUILT_IN:
        module, _, name = BUILT_IN[connection_type].partition(":")
        return getattr(importlib.import_module(module), name)
    published = {found.name: found for found in entry_points(group=ENTRY_POINTS)}
    if connection_type in published:
        adapter = published[connection_type].load()
        if not (isinstance(adapter, type) and issubclass(adapter, DatabaseAdapter)):
            raise ConfigError(
                "connection.adapter",
                f"The entry point {connection_type} of {ENTRY_POINTS} is no DatabaseAdapter.",
                "Let it name a subclass of spark_entry.adapters.base.DatabaseAdapter.",
            )
        return adapter
    known = sorted({*BUILT_IN, *published})
    near = difflib.get_close_matches(connection_type, known, n=1)
    raise ConfigError(
        "connection.type",
        f"No adapter serves connections of type {connection_type}.",
        f"Did you mean {near[0]}?" if near else f"Known types: {', '.join(known)}.",
    )


def driver_packages(connections: Iterable[Connection]) -> list[str]:
    """Maven coordinates of the JDBC drivers that these connections need, for a session that is built here."""
    found = {connection.driver_package or adapter_for(connection.type).driver_package for connection in connections}
    return sorted(package for package in found if package)


def known_driver_packages() -> list[str]:
    """Maven coordinates of every built-in adapter's driver."""
    found = {adapter_for(name).driver_package for name in BUILT_IN}
    return sorted(package for package in found if package)
