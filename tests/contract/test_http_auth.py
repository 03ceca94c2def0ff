"""Who may call the Functions app over HTTP: the real worker library calls our functions as the host does.

What the host itself does is not here: asking for a function key at level FUNCTION, and taking X-MS-CLIENT-PRINCIPAL
out of requests from outside. The level that it is told for each function is.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest

from sync_core.app import Service, build_service
from sync_core.catalog import load_catalog
from sync_core.domain.errors import PermanentError, RetryableError, SyncError
from sync_core.messages import COMPLETIONS, REQUESTS
from sync_core.ports import Queue, StateStore, Stored
from sync_core.settings import Settings
from sync_core.web.roles import admit_principal
from sync_core.web.routes import Request, Routes
from tests.support.functions_worker import Worker

ROOT = Path(__file__).parents[2]
OBJECT = "3d5f9c1e-0000-4000-8000-00000000abcd"
PASSWORD = "the-first-password"  # pragma: allowlist secret
REQUEST = json.dumps({"request_id": "r1", "pipelines": ["orders"], "requested_by": "the chief executive"}).encode()
REASON = b'{"reason": "for a test"}'
CONFIG = """connections:
  shop: {type: postgresql, host: db, database: shop, username: sync, secret_scope: kv, secret_key: shop}
  lake: {type: databricks, path: ./lake}
"""
PIPELINES = """pipelines:
  - pipeline_id: orders
    source: {connection: shop, table: orders}
    target: {connection: lake, table: orders}
    mode: full_refresh
"""
CALLS: dict[str, tuple[str, str, bytes, int]] = {
    "Sync.Read": ("GET", "pipelines", b"", 200),
    "Sync.Read one": ("GET", "pipelines/orders", b"", 200),
    "Sync.Request": ("POST", "requests", REQUEST, 202),
    "Sync.Operate pause": ("POST", "pipelines/orders/pause", REASON, 200),
    "Sync.Operate resume": ("POST", "pipelines/orders/resume", REASON, 200),
    "Sync.Operate connection": ("POST", "connections/shop/pause", REASON, 200),
    # There is no run: what matters is that the call got so far as to look for one.
    "Sync.Operate cancel": ("POST", "pipelines/orders/cancel", REASON, 404),
    "Sync.Operate retry": ("POST", "pipelines/orders/retry", REASON, 404),
    "Sync.Operate watermark": ("POST", "pipelines/orders/watermark", b'{"value": null, "reason": "for a test"}', 200),
    "Sync.Read letters": ("GET", "dead-letters", b"", 200),
    "Sync.Operate letters": ("POST", "dead-letters/send-again", b'{"queue": "sync-requests", "key": "x"}', 404),
}
"""By the role that a call needs: method, path, body, and the status for who has the role."""

Logins = Callable[[bool], tuple[str, str] | None]


def signed_in(*roles: str) -> dict[str, str]:
    """The headers that App Service authentication adds for a user of these roles."""
    claims = [
        {"typ": "http://schemas.microsoft.com/identity/claims/objectidentifier", "val": OBJECT},
        {"typ": "preferred_username", "val": "ada@example.com"},
        *({"typ": "roles", "val": role} for role in roles),
    ]
    document = {"auth_typ": "aad", "claims": claims, "name_typ": "name", "role_typ": "roles"}
    return {"X-MS-CLIENT-PRINCIPAL": base64.b64encode(json.dumps(document).encode()).decode()}


def basic(password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"databricks:{password}".encode()).decode()}


@pytest.fixture
def service(tmp_path: Path) -> Service:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/connections.yml").write_text(CONFIG)
    (tmp_path / "config/pipelines.yml").write_text(PIPELINES)
    made = build_service(Settings(tmp_path / "state"), load_catalog(tmp_path / "config", None, {}))
    return replace(made, webhook_login=lambda _anew: ("databricks", PASSWORD))


@pytest.fixture
def with_worker(service: Service, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a test's body on a worker that has loaded the app anew under a setting of UDS_HTTP_AUTH.

    `platform` is what the platform says of its own authentication, None where it says nothing.
    """
    monkeypatch.delenv("UDS_HTTP_AUTH_CHECKED", raising=False)

    def run(
        setting: str | None,
        body: Callable[[Worker], Awaitable[None]],
        login: Logins | None = None,
        platform: str | None = "True",
    ) -> None:
        if platform is None:
            monkeypatch.delenv("WEBSITE_AUTH_ENABLED", raising=False)
        else:
            monkeypatch.setenv("WEBSITE_AUTH_ENABLED", platform)
        if setting is None:
            monkeypatch.delenv("UDS_HTTP_AUTH", raising=False)
        else:
            monkeypatch.setenv("UDS_HTTP_AUTH", setting)
        monkeypatch.delitem(sys.modules, "function_app", raising=False)

        async def begin() -> None:
            worker = Worker(str(ROOT))
            await worker.start()
            found = replace(service, webhook_login=login) if login else service
            monkeypatch.setattr(sys.modules["function_app"], "service", lambda: found)
            try:
                await body(worker)
            finally:
                worker.stop()

        asyncio.run(begin())

    return run


