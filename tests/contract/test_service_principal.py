"""The engine's sign-in as a service principal, against a real HTTP server in Microsoft Entra's place."""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import replace
from urllib.parse import parse_qs

import pytest

from spark_entry.adapters.service_principal import fetch_token
from sync_core.domain.connection import Connection
from sync_core.domain.errors import ConfigError, PermanentError, RetryableError
from tests.support.receiver import Answer, Receiver

SALES = Connection("sales", "azure_sql", "x.database.windows.net", tenant_id="a tenant", client_id="an-app")
SECRET = "a client's secret"  # pragma: allowlist secret
SCOPE = "https://database.windows.net/.default"
EXPIRED = "AADSTS7000222: The provided client secret keys for app 'an-app' are expired. Trace ID: 1 Correlation ID: 2"


@pytest.fixture
def entra(monkeypatch: pytest.MonkeyPatch) -> Generator[Receiver]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Receiver() as receiver:
        yield receiver


def fetch(entra: Receiver, connection: Connection = SALES) -> str:
    return fetch_token(connection, SECRET, SCOPE, f"http://127.0.0.1:{entra.port}")


def test_a_token_is_asked_for_by_the_client_credentials_grant(entra: Receiver) -> None:
    entra.answers = [Answer(200, content=json.dumps({"access_token": "t", "expires_in": 3599}).encode())]
    assert fetch(entra) == "t"
    (asked,) = entra.received
    assert asked.path == "/a%20tenant/oauth2/v2.0/token"
    assert parse_qs(asked.body.decode()) == {
        "grant_type": ["client_credentials"], "client_id": ["an-app"], "client_secret": [SECRET], "scope": [SCOPE]
    }  # fmt: skip


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_p26_a_refusal_says_why_and_is_for_a_person(entra: Receiver, status: int) -> None:
    entra.answers = [Answer(status, content=json.dumps({"error": "x", "error_description": EXPIRED}).encode())]
    with pytest.raises(PermanentError) as raised:
        fetch(entra)
    assert raised.value.code == "database.sign_in"
    assert raised.value.message == (
        f"Connection sales: Microsoft Entra refused the service principal an-app (status {status}: AADSTS7000222: "
        "The provided client secret keys for app 'an-app' are expired)."
    )
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("status", [408, 429, 500, 503])
@pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b'{"error_description": ""}'])
def test_an_entra_that_has_no_answer_now_is_asked_again(entra: Receiver, status: int, content: bytes) -> None:
    entra.answers = [Answer(status, content=content)]
    with pytest.raises(RetryableError) as raised:
        fetch(entra)
    assert raised.value.code == "database.unreachable"
    assert raised.value.message == f"Connection sales: Microsoft Entra gives no token now (status {status})."


def test_an_entra_that_is_busy_says_so_under_any_status(entra: Receiver) -> None:
    busy = {"error": "temporarily_unavailable", "error_description": "AADSTS90033: A transient error has occurred."}
    entra.answers = [Answer(400, content=json.dumps(busy).encode())]
    with pytest.raises(RetryableError, match=r"status 400: AADSTS90033: A transient error has occurred\)"):
        fetch(entra)


@pytest.mark.parametrize("status", [200, 403, 407])
@pytest.mark.parametrize("content", [b"", b"<html>the guest network</html>", b"[]", b"{}", b'{"access_token": null}'])
def test_a_proxys_answer_is_taken_for_no_token_and_no_refusal(entra: Receiver, status: int, content: bytes) -> None:
    entra.answers = [Answer(status, content=content)]
    with pytest.raises(RetryableError, match="something in between answered: ") as raised:
        fetch(entra)
    assert raised.value.code == "database.unreachable"


def test_an_entra_that_is_not_there(entra: Receiver) -> None:
    entra.stop()
    with pytest.raises(RetryableError, match=r"cannot be reached: \[Errno 111\] Connection refused\."):
        fetch(entra)


def test_a_principal_that_is_not_named_is_not_asked_for(entra: Receiver) -> None:
    with pytest.raises(ConfigError, match="without naming it"):
        fetch(entra, replace(SALES, client_id=None))
    assert entra.received == []
