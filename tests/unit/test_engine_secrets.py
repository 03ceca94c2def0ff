"""P26: what a secret is made of leaves the engine in no text."""

from __future__ import annotations

import json
import sys
import threading
from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from py4j.protocol import Py4JNetworkError

from spark_entry.adapters.access_tokens import expires_at
from spark_entry.adapters.azure_sql import AzureSqlAdapter
from spark_entry.adapters.jdbc_connection import DatabaseFailed, DatabaseFault
from spark_entry.adapters.jdbc_source import CREDENTIALS_SECONDS
from spark_entry.adapters.oracle import OracleAdapter
from spark_entry.adapters.service_credential import access_token
from spark_entry.batch import Batch
from spark_entry.report import describe
from spark_entry.secrets import Secrets
from sync_core.domain.connection import Authentication, Connection, SecretReference
from sync_core.domain.errors import ConfigError, PermanentError, SyncError
from sync_core.domain.run import Manifest


@pytest.mark.parametrize("secret", ["hunter2", "hunter2\n", " hunter2 ", "first line of it\nhunter2 is the second\n"])
def test_p26_a_secret_is_redacted_with_or_without_its_line_breaks(secret: str) -> None:
    secrets = Secrets({"UDS_SECRET_KV_PW": secret})
    secrets.get("kv", "pw")
    for line in secret.splitlines():
        assert "hunter2" not in secrets.redact(f"the sign-in with {line.strip()} was refused")


AWKWARD = 'pa"ss\\wo/rd ü&='


@pytest.mark.parametrize(
    "written",
    [AWKWARD, json.dumps(AWKWARD), json.dumps(AWKWARD, ensure_ascii=False), repr(AWKWARD), quote(AWKWARD), quote(AWKWARD, safe=""), quote_plus(AWKWARD)],
)  # fmt: skip
def test_p26_a_secret_is_redacted_however_it_is_written(written: str) -> None:
    secrets = Secrets({"UDS_SECRET_KV_PW": AWKWARD})
    secrets.get("kv", "pw")
    shown = secrets.redact(f"sent {written}.")
    assert "***" in shown
    assert not any(part in shown for part in ("pa", "ss", "wo", "rd"))


def test_p26_a_value_is_hidden_while_others_redact() -> None:
    """Pipelines of a batch hide their tokens while the log is redacted by a thread of its own."""
    secrets = Secrets({})
    stop = threading.Event()
    failures: list[Exception] = []

    def redact() -> None:
        while not stop.is_set():
            try:
                secrets.redact("a line of a log")
            except Exception as error:
                failures.append(error)
                return

    thread = threading.Thread(target=redact)
    thread.start()
    for number in range(500):
        secrets.hide(f"token-number-{number}")
    stop.set()
    thread.join()
    assert not failures
    assert secrets.redact("token-number-499") == "***"


def token(expires: datetime, name: str = "t") -> str:
    """Shaped like a token of Entra; its signature is nobody's."""
    parts = ({"typ": "JWT", "alg": "RS256"}, {"exp": int(expires.timestamp()), "oid": name})
    return ".".join([*(urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts), "c2ln"])


class Entra:
    """An adapter of Azure SQL that signs in with a token, of which each reading gives a new one."""

    def __init__(self, lasts: timedelta, auth: Authentication = Authentication.TOKEN) -> None:
        self.given: list[str] = []
        self.lasts = lasts
        self.time = 0.0
        self.secrets = Secrets({})
        reference = SecretReference("kv", "token")
        connection = Connection("sales", "azure_sql", "x.database.windows.net", auth=auth, secret=reference)
        self.adapter = AzureSqlAdapter(connection, None, self.read)  # pyright: ignore[reportArgumentType]
        self.adapter.hide = self.secrets.hide
        self.adapter.clock = lambda: self.time

    def read(self, _scope: str, _key: str) -> str:
        self.given.append(token(datetime.now(UTC) + self.lasts, f"t{len(self.given)}"))
        return self.given[-1]


def test_p26_an_access_token_is_redacted() -> None:
    entra = Entra(timedelta(hours=1))
    signed_in = entra.adapter.read_properties()["accessToken"]
    assert entra.secrets.redact(f"Login failed: {signed_in}.") == "Login failed: ***."


def test_p26_a_token_that_an_adapter_fetches_is_hidden_by_the_engine() -> None:
    """The batch hands its own secrets to every adapter that it makes."""
    secrets = Secrets({})
    connections = {"sales": Connection("sales", "azure_sql", "x.database.windows.net")}
    batch = Batch(None, Manifest("b", connections, ()), secrets, lambda _: None)  # pyright: ignore[reportArgumentType]
    adapter = batch._adapter("sales", None)  # pyright: ignore[reportArgumentType]
    adapter.hide("a-token-that-was-fetched")
    assert secrets.redact("a-token-that-was-fetched") == "***"


def test_every_connection_and_job_begins_with_a_token_that_has_time_left() -> None:
    entra = Entra(timedelta(hours=1))
    first = entra.adapter.read_properties()["accessToken"]
    entra.time = CREDENTIALS_SECONDS - 1
    assert entra.adapter.read_properties()["accessToken"] == first
    entra.time = CREDENTIALS_SECONDS
    second = entra.adapter.read_properties()["accessToken"]
    assert [first, second] == entra.given
    assert entra.secrets.redact(f"{first} {second}") == "*** ***"


