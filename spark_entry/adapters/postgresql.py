"""PostgreSQL: exported snapshots and ctid ranges, so that a table without any key is read in parallel and consistently."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address

from spark_entry.adapters.base import ReadPlan, Relation
from spark_entry.adapters.jdbc import JdbcAdapter
from spark_entry.adapters.jdbc_catalog import TableName
from spark_entry.dialects.postgresql import PostgresqlDialect
from sync_core.domain.pipeline import Source, Target

_ROWS = re.compile(r"rows=(\d+)")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class PostgresqlAdapter(JdbcAdapter):
    """PostgreSQL, from version 12 on."""

    dialect = PostgresqlDialect()
    driver = "org.postgresql.Driver"
    driver_package = "org.postgresql:postgresql:42.7.7"
    default_port = 5432

    def build_jdbc_url(self) -> str:
        connection = self.connection
        return f"jdbc:postgresql://{connection.host}:{connection.port or self.default_port}/{connection.database or ''}"

    def driver_properties(self) -> Mapping[str, str]:
        return {
            "connectTimeout": "15",
            "loginTimeout": "15",
            "tcpKeepAlive": "true",
            "ApplicationName": "universal-data-sync",
            **self._tls(),
        }

    def _tls(self) -> Mapping[str, str]:
        """Encrypted unless told otherwise; who the server is gets checked with `tls: true`. Plain within this machine."""
        connection = self.connection
        if connection.tls is False:
            return {"sslmode": "disable"}
        if connection.tls is None and _is_loopback(connection.host or ""):
            return {"sslmode": "prefer"}
        if connection.tls is None or connection.trust_server_certificate:
            return {"sslmode": "require"}
        # Else the driver looks for authorities in a file of the home folder, which no cluster has.
        own = any(name in connection.options for name in ("sslrootcert", "sslfactory"))
        return {"sslmode": "verify-full"} | ({} if own else {"sslfactory": "org.postgresql.ssl.DefaultJavaSSLFactory"})

    def write_properties(self) -> Mapping[str, str]:
        # Untyped strings, so that the server reads text as the column's own type: uuid, jsonb, enum, timestamp ...
        return {"reWriteBatchedInserts": "true", "stringtype": "unspecified"}

    def unique_keys(self, table: TableName) -> tuple[tuple[str, ...], ...]:
        statement = (
            "SELECT i.indexrelid, a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid "
            "AND a.attnum = ANY (i.indkey[0:i.indnkeyatts - 1]) WHERE i.indisunique AND i.indisvalid AND i.indpred IS NULL "
            f"AND i.indexprs IS NULL AND i.indrelid = {self._oid(table)} "
            # A table is read with those that inherit from it, which its index does not cover; partitions are covered.
            "AND NOT EXISTS (SELECT 1 FROM pg_inherits h JOIN pg_class p ON p.oid = h.inhparent "
            "WHERE h.inhparent = i.indrelid AND p.relkind = 'r')"
        )
        keys: dict[str | None, list[str]] = {}
        for index, column in self.held.query(statement):
            keys.setdefault(index, []).append(column or "")
        return tuple(tuple(columns) for columns in keys.values())

    def _oid(self, table: TableName) -> str:
        return f"{self.dialect.text(self.dialect.table(table.schema, table.name))}::regclass"

    def estimate_rows(self, relation: str, table: TableName | None) -> int | None:
        return self._planned_rows(f"SELECT 1 FROM {relation}")

    def estimate_window(self, relation: Relation, condition: str | None) -> int | None:
        return self._planned_rows(f"SELECT 1 FROM {relation.sql}" + (f" WHERE {condition}" if condition else ""))

    def _planned_rows(self, statement: str) -> int | None:
        """The planner's estimate, which knows a table's real size even when it was never analyzed."""
        match = _ROWS.search(self.held.query(f"EXPLAIN {statement}")[0][0] or "")
        return int(match[1]) if match else None

    def split_expression(self, relation: Relation) -> str | None:
        return None if relation.is_query else "ctid"

    def split(self, relation: Relation, parts: int) -> tuple[str, ...]:
        if relation.is_query:
            return ()
        # Only plain tables have one heap to cut, and only servers from 14 on scan a ctid range without the rest.
        statement = (
            f"SELECT relkind, pg_relation_size(oid) / current_setting('block_size')::int, current_setting('server_version_num') "
            f"FROM pg_class WHERE oid = {self.dialect.text(relation.sql)}::regclass"
        )
        kind, blocks, version = self.held.query(statement)[0]
        if kind not in ("r", "m") or int(version or 0) < 140_000 or int(blocks or 0) < parts:
            return ()
        edges = [int(blocks or 0) * number // parts for number in range(1, parts)]
        lower = ["", *[f"{self.dialect.quote('uds_part')} >= '({edge},0)'::tid" for edge in edges]]
        upper = [*[f"{self.dialect.quote('uds_part')} < '({edge},0)'::tid" for edge in edges], ""]
        return tuple(" AND ".join(filter(None, ends)) for ends in zip(lower, upper, strict=True))

    def check(self, source: Source | None, target: Target | None) -> tuple[str, ...]:
        if target is None:
            return ()
        with self.faults("target", target.table):
            table = self.find_target(target)
            schema = self.dialect.text(table.schema)
            missing: list[str] = []
            if self.held.query(f"SELECT has_schema_privilege({schema}, 'USAGE')")[0][0] != "t":
                # Without it nothing in the schema can even be named.
                return (f"{self.connection.username} lacks USAGE on the schema {table.schema}",)
            if self.held.query(f"SELECT has_schema_privilege({schema}, 'CREATE')")[0][0] != "t":
                missing.append(f"CREATE on the schema {table.schema}, for staging tables and the ledger")
            known = self.held.query(
                f"SELECT to_regclass({self.dialect.text(self.dialect.table(table.schema, table.name))})"
            )
            if known[0][0] is not None:
                wanted = ("SELECT", "INSERT", "UPDATE", "DELETE")
                tests = ", ".join(f"has_table_privilege({self._oid(table)}, '{name}')" for name in wanted)
                granted = self.held.query(f"SELECT {tests}")[0]
                missing += [f"{name} on {table}" for name, has in zip(wanted, granted, strict=True) if has != "t"]
        return tuple(f"{self.connection.username} lacks {privilege}" for privilege in missing)

    def open_snapshot(self) -> str | None:
        self.end_snapshot()
        self._snapshot = self.open()
        self._snapshot.begin()
        self._snapshot.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        return self._snapshot.query("SELECT pg_export_snapshot()")[0][0]

    def session_statement(self, plan: ReadPlan) -> str | None:
        statements: list[str] = []
        if plan.snapshot is not None:
            # Holds only because the fetch size is above zero: Spark then turns autocommit off before this runs.
            statements.append("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            statements.append(f"SET TRANSACTION SNAPSHOT {self.dialect.text(plan.snapshot)}")
        if any(column.native == "interval" for column in plan.columns):
            statements.append("SET intervalstyle = 'iso_8601'")
        return "; ".join(statements) or None
