"""The control plane as Functions builds it, on the real SDKs, while Azure's services throttle, refuse, or do not answer.

Two instances at once over one table, too. The engine is a process that the Databricks stand-in starts.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sync_core.adapters.databricks_client import DatabricksWorkspace
from sync_core.adapters.databricks_launcher import DatabricksLauncher
from sync_core.adapters.environment_secrets import EnvironmentSecrets
from sync_core.adapters.service_bus_queue import REJECTED, ServiceBusQueue
from sync_core.adapters.table_service import open_table_service
from sync_core.adapters.table_store import TableStore
from sync_core.adapters.volume_run_folder import VolumeRunFolder
from sync_core.app import build_azure, now
from sync_core.control_plane import ControlPlane
from sync_core.demo.servers import free_port
from sync_core.domain.connection import SecretReference
from sync_core.domain.errors import RetryableError
from sync_core.domain.run import RunRecord, RunState
from sync_core.domain.schedule import Every
from sync_core.loop import Loop, attempt
from sync_core.messages import QUEUES, REQUESTS
from sync_core.ports import Secrets
from sync_core.settings import read_azure_settings
from tests.support.azurite import Azurite
from tests.support.databricks_api import FOLDER, DatabricksApi
from tests.support.proxy import Proxy
from tests.support.service_bus import CuttingProxy, ServiceBusBroker, connection_string
from tests.support.signed_receiver import SECRET, SignedReceiver
from tests.support.stores import QUICK

ROOT = Path(__file__).parents[2]
WAIT = timedelta(seconds=0.1)
PATIENCE = 300
SPEED = 60
CONNECTIONS = """connections:
  shop: {{type: postgresql, host: 127.0.0.1, database: x, username: x, secret_scope: tests, secret_key: pg}}
  lake: {{type: databricks, path: "{lake}"}}
channels:
  ops: {{type: webhook, url: "http://127.0.0.1:{receiver}/alerts", secret_scope: ops, secret_key: hook}}
"""
PIPELINES = "pipelines:\n" + "".join(
    f"""  - pipeline_id: {name}
    source: {{connection: shop, table: x}}
    target: {{connection: lake, table: {name}}}
    mode: full_refresh
    retry: {{attempts: 2, delay: 1s}}
"""
    for name in ("orders", "items")
)


class HastyQueue(ServiceBusQueue):
    """A minute's delay is a second here, as it is by the clock."""

    def send(self, queue: str, body: str, key: str, delay: timedelta = timedelta()) -> None:
        super().send(queue, body, key, delay / SPEED)


class Vault:
    """Secrets of the environment; the vault is down while told."""

    def __init__(self) -> None:
        self.is_down = False

    def get(self, reference: SecretReference) -> str:
        if self.is_down:
            raise RetryableError("secret.unavailable", "Key Vault cannot answer now (503).")
        return EnvironmentSecrets(os.environ).get(reference)

    def renew(self, reference: SecretReference) -> str:
        return self.get(reference)


@dataclass
class Clock:
    """The time of the control planes, in which a minute is a second."""

    start: datetime = field(default_factory=now)

    def __call__(self) -> datetime:
        return self.start + (now() - self.start) * SPEED


@dataclass
class Cloud:
    """The services, each behind what makes it fail, and control planes on them."""

    tables: Proxy
    bus: CuttingProxy
    api: DatabricksApi
    receiver: SignedReceiver
    vault: Vault
    clock: Clock
    table: str
    address: str
    opened: list[Callable[[], None]] = field(default_factory=list[Callable[[], None]])

    def plane(self) -> ControlPlane:
        """Another instance: as `build_azure` makes it, with shorter pauses and a table of the test's own."""
        secrets: Secrets = self.vault
        built = build_azure(read_azure_settings(os.environ), secrets)
        store = TableStore(open_table_service(self.address, None, QUICK), self.table)
        queue = HastyQueue.for_local_server(connection_string(self.bus.port), WAIT)
        workspace = DatabricksWorkspace(self.api.url, token=self.api.token, answer_seconds=3, retry_seconds=1)
        self.opened += [built.close, store.close, queue.close]
        return replace(
            built.plane, store=store, queue=queue, now=self.clock,
            launcher=DatabricksLauncher(workspace, {"default": self.api.job_id}),
            folder=VolumeRunFolder(workspace, FOLDER),
        )  # fmt: skip

    def until(self, plane: ControlPlane, holds: Callable[[], bool]) -> None:
        """Rounds of messages and timers until it holds."""
        deadline = time.monotonic() + PATIENCE
        while not attempt("look", holds):
            assert time.monotonic() < deadline, [plane.store.runs(name, 9) for name in plane.pipelines]
            Loop(plane).drain()
            attempt("reconcile", plane.reconcile)

    def ask(self, plane: ControlPlane, identity: str = "r", name: str = "orders") -> None:
        plane.submit(json.dumps({"request_id": identity, "pipelines": [name]}))


