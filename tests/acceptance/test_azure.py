"""The whole loop on Azure's own parts: Functions worker, Service Bus, Table Storage, a Databricks job that runs Spark.

timer → message → job run → rows moved → completion → watermark in the store → alert at a real HTTP server, signed.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from collections.abc import Generator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sync_core.adapters.environment_secrets import EnvironmentSecrets
from sync_core.adapters.service_bus_queue import REJECTED, ServiceBusQueue
from sync_core.app import Service, build_azure
from sync_core.domain.run import RunState
from sync_core.messages import QUEUES
from sync_core.settings import read_azure_settings
from tests.support.azurite import Azurite
from tests.support.databricks_api import FOLDER, DatabricksApi
from tests.support.functions_worker import PROTOCOL, Worker
from tests.support.service_bus import ServiceBusBroker
from tests.support.signed_receiver import SECRET, SignedReceiver
from tests.support.world import World

ROOT = Path(__file__).parents[2]
TRIGGERS = dict(zip(QUEUES, ("take_request", "launch", "complete", "deliver"), strict=True))
ROUNDS = 600
WAIT = timedelta(seconds=0.1)

CONNECTIONS = """connections:
  pg: {{type: postgresql, host: 127.0.0.1, port: {port}, database: {database}, username: {user}, schema: {schema},
       secret_scope: tests, secret_key: pg}}
  lake: {{type: databricks, path: "{lake}"}}
channels:
  ops: {{type: webhook, url: "http://127.0.0.1:{receiver}/alerts", secret_scope: ops, secret_key: hook}}
"""
PIPELINES = """pipelines:
  - pipeline_id: orders
    source: {connection: pg, table: orders}
    target: {connection: lake, table: orders}
    mode: merge
    merge_keys: [id]
    cursor: {column: at, type: timestamp, timezone: UTC, settle: 0s}
    schedule: {every: 1d}
  - pipeline_id: missing
    source: {connection: pg, table: nowhere}
    target: {connection: lake, table: missing}
    mode: full_refresh