def levels(worker: Worker) -> dict[str, str]:
    """The level of each HTTP function, as the host is told it."""
    bindings = {name: [json.loads(one) for one in found.raw_bindings] for name, found in worker.functions.items()}
    return {
        name: binding["authLevel"]
        for name, found in bindings.items()
        for binding in found
        if binding["type"] == "httpTrigger"
    }


@pytest.mark.parametrize("setting", [None, "", "keys", "Entra", "anonymous"])
def test_without_entra_the_host_asks_for_a_key(with_worker: Callable[..., None], setting: str | None) -> None:
    async def body(worker: Worker) -> None:
        assert levels(worker) == {"http": "FUNCTION", "health": "ANONYMOUS", "webhook": "ANONYMOUS"}

    with_worker(setting, body)


def test_with_entra_no_key_is_asked_for(with_worker: Callable[..., None]) -> None:
    async def body(worker: Worker) -> None:
        assert set(levels(worker).values()) == {"ANONYMOUS"}

    with_worker("entra", body)


def test_a_wrong_setting_answers_nobody(with_worker: Callable[..., None]) -> None:
    async def body(worker: Worker) -> None:
        with pytest.raises(RuntimeError, match="UDS_HTTP_AUTH"):
            await worker.http("http", "GET", "pipelines", headers=signed_in("Sync.Operate"))

    with_worker("Entra", body)


def test_with_entra_every_call_needs_its_role(with_worker: Callable[..., None]) -> None:
    async def body(worker: Worker) -> None:
        for key, (method, path, content, good) in CALLS.items():
            needed = key.split()[0]
            for headers in ({}, {"X-MS-CLIENT-PRINCIPAL-NAME": "ada@example.com"}, {"X-MS-CLIENT-PRINCIPAL": "e30="}):
                status, told = await worker.http("http", method, path, content, headers)
                assert (status, told["error"]["code"]) == (401, "http.sign_in"), (path, headers)
            for role in ("Sync.Read", "Sync.Request", "Sync.Operate"):
                status, told = await worker.http("http", method, path, content, signed_in(role))
                if role in (needed, "Sync.Operate"):
                    assert status == good, (path, role, told)
                else:
                    assert (status, told["error"]["code"]) == (403, "http.role"), (path, role)
                    assert needed in told["error"]["message"]
            status, told = await worker.http("http", method, path, content, signed_in())
            assert (status, needed in told["error"]["message"]) == (403, True), path

    with_worker("entra", body)