@pytest.fixture
def cloud(
    azurite: Azurite, service_bus: ServiceBusBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Generator[Cloud]:
    for queue in (*QUEUES, REJECTED):
        service_bus.create(queue, lock=5, duplicate_window=600)
    api = DatabricksApi(
        tmp_path / "databricks", (sys.executable, "-m", "tests.support.fake_engine", "--manifest", "{manifest}")
    )
    (tmp_path / "config").mkdir()
    with SignedReceiver() as receiver, Proxy(azurite.table_url) as tables, CuttingProxy(service_bus.port) as bus:
        text = CONNECTIONS.format(receiver=receiver.server_port, lake=tmp_path / "lake")
        (tmp_path / "config/connections.yml").write_text(text)
        (tmp_path / "config/pipelines.yml").write_text(PIPELINES)
        place = tmp_path / "place"
        place.mkdir()
        for name, value in {
            "UDS_CONFIG": str(tmp_path / "config"),
            "UDS_TABLES": azurite.connection_string,
            "ServiceBusConnection": connection_string(bus.port),
            "UDS_DATABRICKS_HOST": api.url,
            "UDS_DATABRICKS_JOBS": f"default={api.job_id}",
            "UDS_RUN_FOLDER": FOLDER,
            "UDS_DATABRICKS_LOCAL_TOKEN": api.token,
            "UDS_SECRET_OPS_HOOK": SECRET,
            "UDS_FAKE_PLACE": str(place),
            "PYTHONPATH": str(ROOT),
        }.items():
            monkeypatch.setenv(name, value)
        address = azurite.connection_string_of(table_url=tables.url)
        made = Cloud(tables, bus, api, receiver, Vault(), Clock(), f"t{uuid.uuid4().hex}", address)
        yield made
        for close in made.opened:
            close()
    api.close()


def closed(plane: ControlPlane, name: str = "orders", count: int = 1) -> bool:
    runs = plane.store.runs(name, 9)
    return len(runs) == count and not any(run.state.is_open for run in runs)


def error_of(run: RunRecord) -> str:
    assert run.result is not None
    assert run.result.error is not None
    return run.result.error.code


# ---- once it is over, everything comes to its end with one launch


@pytest.mark.parametrize("fault", ["429", "503", "lost", "409 and 412"])
def test_p21_a_request_outlives_a_table_that_is_throttled_or_away(cloud: Cloud, fault: str) -> None:
    plane = cloud.plane()
    cloud.ask(plane)
    message = plane.queue.receive(REQUESTS)
    while message is None:
        message = plane.queue.receive(REQUESTS)
    if fault == "lost":
        cloud.tables.lose_answers(9)
    elif fault == "409 and 412":
        refused = json.dumps({"odata.error": {"code": "UpdateConditionNotSatisfied"}}).encode()
        header = {"Content-Type": "application/json", "x-ms-error-code": "UpdateConditionNotSatisfied"}
        cloud.tables.answer(412, 6, lambda asked: asked.path.endswith("$batch"), header, refused)
    else:
        cloud.tables.answer(int(fault), 9)
    plane.handle(REQUESTS, message.body)
    plane.queue.complete(message)
    cloud.until(plane, lambda: closed(plane))
    assert [run.state for run in plane.store.runs("orders", 9)] == [RunState.SUCCEEDED]
    assert len(cloud.api.jobs.runs) == 1
    assert all(plane.queue.dead_letters(name) == [] for name in QUEUES)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("run-now", 429, "REQUEST_LIMIT_EXCEEDED"),
        ("run-now", 503, "TEMPORARILY_UNAVAILABLE"),
        ("run-now", 400, "QUOTA_EXCEEDED"),
        ("runs/get", 429, "REQUEST_LIMIT_EXCEEDED"),
        ("runs/get", 401, "UNAUTHENTICATED"),
        ("manifest.json", 503, "TEMPORARILY_UNAVAILABLE"),
        ("results", 503, "TEMPORARILY_UNAVAILABLE"),
    ],
)
def test_p21_p23_databricks_that_has_no_room_or_is_away_gets_one_run(
    cloud: Cloud, path: str, status: int, code: str
) -> None:
    plane = cloud.plane()
    cloud.api.fail(path, status, code, "It is refused for the test.", times=4)
    cloud.ask(plane)
    cloud.until(plane, lambda: closed(plane))
    assert len(cloud.api.jobs.runs) == 1
    assert [run.state for run in plane.store.runs("orders", 9)] == [RunState.SUCCEEDED]


