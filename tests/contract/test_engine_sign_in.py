"""How the engine signs in to a real PostgreSQL with the real driver: rotated passwords, and TLS. No Spark is needed."""

from __future__ import annotations

import secrets
from collections.abc import Generator
from dataclasses import replace
from typing import Any

import pytest

from spark_entry.adapters.postgresql import PostgresqlAdapter
from spark_entry.secrets import Secrets
from sync_core.demo.servers import PostgresServer
from sync_core.domain.connection import Connection, SecretReference
from sync_core.domain.errors import PermanentError
from sync_core.domain.pipeline import Source
from tests.support.jvm import driver_session

REFERENCE = SecretReference("tests", "login")


@pytest.fixture(scope="module")
def session() -> Generator[Any]:
    with driver_session() as found:
        yield found


class Login:
    """A role of its own, its password in the engine's environment, and adapters that sign in with it."""

    def __init__(self, postgres: PostgresServer, session: Any) -> None:
        self.postgres = postgres
        self.session = session
        self.role = f"r{secrets.token_hex(5)}"
        self.password = secrets.token_hex(8)
        self.environment = {REFERENCE.environment_variable: self.password}
        self.secrets = Secrets(self.environment)
        self.adapters: list[PostgresqlAdapter] = []
        postgres.execute(f"CREATE ROLE {self.role} LOGIN PASSWORD '{self.password}'")

    def adapter(self, **changes: Any) -> PostgresqlAdapter:
        connection = Connection(
            "pg", "postgresql", "127.0.0.1", self.postgres.port, "postgres", username=self.role, secret=REFERENCE
        )
        made = PostgresqlAdapter(replace(connection, **changes), self.session, self.secrets.get)
        made.hide = self.secrets.hide
        self.adapters.append(made)
        return made

    def rotate(self, *, in_secret: bool = True) -> str:
        old, self.password = self.password, secrets.token_hex(8)
        self.postgres.execute(f"ALTER ROLE {self.role} PASSWORD '{self.password}'")
        if in_secret:
            self.environment[REFERENCE.environment_variable] = self.password
        return old

    def close(self) -> None:
        for adapter in self.adapters:
            adapter.close()
        self.postgres.execute(f"DROP ROLE {self.role}")


@pytest.fixture
def login(postgres: PostgresServer, session: Any) -> Generator[Login]:
    made = Login(postgres, session)
    yield made
    made.close()


def test_a_password_that_is_rotated_during_a_run_is_read_again(login: Login) -> None:
    adapter = login.adapter()
    assert adapter.held.query("SELECT current_user") == [(login.role,)]
    old = login.rotate()
    later = adapter.open()
    assert later.query("SELECT current_user") == [(login.role,)]
    later.close()
    # What Spark's tasks sign in with from now on.
    assert adapter.read_properties()["password"] == login.password
    assert login.secrets.redact(f"{old} and {login.password}") == "*** and ***"


def test_a_password_that_is_wrong_is_tried_once(login: Login) -> None:
    login.rotate(in_secret=False)
    asked: list[str] = []
    adapter = login.adapter()
    read = adapter.secret
    adapter.secret = lambda scope, key: asked.append(key) or read(scope, key)
    with pytest.raises(PermanentError, match=r"the sign-in as r\w+ was refused"):
        adapter.describe_source(Source("pg", "pg_catalog.pg_class"), {})
    assert asked == [REFERENCE.key]


def test_a_password_that_stays_wrong_fails_after_it_was_read_again(login: Login) -> None:
    adapter = login.adapter()
    adapter.open().close()
    old = login.rotate(in_secret=False)
    with pytest.raises(PermanentError, match="was refused") as raised, adapter.faults("source", "x"):
        adapter.open()
    assert raised.value.code == "database.sign_in"
    assert old not in str(raised.value) + raised.value.remedy
