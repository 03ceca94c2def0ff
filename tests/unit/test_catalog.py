"""What a configuration folder becomes: layers, variables, tables, environments, selection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from sync_core.catalog import Catalog, CatalogError, load_catalog
from sync_core.domain.connection import Authentication, SecretReference
from sync_core.domain.errors import ConfigError
from sync_core.domain.pipeline import Drop, Filter, LoadMode, NullCursor, Rename, SchemaChanges
from sync_core.domain.watermark import CursorType

Load = Callable[..., Catalog]

CONNECTIONS = """\
connections:
  shop: {type: postgresql, host: db, database: shop, username: sync, secret_scope: kv, secret_key: pw}
  crm: {type: azure_sql, host: x.database.windows.net, database: crm, auth: token, secret_scope: kv, secret_key: t}
  erp: {type: oracle, host: ora, service_name: ORCL, username: sync, secret_scope: kv, secret_key: o}
  lake: {type: databricks, path: ./lake}
"""
ORDERS = """\
pipelines:
  - pipeline_id: orders
    source: {connection: shop, table: public.orders}
    target: {connection: lake, table: orders}
    mode: merge
    cursor: {column: updated_at, type: timestamp}
    merge_keys: [id]
"""


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def write(
        files: Mapping[str, str], environment: str | None = None, variables: Mapping[str, str] | None = None
    ) -> Catalog:
        for name, text in {"connections.yml": CONNECTIONS, **files}.items():
            path = tmp_path / "config" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return load_catalog(tmp_path / "config", environment, variables or {})

    return write


def test_a_whole_pipeline_becomes_the_domains_words(load: Load) -> None:
    catalog = load(
        {
            "pipelines.yml": """\
pipelines:
  - pipeline_id: orders
    source: {connection: erp, table: SALES.ORDERS}
    target: {connection: lake, table: orders}
    mode: merge
    cursor: {column: UPDATED_AT, type: timestamp, initial: 2020-01-01, settle: 500ms, lookback: 10m, nulls: include,
             timezone: Europe/Oslo}
    merge_keys: [ORDER_ID]
    null_keys: ignore
    schema_changes: freeze
    lossy: refuse
    types: {AMOUNT: "decimal(38,10)"}
    read: {partitions: 4, fetch_size: 500}
    tags: [nightly]
    transformations:
      - {type: filter, condition: "STATUS <> 'DRAFT'"}
      - {type: rename, mapping: {ORDER_ID: order_id}}
      - {type: drop, columns: [NOTE]}
"""
        }
    )
    pipeline = catalog.pipelines["orders"]
    assert pipeline.cursor is not None
    assert (pipeline.cursor.type, pipeline.cursor.initial) == (CursorType.TIMESTAMP, "2020-01-01T00:00:00")
    assert (pipeline.cursor.settle_seconds, pipeline.cursor.lookback) == (0.5, 600.0)
    assert (pipeline.cursor.nulls, pipeline.cursor.timezone) == (NullCursor.INCLUDE, "Europe/Oslo")
    assert (pipeline.mode, pipeline.schema_changes) == (LoadMode.MERGE, SchemaChanges.FREEZE)
    assert (pipeline.null_keys, pipeline.lossy, pipeline.tags) == ("ignore", "refuse", ("nightly",))
    assert (pipeline.read.partitions, pipeline.read.fetch_size) == (4, 500)
    assert pipeline.types == {"AMOUNT": "decimal(38,10)"}
    assert pipeline.transformations == (
        Filter("STATUS <> 'DRAFT'"),
        Rename({"ORDER_ID": "order_id"}),
        Drop(("NOTE",)),
    )
    assert pipeline.target_keys == ("order_id",)
    assert catalog.places["orders"].endswith("pipelines.yml:2")


def test_a_connection_becomes_the_domains_words(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    connections = load({"pipelines.yml": ORDERS}).connections
    assert connections["crm"].auth is Authentication.TOKEN
    assert connections["shop"].secret == SecretReference("kv", "pw")
    assert connections["lake"].path == str(tmp_path / "lake")
    assert type(connections["shop"].host) is str


@pytest.mark.parametrize(
    ("written", "kind", "initial"),
    [
        ("2020-01-01", "date", "2020-01-01"),
        ("'2020-01-01'", "date", "2020-01-01"),
        ("2020-01-01 10:00:00.5", "timestamp", "2020-01-01T10:00:00.5"),
        ("012", "number", "12"),
        ("1e3", "number", "1000"),
        ("-12.50", "number", "-12.5"),
        ("0x07D1", "number", None),
    ],
)
def test_scalars_are_taken_as_they_are_written(load: Load, written: str, kind: str, initial: str | None) -> None:
    text = ORDERS.replace("type: timestamp", f"type: {kind}, initial: {written}")
    if initial is None:
        with pytest.raises(CatalogError, match="is not a number"):
            load({"pipelines.yml": text})
        return
    cursor = load({"pipelines.yml": text}).pipelines["orders"].cursor
    assert cursor is not None
    assert cursor.initial == initial


def test_words_that_older_yaml_took_for_truth_values_are_names(load: Load) -> None:
    catalog = load({"pipelines.yml": ORDERS.replace("merge_keys: [id]", "merge_keys: [NO, on, y]")})
    assert catalog.pipelines["orders"].merge_keys == ("NO", "on", "y")


def test_variables_fill_values_of_every_kind(load: Load) -> None:
    connections = CONNECTIONS.replace("host: db,", 'host: "${HOST}", port: "${PORT}", tls: "${TLS:-true}",').replace(
        "database: shop", "database: 'a$${b}'"
    )
    found = load(
        {"connections.yml": connections, "pipelines.yml": ORDERS}, variables={"HOST": "real", "PORT": "6543", "TLS": ""}
    ).connections["shop"]
    assert (found.host, found.port, found.tls, found.database) == ("real", 6543, True, "a${b}")


def test_defaults_go_beneath_and_null_takes_one_away(load: Load) -> None:
    general = """\