def test_p21_a_launch_whose_answer_is_lost_is_one_launch(cloud: Cloud) -> None:
    plane = cloud.plane()
    cloud.api.lose_answer("run-now", 3)
    cloud.ask(plane)
    cloud.until(plane, lambda: closed(plane))
    assert len(cloud.api.jobs.runs) == 1


def test_p21_a_service_bus_whose_connections_break_loses_nothing(cloud: Cloud) -> None:
    """Before every round, and once between a batch that is queued and the word that it is."""
    plane = cloud.plane()
    cloud.ask(plane)
    cloud.bus.cut_after(b'"batch_id"')

    def holds() -> bool:
        cloud.bus.cut()
        return closed(plane)

    cloud.until(plane, holds)
    assert cloud.bus.cuts == 1
    assert [run.state for run in plane.store.runs("orders", 9)] == [RunState.SUCCEEDED]
    assert len(cloud.api.jobs.runs) == 1


def test_p21_a_tick_while_service_bus_is_away_begins_what_is_queued_later(cloud: Cloud) -> None:
    plane = cloud.plane()
    due = {"orders": replace(plane.pipelines["orders"], schedule=Every(86_400))}
    nowhere = ServiceBusQueue.for_local_server(connection_string(free_port()), WAIT)
    with pytest.raises(RetryableError, match="cannot be used now"):
        replace(plane, queue=nowhere, pipelines=due).tick()
    nowhere.close()
    assert [run.state for run in plane.store.runs("orders", 9)] == [RunState.BEGUN]
    cloud.until(plane, lambda: closed(plane))
    assert [run.state for run in plane.store.runs("orders", 9)] == [RunState.SUCCEEDED]
    assert len(cloud.api.jobs.runs) == 1


# ---- what a person must mend closes the run and names its cause


@pytest.mark.parametrize(
    ("path", "status", "code", "named"),
    [
        ("run-now", 401, "UNAUTHENTICATED", "databricks.sign_in"),
        ("run-now", 403, "PERMISSION_DENIED", "databricks.forbidden"),
        ("manifest.json", 403, "PERMISSION_DENIED", "databricks.forbidden"),
    ],
)
def test_p24_what_a_person_must_mend_closes_the_run_with_its_cause(
    cloud: Cloud, path: str, status: int, code: str, named: str
) -> None:
    plane = cloud.plane()
    cloud.api.fail(path, status, code, "It is refused for the test.", times=9)
    cloud.ask(plane)
    cloud.until(plane, lambda: closed(plane) and len(cloud.receiver.events) > 0)
    assert [error_of(run) for run in plane.store.runs("orders", 9)] == [named]
    assert cloud.receiver.wait_for(1) == [("sync.alert.raised", "orders")]
    assert len(cloud.api.jobs.runs) == 0
    cloud.api.heal()
    cloud.ask(plane, "again")
    cloud.until(plane, lambda: closed(plane, count=2))
    assert sorted(run.state for run in plane.store.runs("orders", 9)) == [RunState.FAILED, RunState.SUCCEEDED]
    assert len(cloud.api.jobs.runs) == 1


def test_p24_results_that_may_not_be_read_keep_the_run_open_until_they_may(
    cloud: Cloud, caplog: pytest.LogCaptureFixture
) -> None:
    """They say nothing of the run: what it committed is committed, and is recorded once they can be read."""
    plane = cloud.plane()
    cloud.api.fail("results", 403, "PERMISSION_DENIED", "It is refused for the test.", times=100_000)
    cloud.ask(plane)
    cloud.until(plane, lambda: caplog.text.count("Databricks forbids it: It is refused for the test") > 2)
    assert [run.state for run in plane.store.runs("orders", 9)] == [RunState.LAUNCHED]
    cloud.api.heal()
    cloud.until(plane, lambda: closed(plane))
    assert [run.state for run in plane.store.runs("orders", 9)] == [RunState.SUCCEEDED]
    assert len(cloud.api.jobs.runs) == 1
    assert cloud.receiver.events == []


