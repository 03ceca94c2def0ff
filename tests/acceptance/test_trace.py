"""One trace and its lineage from a tick to the commit of a real engine, by the parts of `uds up`; no secret in either."""

from __future__ import annotations

import json
import os
import secrets
import threading
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from opentelemetry.sdk.trace import ReadableSpan

from sync_core.app import Service, build_service
from sync_core.catalog import load_catalog
from sync_core.demo.servers import PostgresServer
from sync_core.domain.run import RunRecord, RunState
from sync_core.domain.trace import read_trace
from sync_core.loop import Loop
from sync_core.settings import Settings
from tests.support.lineage import valid
from tests.support.receiver import Receiver
from tests.support.telemetry import Recorder

ROOT = Path(__file__).parents[2]
ROUNDS = 1200

CONNECTIONS = """connections:
  pg: {{type: postgresql, host: 127.0.0.1, port: {port}, database: {database}, username: {user}, schema: {user},
       secret_scope: tests, secret_key: leak}}
  lake: {{type: databricks, path: "{lake}"}}
"""
PIPELINES = """pipelines:
  - pipeline_id: orders
    source: {connection: pg, table: orders}
    target: {connection: lake, table: orders}
    mode: merge
    merge_keys: [id]
    cursor: {column: at, type: timestamp, timezone: UTC, settle: 0s}
    transformations: [{type: rename, mapping: {name: title}}]
    schedule: {every: 1d}
  - pipeline_id: telling
    source: {connection: pg, table: telling}
    target: {connection: lake, table: telling}
    mode: full_refresh
    schedule: {every: 1d}
"""


@dataclass
class Installation:
    """A running service, what it told, and the secrets that must not be in it."""

    service: Service
    recorder: Recorder
    receiver: Receiver
    secrets: tuple[str, ...]

    def run_until_closed(self, *names: str) -> list[RunRecord]:
        """The timers and queues of `uds up`, until each of these pipelines has a closed run."""
        plane = self.service.plane
        loop = Loop(plane)
        for _ in range(ROUNDS):
            plane.reconcile()
            loop.drain()
            found = [run for name in names for run in plane.store.runs(name, 1)]
            if len(found) == len(names) and not any(run.state.is_open for run in found):
                return found
            threading.Event().wait(0.1)
        raise AssertionError(f"{names} have not come to their end")


