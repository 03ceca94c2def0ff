"""The scripts of infra/grants grant what the adapters' statements need, and nothing else; docs/grants.md says why."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import sqlglot
from sqlglot import exp

from spark_entry.dialects.azure_sql import AzureSqlDialect
from spark_entry.dialects.writing import LedgerTables, Load, Written
from sync_core.domain.watermark import CursorType, Watermark
from tests.support.grants import FOLDER, read_grants

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/grants.md").read_text(encoding="utf-8")
DIALECTS = {"postgresql": "postgres", "azure_sql": "tsql", "oracle": "oracle", "unity_catalog": "databricks"}

NEEDED: dict[str, dict[str, str]] = {
    "postgresql": {
        "CONNECT ON DATABASE shop": "",
        "USAGE ON SCHEMA sales": "adapters/jdbc_catalog.py: SELECT * FROM {relation} WHERE 1 = 0",
        "SELECT ON sales.orders": "adapters/postgresql.py: EXPLAIN {statement}",
        "USAGE ON SCHEMA reporting": "",
        "CREATE ON SCHEMA reporting": "dialects/postgresql.py: CREATE UNLOGGED TABLE",
        "SELECT ON reporting.orders": "dialects/writing.py: WHERE NOT EXISTS (SELECT 1 FROM",
        "INSERT ON reporting.orders": "dialects/base.py: INSERT INTO {target}",
        "UPDATE ON reporting.orders": "dialects/postgresql.py: UPDATE {target} AS t SET",
        "DELETE ON reporting.orders": "",
    },
    "azure_sql": {
        "CONNECT": "",
        "SELECT ON [sales].[orders]": "adapters/azure_sql.py: FROM sys.partitions",
        "CREATE TABLE": "dialects/azure_sql.py: CREATE TABLE {staging}",
        "ALTER ON SCHEMA::[reporting]": "adapters/azure_sql.py: SET IDENTITY_INSERT",
        "SELECT ON SCHEMA::[reporting]": "dialects/writing.py: SELECT COUNT(*) FROM {self.staging}",
        "INSERT ON SCHEMA::[reporting]": "dialects/base.py: INSERT INTO {target}",
        "UPDATE ON SCHEMA::[reporting]": "dialects/writing.py: UPDATE {self.fence} SET",
        "DELETE ON SCHEMA::[reporting]": "dialects/writing.py: DELETE FROM {self.target}",
    },
    "oracle": {
        "CREATE SESSION": "",
        "EXECUTE ON SYS.DBMS_FLASHBACK": "adapters/oracle.py: DBMS_FLASHBACK.GET_SYSTEM_CHANGE_NUMBER",
        "READ ON SALES.ORDERS": "adapters/oracle.py: FROM ALL_TABLES",
        "FLASHBACK ON SALES.ORDERS": "adapters/oracle.py:  AS OF SCN {snapshot}",
        "CREATE TABLE": "dialects/base.py: CREATE TABLE {staging} AS SELECT",
    },
    "unity_catalog": {
        "USE CATALOG ON CATALOG main": "",
        "USE SCHEMA ON SCHEMA main.sales": "",
        "SELECT ON TABLE main.sales.orders": "adapters/delta_source.py: table_changes(",
        "USE SCHEMA ON SCHEMA main.bronze": "",
        "CREATE TABLE ON SCHEMA main.bronze": "dialects/databricks.py: CREATE TABLE {table}",
        "SELECT ON TABLE main.bronze.orders": "adapters/delta_table.py: DESCRIBE DETAIL",
        "MODIFY ON TABLE main.bronze.orders": "dialects/databricks.py: MERGE INTO {table} AS t",
        "USE CATALOG ON CATALOG ops": "",
        "USE SCHEMA ON SCHEMA ops.audit": "",
        "CREATE TABLE ON SCHEMA ops.audit": "audit.py: CREATE TABLE IF NOT EXISTS",
        "READ VOLUME ON VOLUME ops.audit.runs": "",
        "WRITE VOLUME ON VOLUME ops.audit.runs": "",
        "ACCESS ON SERVICE CREDENTIAL `sql-sign-in`": "adapters/service_credential.py: getServiceCredentialsProvider(",
    },
}
"""Every grant, and where the statement is that needs it: a file of the engine, and words in it."""

GRANT = re.compile(r"GRANT (?P<what>.+) TO (?P<whom>\[?uds_sync\]?|UDS_READER|UDS_WRITER|`uds-sync`|`uds-control`)")
OTHERS = (
    "CREATE ROLE uds_sync LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS",
    "CREATE USER [uds_sync] FROM EXTERNAL PROVIDER",
    "ALTER USER UDS_WRITER QUOTA 50G ON USERS",
)


@pytest.mark.parametrize("database", NEEDED)
def test_a_script_grants_what_is_needed_and_nothing_else(database: str) -> None:
    statements = [statement for statement in read_grants(database) if statement not in OTHERS]
    found = [GRANT.fullmatch(statement) for statement in statements]
    assert all(found), [statement for statement, match in zip(statements, found, strict=True) if match is None]
    assert {match["what"] for match in found if match} == set(NEEDED[database])


def test_every_script_is_looked_at() -> None:
    assert {path.stem for path in FOLDER.glob("*.sql")} == set(NEEDED)


@pytest.mark.parametrize("database", NEEDED)
def test_no_script_hands_out_power(database: str) -> None:
    text = " ".join(read_grants(database)).replace("NOSUPERUSER", "").upper()
    for word in ("ALL PRIVILEGES", " ANY ", "OPTION", "DB_OWNER", "CONTROL ", "MANAGE", "SUPERUSER", "DBA", "PASSWORD", "IDENTIFIED", "PUBLIC"):  # fmt: skip
        assert word not in text, word


def test_the_control_plane_reads_no_table() -> None:
    mine = [statement for statement in read_grants("unity_catalog") if "uds-control" in statement]
    assert mine
    assert not [statement for statement in mine if "TABLE" in statement or "SELECT" in statement]


def test_the_reader_of_oracle_writes_nothing() -> None:
    mine = {GRANT.fullmatch(one) for one in read_grants("oracle") if one.endswith("UDS_READER")}
    privileges = {match["what"].split(" ON ")[0] for match in mine if match}
    assert privileges == {"CREATE SESSION", "EXECUTE", "READ", "FLASHBACK"}


@pytest.mark.parametrize("database", NEEDED)
def test_every_grant_has_its_statement_in_the_engine_and_in_the_docs(database: str) -> None:
    section = PAGE.split(f"`infra/grants/{database}.sql`")[1].split("\n## ")[0]
    for grant, where in NEEDED[database].items():
        privilege = grant.split(" ON ")[0]
        assert f"`{privilege}" in section, f"docs/grants.md does not name {grant}"
        if where:
            file, _, words = where.partition(": ")
            assert words in (ROOT / "spark_entry" / file).read_text(encoding="utf-8"), where
            assert words in section, f"docs/grants.md does not quote {words}"


@pytest.mark.parametrize("database", NEEDED)
def test_a_script_is_sql_of_its_database(database: str, caplog: pytest.LogCaptureFixture) -> None:
    """sqlglot parses the common form of GRANT, and takes the rest as commands, which it says in its log."""
    caplog.set_level("ERROR", "sqlglot")
    text = (FOLDER / f"{database}.sql").read_text(encoding="utf-8")
    parsed = [one for one in sqlglot.parse(text, dialect=DIALECTS[database]) if one is not None]
    assert len(parsed) == len(read_grants(database))
    for statement in parsed:
        assert isinstance(statement, exp.Grant | exp.Command), statement
    assert any(isinstance(statement, exp.Grant) for statement in parsed)


def test_the_target_privileges_of_azure_sql_are_those_of_its_statements() -> None:
    """Every statement of a commit, as the dialect writes it, by what SQL Server's documentation asks for it."""
    dialect = AzureSqlDialect()
    whole = dialect.native("int", 10, 0)
    moment = dialect.native("datetime2", 27, 7)
    columns = (Written("id", whole, "c0"), Written("at", moment, "c1"), Written("name", whole, "c2"))
    bound = Watermark(CursorType.TIMESTAMP, "2024-01-01T00:00:00")
    load = Load(dialect, '"reporting"."orders"', '"reporting"."uds_stg"', columns, columns[:1], columns[1], bound)
    ledger = LedgerTables(dialect, "reporting")
    statements = [
        *[statement for _, statement in ledger.create()],
        ledger.read(), ledger.read_runs(), ledger.begin(), ledger.take(), ledger.record(), ledger.forget_run(),
        ledger.add_run(), ledger.prune_runs(), dialect.create_staging(load.staging, load.target, [("id", "c0", whole)]),
        load.count_staging(), load.delete_all(), load.insert(), load.update() or "", load.count_older() or "",
        dialect.add_column(load.target, "new", "int"), dialect.widen_column(load.target, "id", "bigint", nullable=False),
        f"DROP TABLE {load.staging}",
    ]  # fmt: skip
    needs: dict[type, set[str]] = {
        exp.Create: {"CREATE TABLE", "ALTER ON SCHEMA::[reporting]"},
        exp.Select: {"SELECT ON SCHEMA::[reporting]"},
        exp.Insert: {"INSERT ON SCHEMA::[reporting]"},
        exp.Update: {"UPDATE ON SCHEMA::[reporting]"},
        exp.Merge: {"UPDATE ON SCHEMA::[reporting]"},
        exp.Delete: {"DELETE ON SCHEMA::[reporting]"},
        exp.Alter: {"ALTER ON SCHEMA::[reporting]"},
        exp.Drop: {"ALTER ON SCHEMA::[reporting]"},
    }
    derived: set[str] = set()
    for statement in statements:
        tree = sqlglot.parse_one(statement.rstrip(";"), dialect="tsql")
        assert type(tree) in needs, statement
        for node in tree.walk():
            derived |= needs.get(type(node), set()) if node is tree or isinstance(node, exp.Select) else set()
    granted = set(NEEDED["azure_sql"]) - {"CONNECT", "SELECT ON [sales].[orders]"}
    assert derived == granted
