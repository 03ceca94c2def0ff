"""Faults where pipelines meet: all at once, in defaults, tables and environments, of one id or one target, each told once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.catalog import CONNECTIONS, PIPELINES, Faults, fault_finder, one


@pytest.fixture
def faults(tmp_path: Path) -> Faults:
    return fault_finder(tmp_path)


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