@pytest.mark.parametrize("platform", [None, "False"])
def test_with_entra_and_without_the_platforms_authentication_a_forged_header_opens_nothing(
    with_worker: Callable[..., None], platform: str | None
) -> None:
    async def body(worker: Worker) -> None:
        for method, path, content, _ in CALLS.values():
            for headers in ({}, signed_in("Sync.Operate")):
                status, told = await worker.http("http", method, path, content, headers)
                assert (status, told["error"]["code"]) == (500, "http.unprotected"), (path, headers)
        assert (await worker.http("health", "GET", "health"))[0] == 200
        hint = b'{"run": {"run_id": 7}}'
        assert (await worker.http("webhook", "POST", "webhooks/databricks", hint, basic(PASSWORD)))[0] == 202

    with_worker("entra", body, platform=platform)


def test_who_acted_is_who_signed_in_and_not_what_the_body_says(
    with_worker: Callable[..., None], service: Service
) -> None:
    async def body(worker: Worker) -> None:
        headers = signed_in("Sync.Operate") | {"X-MS-CLIENT-PRINCIPAL-NAME": "somebody else"}
        assert (await worker.http("http", "POST", "requests", REQUEST, headers))[0] == 202
        assert (await worker.http("http", "POST", "pipelines/orders/pause", REASON, headers))[0] == 200

    with_worker("entra", body)
    message = service.plane.queue.receive(REQUESTS)
    assert message is not None
    who = f"ada@example.com ({OBJECT})"
    assert json.loads(message.body)["requested_by"] == who
    assert [one.who for one in service.plane.store.operations("orders", 9)] == [who]


def test_with_keys_no_header_gives_a_name(with_worker: Callable[..., None], service: Service) -> None:
    """Without the platform's authentication these headers come from whoever calls."""

    async def body(worker: Worker) -> None:
        headers = signed_in("Sync.Operate") | {"X-MS-CLIENT-PRINCIPAL-NAME": "ada@example.com"}
        assert (await worker.http("http", "POST", "requests", REQUEST, headers))[0] == 202
        assert (await worker.http("http", "POST", "pipelines/orders/pause", REASON, headers))[0] == 200

    with_worker("keys", body)
    message = service.plane.queue.receive(REQUESTS)
    assert message is not None
    assert json.loads(message.body)["requested_by"] == "the chief executive"
    assert [one.who for one in service.plane.store.operations("orders", 9)] == ["somebody with a function key"]


@pytest.mark.parametrize("setting", ["entra", "keys"])
def test_health_and_the_webhook_do_without(with_worker: Callable[..., None], setting: str) -> None:
    async def body(worker: Worker) -> None:
        assert (await worker.http("health", "GET", "health"))[0] == 200
        hint = b'{"run": {"run_id": 7}}'
        assert (await worker.http("webhook", "POST", "webhooks/databricks", hint, basic(PASSWORD)))[0] == 202
        for headers in ({}, basic(""), basic("x"), {"Authorization": "Basic"}, signed_in("Sync.Operate")):
            assert (await worker.http("webhook", "POST", "webhooks/databricks", hint, headers))[0] == 401, headers

    with_worker(setting, body)


@pytest.mark.parametrize("login", [None, ("databricks", ""), ("", PASSWORD), ("", "")])
def test_a_webhook_without_a_password_is_closed(
    with_worker: Callable[..., None], login: tuple[str, str] | None
) -> None:
    async def body(worker: Worker) -> None:
        for text in ("", ":", "databricks:", f":{PASSWORD}"):
            headers = {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}
            assert (await worker.http("webhook", "POST", "webhooks/databricks", b"{}", headers))[0] == 401

    with_worker("keys", body, lambda _anew: login)


def test_a_rotated_webhook_password_is_taken_at_once(with_worker: Callable[..., None]) -> None:
    kept = ["the-old-password"]
    asked: list[bool] = []

    def login(anew: bool) -> tuple[str, str]:
        asked.append(anew)
        if anew:
            kept[0] = PASSWORD
        return "databricks", kept[0]

    async def body(worker: Worker) -> None:
        hint = b'{"run": {"run_id": 7}}'
        for _ in range(2):
            assert (await worker.http("webhook", "POST", "webhooks/databricks", hint, basic(PASSWORD)))[0] == 202
        assert (await worker.http("webhook", "POST", "webhooks/databricks", hint, basic("the-old-password")))[0] == 401

    with_worker("keys", body, login)
    assert asked == [False, True, False, False, True]