"""


class Host:
    """What the Functions host does: calls timers when told, hands each message to its trigger, settles it after."""

    def __init__(self, worker: Worker, service: Service) -> None:
        self.worker = worker
        self.plane = service.plane

    async def drain(self) -> int:
        """Hand over one message of each queue."""
        found = 0
        for queue, trigger in TRIGGERS.items():
            message = await asyncio.to_thread(self.plane.queue.receive, queue)
            if message is None:
                continue
            found += 1
            answer = await self.worker.message(trigger, message.body.encode(), message.key)
            done = answer.result.status == PROTOCOL.StatusResult.Success
            await asyncio.to_thread(self.plane.queue.complete if done else self.plane.queue.abandon, message)
        return found

    async def run_until_closed(self, pipeline: str, runs: int = 1) -> RunState:
        for _ in range(ROUNDS):
            await self.drain()
            await self.worker.timer("reconcile")
            latest = self.plane.store.runs(pipeline, runs)
            if len(latest) == runs and not latest[0].state.is_open:
                return latest[0].state
            await asyncio.sleep(0.2)
        raise AssertionError(f"{pipeline} has not come to its end: {self.plane.store.runs(pipeline, 9)}")


@pytest.fixture
def service(
    world: World, azurite: Azurite, service_bus: ServiceBusBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Generator[tuple[Service, DatabricksApi, SignedReceiver]]:
    for queue in (*QUEUES, REJECTED):
        service_bus.create(queue, lock=60, duplicate_window=600)
    engine = (sys.executable, "-m", "spark_entry.main", "--manifest", "{manifest}")
    api = DatabricksApi(tmp_path / "databricks", engine)
    (tmp_path / "config").mkdir()
    with SignedReceiver() as receiver:
        text = CONNECTIONS.format(
            port=world.postgres.port, database=world.postgres.database, user=world.postgres.username,
            schema=world.source, lake=world.lake, receiver=receiver.server_port,
        )  # fmt: skip
        (tmp_path / "config/connections.yml").write_text(text)
        (tmp_path / "config/pipelines.yml").write_text(PIPELINES)
        for name, value in {
            "UDS_CONFIG": str(tmp_path / "config"),
            "UDS_TABLES": azurite.connection_string,
            "ServiceBusConnection": service_bus.connection_string,
            "UDS_DATABRICKS_HOST": api.url,
            "UDS_DATABRICKS_JOBS": f"default={api.job_id}",
            "UDS_RUN_FOLDER": FOLDER,
            "UDS_DATABRICKS_LOCAL_TOKEN": api.token,
            "UDS_WEBHOOK_SECRET": "ops/login",  # pragma: allowlist secret
            "UDS_SECRET_TESTS_PG": world.postgres.password,
            "UDS_SECRET_OPS_HOOK": SECRET,
            "UDS_SECRET_OPS_LOGIN": "databricks:the login of the tests",  # pragma: allowlist secret
            "PYTHONPATH": str(ROOT),
        }.items():
            monkeypatch.setenv(name, value)
        built = build_azure(read_azure_settings(os.environ), EnvironmentSecrets(os.environ))
        queue = ServiceBusQueue.for_local_server(service_bus.connection_string, WAIT)
        yield replace(built, plane=replace(built.plane, queue=queue)), api, receiver
        queue.close()
        built.close()
    api.close()


def test_p21_p23_p25_from_a_timer_to_a_watermark_and_an_alert(
    world: World, service: tuple[Service, DatabricksApi, SignedReceiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    built, api, receiver = service
    world.orders((1, "a", "2024-01-01"), (2, "b", "2024-01-02"))
    asyncio.run(_whole_loop(built, api, receiver, monkeypatch))
    assert [tuple(row) for row in world.spark.read.format("delta").load(str(world.lake / "orders")).select("id", "name").orderBy("id").collect()] == [
        (1, "a"),
        (2, "b"),
    ]  # fmt: skip


async def _whole_loop(
    service: Service, api: DatabricksApi, receiver: SignedReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker(str(ROOT))
    await worker.start()
    import function_app

    monkeypatch.setattr(function_app, "service", lambda: service)
    try:
        assert set(worker.functions) == {*TRIGGERS.values(), "tick", "reconcile", "watch", "forget", "http", "health", "webhook"}  # fmt: skip
        host, store = Host(worker, service), service.plane.store
        await worker.timer("tick")
        await worker.timer("tick")
        assert await host.run_until_closed("orders") is RunState.SUCCEEDED
        record = store.load("orders").record
        assert record.watermark is not None
        assert (record.watermark.value, record.generation, record.open_run) == ("2024-01-02T00:00:00", 1, None)
        assert len(api.jobs.runs) == 1

        # An upstream system asks over HTTP; the source table is not there.
        asked = json.dumps({"request_id": "r1", "pipelines": ["missing"]}).encode()
        assert (await worker.http("http", "POST", "requests", asked))[0] == 202
        assert await host.run_until_closed("missing") is RunState.FAILED
        while not receiver.events:
            await host.drain()
        assert receiver.wait_for(1) == [("sync.alert.raised", "missing")]
        assert "nowhere" in json.dumps(receiver.events[0])

        status, shown = await worker.http("http", "GET", "pipelines/missing")
        assert (status, shown["alerts"][0]["condition"]) == (200, "failed")
        assert (await worker.http("health", "GET", "health"))[0] == 200
        await _webhook(worker, store.runs("orders", 1)[0].launch_id or "")
        await _nonsense(worker, service)
        await worker.timer("watch")
        await worker.timer("forget")
    finally:
        worker.stop()


async def _webhook(worker: Worker, launch_id: str) -> None:
    body = json.dumps({"run": {"run_id": int(launch_id)}}).encode()
    refused = await worker.http("webhook", "POST", "webhooks/databricks", body)
    assert refused[0] == 401
    login = base64.b64encode(b"databricks:the login of the tests").decode()
    taken = await worker.http("webhook", "POST", "webhooks/databricks", body, {"authorization": f"Basic {login}"})
    assert taken[0] == 202


async def _nonsense(worker: Worker, service: Service) -> None:
    """What cannot be understood is put aside with its reason, and does not come again."""
    answer: Any = await worker.message("take_request", b"{", "nonsense")
    assert answer.result.status == PROTOCOL.StatusResult.Success
    letters = await asyncio.to_thread(service.plane.queue.dead_letters, "sync-requests")
    assert [(one.body, "not JSON" in one.dead) for one in letters] == [("{", True)]
    assert (await worker.http("http", "POST", "requests", b"{"))[0] == 400
    assert (await worker.http("http", "GET", "nowhere"))[0] == 404
