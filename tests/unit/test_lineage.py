"""OpenLineage events: named by its rules, valid by its model, and none lost while the receiver is away."""

from __future__ import annotations

import json
import uuid
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from openlineage.client.event_v2 import RunEvent
from openlineage.client.serde import Serde

from sync_core.adapters.lineage import Dataset, Lineage, LineageClient, dataset_of, run_id
from sync_core.control_plane import ControlPlane
from sync_core.domain.connection import Connection
from sync_core.domain.errors import PermanentError, RetryableError
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
from sync_core.domain.run import Outcome, RowCounts, RunError, RunKind, RunOrder, RunRecord, RunResult, RunState
from sync_core.domain.schedule import Retry
from sync_core.lineage import LONGEST, LineageSink, Phase, owe
from sync_core.lineage_columns import Origin, origins
from sync_core.telemetry import NoTelemetry
from sync_core.telemetry_doors import observe
from tests.support.control import START, Site
from tests.support.fake_engine import Place
from tests.support.flows import Crash
from tests.support.receiver import Answer, Receiver

FACET = {"type": "object", "required": ["_producer", "_schemaURL"]}
FACETS = {"type": "object", "additionalProperties": FACET}
DATASETS = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["namespace", "name"],
        "properties": {"facets": FACETS, "inputFacets": FACETS, "outputFacets": FACETS},
    },
}
RUN_EVENT = {
    "type": "object",
    "required": ["eventTime", "producer", "schemaURL", "run", "job", "eventType"],
    "properties": {
        "eventTime": {"type": "string", "format": "date-time"},
        "producer": {"type": "string", "format": "uri"},
        "schemaURL": {"const": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"},
        "eventType": {"enum": ["START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"]},
        "run": {
            "type": "object",
            "required": ["runId"],
            "properties": {"runId": {"type": "string", "format": "uuid"}, "facets": FACETS},
        },
        "job": {
            "type": "object",
            "required": ["namespace", "name"],
            "properties": {"namespace": {"type": "string"}, "name": {"type": "string"}, "facets": FACETS},
        },
        "inputs": DATASETS,
        "outputs": DATASETS,
    },
}
"""What OpenLineage 2-0-2 requires of a run event. The client's package does not carry the specification's own schema."""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site(tmp_path)
    made.has(3)
    return made


@pytest.fixture
def receiver() -> Generator[Receiver]:
    with Receiver() as made:
        yield made


def client(site: Site, receiver: Receiver, keys: list[str] | None = None) -> LineageClient:
    api_key = (lambda: keys.pop(0) if len(keys) > 1 else keys[0]) if keys else None
    return LineageClient(receiver.url(""), Lineage("test", "https://adb-1.azuredatabricks.net/"), site.clock, api_key)


def watched(site: Site, sink: LineageSink, crash_at: int | None = None) -> ControlPlane:
    return observe(site.plane(crash_at), NoTelemetry(), "test", sink)


def events(receiver: Receiver) -> list[dict[str, Any]]:
    """What was taken."""
    return [json.loads(one.body) for one in receiver.received if one.status < 400]


def told(receiver: Receiver) -> list[str]:
    return [event["eventType"] for event in events(receiver)]


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


def valid(event: dict[str, Any]) -> dict[str, Any]:
    checker = jsonschema.FormatChecker()
    jsonschema.validate(event, RUN_EVENT, format_checker=checker)
    return event


def made(run: RunRecord, facts: Facts | None = None, **more: Any) -> dict[str, Any]:
    pipe = replace(Pipeline("orders", Source("pg", "orders"), Target("lake", "orders"), LoadMode.MERGE), **more)
    connections = {
        "pg": Connection("pg", "postgresql", host="pg", database="shop"),
        "lake": Connection("lake", "databricks", catalog="main", schema="bronze"),
    }
    event = Lineage("prod", "adb").event(Phase.END, run, pipe, connections, facts)
    assert isinstance(event, RunEvent)
    return valid(json.loads(Serde.to_json(event)))


def closed(state: RunState, outcome: Outcome, error: RunError | None = None) -> RunRecord:
    result = RunResult(
        "orders", "k" * 64, "b" * 64, RunKind.INCREMENTAL, 1, outcome, error=error,
        rows=RowCounts(read=9, inserted=4, updated=3, deleted=1),
    )  # fmt: skip
    return RunRecord(
        "k" * 64, "orders", RunKind.INCREMENTAL, 1, state, "b" * 64, START, slot=START - timedelta(minutes=1),
        closed_at=START + timedelta(minutes=2), result=result,
    )  # fmt: skip


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


# ---- delivery


def test_start_and_complete_arrive(site: Site, receiver: Receiver) -> None:
    sink = client(site, receiver)
    for _ in range(4):
        site.cycle(watched(site, sink))
    (run,) = site.runs()
    start, complete = map(valid, events(receiver))
    assert {one.path for one in receiver.received} == {"/api/v1/lineage"}
    assert (start["eventType"], complete["eventType"]) == ("START", "COMPLETE")
    assert start["run"]["runId"] == complete["run"]["runId"] == run_id(run.run_key)
    assert start["job"] == complete["job"]
    assert complete["outputs"][0]["outputFacets"]["outputStatistics"]["rowCount"] == 3
    assert site.store.load("orders").record.lineage == ()
    site.check()


def test_a_receiver_that_is_away_blocks_no_run_and_loses_no_event(site: Site, receiver: Receiver) -> None:
    sink, port = client(site, receiver), receiver.port
    receiver.stop()
    for _ in range(4):
        site.cycle(watched(site, sink))
    site.clock.pass_by(hours=2)
    for _ in range(4):
        site.cycle(watched(site, sink))
    assert [run.state for run in site.runs()] == [RunState.SUCCEEDED, RunState.SUCCEEDED]
    owed = site.store.load("orders").record.lineage
    assert [entry.split()[0] for entry in owed] == ["start", "end", "start", "end"]
    receiver.start()
    assert receiver.port == port
    receiver.answers = [Answer(204), Answer(503)]
    site.cycle(watched(site, sink))
    assert told(receiver) == ["START"]
    site.cycle(watched(site, sink))
    assert told(receiver) == ["START", "COMPLETE", "START", "COMPLETE"]
    assert site.store.load("orders").record.lineage == ()


def test_a_receiver_that_was_away_is_not_asked_at_once_again(site: Site, receiver: Receiver) -> None:
    receiver.answers = [Answer(503)] * 9
    sink = client(site, receiver)
    for _ in range(4):
        site.cycle(watched(site, sink), seconds=10)
    assert len(receiver.received) == 2, "at the first reconcile that owed an event, and once 30 seconds were over"


def test_a_slow_receiver_holds_no_timer_up(site: Site) -> None:
    sink = Slow(site)
    for number in range(9):
        stored = site.store.load("orders")
        run = replace(closed(RunState.SUCCEEDED, Outcome.SUCCEEDED), run_key=f"{number}" * 64)
        site.store.save(stored, owe(stored.record, run.run_key, Phase.START), (run,))
    watched(site, sink).reconcile()
    assert (sink.taken, len(site.store.load("orders").record.lineage)) == (4, 5)


@dataclass
class Slow:
    """Takes 20 seconds for each event."""

    site: Site
    taken: int = 0

    def send(
        self,
        phase: Phase,
        run: RunRecord,
        pipeline: Pipeline,
        connections: Mapping[str, Connection],
        facts: Facts | None,
    ) -> None:
        self.taken += 1
        self.site.clock.pass_by(seconds=20)


def test_an_event_that_is_refused_for_good_holds_up_no_other(
    site: Site, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answers = [Answer(400)]
    for _ in range(4):
        site.cycle(watched(site, client(site, receiver)))
    assert told(receiver) == ["COMPLETE"]
    assert "status 400" in caplog.text


def test_the_key_is_sent_and_asked_for_again_when_it_is_refused(site: Site, receiver: Receiver) -> None:
    keys = ["the old one", "the new one"]
    receiver.answers = [Answer(401)]
    sink = client(site, receiver, keys)
    for _ in range(4):
        site.cycle(watched(site, sink))
    sent = [(one.status, one.headers["Authorization"]) for one in receiver.received]
    assert sent == [(401, "Bearer the old one"), (204, "Bearer the new one"), (204, "Bearer the new one")]
    assert all("one" not in one.body.decode().replace("None", "") for one in receiver.received)


def test_a_secret_that_is_not_there_is_told_and_the_event_kept(site: Site, receiver: Receiver) -> None:
    def missing() -> str:
        raise PermanentError("secrets.missing", "Secret ops/lineage is not there.")

    sink = LineageClient(receiver.url(""), Lineage(), site.clock, missing)
    for _ in range(4):
        site.cycle(watched(site, sink))
    assert [run.state for run in site.runs()] == [RunState.SUCCEEDED]
    assert len(site.store.load("orders").record.lineage) == 2


def test_a_retry_is_a_run_of_its_own(site: Site, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    load, left = Place.load, [1]

    def fail_once(self: Place, order: RunOrder, batch_id: str) -> RunResult:
        if not left:
            return load(self, order, batch_id)
        left.pop()
        error = RunError("source.gone", "retryable", "Pipeline orders: the source is gone.")
        return RunResult("orders", order.run_key, batch_id, order.kind, order.attempt, Outcome.FAILED, error=error)

    monkeypatch.setattr(Place, "load", fail_once)
    site.pipelines["orders"] = replace(site.pipelines["orders"], retry=Retry(attempts=3))
    sink = client(site, receiver)
    for _ in range(6):
        site.cycle(watched(site, sink), minutes=5)
    assert sorted(told(receiver)) == ["COMPLETE", "FAIL", "START", "START"]
    assert len({event["run"]["runId"] for event in events(receiver)}) == 2


def test_a_pipeline_that_was_removed_owes_nothing_for_ever(site: Site, receiver: Receiver) -> None:
    receiver.answers = [Answer(503)] * 20
    for _ in range(4):
        site.cycle(watched(site, client(site, receiver)))
    receiver.answers.clear()
    del site.pipelines["orders"]
    site.cycle(watched(site, client(site, receiver)))
    assert told(receiver) == []
    assert site.store.load("orders").record.lineage == ()


def test_a_record_owes_each_event_once_and_not_without_end(site: Site) -> None:
    record = site.store.load("orders").record
    assert owe(owe(record, "k", Phase.START), "k", Phase.START).lineage == ("start k",)
    for number in range(LONGEST + 5):
        record = owe(record, str(number), Phase.END)
    assert len(record.lineage) == LONGEST
    assert record.lineage[-1] == f"end {LONGEST + 4}"


@dataclass
class Taking:
    """A receiver in this process."""

    taken: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    def send(
        self,
        phase: Phase,
        run: RunRecord,
        pipeline: Pipeline,
        connections: Mapping[str, Connection],
        facts: Facts | None,
    ) -> None:
        if not run.state.is_open and phase is Phase.END and len(self.taken) == 1:
            self.taken.append(("away", ""))
            raise RetryableError("lineage.away", "Away for a moment.")
        self.taken.append((phase.value, run.run_key))


@pytest.mark.parametrize("at", range(0, 40, 3))
def test_killed_at_any_write_every_event_arrives(site: Site, at: int) -> None:
    sink = Taking()
    try:
        for _ in range(3):
            site.cycle(watched(site, sink, crash_at=at))
    except Crash:
        pass
    for _ in range(10):
        site.cycle(watched(site, sink), minutes=5)
    site.check()
    wanted = {(phase.value, run.run_key) for run in site.runs() for phase in Phase}
    assert set(sink.taken) - {("away", "")} == wanted
    assert site.store.load("orders").record.lineage == ()


def test_connections_that_are_gone_make_no_event(site: Site, receiver: Receiver) -> None:
    with pytest.raises(PermanentError):
        client(site, receiver).send(
            Phase.START, closed(RunState.FAILED, Outcome.FAILED), site.pipelines["orders"], {}, None
        )
    assert receiver.received == []
