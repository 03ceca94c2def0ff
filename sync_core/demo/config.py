"""The demo's configuration, written as a person would write it."""

from __future__ import annotations

from pathlib import Path

from sync_core.demo.servers import H2_PACKAGE

CONNECTIONS = """# Where the databases are, each under a name that pipelines use.
# A secret never stands here: `secret_scope: demo, secret_key: operations` says where the engine finds it. On this machine
# that is the environment variable UDS_SECRET_DEMO_OPERATIONS, on Databricks the secret scope `demo`.
connections:

  operations:                  # PostgreSQL
    type: postgresql
    host: 127.0.0.1
    port: PG_PORT
    database: postgres
    username: sync
    secret_scope: demo
    secret_key: operations

  station:                     # in Oracle's place: H2 in its Oracle mode
    type: oracle               # with a real Oracle: host, port, service_name, and no `options`
    username: sa
    secret_scope: demo
    secret_key: stand-in
    driver_package: H2_PACKAGE
    options:                   # in place of the address and the driver that the adapter would choose
      driver: org.h2.Driver
      url: ORACLE_URL

  fleet:                       # in SQL Server's place: H2 in its MSSQLServer mode
    type: azure_sql            # with a real one: host, database, auth, and no `options`
    username: sa
    secret_scope: demo
    secret_key: stand-in
    driver_package: H2_PACKAGE
    options:
      driver: org.h2.Driver
      url: SQL_SERVER_URL

  lake:                        # Delta Lake in a folder; on Databricks: catalog and schema in place of path
    type: databricks
    path: LAKE

channels:                      # where alerts go

  operators:                   # signed by the Standard Webhooks convention
    type: webhook
    url: ALERTS_URL
    secret_scope: demo
    secret_key: alerts
"""
PIPELINES = """# What moves from where to where. `uds plan flights` shows what a run would do, `uds run flights` does it,
# `uds up` does it whenever it is due. A pipeline without a schedule runs when it is asked for.
defaults:
  channels: [operators]
  owner: the demo

pipelines:

  - pipeline_id: flights
    source: {connection: operations, table: public.flights}
    target: {connection: lake, table: flights}
    mode: merge                # rows with a known key are updated, others inserted
    merge_keys: [id]
    cursor:                    # a run reads the rows from the last watermark on
      column: updated_at
      type: timestamp
      timezone: UTC            # the column has no zone: this says which one its values are written in
    schedule: {cron: "30 4 * * *", timezone: America/New_York}

  - pipeline_id: weather
    source: {connection: station, table: WEATHER}
    target: {connection: lake, table: weather}
    mode: incremental          # rows are appended, never updated
    cursor: {column: OBSERVED_AT, type: timestamp, timezone: UTC}      # the watermark keeps all nine decimals, Delta six
    schedule: {every: 1d}

  - pipeline_id: airports
    source: {connection: station, table: AIRPORTS}
    target: {connection: lake, table: airports}
    mode: full_refresh         # all rows, replaced in one commit

  - pipeline_id: planes
    source: {connection: fleet, table: planes}
    target: {connection: lake, table: planes}
    mode: merge
    merge_keys: [tailnum]
    cursor: {column: modified, type: timestamp, timezone: UTC}         # datetime2(7): likewise, all seven
    schedule: {every: 1d}

  - pipeline_id: airlines
    source: {connection: fleet, table: airlines}
    target: {connection: lake, table: airlines}
    mode: full_refresh

  - pipeline_id: planes-back   # and back: from Delta Lake into a database
    source: {connection: lake, table: planes}
    target: {connection: operations, table: reporting.planes}          # created by the first run
    mode: merge
    merge_keys: [tailnum]
    cursor: {column: modified, type: timestamp, timezone: UTC}
    schedule: {after: [planes]}
"""


def write_config(folder: Path, lake: Path, port: int, oracle_url: str, sql_server_url: str, alerts_url: str) -> None:
    """connections.yml and pipelines.yml into `folder`."""
    folder.mkdir(parents=True)
    text = CONNECTIONS.replace("PG_PORT", str(port)).replace("H2_PACKAGE", H2_PACKAGE)
    text = text.replace("ORACLE_URL", f'"{oracle_url}"').replace("SQL_SERVER_URL", f'"{sql_server_url}"')
    text = text.replace("ALERTS_URL", f'"{alerts_url}"')
    (folder / "connections.yml").write_text(text.replace("LAKE", f'"{lake}"'), encoding="utf-8")
    (folder / "pipelines.yml").write_text(PIPELINES, encoding="utf-8")
