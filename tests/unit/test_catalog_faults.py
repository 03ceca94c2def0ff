"""Every fault of the configuration: its line, its path, what is wrong, what to write instead."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

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


@pytest.fixture
def faults(tmp_path: Path) -> Faults:
    def find(
        files: Mapping[str, str | bytes], environment: str | None = None, variables: Mapping[str, str] | None = None
    ) -> tuple[Fault, ...]:
        for name, text in {"connections.yml": CONNECTIONS, "pipelines.yml": PIPELINES, **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode() if isinstance(text, str) else text)
        found: tuple[Fault, ...] = ()
        try:
            load_catalog(tmp_path, environment, variables or {})
        except CatalogError as error:
            found = error.faults
        assert list(found) == sorted(found)
        return found

    return find


def test_what_the_other_tests_change_has_no_fault(faults: Faults) -> None:
    assert faults({}) == ()


def one(found: tuple[Fault, ...]) -> Fault:
    assert len(found) == 1, "\n".join(map(str, found))
    return found[0]


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


@pytest.mark.parametrize(
    ("text", "line", "message", "remedy"),
    [
        ("", 0, "is empty", "first section"),
        ("# nothing\n", 0, "is empty", "first section"),
        ("pipelines: [1", 1, "is not YAML", "close the bracket"),
        ("pipelines:\n\t- a: 1\n", 2, "is not YAML", "spaces, not tabs"),
        ("pipelines: []\n---\npipelines: []\n", 2, "is not YAML", "remove the line ---"),
        ("pipelines:\n  - a: *b\n", 2, "is not YAML", "in quotes"),
        ("pipelines:\n  - schedule:\n      cron: */5 * * * *\n", 3, "is not YAML", "begins with * in quotes"),
        ("pipelines:\n  - schedule:\n      cron: * * * * *\n", 3, "is not YAML", "begins with * in quotes"),
        ("pipelines:\n  - {a: ${B}}\n", 2, "is not YAML", '"${NAME}"'),
        ("a: b: c\n", 1, "is not YAML", "with a colon in quotes"),
        ("a\n", 1, "holds text where a mapping is expected", "begin with pipelines:"),
        ("- a\n", 1, "holds a list where a mapping is expected", "begin with pipelines:"),
        ("pipelines:\n", 1, "must be a list, not nothing", "pipeline_id"),
        ("pipelines: {a: 1}\n", 1, "must be a list, not a mapping", "pipeline_id"),
        ("pipelines:\n  - orders\n", 2, "must be a mapping, not text", "pipeline_id"),
        ("pipelines:\n  -\n", 2, "must be a mapping, not nothing", "pipeline_id"),
        ("pipelines: []\npipeline: []\n", 2, "is not known here", "write pipelines"),
        ("pipelines: []\nconnections: {}\n", 2, "does not belong here", "connections.yml"),
        ("pipelines: []\n1: 2\n", 2, "is not known here", "defaults or pipelines"),
        ("pipelines: []\n? [a]\n: 1\n", 2, "has a key that is not text", "key: value"),
        ("pipelines: []\ndefaults: 3\n", 2, "must be a mapping, not text", "keys of a pipeline"),
        ("pipelines: []\ndefaults: {pipeline_id: a}\n", 2, "cannot be a default", "in the pipeline"),
        ("pipelines: []\ndefaults: {mod: merge}\n", 2, "is not known here", "write mode"),
        ("pipelines: &a [*a]\n", 1, "holds itself", "without aliases"),
        ("a: \x07\n", 1, "does not allow", "remove it"),
        (b"pipelines: []\n# \xff\n", 2, "is not UTF-8", "encoding UTF-8"),
        ("pipelines: []\n".encode("utf-16"), 1, "is not UTF-8", "encoding UTF-8"),
        ("[" * 5000, 0, "nested too deeply", "levels"),
    ],
)
def test_broken_files(faults: Faults, text: str | bytes, line: int, message: str, remedy: str) -> None:
    fault = one(faults({"pipelines.yml": text}))
    assert Path(fault.file).name == "pipelines.yml"
    assert message in fault.message
    assert remedy in fault.remedy
    assert fault.line == line


def test_nesting_has_an_end(faults: Faults) -> None:
    found = faults({"pipelines.yml": "pipelines: [" + "[" * 100 + "]" * 101})
    assert any("too deeply nested" in fault.message for fault in found)


def test_aliases_that_multiply_are_stopped(faults: Faults) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    found = faults({"pipelines.yml": "\n".join(lines)})
    assert any("too large" in fault.message for fault in found)


def test_files_that_are_not_there(faults: Faults, tmp_path: Path) -> None:
    with pytest.raises(CatalogError) as failure:
        load_catalog(tmp_path / "none", None, {})
    fault = one(failure.value.faults)
    assert fault.message == "is not a folder"
    assert "uds init" in fault.remedy
    (tmp_path / "empty").mkdir()
    with pytest.raises(CatalogError) as failure:
        load_catalog(tmp_path / "empty", None, {})
    assert [(Path(fault.file).name, fault.message) for fault in failure.value.faults] == [
        ("connections.yml", "does not exist"),
        ("pipelines.yml", "does not exist"),
    ]
    fault = one(faults({"pipelines/more.yaml": "pipelines: []"}))
    assert fault.remedy == "rename it to more.yml"


def test_a_folder_in_the_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "connections.yml").mkdir()
    (tmp_path / "pipelines.yml").write_text(PIPELINES)
    with pytest.raises(CatalogError) as failure:
        load_catalog(tmp_path, None, {})
    assert one(failure.value.faults).message == "cannot be read: Is a directory"


def test_all_faults_come_at_once(faults: Faults) -> None:
    pipelines = PIPELINES.replace("mode: merge", "mode: mergee").replace("type: timestamp", "typ: timestamp")
    pipelines += "  - 3\n" + PIPELINES.partition("\n")[2].replace("connection: lake", "connection: lak")
    found = faults(
        {
            "connections.yml": CONNECTIONS.replace("host: db", "host: db\n    port: x"),
            "pipelines.yml": pipelines,
            "pipelines/bad.yml": "pipelines: [",
            "pipelines/worse.yml": "pipelines: [{pipeline_id: Z}]",
        }
    )
    named = {(Path(fault.file).name, fault.path) for fault in found}
    assert {
        ("connections.yml", "connections.shop.port"),
        ("pipelines.yml", "pipelines[0].mode"),
        ("pipelines.yml", "pipelines[0].cursor.typ"),
        ("pipelines.yml", "pipelines[0].cursor.type"),
        ("pipelines.yml", "pipelines[1]"),
        ("pipelines.yml", "pipelines[2].pipeline_id"),
        ("pipelines.yml", "pipelines[2].target.connection"),
        ("bad.yml", ""),
        ("worse.yml", "pipelines[0].pipeline_id"),
        ("worse.yml", "pipelines[0].source"),
        ("worse.yml", "pipelines[0].target"),
        ("worse.yml", "pipelines[0].mode"),
    } == named


def test_a_fault_that_many_pipelines_inherit_is_told_once(faults: Faults) -> None:
    text = """\
