"""Oracle: a system change number as snapshot, parts by hash of the key or of the row's address."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from spark_entry.adapters.base import Relation
from spark_entry.adapters.jdbc import JdbcAdapter
from spark_entry.adapters.jdbc_catalog import TableName
from spark_entry.adapters.jdbc_connection import DatabaseFailed
from spark_entry.dialects.oracle import OracleDialect
from sync_core.domain.errors import ConfigError


class OracleAdapter(JdbcAdapter):
    """Oracle, by service name, SID or TLS."""

    dialect = OracleDialect()
    driver = "oracle.jdbc.OracleDriver"
    driver_package = "com.oracle.database.jdbc:ojdbc11:23.8.0.25.04"
    default_port = 1521

    def build_jdbc_url(self) -> str:
        connection = self.connection
        port = connection.port or (2484 if connection.tls else self.default_port)
        if not (connection.service_name or connection.sid):
            raise ConfigError(
                "connection.service",
                f"Connection {connection.name} names no database.",
                "Set service_name, or sid for an old one.",
            )
        if connection.tls:
            name = f"SERVICE_NAME={connection.service_name}" if connection.service_name else f"SID={connection.sid}"
            check = "off" if connection.trust_server_certificate else "on"
            return (
                f"jdbc:oracle:thin:@(DESCRIPTION=(ADDRESS=(PROTOCOL=tcps)(HOST={connection.host})(PORT={port}))"
                f"(CONNECT_DATA=({name}))(SECURITY=(SSL_SERVER_DN_MATCH={check})))"
            )
        if connection.service_name:
            return f"jdbc:oracle:thin:@//{connection.host}:{port}/{connection.service_name}"
        return f"jdbc:oracle:thin:@{connection.host}:{port}:{connection.sid}"

    def driver_properties(self) -> Mapping[str, str]:
        return {
            **self._native_encryption(),
            "oracle.net.CONNECT_TIMEOUT": "15000",
            "oracle.jdbc.timezoneAsRegion": "false",
            # A LOB up to this size comes with its row instead of by a round trip of its own.
            "oracle.jdbc.defaultLobPrefetchSize": "65536",
            "v$session.program": "universal-data-sync",
        }

    def _native_encryption(self) -> Mapping[str, str]:
        """Without TLS, Oracle's own encryption wherever the server does not reject it; `tls: false` asks for none."""
        if self.connection.tls is not None:
            return {}
        return {
            "oracle.net.encryption_client": "REQUESTED",
            "oracle.net.encryption_types_client": "(AES256,AES192,AES128)",
            "oracle.net.crypto_checksum_client": "REQUESTED",
            "oracle.net.crypto_checksum_types_client": "(SHA256,SHA384,SHA512)",
        }

    def estimate_rows(self, relation: str, table: TableName | None) -> int | None:
        if table is None:
            return None
        rows = self.held.query(
            "SELECT NUM_ROWS FROM ALL_TABLES WHERE OWNER = ? AND TABLE_NAME = ?", table.schema, table.name
        )
        return int(rows[0][0]) if rows and rows[0][0] is not None else None

    def split_expression(self, relation: Relation) -> str | None:
        """A hash of the key, which stays with its row; without a key the row's address, which only tables have."""
        if relation.is_query:
            return None
        key = min(relation.unique_keys, key=len, default=())
        # Not the number itself: ORA_HASH of text needs no conversion that depends on the type.
        value = " || '|' || ".join(f"TO_CHAR({self.dialect.quote(name)})" for name in key) or "ROWID"
        return f"ORA_HASH({value}, {_BUCKETS - 1})"

    def split(self, relation: Relation, parts: int) -> tuple[str, ...]:
        if relation.is_query or (relation.rows is None and not relation.unique_keys):
            return ()
        part = self.dialect.quote("uds_part")
        edges = [_BUCKETS * number // parts for number in range(parts + 1)]
        ranges = [f"{part} >= {low} AND {part} < {high}" for low, high in pairwise(edges)]
        return (f"({ranges[0]} OR {part} IS NULL)", *ranges[1:])

    def open_snapshot(self) -> str | None:
        try:
            return self.held.query("SELECT DBMS_FLASHBACK.GET_SYSTEM_CHANGE_NUMBER FROM DUAL")[0][0]
        except DatabaseFailed as error:
            # No right to read the change number: then the parts are read without a common state, and the bounds agree.
            fault = error.fault
            if self.dialect.fault(fault.state, fault.vendor_code, fault.message) in ("missing", "denied"):
                return None
            raise

    def snapshot_clause(self, snapshot: str | None) -> str:
        return f" AS OF SCN {snapshot}" if snapshot is not None else ""


_BUCKETS = 1_000_000
"""Buckets of the hash; many, so that parts are even."""
