"""Azure SQL and SQL Server: SQL logins and Microsoft Entra identities, rowversion cursors."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping

from spark_entry.adapters.base import Column, Relation
from spark_entry.adapters.jdbc import JdbcAdapter
from spark_entry.adapters.jdbc_catalog import TableName
from spark_entry.adapters.jdbc_connection import HeldConnection
from spark_entry.adapters.service_credential import access_token
from spark_entry.dialects.azure_sql import AzureSqlDialect
from spark_entry.dialects.writing import Load
from sync_core.domain.connection import Authentication
from sync_core.domain.errors import ConfigError, PermanentError, RetryableError
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
                return {"accessToken": self._token_of_service_principal()}
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

    def _token_of_service_principal(self) -> str:
        """An access token by the client-credentials grant, so that no Azure library has to be on the cluster."""
        connection = self.connection
        if not (connection.tenant_id and connection.client_id):
            raise ConfigError(
                "connection.service_principal",
                f"Connection {connection.name} signs in as a service principal without naming it.",
                "Set tenant_id, client_id, and the secret.",
            )
        form = {
            "grant_type": "client_credentials",
            "client_id": connection.client_id,
            "client_secret": self._secret(),
            "scope": _SCOPE,
        }
        tenant = urllib.parse.quote(connection.tenant_id, safe="")
        request = urllib.request.Request(
            f"https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token", urllib.parse.urlencode(form).encode()
        )
        try:
            with urllib.request.urlopen(request, timeout=15) as answer:  # noqa: S310  # the address is https, fixed above
                return str(json.load(answer)["access_token"])
        except urllib.error.HTTPError as error:
            raise PermanentError(
                "database.sign_in",
                f"Connection {connection.name}: Microsoft Entra refused the service principal {connection.client_id} "
                f"(status {error.code}).",
                "Check tenant_id, client_id and whether the secret has expired.",
            ) from None
        except OSError as error:
            raise RetryableError(
                "database.unreachable",
                f"Connection {connection.name}: Microsoft Entra cannot be reached: {error}.",
                "Check the network and firewall of the compute.",
            ) from None

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
