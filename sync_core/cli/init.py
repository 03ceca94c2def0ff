"""`uds init`: a commented starter configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sync_core.catalog.reference import json_schema_text
from sync_core.cli.options import (
    DEFAULT_CONFIG,
    JsonOption,
    UnusedConfigOption,
    UnusedEnvironmentOption,
    UnusedStateOption,
)
from sync_core.cli.output import print_json
from sync_core.domain.errors import ConfigError

CONNECTIONS = """\
# yaml-language-server: $schema=schema.json
# Databases by name. All keys: docs/configuration.md. Check with: uds validate
#
# Passwords are never written here. secret_scope and secret_key name a secret of a Databricks secret scope; on this
# machine the same secret is the environment variable UDS_SECRET_<SCOPE>_<KEY>, here UDS_SECRET_KV_ORACLE_PASSWORD.

connections:
  oracle_sales:
    type: oracle
    host: ${ORACLE_HOST:-oracle.example.com}
    port: 1521
    service_name: ORCL # or sid: XE
    username: sync
    secret_scope: kv
    secret_key: oracle-password
    timezone: Europe/Oslo # in which its DATE and TIMESTAMP columns are written

  azure_crm:
    type: azure_sql
    host: ${AZURE_SQL_HOST:-crm.database.windows.net}
    database: crm
    auth: service_principal # or password, token, service_credential
    tenant_id: ${AZURE_TENANT_ID:-00000000-0000-0000-0000-000000000000}
    client_id: ${AZURE_CLIENT_ID:-00000000-0000-0000-0000-000000000000}
    secret_scope: kv
    secret_key: crm-client-secret

  postgres_shop:
    type: postgresql
    host: ${POSTGRES_HOST:-localhost}
    database: shop
    username: sync
    secret_scope: kv
    secret_key: postgres-password

  lake: # a folder of Delta tables; on Databricks: catalog and schema, as in environments/production.yml
    type: databricks
    path: ./lake

# Where alerts go. Without channels nobody is told.
#
# channels:
#   on_call: # signed by the Standard Webhooks convention; the secret is the key whsec_…
#     type: webhook
#     url: https://alerts.example.com/sync
#     secret_scope: kv
#     secret_key: on-call-signing-key
#   chat: # an Apprise address, such as msteams://…; it holds its own password, so that it is the secret as a whole
#     type: apprise
#     secret_scope: kv
#     secret_key: chat-address
#     conditions: [failed, stale]
"""

PIPELINES = """\
# yaml-language-server: $schema=schema.json
# What is kept in step. All keys: docs/configuration.md. See what a run would do with: uds plan

defaults: # every pipeline inherits these
  target: {connection: lake}
  cursor: {settle: 30s} # how long a transaction at the source may stay open
  schedule: {every: 15m} # or cron, as below; after: [OTHER], once those have succeeded; on_demand: true
  alerts: {stale_after: 2h} # nothing has succeeded for so long; what else is watched: docs/configuration.md

pipelines:
  # New and changed rows by key: merge.
  - pipeline_id: shop.orders
    source: {connection: postgres_shop, table: public.orders}
    target: {table: shop_orders}
    mode: merge
    cursor: {column: updated_at, type: timestamp, lookback: 10m}
    merge_keys: [order_id]
    tags: [shop]
    schedule: {cron: "*/5 6-22 * * *", timezone: Europe/Oslo} # minute, hour, day, month, weekday
    alerts: {stale_after: 9h} # longer than its night
    transformations:
      - {type: filter, condition: "status <> 'draft'"}
      - {type: rename, mapping: {order_id: id}}

  # Rows that are only ever added: incremental.
  - pipeline_id: crm.events
    source: {connection: azure_crm, table: dbo.Events}
    target: {table: crm_events}
    mode: incremental
    cursor: {column: EventId, type: number, initial: 0}
    merge_keys: [EventId]

  # Many tables of one kind: {schema} and {table} are the parts of each name, in lower case.
  - pipeline_id: "{schema}.{table}"
    source: {connection: oracle_sales}
    target: {table: "{schema}_{table}"}
    mode: full_refresh
    schedule: {cron: "0 3 * * MON-FRI", timezone: Europe/Oslo}
    alerts: {stale_after: 4d}
    tables:
      - SALES.REGIONS
      - SALES.CURRENCIES
      - {name: SALES.CUSTOMERS, mode: merge, merge_keys: [CUSTOMER_ID], schedule: {after: [sales.regions]}}
"""

PRODUCTION = """\
# yaml-language-server: $schema=../schema.json
# What is different with --env production. Everything here must exist in the files above.

connections:
  lake: {path: ~, catalog: "${UDS_CATALOG:-main}", schema: bronze} # path: ~ takes the folder away

pipelines:
  - pipeline_id: shop.orders
    read: {partitions: 8}
"""


def starter() -> dict[str, str]:
    """The starter's files and their texts."""
    return {
        "connections.yml": CONNECTIONS,
        "pipelines.yml": PIPELINES,
        "environments/production.yml": PRODUCTION,
        "schema.json": json_schema_text(),
    }


def init(
    folder: Annotated[
        Path | None, typer.Argument(metavar="FOLDER", help="Where to write it.", show_default="config")
    ] = None,
    as_json: JsonOption = False,
    config: UnusedConfigOption = None,
    state: UnusedStateOption = None,  # noqa: ARG001
    environment: UnusedEnvironmentOption = None,  # noqa: ARG001
) -> None:
    """Write a commented starter configuration. Files that exist are never touched."""
    place = folder or config or DEFAULT_CONFIG
    files = {place / name: text for name, text in starter().items()}
    there = [str(path) for path in files if path.exists()]
    if there:
        message = f"There is a configuration already: {', '.join(there)}."
        raise ConfigError("init.exists", message, "Name another folder: uds init FOLDER.")
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        message = f"{error.filename or place} cannot be written: {error.strerror}."
        raise ConfigError("init.unwritable", message, "Name another folder: uds init FOLDER.") from error
    if as_json:
        print_json({"written": [str(path) for path in files]})
        return
    for path in files:
        print(f"Written: {path}")
    print(f"Next: change them to your databases, then uds validate --config {place}")
