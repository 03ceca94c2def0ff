"""Whatever stands in the files: a catalog or a CatalogError, nothing else."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from sync_core.catalog import CatalogError, load_catalog
from sync_core.catalog.document import merge
from sync_core.catalog.faults import Fault
from sync_core.catalog.model import ConnectionEntry, PipelineItem
from sync_core.catalog.parse import read_document
from sync_core.catalog.values import parse_duration, split_name

CONNECTIONS = """\
connections:
  shop: {type: postgresql, host: db, database: shop, username: sync}
  lake: {type: databricks, path: ./lake}
"""
PIPELINES = """\
defaults: &d {mode: merge}
pipelines:
  - pipeline_id: orders
    source: {connection: shop, table: orders}
    target: {connection: lake, table: orders}
    cursor: {column: changed, type: timestamp, initial: 2020-01-01}
    merge_keys: [id]
    transformations:
      - {type: rename, mapping: {id: k}}
  - source: {connection: shop}
    target: {connection: lake, table: "{schema}_{table}"}
    tables: [{name: a.b, merge_keys: [id]}, {name: c.d, mode: full_refresh}]
"""
# A thousand files a test: on a slow machine one example may take longer than the usual limit.
many = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def load(files: dict[str, bytes], environment: str | None = None) -> tuple[Fault, ...]:
    with tempfile.TemporaryDirectory() as folder:
        for name, content in {
            "connections.yml": CONNECTIONS.encode(),
            "pipelines.yml": PIPELINES.encode(),
            **files,
        }.items():
            path = Path(folder) / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        found: tuple[Fault, ...] | None = None
        try:
            load_catalog(Path(folder), environment, {"A": "b"})
        except CatalogError as error:
            found = error.faults
    assert found != ()
    assert all(fault.message and fault.line >= 0 for fault in found or ())
    return found or ()


def test_what_is_mutilated_below_is_whole() -> None:
    assert load({}) == ()


@many
@given(st.binary(max_size=200), st.sampled_from(["connections.yml", "pipelines.yml", "environments/e.yml"]))
def test_any_bytes_give_a_catalog_or_faults(content: bytes, name: str) -> None:
    load({"environments/e.yml": b"pipelines: []", name: content}, "e")


@many
@given(
    st.text(alphabet="ab:- \n\t{}[]#&*!|>'\"%@`,?~${}\\<=1.0", max_size=60),
    st.sampled_from([CONNECTIONS, PIPELINES]),
    st.data(),
)
@example("? ", PIPELINES, None)
def test_a_file_with_any_text_in_it_gives_a_catalog_or_faults(text: str, base: str, data: Any) -> None:
    at = data.draw(st.integers(0, len(base))) if data else 0
    name = "connections.yml" if base == CONNECTIONS else "pipelines.yml"
    load({name: (base[:at] + text + base[at:]).encode()})


KEYS = sorted({*PipelineItem.model_fields, *ConnectionEntry.model_fields, "connection", "table", "query", "column", "type",
               "columns", "mapping", "cron", "every", "after", "on_demand", "catch_up", "attempts", "delay", "max_delay", "stale_after",
               "repeat_every", "failed", "url", "conditions", "condition", "expression", "initial", "lookback", "settle", "partitions", "name"})  # fmt: skip
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 10**20),
    st.floats(),
    st.text(max_size=8),
    st.dates(),
    st.sampled_from(["merge", "incremental", "timestamp", "number", "version", "rowversion", "shop", "lake", "orders", "30s",
                     "* * * * *", "0 0 30 2 *", "webhook", "apprise", "https://h/x", "stale", "15m", "1d", "oracle", "azure_sql", "databricks", "${A}", "${B}", "{table}", "id", "filter", "rename", "select", "cast"]),
)  # fmt: skip
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)
pipelines = st.dictionaries(st.sampled_from(KEYS), trees, max_size=8)


def dump(document: Any) -> bytes:
    with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(document, file)  # pyright: ignore[reportUnknownMemberType]
        file.seek(0)
        return file.read().encode("utf-8", "replace")


@many
@given(
    st.lists(pipelines, max_size=3),
    st.dictionaries(st.sampled_from(["shop", "lake", "x"]), pipelines, max_size=3),
    st.dictionaries(st.sampled_from(["shop", "x"]), pipelines, max_size=2),
    pipelines,
)
def test_any_tree_gives_a_catalog_or_faults(
    entries: list[Any], connections: dict[str, Any], channels: dict[str, Any], defaults: Any
) -> None:
    overlay = {
        "connections": connections,
        "channels": channels,
        "pipelines": [{**entry, "pipeline_id": "orders"} for entry in entries],
    }
    load(
        {
            "connections.yml": dump({"connections": connections, "channels": channels}),
            "pipelines.yml": dump({"pipelines": entries, "defaults": defaults}),
        }
    )
    load({"environments/e.yml": dump({**overlay, "defaults": defaults})}, "e")


@given(st.integers(0, 10**6), st.sampled_from([("ms", 0.001), ("s", 1), ("m", 60), ("h", 3600), ("d", 86400)]))
def test_durations(number: int, unit: tuple[str, float]) -> None:
    seconds = number * unit[1]
    assert parse_duration(f"{number}{unit[0]}") == (seconds if seconds <= 36_525 * 86_400 else None)
    assert parse_duration(f" {number} {unit[0]} ") == parse_duration(f"{number}{unit[0]}")
    assert parse_duration(f"-{number}{unit[0]}") is None
    assert parse_duration(str(number)) is None


@given(st.text(max_size=10))
def test_nothing_else_is_a_duration(text: str) -> None:
    found = parse_duration(text)
    assert found is None or text.strip()[-1] in "smhd"


@given(st.lists(st.text(alphabet="ab. ", min_size=1).filter(str.strip), min_size=1, max_size=4))
def test_quoted_parts_of_a_name_stay_whole(parts: list[str]) -> None:
    for left, right in ('""', "[]", "``"):
        assert split_name(".".join(left + part + right for part in parts)) == parts


@given(trees.filter(lambda tree: isinstance(tree, dict)))
def test_merging_a_tree_onto_itself_changes_nothing(tree: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.yml"
        path.write_bytes(dump(tree))
        node = read_document(path, [])
    if node is not None and not any(part is None for part in _leaves(node)):
        assert merge(node, node) == node


def _leaves(node: Any) -> list[Any]:
    children = [*node.mapping.values(), *node.items]
    return [leaf for child in children for leaf in _leaves(child)] if children else [node.value]
