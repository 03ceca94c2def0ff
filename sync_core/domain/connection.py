"""A database by its name in the configuration. It says where the secret is kept, and never holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Authentication(StrEnum):
    """How the engine signs in."""

    PASSWORD = "password"  # noqa: S105  # pragma: allowlist secret
    SERVICE_PRINCIPAL = "service_principal"
    TOKEN = "token"  # noqa: S105
    SERVICE_CREDENTIAL = "service_credential"


@dataclass(frozen=True)
class SecretReference:
    """Where a secret lives; the engine resolves it and carries it nowhere.

    On Databricks `dbutils.secrets.get(scope, key)`, elsewhere the environment variable `environment_variable`.
    """

    scope: str
    key: str

    @property
    def environment_variable(self) -> str:
        text = f"UDS_SECRET_{self.scope}_{self.key}".upper()
        return "".join(character if character.isalnum() else "_" for character in text)


@dataclass(frozen=True)
class Connection:
    """One entry of `connections.yml`, resolved.

    `type` is the adapter's registered name (`oracle`, `azure_sql`, `postgresql`, `databricks` or an added one).
    `timezone` is the IANA zone that timestamps without a zone are written in; None: the database's own.
    `options` go to the driver as they are, except `url` and `driver`, which override what the adapter builds.
    `max_concurrent` is how many runs may use it at once, over all batches; None: any number.
    `driver_package` is the Maven coordinate of the JDBC driver where the adapter's own is not the one to use.
    """

    name: str
    type: str
    host: str | None = None
    port: int | None = None
    database: str | None = None
    service_name: str | None = None
    sid: str | None = None
    username: str | None = None
    auth: Authentication = Authentication.PASSWORD
    secret: SecretReference | None = None
    tenant_id: str | None = None
    client_id: str | None = None
    service_credential: str | None = None
    tls: bool | None = None
    trust_server_certificate: bool = False
    catalog: str | None = None
    schema: str | None = None
    path: str | None = None
    timezone: str | None = None
    driver_package: str | None = None
    max_concurrent: int | None = None
    options: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Channel:
    """Where alerts go: a `webhook` (Standard Webhooks: `url`, signed with the secret) or an `apprise` address.

    An Apprise address holds its own credentials and is therefore the secret itself. `conditions` empty: every one.
    """

    name: str
    type: str
    url: str | None = None
    secret: SecretReference | None = None
    conditions: tuple[str, ...] = ()