def test_p24_a_cluster_without_capacity_is_tried_again_and_a_wrong_one_is_not(cloud: Cloud) -> None:
    plane = cloud.plane()
    cloud.api.jobs.end_next("CLUSTER_REQUEST_LIMIT_EXCEEDED", "CLOUD_FAILURE", "No room.")
    cloud.ask(plane)
    cloud.until(plane, lambda: closed(plane, count=2))
    assert sorted(run.state for run in plane.store.runs("orders", 9)) == [RunState.FAILED, RunState.SUCCEEDED]
    cloud.api.jobs.end_next("INVALID_CLUSTER_REQUEST", "CLIENT_ERROR", "There is no such node type.")
    cloud.ask(plane, "r2", "items")
    cloud.until(plane, lambda: closed(plane, "items") and len(cloud.receiver.events) > 0)
    assert [error_of(run) for run in plane.store.runs("items", 9)] == ["launch.failed"]
    assert "no such node type" in json.dumps(cloud.receiver.events)


def test_p21_a_role_that_is_still_missing_keeps_the_request_and_names_itself(
    cloud: Cloud, caplog: pytest.LogCaptureFixture
) -> None:
    """As after the first deployment: a role that was assigned takes minutes to count."""
    cloud.tables.answer(403, 100_000)
    plane = cloud.plane()
    cloud.ask(plane)
    comes_again = "a message of sync-requests comes again: The state store"
    deadline = time.monotonic() + PATIENCE
    while caplog.text.count(comes_again) < 3:
        assert time.monotonic() < deadline, caplog.text
        Loop(plane).drain()
    assert "Storage Table Data Contributor" in caplog.text
    assert plane.queue.dead_letters(REQUESTS) == []
    cloud.tables.heal()
    cloud.until(plane, lambda: closed(plane))
    assert [run.state for run in plane.store.runs("orders", 9)] == [RunState.SUCCEEDED]
    assert len(cloud.api.jobs.runs) == 1


def test_p25_an_alert_outlives_a_key_vault_that_is_down(cloud: Cloud) -> None:
    plane = cloud.plane()
    cloud.vault.is_down = True
    cloud.api.fail("run-now", 403, "PERMISSION_DENIED", "It is refused for the test.", times=9)
    cloud.ask(plane)
    cloud.until(plane, lambda: closed(plane))
    for _ in range(6):
        Loop(plane).drain()
    assert cloud.receiver.events == []
    cloud.vault.is_down = False
    cloud.until(plane, lambda: len(cloud.receiver.events) > 0)
    assert cloud.receiver.wait_for(1) == [("sync.alert.raised", "orders")]


# ---- two instances of every function at once


def test_p21_p25_two_instances_at_once_over_one_table_end_as_one(cloud: Cloud) -> None:
    planes = [cloud.plane(), cloud.plane()]
    for number in range(3):
        cloud.ask(planes[0], f"r{number}")
        cloud.ask(planes[1], f"i{number}", "items")
    cloud.api.jobs.end_next("INVALID_CLUSTER_REQUEST", "CLIENT_ERROR", "There is no such node type.")
    errors: list[BaseException] = []
    ended = threading.Event()

    def work(plane: ControlPlane) -> None:
        try:
            while not ended.is_set():
                for name, timer in (("tick", plane.tick), ("reconcile", plane.reconcile), ("watch", plane.watch)):
                    attempt(name, timer)
                Loop(plane).drain()
                if all(closed(plane, name, 3) for name in plane.pipelines) and cloud.receiver.events:
                    ended.set()
        except BaseException as error:
            errors.append(error)
            ended.set()
            raise

    threads = [threading.Thread(target=work, args=(plane,), daemon=True) for plane in planes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert errors == []
    assert ended.is_set()
    store: Any = planes[0].store
    runs = [run for name in planes[0].pipelines for run in store.runs(name, 9)]
    assert sorted(run.request_id or "" for run in runs) == ["i0", "i1", "i2", "r0", "r1", "r2"]
    assert sorted(run.state for run in runs) == [RunState.FAILED, *[RunState.SUCCEEDED] * 5]
    launches = {run.launch_id for run in runs}
    assert len(launches) == len(cloud.api.jobs.runs)
    raised = [event for event in cloud.receiver.events if event["type"] == "sync.alert.raised"]
    assert len({event["id"] for event in raised}) == 1