@pytest.fixture
def installed(postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Installation]:
    user, password, key = f"r{secrets.token_hex(5)}", f"pa55-{secrets.token_hex(8)}", f"key-{secrets.token_hex(8)}"
    statements = (
        f"CREATE ROLE {user} LOGIN PASSWORD '{password}'",
        f"CREATE SCHEMA {user} AUTHORIZATION {user}",
        f"CREATE TABLE {user}.orders (id bigint PRIMARY KEY, name text, at timestamp)",
        f"INSERT INTO {user}.orders VALUES (1, 'a', '2024-01-01'), (2, 'b', '2024-01-02')",
        # The database's own words repeat the password.
        f"CREATE FUNCTION {user}.tell(id bigint) RETURNS text LANGUAGE plpgsql VOLATILE AS "
        f"$$ BEGIN RAISE EXCEPTION 'user={user} sent {password} for row %', id; END $$",
        f"CREATE VIEW {user}.telling AS SELECT id, {user}.tell(id) AS name FROM {user}.orders",
        f"GRANT ALL ON ALL TABLES IN SCHEMA {user} TO {user}",
    )
    with psycopg.connect(postgres.conninfo, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())
    config = tmp_path / "config"
    config.mkdir()
    lake = tmp_path / "lake"
    (config / "connections.yml").write_text(
        CONNECTIONS.format(port=postgres.port, database=postgres.database, user=user, lake=lake)
    )
    (config / "pipelines.yml").write_text(PIPELINES)
    recorder = Recorder()
    with Receiver() as receiver:
        for name, value in {
            "UDS_SECRET_TESTS_LEAK": password,
            "UDS_SECRET_OPS_LINEAGE": key,
            "UDS_LINEAGE_URL": receiver.url(""),
            "UDS_LINEAGE_SECRET": "ops/lineage",  # pragma: allowlist secret
            "PYTHONPATH": str(ROOT),
        }.items():
            monkeypatch.setenv(name, value)
        service = build_service(
            Settings(tmp_path / "state"), load_catalog(config, None, os.environ), recorder.telemetry
        )
        yield Installation(service, recorder, receiver, (password, key))
        service.close()
    with psycopg.connect(postgres.conninfo, autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA {user} CASCADE; DROP ROLE {user}".encode())


def times(span: ReadableSpan) -> tuple[int, int]:
    assert span.start_time is not None
    assert span.end_time is not None
    return span.start_time, span.end_time


def parent_of(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent else None


def test_p26_one_trace_and_its_lineage_from_the_tick_to_the_commit(installed: Installation, tmp_path: Path) -> None:
    recorder = installed.recorder
    installed.service.plane.tick()
    orders, telling = installed.run_until_closed("orders", "telling")
    installed.service.plane.reconcile()
    assert (orders.state, telling.state) == (RunState.SUCCEEDED, RunState.FAILED)
    check_trace(recorder, orders, telling)
    check_facts(tmp_path, orders)
    events = [json.loads(one.body) for one in installed.receiver.received]
    check_lineage(events, tmp_path)
    # The database repeated the password in its error, which is told without it.
    assert "sent" in recorder.text()
    everything = recorder.text() + json.dumps(events)
    assert [secret for secret in installed.secrets if secret in everything] == []
    assert {one.headers["Authorization"] for one in installed.receiver.received} == {f"Bearer {installed.secrets[1]}"}


def check_trace(recorder: Recorder, orders: RunRecord, telling: RunRecord) -> None:
    root = read_trace(orders.trace)
    assert root is not None
    assert telling.trace == orders.trace, "they were begun in one batch"
    spans = recorder.spans()
    assert {span.context.trace_id for span in spans if span.context} == {int(root.trace_id, 16)}
    top = recorder.one("uds.tick")
    assert top.context is not None
    assert (top.context.span_id, parent_of(top)) == (int(root.span_id, 16), None)
    by_id = {span.context.span_id: span for span in spans if span.context}
    assert len(by_id) == len(spans), "no span was told twice"
    assert all(parent_of(span) in by_id for span in spans if span is not top)
    # The engine's steps lie within the engine's time, and that between launch and completion.
    launched = recorder.one("uds.launch")
    (run,) = [one for one in recorder.named("uds.run") if (one.attributes or {})["run_key"] == orders.run_key]
    assert run.context is not None
    (engine,) = [one for one in recorder.named("uds.engine") if parent_of(one) == run.context.span_id]
    assert engine.context is not None
    steps = [one for one in spans if parent_of(one) == engine.context.span_id]
    assert [one.name.rpartition(".")[2] for one in steps] == [
        "ledger", "window", "plan", "prepare", "compare", "write", "report",
    ]  # fmt: skip
    assert times(launched)[0] <= times(engine)[0] <= times(engine)[1] <= times(run)[1]
    closings = [one for name in ("uds.complete", "uds.reconcile") for one in recorder.named(name)]
    assert any(times(one)[1] >= times(engine)[1] for one in closings)
    for one in steps:
        # A step's end is its start and a monotonic clock's seconds: the two clocks may differ by a little.
        assert times(engine)[0] <= times(one)[0] <= times(one)[1] <= times(engine)[1] + 5_000_000
    assert (run.attributes or {})["rows_inserted"] == 2
    assert recorder.total("uds.rows", pipeline_id="orders", kind="inserted", mode="merge") == 2
    assert recorder.total("uds.failures", pipeline_id="telling") == 1


def check_facts(folder: Path, run: RunRecord) -> None:
    """The engine wrote them with the standard library alone; the store keeps none."""
    result: dict[str, Any] = json.loads(
        (folder / "state/runs" / run.batch_id / "results" / f"{run.run_key}.json").read_text()
    )
    facts = result["facts"]
    assert [(one["name"], one["type"]) for one in facts["source_columns"]] == [
        ("id", "bigint"), ("name", "string"), ("at", "timestamp_ntz"),
    ]  # fmt: skip
    assert [one["name"] for one in facts["target_columns"]] == ["id", "title", "at"]
    assert facts["version"] == 1
    assert run.result is not None
    assert run.result.facts is None
    manifest = json.loads((folder / "state/runs" / run.batch_id / "manifest.json").read_text())
    assert {order["trace"] for order in manifest["runs"]} == {run.trace}
    events = (folder / "state/runs" / run.batch_id / "events.jsonl").read_text()
    assert run.trace in events, "the engine's own log says which trace it belongs to"


def check_lineage(events: list[dict[str, Any]], folder: Path) -> None:
    told = sorted((event["job"]["name"], event["eventType"]) for event in map(valid, events))
    assert told == [("orders", "COMPLETE"), ("orders", "START"), ("telling", "FAIL"), ("telling", "START")]
    (complete,) = [event for event in events if event["eventType"] == "COMPLETE"]
    (target,) = complete["outputs"]
    assert (target["namespace"], target["name"]) == ("file", str(folder / "lake/orders"))
    assert target["outputFacets"]["outputStatistics"]["rowCount"] == 2
    field = target["facets"]["columnLineage"]["fields"]["title"]["inputFields"][0]
    assert field["field"] == "name"
    assert complete["inputs"][0]["name"].endswith(".orders")
