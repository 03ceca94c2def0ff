"""The demo's configuration, written as a person would write it."""

from __future__ import annotations

from pathlib import Path

from sync_core.demo.servers import H2_PACKAGE

CONNECTIONS = """# Where the databases are. Secrets are references: the engine looks them up, here as UDS_SECRET_DEMO_OPERATIONS.
connections:
  operations:            # PostgreSQL
    {type: postgresql, host: 127.0.0.1, port: PG_PORT, database: postgres, username: sync, secret_scope: demo, secret_key: operations}
  station:               # H2 in its Oracle mode, in Oracle's place: `options` override what the adapter would build
    type: oracle
    username: sa
    secret_scope: demo
    secret_key: stand-in
    driver_package: H2_PACKAGE
    options: {driver: org.h2.Driver, url: "ORACLE_URL"}
  fleet:                 # H2 in its MSSQLServer mode, in Azure SQL's place
    type: azure_sql
    username: sa
    secret_scope: demo
    secret_key: stand-in
    driver_package: H2_PACKAGE
    options: {driver: org.h2.Driver, url: "SQL_SERVER_URL"}
  lake: {type: databricks, path: LAKE}
"""
PIPELINES = """pipelines:
  - pipeline_id: flights
    source: {connection: operations, table: public.flights}
    target: {connection: lake, table: flights}
    mode: merge
    cursor: {column: updated_at, type: timestamp, timezone: UTC}
    merge_keys: [id]

  - pipeline_id: weather
    source: {connection: station, table: WEATHER}
    target: {connection: lake, table: weather}
    mode: incremental                    # append; nine decimals of a second in the cursor
    cursor: {column: OBSERVED_AT, type: timestamp, timezone: UTC}

  - pipeline_id: airports
    source: {connection: station, table: AIRPORTS}
    target: {connection: lake, table: airports}
    mode: full_refresh

  - pipeline_id: planes
    source: {connection: fleet, table: planes}
    target: {connection: lake, table: planes}
    mode: merge
    cursor: {column: modified, type: timestamp, timezone: UTC}
    merge_keys: [tailnum]

  - pipeline_id: airlines
    source: {connection: fleet, table: airlines}
    target: {connection: lake, table: airlines}
    mode: full_refresh

  - pipeline_id: planes-back             # and back, from Delta Lake into a database
    source: {connection: lake, table: planes}
    target: {connection: operations, table: reporting.planes}
    mode: merge
    cursor: {column: modified, type: timestamp, timezone: UTC}
    merge_keys: [tailnum]
"""


def write_config(folder: Path, lake: Path, port: int, oracle_url: str, sql_server_url: str) -> None:
    """connections.yml and pipelines.yml into `folder`."""
    folder.mkdir(parents=True)
    values = {
        "PG_PORT": str(port),
        "H2_PACKAGE": H2_PACKAGE,
        "ORACLE_URL": oracle_url,
        "SQL_SERVER_URL": sql_server_url,
    }
    text = CONNECTIONS
    for name, value in (values | {"LAKE": str(lake)}).items():
        text = text.replace(name, value)
    (folder / "connections.yml").write_text(text, encoding="utf-8")
    (folder / "pipelines.yml").write_text(PIPELINES, encoding="utf-8")
