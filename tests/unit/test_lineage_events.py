"""OpenLineage events: datasets and columns named by its rules, events valid by its model."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from openlineage.client.event_v2 import RunEvent
from openlineage.client.serde import Serde

from sync_core.adapters.lineage import Dataset, EventBuilder, dataset_of, run_id
from sync_core.domain.connection import Connection
from sync_core.domain.facts import ColumnFact, Facts
from sync_core.domain.pipeline import (
    Cast,
    Derive,
    Drop,
    Filter,
    LoadMode,
    Pipeline,
    Rename,
    Select,
    Source,
    Target,
    Transformation,
)
from sync_core.domain.run import Outcome, RunError, RunRecord, RunState
from sync_core.lineage import LineageEvent, Phase
from sync_core.lineage_columns import Origin, origins
from tests.support.lineage import closed, valid

# ---- names


@pytest.mark.parametrize(
    ("connection", "table", "namespace", "name"),
    [
        (Connection("c", "postgresql", host="pg", database="shop", schema="sales"), "Orders", "postgres://pg:5432", "shop.sales.orders"),
        (Connection("c", "postgresql", host="pg", port=6543, database="shop"), '"Sales"."Ord.ers"', "postgres://pg:6543", "shop.Sales.Ord.ers"),
        (Connection("c", "oracle", host="ora", service_name="ORCLPDB1", schema="SALES"), "orders", "oracle://ora:1521", "ORCLPDB1.SALES.ORDERS"),
        (Connection("c", "oracle", host="ora", sid="XE", username="app"), "hr.emp", "oracle://ora:1521", "XE.HR.EMP"),
        (Connection("c", "oracle", host="ora", sid="XE", username="app"), "emp", "oracle://ora:1521", "XE.APP.EMP"),
        (Connection("c", "azure_sql", host="s.database.windows.net", database="db"), "Orders", "mssql://s.database.windows.net:1433", "db.dbo.Orders"),
        (Connection("c", "azure_sql", host="s", database="db", schema="x"), "[other].[sales].[My Orders]", "mssql://s:1433", "other.sales.My Orders"),
        (Connection("c", "databricks", catalog="main", schema="bronze"), "orders", "databricks://adb-1.azuredatabricks.net", "main.bronze.orders"),
        (Connection("c", "databricks", catalog="main"), "silver.`o.x`", "databricks://adb-1.azuredatabricks.net", "main.silver.o.x"),
        (Connection("c", "databricks", catalog="main", schema="bronze"), "a.b.c", "databricks://adb-1.azuredatabricks.net", "a.b.c"),
        (Connection("c", "databricks", path="abfss://lake@acc.dfs.core.windows.net/raw"), "orders", "abfss://lake@acc.dfs.core.windows.net", "/raw/orders"),
        (Connection("c", "databricks", path="/srv/lake"), "sales.orders", "file", "/srv/lake/sales/orders"),
        (Connection("c", "databricks", path="s3://bucket/raw/"), "orders", "s3://bucket", "/raw/orders"),
        (Connection("c", "added", host="h", port=9), "t", "added://h:9", "t"),
    ],
)  # fmt: skip
def test_datasets_are_named_by_the_specification(connection: Connection, table: str, namespace: str, name: str) -> None:
    assert dataset_of(connection, table, "https://adb-1.azuredatabricks.net/") == Dataset(namespace, name)


def test_a_run_id_is_a_uuid_that_the_run_key_alone_decides() -> None:
    assert run_id("a" * 64) == run_id("a" * 64) != run_id("b" * 64)
    assert uuid.UUID(run_id("a" * 64)).version == 5


# ---- columns


def columns(*names: str, kind: str = "string") -> tuple[ColumnFact, ...]:
    return tuple(ColumnFact(name, kind) for name in names)


@pytest.mark.parametrize(
    ("steps", "target", "known"),
    [
        ((), ("id", "name"), {"id": "id", "name": "name"}),
        ((Rename({"ID": "key"}),), ("key", "name"), {"key": "id", "name": "name"}),
        ((Rename({"id": "a"}), Rename({"a": "b"})), ("b",), {"b": "id"}),
        ((Rename({"id": "name", "name": "id"}),), ("id", "name"), {"id": "name", "name": "id"}),
        ((Select(("Name",)),), ("Name",), {"Name": "name"}),
        ((Drop(("NAME",)), Filter("id > 0")), ("id",), {"id": "id"}),
        ((Derive("name", "upper(id)"),), ("id", "name"), {"id": "id"}),
        ((Derive("new", "id"), Rename({"new": "id2"})), ("id", "id2"), {"id": "id"}),
        ((Cast({"id": "bigint"}),), ("id",), {"id": "~id"}),
        ((), ("ID",), {"ID": "id"}),
        ((), ("of_the_target",), {}),
    ],
)
def test_where_a_column_comes_from(
    steps: tuple[Transformation, ...], target: tuple[str, ...], known: Mapping[str, str]
) -> None:
    pipe = Pipeline("p", Source("s", "t"), Target("s", "t"), LoadMode.MERGE, transformations=steps)
    found = origins(pipe, Facts(source_columns=columns("id", "name"), target_columns=columns(*target)))
    assert found == {name: Origin(of.lstrip("~"), same="~" not in of) for name, of in known.items()}


def test_a_column_of_another_type_in_the_target_is_no_identity() -> None:
    pipe = Pipeline("p", Source("s", "t"), Target("s", "t"), LoadMode.MERGE)
    facts = Facts(source_columns=columns("id", kind="int"), target_columns=columns("id", kind="bigint"))
    assert origins(pipe, facts) == {"id": Origin("id", same=False)}


# ---- events


def made(run: RunRecord, facts: Facts | None = None, **more: Any) -> dict[str, Any]:
    pipe = replace(Pipeline("orders", Source("pg", "orders"), Target("lake", "orders"), LoadMode.MERGE), **more)
    connections = {
        "pg": Connection("pg", "postgresql", host="pg", database="shop"),
        "lake": Connection("lake", "databricks", catalog="main", schema="bronze"),
    }
    event = EventBuilder("prod", "adb").build(LineageEvent(Phase.END, run, pipe, connections, facts))
    assert isinstance(event, RunEvent)
    return valid(json.loads(Serde.to_json(event)))


def test_a_complete_event_has_all_its_facets() -> None:
    facts = Facts(
        source_columns=columns("id", "at"),
        target_columns=columns("key", "at"),
        engine_version="1",
        spark_version="4.2.0",
    )
    event = made(closed(RunState.SUCCEEDED, Outcome.SUCCEEDED), facts, transformations=(Rename({"id": "key"}),))
    assert (event["eventType"], event["eventTime"]) == ("COMPLETE", "2026-01-05T12:02:00.000000Z")
    assert event["job"]["namespace"] == "universal-data-sync.prod"
    assert event["job"]["facets"]["jobType"]["processingType"] == "BATCH"
    run = event["run"]["facets"]
    assert run["nominalTime"]["nominalStartTime"] == "2026-01-05T11:59:00.000000Z"
    assert run["parent"]["run"]["runId"] == run_id("b" * 64)
    assert (run["processing_engine"]["name"], run["processing_engine"]["version"]) == ("spark", "4.2.0")
    (source,), (target,) = event["inputs"], event["outputs"]
    assert (source["namespace"], source["name"]) == ("postgres://pg:5432", "shop.public.orders")
    assert [one["name"] for one in source["facets"]["schema"]["fields"]] == ["id", "at"]
    assert (target["namespace"], target["name"]) == ("databricks://adb", "main.bronze.orders")
    assert target["outputFacets"]["outputStatistics"]["rowCount"] == 7
    lineage = target["facets"]["columnLineage"]["fields"]["key"]["inputFields"][0]
    assert (lineage["name"], lineage["field"]) == ("shop.public.orders", "id")
    assert lineage["transformations"][0] == {"type": "DIRECT", "subtype": "IDENTITY", "masking": False}


def test_failed_and_cancelled_runs() -> None:
    error = RunError("source.gone", "retryable", "Pipeline orders: the source is gone.")
    failed = made(closed(RunState.FAILED, Outcome.FAILED, error))
    assert failed["eventType"] == "FAIL"
    said = failed["run"]["facets"]["errorMessage"]
    assert (said["message"], said["programmingLanguage"]) == (
        "source.gone: Pipeline orders: the source is gone.",
        "PYTHON",
    )
    assert "outputFacets" not in failed["outputs"][0] or not failed["outputs"][0]["outputFacets"]
    assert made(closed(RunState.CANCELLED, Outcome.CANCELLED))["eventType"] == "ABORT"


def test_a_query_is_told_as_sql_and_names_no_input() -> None:
    event = made(closed(RunState.SUCCEEDED, Outcome.SUCCEEDED), source=Source("pg", query="SELECT 1"))
    assert event.get("inputs", []) == []
    assert event["job"]["facets"]["sql"]["query"] == "SELECT 1"