def test_two_thousand_replayed_notifications_are_one_message_a_minute(service: Service) -> None:
    """Whoever has recorded a notification with its sign-in sends it again and again, here for ten minutes."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    time = [start]
    plane = replace(service.plane, now=lambda: time[0])
    routes = Routes(plane, service.webhook_login, admit_principal)
    headers = {name.lower(): value for name, value in basic(PASSWORD).items()}
    again = Request("POST", "/webhooks/databricks", headers=headers, body=b'{"run": {"run_id": 7}}')
    for number in range(2_000):
        time[0] = start + timedelta(minutes=10) * number / 2_000
        assert routes.answer(again).status == 202
    received: list[str] = []
    while (message := plane.queue.receive(COMPLETIONS)) is not None:
        received.append(json.loads(message.body)["launch_id"])
        plane.handle(COMPLETIONS, message.body)
        plane.queue.complete(message)
    assert received == ["7"] * 10


class LostStore:
    """A state store that is away, and says where it lies."""

    def __init__(self, error: SyncError) -> None:
        self._error = error

    def load_many(self, _names: Sequence[str]) -> Iterator[Stored]:
        raise self._error


class LostQueue:
    def __init__(self, error: SyncError) -> None:
        self._error = error

    def send(self, _queue: str, _body: str, _key: str) -> None:
        raise self._error


@pytest.mark.parametrize(("kind", "status"), [(RetryableError, 503), (PermanentError, 500)])
def test_without_a_sign_in_nothing_is_told_of_the_store_the_queue_or_the_vault(
    service: Service, caplog: pytest.LogCaptureFixture, kind: type[SyncError], status: int
) -> None:
    told = "at secret-place.example.net cannot be reached."
    error = kind("store.unavailable", f"The state store {told}", "Look at its address.")

    def login(_anew: bool) -> tuple[str, str] | None:
        raise error

    hint = Request("POST", "/webhooks/databricks", headers={"authorization": "Basic eDp5"}, body=b"{}")
    signed = {name.lower(): value for name, value in basic(PASSWORD).items()}
    run = Request("POST", "/webhooks/databricks", headers=signed, body=b'{"run": {"run_id": 7}}')
    lost = replace(service.plane, store=cast("StateStore", LostStore(error)), queue=cast("Queue", LostQueue(error)))
    for routes, request in (
        (Routes(lost, service.webhook_login, admit_principal), Request("GET", "/health")),
        (Routes(lost, service.webhook_login, admit_principal), run),
        (Routes(service.plane, login, admit_principal), hint),
    ):
        caplog.clear()
        answer = routes.answer(request)
        found = json.loads(answer.text)["error"]
        assert (answer.status, found["code"], found["remedy"]) == (status, "store.unavailable", "Look at its address.")
        assert "secret-place" not in answer.text
        assert [told in one.getMessage() for one in caplog.records] == [True]
    reader = {name.lower(): value for name, value in signed_in("Sync.Read").items()}
    seen = Routes(lost, service.webhook_login, admit_principal).answer(Request("GET", "/pipelines", headers=reader))
    assert told in seen.text


def test_what_was_done_and_what_was_refused_is_logged(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "uds.control")
    routes = Routes(service.plane, service.webhook_login, admit_principal)
    for roles in (("Sync.Read",), ("Sync.Operate",)):
        headers = {name.lower(): value for name, value in signed_in(*roles).items()}
        headers["content-type"] = "application/json"
        routes.answer(Request("POST", "/pipelines/orders/pause", headers=headers, body=REASON))
    assert [one.getMessage() for one in caplog.records] == [
        f"POST /pipelines/orders/pause refused with 403: ada@example.com ({OBJECT}) lacks the app role Sync.Operate.",
        f"POST /pipelines/orders/pause by ada@example.com ({OBJECT}): 200",
    ]
