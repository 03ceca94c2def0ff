"""Faults of a key: its line, its path, what is wrong, what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.catalog import CONNECTIONS, PIPELINES, Faults, fault_finder, one


@pytest.fixture
def faults(tmp_path: Path) -> Faults:
    return fault_finder(tmp_path)


def test_what_the_other_tests_change_has_no_fault(faults: Faults) -> None:
    assert faults({}) == ()


PIPELINE_FAULTS: list[tuple[str, str, int, str, str, str]] = [
    # what is written instead of what; line, path, message, remedy
    ("mode: merge", "mode: mergee", 9, "mode", "'mergee' is not known", "write merge (or"),
    ("mode: merge", "mod: merge", 9, "mod", "is not known here", "write mode"),
    ("mode: merge", "mode:", 9, "mode", "has no value", "leave the key out"),
    ("mode: merge", "mode: [merge]", 9, "mode", "must be text, not a list", "write one value"),
    ("mode: merge", "mode: ''", 9, "mode", "is empty", "write a value"),
    ("mode: merge", "mode: merge\n    mode: merge", 10, "mode", "twice, first on line 9", "keep one"),
    ("mode: merge", "mode: ${MODE}", 9, "mode", "variable MODE is not set", "${MODE:-default}"),
    ("mode: merge", "mode: ${MO DE}", 9, "mode", "not a variable", "$${"),
    ("mode: merge", "mode: ${A:-${B}}", 9, "mode", "not a variable", "$${"),
    ("mode: merge", "mode: ${A", 9, "mode", "not a variable", "$${"),
    ("mode: merge", "mode: !secret merge", 9, "mode", "tag", "in quotes"),
    ("    merge_keys: [id]\n", "", 2, "merge_keys", "mode merge needs merge_keys", "write merge_keys"),
    ("[id]", "id", 13, "merge_keys", "must be a list, not text", "write a list"),
    ("[id]", "[]", 13, "merge_keys", "is empty", "at least one"),
    ("[id]", "[id, ID]", 13, "merge_keys", "names ID twice", "once"),
    ("[id]", "[id, {a: b}]", 13, "merge_keys[1]", "must be text, not a mapping", "one value"),
    ("[id]", "[true]", 13, "merge_keys[0]", "truth value", "in quotes"),
    ("pipeline_id: orders", "pipeline_id: Orders", 2, "pipeline_id", "'Orders' is not a pipeline_id", "sales.orders"),
    ("pipeline_id: orders", "name: orders", 2, "name", "is not known here", "write pipeline_id"),
    ("connection: shop", "connection: shopp", 4, "source.connection", "no connection 'shopp'", "write shop"),
    ("connection: lake", "connection: zzz", 7, "target.connection", "no connection 'zzz'", "write one of shop, crm"),
    ("      table: public.orders\n", "", 3, "source.table", "is missing", "query: SELECT"),
    ("table: public.orders", "table: a\n      query: SELECT 1", 6, "source.query", "beside table", "keep one"),
    ("table: public.orders", 'query: "SELECT 1;"', 5, "source.query", "ends with ;", "remove the ;"),
    ("table: public.orders", "table: public..orders", 5, "source.table", "is empty", "SCHEMA.TABLE"),
    ("table: public.orders", "tabel: public.orders", 5, "source.tabel", "not known", "write table"),
    ("      table: orders\n", "", 6, "target.table", "is missing", "such as table: orders"),
    ("table: orders\n", "table: a/orders\n", 8, "target.table", "not a table's name in a folder", "dot"),
    ("type: timestamp", "type: timestmp", 12, "cursor.type", "'timestmp' is not known", "write timestamp (or"),
    ("      type: timestamp\n", "", 10, "cursor.type", "is missing", "type: timestamp"),
    ("      column: updated_at\n", "", 10, "cursor.column", "is missing", "write column"),
    ("type: timestamp", "type: timestamp\n      initial: monday", 13, "cursor.initial", "'monday' is not a timestamp", "2024-01-31T"),
    ("type: timestamp", "type: number\n      initial: 2020-01-01", 13, "cursor.initial", "not a number", "write it as 42"),
    ("type: timestamp", "type: timestamp\n      settle: 30", 13, "cursor.settle", "'30' is not a duration", "30s"),
    ("type: timestamp", "type: timestamp\n      settle: -3s", 13, "cursor.settle", "not a duration", "30s"),
    ("type: timestamp", "type: timestamp\n      settle: 999999999d", 13, "cursor.settle", "not a duration", "30s"),
    ("type: timestamp", "type: timestamp\n      lookback: 10", 13, "cursor.lookback", "'10' is not a duration", "10m"),
    ("type: timestamp", "type: number\n      lookback: 10m", 13, "cursor.lookback", "'10m' is not a number", "1000"),
    ("type: timestamp", "type: timestamp\n      timezone: Oslo", 13, "cursor.timezone", "'Oslo' is not an IANA", "write"),
    ("type: timestamp", "type: timestamp_tz\n      timezone: UTC", 13, "cursor.timezone", "means nothing", "remove"),
    ("type: timestamp", "type: timestamp\n      nulls: skip", 13, "cursor.nulls", "'skip' is not known", "fail or include or ignore"),
    ("type: timestamp", "type: rowversion", 12, "cursor.type", "azure_sql, not postgresql", "write date"),
    ("mode: merge", "null_keys: drop\n    mode: merge", 9, "null_keys", "'drop' is not known", "fail or ignore"),
    ("mode: merge", "types: {A: decimal(39)}\n    mode: merge", 9, "types.A", "not a decimal type", "at most 38"),
    ("mode: merge", "types: {A: strin}\n    mode: merge", 9, "types.A", "not a Spark SQL type", "write string"),
    ("mode: merge", "read: {partitions: many}\n    mode: merge", 9, "read.partitions", "neither auto nor", "auto"),
    ("mode: merge", "read: {fetch_size: 0}\n    mode: merge", 9, "read.fetch_size", "not a whole number from 1", "1000"),
    ("mode: merge", "read: {fetch_size: 012}\n    mode: merge", 9, "read.fetch_size", "'012' is not a whole", "plain digits"),
    ("mode: merge", "read: {fetch_size: 1e3}\n    mode: merge", 9, "read.fetch_size", "'1e3' is not a whole", "plain digits"),
    ("mode: merge", "fetch_size: 3\n    mode: merge", 9, "fetch_size", "not known here", "write read.fetch_size"),
    ("mode: merge", "tags: [a b]\n    mode: merge", 9, "tags[0]", "'a b' is not a tag", "nightly"),
    ("mode: merge", "transformations: {type: drop}\n    mode: merge", 9, "transformations", "must be a list, not a mapping", "begin each entry with - {type"),
    ("mode: merge", "transformations: [drop]\n    mode: merge", 9, "transformations[0]", "must be a mapping, not text", "{type: …}"),
    ("mode: merge", "transformations: [{type: filtr}]\n    mode: merge", 9, "transformations[0].type", "'filtr' is no transf", "write filter"),
    ("mode: merge", "transformations: [{columns: [a]}]\n    mode: merge", 9, "transformations[0].type", "is missing", "filter, select"),
    ("mode: merge", "transformations: [{type: filter}]\n    mode: merge", 9, "transformations[0].condition", "is missing", "condition: STATUS"),
    ("mode: merge", "transformations: [{type: drop, column: [a], columns: [b]}]\n    mode: merge", 9, "transformations[0].column", "not known", "write columns"),
    ("mode: merge", "transformations: [{type: rename, mapping: {}}]\n    mode: merge", 9, "transformations[0].mapping", "is empty", "at least one"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "line", "path", "message", "remedy"), PIPELINE_FAULTS)
def test_faults_of_a_pipeline(
    faults: Faults, old: str, new: str, line: int, path: str, message: str, remedy: str
) -> None:
    assert old in PIPELINES
    found = faults({"pipelines.yml": PIPELINES.replace(old, new, 1)})
    matching = [fault for fault in found if fault.path == f"pipelines[0].{path}" and message in fault.message]
    assert len(matching) == 1, "\n".join(map(str, found))
    assert Path(matching[0].file).name == "pipelines.yml"
    assert matching[0].line == line
    assert remedy in matching[0].remedy
    # The only faults beside it are those of a key that is missing under its right name.
    assert all("is missing" in fault.message for fault in found if fault is not matching[0]), found


@pytest.mark.parametrize("key", ["deletes"])
def test_keys_of_later_versions_are_refused_without_a_guess(faults: Faults, key: str) -> None:
    fault = one(faults({"pipelines.yml": PIPELINES + f"    {key}: {{}}\n"}))
    assert (fault.line, fault.message, fault.remedy) == (14, f"{key} is not available in this version", "remove it")


def test_incremental_needs_a_cursor(faults: Faults) -> None:
    text = PIPELINES.replace("mode: merge", "mode: incremental").replace(
        "    cursor:\n      column: updated_at\n      type: timestamp\n", ""
    )
    assert one(faults({"pipelines.yml": text})).message == "is missing: mode incremental needs a cursor"


def test_a_merge_without_cursor_reads_everything_and_is_allowed(faults: Faults) -> None:
    text = PIPELINES.replace("    cursor:\n      column: updated_at\n      type: timestamp\n", "")
    assert faults({"pipelines.yml": text}) == ()


@pytest.mark.parametrize(
    ("cursor", "path", "message"),
    [
        ("{type: version, column: a}", "cursor.column", "means nothing"),
        ("{type: version, nulls: fail}", "cursor.nulls", "means nothing"),
        ("{type: version, settle: 3s}", "cursor.settle", "means nothing"),
        ("{type: version, lookback: 3}", "cursor.lookback", "means nothing"),
        ("{type: version, initial: x}", "cursor.initial", "not a table version"),
    ],
)
def test_version_cursors(faults: Faults, cursor: str, path: str, message: str) -> None:
    text = f"""\