defaults: {mode: merge, merge_keys: [id], target: {connection: lake}, cursor: {settle: 1m}, tags: [all]}
pipelines:
  - {pipeline_id: a, source: {connection: shop, table: a}, target: {table: a}, cursor: {column: t, type: date}}
  - {pipeline_id: b, source: {connection: shop, table: b}, target: {table: b}, tags: ~}
"""
    own = """\
defaults: {tags: [more], read: {fetch_size: 7}}
pipelines: [{pipeline_id: c, source: {connection: shop, table: c}, target: {table: c}, read: {partitions: 2}}]
"""
    pipelines = load({"pipelines.yml": general, "pipelines/more.yml": own}).pipelines
    assert list(pipelines) == ["a", "b", "c"]
    assert pipelines["a"].cursor is not None
    assert pipelines["a"].cursor.settle_seconds == 60
    assert pipelines["b"].cursor is None
    assert (pipelines["a"].tags, pipelines["b"].tags, pipelines["c"].tags) == (("all",), (), ("more",))
    assert (pipelines["c"].read.fetch_size, pipelines["c"].read.partitions) == (7, 2)
    assert pipelines["a"].read.fetch_size == 10_000


def test_defaults_that_mean_nothing_for_a_cursors_type_are_passed_over(load: Load) -> None:
    text = "defaults: {cursor: {settle: 1m, timezone: UTC, lookback: 5m}}\n" + ORDERS.replace("timestamp", "number")
    cursor = load({"pipelines.yml": text}).pipelines["orders"].cursor
    assert cursor is not None
    assert (cursor.settle_seconds, cursor.timezone, cursor.lookback) == (60, None, 0.0)


def test_tables_expand_by_templates(load: Load) -> None:
    text = """\
pipelines:
  - source: {connection: erp}
    target: {connection: lake, table: "{schema}.{table}"}
    mode: full_refresh
    tables: [SALES.ORDERS, {name: SALES.CUSTOMERS, mode: merge, merge_keys: [ID]}, {name: X, target: {table: y}}]
  - pipeline_id: crm.{table}
    source: {connection: crm}
    target: {connection: lake}
    mode: full_refresh
    tables: ['[dbo].[Case.Notes]', {name: dbo.Users, pipeline_id: people}]
"""
    with pytest.raises(CatalogError, match="stands for nothing"):
        load({"pipelines.yml": text.replace("{name: X, target: {table: y}}", "X")})
    pipelines = load({"pipelines.yml": text}).pipelines
    assert list(pipelines) == ["sales.orders", "sales.customers", "x", "crm.case.notes", "people"]
    assert [pipeline.target.table for pipeline in pipelines.values()] == [
        "sales.orders",
        "sales.customers",
        "y",
        "case.notes",
        "users",
    ]
    assert pipelines["sales.customers"].merge_keys == ("ID",)
    assert pipelines["sales.orders"].mode is LoadMode.FULL_REFRESH
    assert pipelines["sales.orders"].source.table == "SALES.ORDERS"


def test_an_environment_lies_over_connections_pipelines_and_defaults(load: Load) -> None:
    tables = """\
  - pipeline_id: erp.{table}
    source: {connection: erp}
    target: {connection: lake}
    mode: full_refresh
    tables: [S.A, S.B]
