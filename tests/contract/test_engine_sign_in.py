"""How the engine signs in to a real PostgreSQL with the real driver: rotated passwords, and TLS. No Spark is needed."""

from __future__ import annotations

import secrets
import ssl
from collections.abc import Generator
from dataclasses import replace
from typing import Any

import pytest

from spark_entry.adapters.azure_sql import AzureSqlAdapter
from spark_entry.adapters.jdbc_connection import connect
from spark_entry.adapters.oracle import OracleAdapter
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


# ---- encryption: what the real drivers make of what the adapters ask for


@pytest.mark.parametrize(
    "changes", [{"tls": True}, {"tls": True, "trust_server_certificate": True}, {"host": "2130706433"}]
)
def test_a_server_without_tls_gets_no_password(login: Login, changes: dict[str, Any]) -> None:
    """This server has no TLS. The last host is 127.0.0.1 in another spelling, so not known as this machine."""
    adapter = login.adapter(**changes)
    with pytest.raises(PermanentError, match="no secure connection") as raised, adapter.faults("source", "x"):
        adapter.open()
    assert raised.value.code == "database.certificate"
    assert "set tls" in raised.value.remedy


@pytest.mark.parametrize("changes", [{}, {"host": "localhost"}, {"tls": False, "host": "2130706433"}])
def test_within_this_machine_or_when_told_so_it_goes_without(login: Login, changes: dict[str, Any]) -> None:
    connection = login.adapter(**changes).open()
    assert connection.query("SELECT current_user") == [(login.role,)]
    connection.close()


@pytest.mark.parametrize(
    ("changes", "asked"),
    [
        ({"host": "db.example.com"}, {"sslmode": "require"}),
        ({"host": "db.example.com", "tls": False}, {"sslmode": "disable"}),
        ({"host": "10.0.0.4", "tls": True}, {"sslmode": "verify-full", "sslfactory": "org.postgresql.ssl.DefaultJavaSSLFactory"}),
        ({"tls": True, "options": {"sslrootcert": "/dbfs/ca.pem"}}, {"sslmode": "verify-full", "sslrootcert": "/dbfs/ca.pem"}),
        ({"options": {"sslmode": "verify-ca"}}, {"sslmode": "verify-ca"}),
    ],
)  # fmt: skip
def test_what_postgresql_is_asked_for(login: Login, changes: dict[str, Any], asked: dict[str, str]) -> None:
    properties = login.adapter(**changes).read_properties()
    assert {name: value for name, value in properties.items() if name.startswith("ssl")} == asked


def test_the_drivers_know_these_properties(session: Any, login: Login) -> None:
    """A misspelt one would be passed over in silence."""
    jvm = session.sparkContext._jvm
    oracle = jvm.oracle.jdbc.OracleConnection
    known = [
        oracle.CONNECTION_PROPERTY_THIN_NET_ENCRYPTION_LEVEL,
        oracle.CONNECTION_PROPERTY_THIN_NET_ENCRYPTION_TYPES,
        oracle.CONNECTION_PROPERTY_THIN_NET_CHECKSUM_LEVEL,
        oracle.CONNECTION_PROPERTY_THIN_NET_CHECKSUM_TYPES,
    ]
    adapter = OracleAdapter(Connection("o", "oracle", "db", service_name="s"), session, login.secrets.get)
    assert [name for name in adapter.driver_properties() if "net.encryption" in name or "net.crypto" in name] == known
    encrypted = OracleAdapter(Connection("o", "oracle", "db", service_name="s", tls=True), session, login.secrets.get)
    assert "(PROTOCOL=tcps)" in encrypted.url
    assert "(SSL_SERVER_DN_MATCH=on)" in encrypted.url
    assert not [name for name in encrypted.driver_properties() if "net.encryption" in name]
    loader = jvm.java.lang.Thread.currentThread().getContextClassLoader()
    loader.loadClass("org.postgresql.ssl.DefaultJavaSSLFactory")


def test_a_driver_that_is_not_there_is_named(session: Any) -> None:
    with pytest.raises(
        PermanentError, match=r"The JDBC driver no\.such\.Driver is not on Spark's class path"
    ) as raised:
        connect(session, "no.such.Driver", "jdbc:none:", {})
    assert raised.value.code == "database.no_driver"


def test_no_driver_speaks_tls_before_1_2(session: Any) -> None:
    """The JVM's own rule holds for all drivers."""
    disabled = session.sparkContext._jvm.java.security.Security.getProperty("jdk.tls.disabledAlgorithms").split(", ")
    assert {"SSLv3", "TLSv1", "TLSv1.1"} <= set(disabled)
    assert ssl.create_default_context().minimum_version >= ssl.TLSVersion.TLSv1_2


def test_azure_sql_is_encrypted_and_its_certificate_checked(session: Any, login: Login) -> None:
    def url(**changes: Any) -> str:
        return AzureSqlAdapter(Connection("a", "azure_sql", "x", **changes), session, login.secrets.get).url

    assert url().endswith(";encrypt=true;trustServerCertificate=false")
    assert url(tls=True).endswith(";encrypt=true;trustServerCertificate=false")
    assert url(trust_server_certificate=True).endswith(";encrypt=true;trustServerCertificate=true")
    assert url(tls=False).endswith(";encrypt=false;trustServerCertificate=false")