defaults: {mode: mergee, cursor: {settle: soon}}
pipelines:
  - {pipeline_id: a, source: {connection: shop, table: a}, target: {connection: lake, table: a}}
  - source: {connection: shp}
    target: {connection: lake}
    tables: [x, y]
"""
    found = faults({"pipelines.yml": text})
    assert [(fault.line, fault.path) for fault in found] == [
        (1, "defaults.cursor.settle"),
        (1, "defaults.mode"),
        (4, "pipelines[1].source.connection"),
    ]


def test_a_missing_key_of_many_tables_is_told_once(faults: Faults) -> None:
    text = "pipelines:\n  - {source: {connection: shop}, target: {connection: lake}, tables: [x, y, {name: z}]}\n"
    fault = one(faults({"pipelines.yml": text}))
    assert (fault.line, fault.path, fault.message) == (2, "pipelines[0].mode", "is missing")


@pytest.mark.parametrize(
    ("tables", "line", "path", "message"),
    [
        ("[]", 5, "tables", "names no table"),
        ("SALES.A", 5, "tables", "must be a list, not text"),
        ("[{merge_keys: [a]}]", 5, "tables[0]", "must name a source table"),
        ("[[a]]", 5, "tables[0]", "must name a source table"),
        ("[{name: [a]}]", 5, "tables[0].name", "must name a source table"),
        ("[{name: a, mod: merge}]", 5, "tables[0].mod", "is not known here"),
        ("[Order Details]", 5, "tables[0].pipeline_id", "is not a pipeline_id"),
        ("[a]\n    pipeline_id: '{tabel}'", 6, "pipeline_id", "{tabel} stands for nothing"),
        ("[a]\n    pipeline_id: '{schema}'", 6, "pipeline_id", "{schema} stands for nothing"),
    ],
)
def test_faults_of_tables(faults: Faults, tables: str, line: int, path: str, message: str) -> None:
    text = f"""\
