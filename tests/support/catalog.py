"""A small configuration without a fault, and what is wrong with it once a test has changed a part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from sync_core.catalog import CatalogError, Fault, load_catalog

Faults = Callable[..., tuple[Fault, ...]]

CONNECTIONS = """\
connections:
  shop:
    type: postgresql
    host: db
    database: shop
    username: sync
  crm:
    type: azure_sql
    host: x.database.windows.net
    database: crm
    username: sync
    secret_scope: kv
    secret_key: crm
  erp:
    type: oracle
    host: ora
    service_name: ORCL
    username: sync
    secret_scope: kv
    secret_key: erp
  lake:
    type: databricks
    path: ./lake
"""
PIPELINES = """\
pipelines:
  - pipeline_id: orders
    source:
      connection: shop
      table: public.orders
    target:
      connection: lake
      table: orders
    mode: merge
    cursor:
      column: updated_at
      type: timestamp
    merge_keys: [id]
"""


def fault_finder(folder: Path) -> Faults:
    """Writes the configuration into the folder, with these files in place of its own, and returns its faults."""

    def find(
        files: Mapping[str, str | bytes], environment: str | None = None, variables: Mapping[str, str] | None = None
    ) -> tuple[Fault, ...]:
        for name, text in {"connections.yml": CONNECTIONS, "pipelines.yml": PIPELINES, **files}.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode() if isinstance(text, str) else text)
        found: tuple[Fault, ...] = ()
        try:
            load_catalog(folder, environment, variables or {})
        except CatalogError as error:
            found = error.faults
        assert list(found) == sorted(found)
        return found

    return find


def one(found: tuple[Fault, ...]) -> Fault:
    assert len(found) == 1, "\n".join(map(str, found))
    return found[0]
