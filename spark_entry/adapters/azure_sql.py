"""Azure SQL and SQL Server: SQL logins and Microsoft Entra identities, rowversion cursors."""

from __future__ import annotations

from collections.abc import Mapping

from spark_entry.adapters.base import Column, Relation
from spark_entry.adapters.jdbc import JdbcAdapter
from spark_entry.adapters.jdbc_catalog import TableName
from spark_entry.adapters.jdbc_connection import HeldConnection
from spark_entry.adapters.service_credential import access_token
from spark_entry.adapters.service_principal import fetch_token
from spark_entry.dialects.azure_sql import AzureSqlDialect
from spark_entry.dialects.writing import Load
from sync_core.domain.connection import Authentication
from sync_core.domain.errors import ConfigError
from sync_core.domain.pipeline import Cursor
from sync_core.domain.watermark import CursorType, Watermark

_DIALECT = AzureSqlDialect()
_SCOPE = "https://database.windows.net/.default"
_WHOLE = ("tinyint", "smallint", "int", "bigint", "INTEGER", "BIGINT", "SMALLINT")


class AzureSqlAdapter(JdbcAdapter):
    """Azure SQL, Managed Instance and SQL Server."""

    dialect = _DIALECT
    driver = "com.microsoft.sqlserver.jdbc.SQLServerDriver"
    driver_package = "com.microsoft.sqlserver:mssql-jdbc:12.10.1.jre11"
    default_port = 1433

    def build_jdbc_url(self) -> str:
        connection = self.connection
        # A value in braces is taken as it is, whatever characters it holds.
        database = f";databaseName={{{connection.database.replace('}', '}}')}}}" if connection.database else ""
        encrypt = "false" if connection.tls is False else "true"
        trust = "true" if connection.trust_server_certificate else "false"
        return (
            f"jdbc:sqlserver://{connection.host}:{connection.port or self.default_port}{database}"
            f";encrypt={encrypt};trustServerCertificate={trust}"
        )

    def driver_properties(self) -> Mapping[str, str]:
        return {"loginTimeout": "15", "applicationName": "universal-data-sync"}

    def write_properties(self) -> Mapping[str, str]:
        return {"useBulkCopyForBatchInsert": "false"}

    def get_credentials(self) -> Mapping[str, str]:
        match self.connection.auth:
            case Authentication.PASSWORD:
                return super().get_credentials()
            case Authentication.TOKEN:
                return {"accessToken": self._secret()}
            case Authentication.SERVICE_PRINCIPAL:
                return {"accessToken": fetch_token(self.connection, self._secret(), _SCOPE)}
            case Authentication.SERVICE_CREDENTIAL:
                return {"accessToken": access_token(self.spark, self.connection, _SCOPE)}

    def _secret(self) -> str:
        reference = self.connection.secret
        if reference is None:
            raise ConfigError(
                "connection.secret",
                f"Connection {self.connection.name} names no secret.",
                "Set secret_scope and secret_key.",
            )
        return self.secret(reference.scope, reference.key)

    def insert(self, load: Load, connection: HeldConnection) -> int:
        target = self.dialect.text(load.target)
        identities = connection.query(
            f"SELECT COUNT(*) FROM sys.identity_columns WHERE object_id = OBJECT_ID({target})"
        )
        if identities[0][0] == "0":
            return super().insert(load, connection)
        connection.execute(f"SET IDENTITY_INSERT {load.target} ON")
        inserted = super().insert(load, connection)
        connection.execute(f"SET IDENTITY_INSERT {load.target} OFF")
        return inserted

    def unique_keys(self, table: TableName) -> tuple[tuple[str, ...], ...]:
        # Only the primary key: the driver does not tell a filtered unique index from a whole one.
        key = self.held.primary_key(table.schema, table.name)
        return (key,) if key else ()

    def estimate_rows(self, relation: str, table: TableName | None) -> int | None:
        if table is None:
            return None
        rows = self.held.query(
            "SELECT SUM(rows) FROM sys.partitions WHERE index_id IN (0, 1) "
            f"AND object_id = OBJECT_ID({self.dialect.text(relation)})"
        )
        return int(rows[0][0]) if rows and rows[0][0] is not None else None

    def probe_statement(self, relation: Relation, cursor: Cursor, column: Column, offset: int | None) -> str:
        statement = super().probe_statement(relation, cursor, column, offset)
        if cursor.type is CursorType.ROWVERSION:
            statement = statement.replace("SELECT NULL AS p0", f"SELECT {_DIALECT.safe_rowversion()} AS p0", 1)
        return statement

    def parse_mark(self, cursor: Cursor, text: str | None) -> Watermark | None:
        if cursor.type is CursorType.ROWVERSION and text is not None:
            return Watermark(cursor.type, f"0x{int(text):016X}")
        return super().parse_mark(cursor, text)

    def split_expression(self, relation: Relation) -> str | None:
        """The key modulo many buckets: of an integer itself, else of its checksum."""
        key = min(relation.unique_keys, key=len, default=())
        if relation.is_query or not key:
            return None
        first = relation.column(key[0])
        names = self.dialect.names(key)
        whole = len(key) == 1 and first is not None and first.native in _WHOLE
        value = f"CAST({names} AS bigint)" if whole else f"CAST(CHECKSUM({names}) AS bigint)"
        return f"ABS({value} % {_BUCKETS})"

    def split(self, relation: Relation, parts: int) -> tuple[str, ...]:
        if self.split_expression(relation) is None:
            return ()
        part = self.dialect.quote("uds_part")
        return (
            f"({part} % {parts} = 0 OR {part} IS NULL)",
            *[f"{part} % {parts} = {number}" for number in range(1, parts)],
        )


_BUCKETS = 1_000_003
"""A prime, so that keys that all share a factor still spread over the parts."""