REFUSED = DatabaseFault("S0001", 18456, "Login failed for user '<token-identified principal>'. Token is expired.")


def test_a_token_that_expired_before_all_tasks_connected_says_what_to_do() -> None:
    entra = Entra(-timedelta(seconds=1), Authentication.SERVICE_PRINCIPAL)
    entra.adapter.get_credentials = lambda: {"accessToken": entra.read("", "")}
    entra.adapter.read_properties()
    with pytest.raises(PermanentError) as raised, entra.adapter.faults("source", "orders"):
        raise DatabaseFailed(REFUSED)
    assert raised.value.code == "database.token_expired"
    assert "one token to all tasks" in raised.value.message
    assert "--since" in raised.value.remedy
    assert "docs/security.md" in raised.value.remedy
    assert entra.given[0] not in raised.value.message


def test_a_token_of_a_secret_that_has_expired_names_the_secret() -> None:
    entra = Entra(-timedelta(minutes=1))
    entra.adapter.read_properties()
    with pytest.raises(PermanentError, match="the secret kv/token expired at") as raised:  # noqa: SIM117
        with entra.adapter.faults("source", "orders"):
            raise DatabaseFailed(REFUSED)
    assert "service_principal" in raised.value.remedy


@pytest.mark.parametrize("fault", [REFUSED, DatabaseFault("S0001", 208, "Invalid object name 'orders'.")])
def test_a_token_with_time_left_is_not_blamed(fault: DatabaseFault) -> None:
    entra = Entra(timedelta(hours=1))
    entra.adapter.read_properties()
    with pytest.raises(PermanentError) as raised, entra.adapter.faults("source", "orders"):
        raise DatabaseFailed(fault)
    assert raised.value.code in ("database.sign_in", "source.missing")


@pytest.mark.parametrize("text", ["", "opaque", "a.b.c", "a.e30.c", "a.eyJleHAiOiJ4In0.c", "..", f"a.{'W' * 9000}.c"])
def test_a_token_that_cannot_be_read_has_no_known_end(text: str) -> None:
    assert expires_at(text) is None


@pytest.mark.parametrize("tls", [None, True])
def test_an_oracle_connection_names_its_database(tls: bool | None) -> None:
    adapter = OracleAdapter(Connection("o", "oracle", "db", tls=tls), None, lambda _scope, _key: "")  # pyright: ignore
    with pytest.raises(ConfigError, match="names no database"):
        adapter.build_jdbc_url()


class Scopes:
    """The secrets of a Databricks workspace, of which each reading fails."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def get(self, scope: str, key: str) -> str:
        raise self.error


@pytest.mark.parametrize(
    ("error", "code", "kind"),
    [
        (
            Exception("IllegalArgumentException: Secret does not exist with scope: kv and key: shop"),
            "secret.missing",
            "permanent",
        ),
        (Exception("503: TEMPORARILY_UNAVAILABLE"), "secret.unavailable", "retryable"),
        (Py4JNetworkError("Answer from Java side is empty"), "engine.spark_gone", "retryable"),
    ],
)
def test_a_secret_that_cannot_be_read_now_is_read_again(error: Exception, code: str, kind: str) -> None:
    with pytest.raises(SyncError) as raised:
        Secrets({}, Scopes(error)).get("kv", "shop")
    assert (raised.value.code, raised.value.kind) == (code, kind)


@pytest.mark.parametrize(
    ("error", "code", "kind"),
    [
        (Exception("PERMISSION_DENIED: no ACCESS on the service credential"), "database.sign_in", "permanent"),
        (TimeoutError("the read operation timed out"), "database.unreachable", "retryable"),
        (Py4JNetworkError("Answer from Java side is empty"), "engine.spark_gone", "retryable"),
    ],
)
def test_a_service_credential_that_gives_no_token_now_is_asked_again(
    error: Exception, code: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def provide(_name: str) -> Any:
        raise error

    tools = SimpleNamespace(credentials=SimpleNamespace(getServiceCredentialsProvider=provide))
    # Only a Databricks runtime has this module.
    monkeypatch.setitem(sys.modules, "pyspark.dbutils", SimpleNamespace(DBUtils=lambda _spark: tools))  # pyright: ignore
    connection = Connection("sales", "azure_sql", "x.database.windows.net", service_credential="reader")
    with pytest.raises(SyncError) as raised:
        access_token(None, connection, "scope")  # pyright: ignore[reportArgumentType]
    assert (raised.value.code, raised.value.kind) == (code, kind)


def test_p26_a_secret_at_the_cut_of_a_long_message_is_redacted_first() -> None:
    secrets = Secrets({"UDS_SECRET_KV_PW": "correct-horse-battery"})
    secrets.get("kv", "pw")
    told = describe("orders", ValueError(f"{'x' * 478} correct-horse-battery"), None, secrets.redact)
    assert "correct" not in told.message
    assert told.message.endswith("***")