pipelines:
  - source: {{connection: shop}}
    target: {{connection: lake}}
    mode: full_refresh
    tables: {tables}
"""
    fault = one(faults({"pipelines.yml": text}))
    assert (fault.line, fault.path) == (line, f"pipelines[0].{path}")
    assert message in fault.message


def test_tables_and_a_table_do_not_go_together(faults: Faults) -> None:
    text = PIPELINES + "    tables: [a]\n"
    assert one(faults({"pipelines.yml": text})).message == "stands beside tables:"


OVERLAY_FAULTS = [
    ("connections: {shp: {host: x}}", 1, "connections.shp", "no connection shp", "write shop"),
    ("pipelines: [{pipeline_id: oders, mode: merge}]", 1, "pipelines[0].pipeline_id", "no pipeline oders", "write orders"),
    ("pipelines: [{mode: merge}]", 1, "pipelines[0].pipeline_id", "is missing", "name the pipeline"),
    ("pipelines: [3]", 1, "pipelines[0]", "must be a mapping", "pipeline_id"),
    ("pipelines:\n- {pipeline_id: orders, mode: x}", 2, "pipelines[0].mode", "'x' is not known", "merge"),
    ("pipelines:\n- pipeline_id: orders\n- pipeline_id: orders", 3, "pipelines[1]", "changed twice, first on line 2", "one entry"),
    ("pipelines: [{pipeline_id: orders, tables: [a]}]", 1, "pipelines[0].tables", "cannot change the list", "base"),
    ("pipelnes: []", 1, "pipelnes", "not known", "write pipelines"),
    ("connections: {shop: {port: 0}}", 1, "connections.shop.port", "not a whole number", "plain"),
    ("connections: {shop: {sid: ~}}", 1, "connections.shop.sid", "has no value", "leave"),
    ("connections: {shop: {host: ~}}", 1, "connections.shop.host", "is missing", "write host"),
    ("defaults: {tables: [a]}", 1, "defaults.tables", "cannot be a default", "in the pipeline"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "path", "message", "remedy"), OVERLAY_FAULTS)
def test_faults_of_an_environment(faults: Faults, text: str, line: int, path: str, message: str, remedy: str) -> None:
    found = [fault for fault in faults({"environments/test.yml": text}, "test") if fault.path == path]
    fault = next(fault for fault in found if message in fault.message)
    assert Path(fault.file).name == "test.yml"
    assert fault.line == line
    assert remedy in fault.remedy


def test_an_environment_that_is_not_there(faults: Faults) -> None:
    fault = one(faults({"environments/production.yml": "pipelines: []"}, "prodction"))
    assert (Path(fault.file).name, fault.message, fault.remedy) == (
        "prodction.yml",
        "does not exist",
        "write production",
    )


SECOND = PIPELINES.partition("\n")[2].replace("pipeline_id: orders", "pipeline_id: second")


def test_two_pipelines_with_one_id(faults: Faults) -> None:
    found = faults({"pipelines.yml": PIPELINES, "pipelines/b.yml": PIPELINES.replace("table: orders", "table: b")})
    fault = one(found)
    assert (Path(fault.file).name, fault.line, fault.path) == ("b.yml", 2, "pipelines[0].pipeline_id")
    assert "pipelines.yml:2" in fault.message


@pytest.mark.parametrize(
    ("more", "target"),
    [
        ("", "{connection: lake, table: orders}"),
        ("", "{connection: lake, table: ORDERS}"),
        ("  other: {type: databricks, path: ./x/../lake/}\n", "{connection: other, table: '`orders`'}"),
        ("  other: {type: databricks, path: .}\n", "{connection: other, table: lake.orders}"),
    ],
)
def test_two_pipelines_on_one_folder(faults: Faults, more: str, target: str) -> None:
    second = SECOND.replace("target:\n      connection: lake\n      table: orders", f"target: {target}")
    fault = one(faults({"connections.yml": CONNECTIONS + more, "pipelines.yml": PIPELINES + second}))
    assert (fault.line, fault.path) == (18, "pipelines[1].target.table")
    assert "pipeline orders" in fault.message
    assert "pipelines.yml:8" in fault.message


@pytest.mark.parametrize(
    ("more", "first", "second", "same"),
    [
        ("", "{connection: shop, table: t}", "{connection: shop, table: public.T}", True),
        ("", "{connection: shop, table: t}", "{connection: shop, table: other.t}", False),
        ("", "{connection: erp, table: t}", "{connection: erp, table: SYNC.T}", True),
        ("  one: {type: postgresql, host: localhost, database: d, username: x}\n"
         "  two: {type: postgresql, host: 127.0.0.1, database: d, username: x}\n",
         "{connection: one, table: t}", "{connection: two, table: t}", True),
        ("", "{connection: crm, table: t}", "{connection: crm, table: '[dbo].[t]'}", True),
        ("  two: {type: postgresql, host: DB., port: 5432, database: SHOP, username: x, schema: public}\n",
         "{connection: shop, table: t}", "{connection: two, table: t}", True),
        ("  two: {type: postgresql, host: db, port: 5433, database: shop, username: x}\n",
         "{connection: shop, table: t}", "{connection: two, table: t}", False),
        ("  one: {type: databricks, catalog: main, schema: bronze}\n  two: {type: databricks, catalog: x, schema: y}\n",
         "{connection: one, table: t}", "{connection: two, table: main.Bronze.t}", True),
        ("  one: {type: databricks, catalog: main, schema: bronze}\n  two: {type: databricks, catalog: x, schema: y}\n",
         "{connection: one, table: t}", "{connection: two, table: t}", False),
        ('  one: {type: oracle, username: a, options: {url: "jdbc:h2:tcp://h/db;MODE=Oracle"}}\n'
         '  two: {type: oracle, username: a, options: {url: "jdbc:h2:tcp://H/db"}}\n',
         "{connection: one, table: t}", "{connection: two, table: t}", True),
    ],
)  # fmt: skip
def test_two_pipelines_on_one_table(faults: Faults, more: str, first: str, second: str, same: bool) -> None:
    text = "pipelines:\n"
    for name, target in (("a", first), ("b", second)):
        text += f"  - {{pipeline_id: {name}, source: {{connection: lake, table: {name}}}, target: {target}, mode: full_refresh}}\n"
    found = faults({"connections.yml": CONNECTIONS + more, "pipelines.yml": text})
    assert [fault.line for fault in found] == ([3] if same else [])


def test_a_pipeline_that_writes_its_own_source(faults: Faults) -> None:
    text = PIPELINES.replace("connection: lake", "connection: shop")
    fault = one(faults({"pipelines.yml": text}))
    assert (fault.line, fault.message) == (8, "is the source table too")


def test_a_type_that_a_package_adds_is_accepted(faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    connections = CONNECTIONS.replace("type: postgresql", "type: duckdb")
    assert one(faults({"connections.yml": connections})).path == "connections.shop.type"
    monkeypatch.setattr("sync_core.catalog.connection_checks.added_types", lambda: {"duckdb"})
    assert faults({"connections.yml": connections}) == ()


def test_a_broken_connections_file_makes_no_further_faults(faults: Faults) -> None:
    fault = one(faults({"connections.yml": "connections: ["}))
    assert Path(fault.file).name == "connections.yml"


def test_the_error_itself_names_the_first_fault_and_the_command(tmp_path: Path) -> None:
    (tmp_path / "connections.yml").write_text(CONNECTIONS.replace("host: db", "hots: db"))
    (tmp_path / "pipelines.yml").write_text(PIPELINES.replace("mode: merge", "mode: x"))
    with pytest.raises(CatalogError) as failure:
        load_catalog(tmp_path, None, {})
    assert failure.value.kind == "config"
    assert "3 faults" in failure.value.message
    assert "connections.yml:2" in failure.value.message
    assert "uds validate" in failure.value.remedy


# ---- one text, one fault


def test_tables_that_share_an_id_or_a_target_are_one_fault(faults: Faults) -> None:
    text = """\