"""
    overlay = """\
defaults: {read: {fetch_size: 3}, mode: full_refresh}
connections:
  lake: {path: ~, catalog: main, schema: silver}
pipelines:
  - {pipeline_id: orders, cursor: {lookback: 1h}}
  - {pipeline_id: "erp.{table}", tags: [both]}
  - {pipeline_id: erp.b, target: {table: other}}
"""
    files = {"pipelines.yml": ORDERS + tables, "environments/production.yml": overlay}
    files["pipelines/more.yml"] = """\
defaults: {read: {fetch_size: 5, partitions: 2}}
pipelines: [{pipeline_id: more, source: {connection: shop, table: m}, target: {connection: lake, table: m}, mode: merge,
             merge_keys: [id]}]
"""
    base, over = load(files), load(files, "production")
    assert (base.pipelines["more"].read.fetch_size, base.pipelines["more"].mode) == (5, LoadMode.MERGE)
    assert (over.pipelines["more"].read.fetch_size, over.pipelines["more"].read.partitions) == (3, 2)
    assert base.pipelines["orders"].read.fetch_size == 10_000
    assert (over.connections["lake"].path, over.connections["lake"].schema) == (None, "silver")
    assert over.pipelines["orders"].mode is LoadMode.MERGE
    assert over.pipelines["orders"].read.fetch_size == 3
    cursor = over.pipelines["orders"].cursor
    assert cursor is not None
    assert (cursor.lookback, cursor.column) == (3600, "updated_at")
    assert over.pipelines["erp.a"].tags == over.pipelines["erp.b"].tags == ("both",)
    assert (over.pipelines["erp.a"].target.table, over.pipelines["erp.b"].target.table) == ("a", "other")


def test_anchors_and_merge_keys_of_yaml_work(load: Load) -> None:
    text = """\
pipelines:
  - &base
    pipeline_id: a
    source: {connection: shop, table: a}
    target: {connection: lake, table: a}
    mode: full_refresh
  - <<: *base
    pipeline_id: b
    target: {connection: lake, table: b}
"""
    pipelines = load({"pipelines.yml": text}).pipelines
    assert pipelines["b"].source.table == "a"
    assert pipelines["b"].target.table == "b"


def test_version_and_rowversion_cursors(load: Load) -> None:
    text = """\
pipelines:
  - pipeline_id: a
    source: {connection: lake, table: a}
    target: {connection: shop, table: a}
    mode: incremental
    cursor: {type: version, initial: 3}
  - pipeline_id: b
    source: {connection: crm, table: b}
    target: {connection: lake, table: b}
    mode: incremental
    cursor: {column: v, type: rowversion, initial: "0x7D1"}
"""
    pipelines = load({"pipelines.yml": text}).pipelines
    assert pipelines["a"].cursor is not None
    assert pipelines["b"].cursor is not None
    assert (pipelines["a"].cursor.column, pipelines["a"].cursor.initial) == ("", "3")
    assert pipelines["b"].cursor.initial == "0x00000000000007D1"


@pytest.fixture
def three(load: Load) -> Catalog:
    entry = "  - {{pipeline_id: {0}, source: {{connection: shop, table: {0}}}, {1}}}\n"
    text = "defaults: {mode: full_refresh}\npipelines:\n"
    for name, rest in (("sales.a", "tags: [night]"), ("sales.b", "tags: [day]"), ("other", "tags: [night]")):
        text += entry.format(name, f"target: {{connection: lake, table: {name}}}, {rest}")
    return load({"pipelines.yml": text})


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ([], ["sales.a", "sales.b", "other"]),
        (["other", "sales.a", "other"], ["sales.a", "other"]),
        (["sales.*"], ["sales.a", "sales.b"]),
        (["tag:night"], ["sales.a", "other"]),
        (["sales.?", "tag:day"], ["sales.a", "sales.b"]),
    ],
)
def test_selection_by_name_glob_and_tag(three: Catalog, names: list[str], found: list[str]) -> None:
    assert [pipeline.pipeline_id for pipeline in three.select(names)] == found


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("sales.aa", "Write sales.a."),
        ("OTHER", "Write other."),
        ("tag:nigth", "Write tag:night."),
        ("crm.*", "Write one of sales.a, sales.b, other."),
        ("tag:zzz", "Write one of day, night."),
    ],
)
def test_a_name_that_finds_nothing_is_answered_with_the_nearest(three: Catalog, name: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as failure:
        three.select(["other", name])
    assert failure.value.code == "pipeline.unknown"
    assert failure.value.remedy == remedy