pipelines:
  - pipeline_id: back
    source: {{connection: lake, table: a}}
    target: {{connection: shop, table: a}}
    mode: incremental
    cursor: {cursor}
"""
    fault = one(faults({"pipelines.yml": text}))
    assert (fault.line, fault.path) == (6, f"pipelines[0].{path}")
    assert message in fault.message


def test_a_version_cursor_needs_a_table(faults: Faults) -> None:
    text = """\
pipelines:
  - pipeline_id: back
    source: {connection: lake, query: SELECT 1}
    target: {connection: shop, table: a}
    mode: incremental
    cursor: {type: version}
"""
    assert "has no versions" in one(faults({"pipelines.yml": text})).message


CONNECTION_FAULTS = [
    ("type: postgresql", "type: postgres", 3, "shop.type", "no such type", "write postgresql"),
    ("type: postgresql", "type: mysql2", 3, "shop.type", "no such type", "write"),
    ("    type: postgresql\n", "", 2, "shop.type", "is missing", "such as type: oracle"),
    ("host: db", "hots: db", 4, "shop.hots", "is not known", "write host"),
    ("host: db", "host: db:5432", 4, "shop.host", "more than a host name", "alone"),
    ("host: db", "host: db/shop", 4, "shop.host", "more than a host name", "alone"),
    ("host: db", "host: db\n    port: 0", 5, "shop.port", "not a whole number from 1 to 65535", "1000"),
    ("host: db", "host: db\n    port: 70000", 5, "shop.port", "not a whole number", "plain"),
    ("host: db", "host: db\n    port: 015", 5, "shop.port", "not a whole number", "plain"),
    ("host: db", "host: db\n    port: 1e3", 5, "shop.port", "not a whole number", "plain"),
    ("host: db", "host: db\n    port: abc", 5, "shop.port", "not a whole number", "plain"),
    ("host: db", "host: db\n    tls: yes", 5, "shop.tls", "neither true nor false", "true or false"),
    ("host: db", "host: db\n    sid: X", 5, "shop.sid", "means nothing for a connection of type postgresql", "remove"),
    ("host: db", "host: db\n    timezone: Europe/Osl", 5, "shop.timezone", "not an IANA time zone", "Europe/Oslo"),
    ("host: db", "host: db\n    secret_scope: kv", 5, "shop.secret_scope", "without secret_key", "write secret_key"),
    ("host: db", "host: db\n    secret_key: kv", 5, "shop.secret_key", "without secret_scope", "write secret_scope"),
    ("host: db", "host: db\n    auth: token", 5, "shop.auth", "token is for connections of type azure_sql", "password"),
    ("host: db", "host: db\n    auth: kerberos", 5, "shop.auth", "is not known", "password or"),
    ("host: db", "host: db\n    options: [a]", 5, "shop.options", "must be a mapping, not a list", "key: value"),
    ("host: db", "options: {url: db}", 4, "shop.options.url", "not a JDBC address", "begin it with jdbc:"),
    ("host: db", "host: db\n    options: {user: a}", 5, "shop.options.user", "no driver option", "write username"),
    ("    host: db\n", "", 2, "shop.host", "is missing", "write host"),
    ("    database: shop\n", "", 2, "shop.database", "is missing", "write database"),
    ("    service_name: ORCL\n", "", 14, "erp.service_name", "is missing", "or sid"),
    ("service_name: ORCL", "service_name: ORCL\n    sid: X", 18, "erp.sid", "beside service_name", "keep one"),
    ("    username: sync\n    secret_scope: kv\n    secret_key: erp\n", "", 14, "erp.username", "needs username, secret_scope and", "username"),
    ("    secret_scope: kv\n    secret_key: crm\n", "", 7, "crm.secret_scope", "auth password needs", "secret_scope"),
    ("    secret_key: crm\n", "    secret_key: crm\n    auth: service_principal\n    client_id: a\n", 7, "crm.tenant_id", "service_principal needs", "tenant_id"),
    ("    secret_key: crm\n", "    secret_key: crm\n    client_id: a\n", 14, "crm.client_id", "means nothing with auth password", "remove"),
    ("    username: sync\n    secret_scope: kv\n    secret_key: crm\n", "    auth: token\n", 7, "crm.secret_key", "auth token needs", "secret_key"),
    ("    username: sync\n    secret_scope: kv\n    secret_key: crm\n", "    auth: service_credential\n", 7, "crm.service_credential", "needs service_credential", "service_credential"),
    ("    secret_key: crm\n", "    secret_key: crm\n    auth: service_credential\n    service_credential: x\n", 12, "crm.secret_scope", "means nothing with auth", "remove"),
    ("path: ./lake", "catalog: main", 21, "lake.schema", "is missing", "or path"),
    ("path: ./lake", "path: ./lake\n    catalog: main", 24, "lake.catalog", "beside path", "`key: ~`"),
    ("  lake:", "  la ke:", 21, "la…", "not a connection's name", "letters"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "line", "path", "message", "remedy"), CONNECTION_FAULTS)
def test_faults_of_a_connection(
    faults: Faults, old: str, new: str, line: int, path: str, message: str, remedy: str
) -> None:
    assert old in CONNECTIONS
    found = faults({"connections.yml": CONNECTIONS.replace(old, new, 1)})
    matching = [fault for fault in found if fault.path == f"connections.{path}" and message in fault.message]
    assert len(matching) == 1, "\n".join(map(str, found))
    assert Path(matching[0].file).name == "connections.yml"
    assert matching[0].line == line
    assert remedy in matching[0].remedy


def test_a_list_of_transformations_is_told_as_one(faults: Faults) -> None:
    found = faults({"pipelines.yml": PIPELINES + "    transformations: {type: filter, condition: x}\n"})
    assert [fault.remedy for fault in found] == ["begin each entry with - {type: …}"]


def test_a_type_that_a_package_adds_is_accepted(faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    connections = CONNECTIONS.replace("type: postgresql", "type: duckdb")
    assert one(faults({"connections.yml": connections})).path == "connections.shop.type"
    monkeypatch.setattr("sync_core.catalog.connection_checks.added_types", lambda: {"duckdb"})
    assert faults({"connections.yml": connections}) == ()


@pytest.mark.parametrize("path", ["~a-user-nobody-knows/lake", '"a\\0b"'])
def test_a_path_that_is_no_folder_here(faults: Faults, path: str) -> None:
    found = faults({"connections.yml": CONNECTIONS.replace("./lake", path)})
    assert "is no folder that this machine can name" in [fault.message for fault in found]
    assert {fault.path for fault in found} == {"connections.lake.path"}