defaults: {source: {connection: erp}, mode: full_refresh}
pipelines:
  - pipeline_id: fixed
    target: {connection: lake, table: "{table}"}
    tables: [S.A, S.B, S.C]
  - pipeline_id: "x_{table}"
    target: {connection: lake, table: all}
    tables: [S.A, S.B, S.C]
"""
    found = faults({"pipelines.yml": text})
    assert [(fault.line, fault.path, fault.message, fault.remedy) for fault in found] == [
        (3, "pipelines[0].pipeline_id", "all tables: get the pipeline_id fixed", "write {table} or {schema} in it"),
        (7, "pipelines[1].target.table", "all tables: write this one table", "write {table} or {schema} in it"),
    ]


def test_a_placeholder_that_stands_for_nothing_is_one_fault(faults: Faults) -> None:
    text = """\
defaults: {source: {connection: erp}, mode: full_refresh}
pipelines:
  - pipeline_id: "{tabel}"
    target: {connection: lake, table: "{schema}_{table}"}
    tables: [A, S.B]
"""
    found = faults({"pipelines.yml": text})
    assert [(fault.line, fault.message, fault.remedy) for fault in found] == [
        (3, "{tabel} stands for nothing here", "write {table} or {schema}"),
        (
            4,
            "{schema} stands for nothing: the table a is written without a schema",
            "write SCHEMA.TABLE in tables:, or leave {schema} out",
        ),
    ]


def test_tables_in_an_environment_are_one_fault(faults: Faults) -> None:
    text = "pipelines:\n  - pipeline_id: orders\n    tables: [x]\n"
    found = faults({"environments/e.yml": text}, "e")
    assert [fault.message for fault in found] == ["an environment cannot change the list of tables"]


def test_a_list_of_transformations_is_told_as_one(faults: Faults) -> None:
    found = faults({"pipelines.yml": PIPELINES + "    transformations: {type: filter, condition: x}\n"})
    assert [fault.remedy for fault in found] == ["begin each entry with - {type: …}"]


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(faults: Faults, tmp_path: Path) -> None:
    (tmp_path / "pipelines").mkdir()
    os.mkfifo(tmp_path / "pipelines/late.yml")
    (tmp_path / "environments").mkdir()
    os.mkfifo(tmp_path / "environments/e.yml")
    found = faults({}, "e")
    assert [fault.message for fault in found] == ["is neither a file nor a folder"]


@pytest.mark.parametrize("path", ["~a-user-nobody-knows/lake", '"a\\0b"'])
def test_a_path_that_is_no_folder_here(faults: Faults, path: str) -> None:
    found = faults({"connections.yml": CONNECTIONS.replace("./lake", path)})
    assert "is no folder that this machine can name" in [fault.message for fault in found]
    assert {fault.path for fault in found} == {"connections.lake.path"}
