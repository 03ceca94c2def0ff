"""How the table store signs in: by an identity, and by a key on this machine alone."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import CredentialUnavailableError

from sync_core.adapters.table_service import open_table_service
from sync_core.domain.errors import ConfigError, RetryableError
from sync_core.domain.run import PipelineRecord
from tests.support.azurite import Azurite
from tests.support.stores import a_run, tables_of
from tests.support.tls import Authority


def test_a_wrong_key_is_told_with_what_to_check(azurite: Azurite) -> None:
    key = base64.b64encode(b"another key").decode()
    with (
        tables_of(azurite.connection_string_of(key)) as opened,
        pytest.raises(RetryableError, match=r"refuses this sign-in \(403.*Storage Table Data Contributor") as caught,
    ):
        opened().load("orders")
    assert caught.value.code == "store.refused"
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "DefaultEndpointsProtocol=https;AccountName=prod;AccountKey=c2VjcmV0;EndpointSuffix=core.windows.net",
        "DefaultEndpointsProtocol=http;AccountName=prod;AccountKey=c2VjcmV0;TableEndpoint=http://10.0.0.1:1/prod",
        "AccountKey=c2VjcmV0",
        "http://prod.table.core.windows.net",
        "",
    ],
)
def test_a_key_is_for_local_servers_alone(address: str) -> None:
    with pytest.raises(ConfigError, match=r"https://ACCOUNT\.table\.core\.windows\.net") as caught:
        open_table_service(address, None)
    assert "c2VjcmV0" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("query", ["", "?sv=2024-01-01&sig=c2VjcmV0"])
def test_an_account_needs_an_identity(query: str) -> None:
    with pytest.raises(ConfigError, match="with an identity") as caught:
        open_table_service(f"https://prod.table.core.windows.net/{query}", None if not query else Identity())
    assert "c2VjcmV0" not in str(caught.value)


class Identity:
    """A credential as azure-identity's are: it hands out tokens, here of its own making, for one hour from `start`."""

    def __init__(self, start: float | None = None, error: ClientAuthenticationError | None = None) -> None:
        self.start = time.time() if start is None else start
        self.error = error
        self.scopes: list[str] = []

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        self.scopes += scopes
        if self.error is not None:
            raise self.error
        claims = {
            "aud": "https://storage.azure.com", "iss": "https://sts.windows.net/ab1f708d-50f6-404c-a006-d71b2ac7a606/",
            "iat": int(self.start) - 60, "nbf": int(self.start) - 60, "exp": int(self.start) + 3600,
        }  # fmt: skip
        parts = [{"alg": "RS256", "typ": "JWT"}, claims, {"no": "signature"}]
        text = ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
        return AccessToken(text, int(time.time()) + 3600)


@pytest.fixture(scope="module")
def secure_azurite(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[Azurite, Path]]:
    """An Azurite that takes tokens, and the authority to trust."""
    folder = tmp_path_factory.mktemp("certificate")
    authority = Authority()
    trusted = folder / "authority.pem"
    authority.write(trusted)
    with Azurite(authority.write_server(folder)) as server:
        yield server, trusted


def test_an_identity_signs_in(secure_azurite: tuple[Azurite, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    server, certificate = secure_azurite
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    identity = Identity()
    with tables_of(server.table_url, identity) as opened:
        store = opened()
        store.save(store.load("orders"), PipelineRecord("orders", epoch=1), [a_run("a")])
        assert opened().runs("orders", 9) == [a_run("a")]
    assert set(identity.scopes) == {"https://storage.azure.com/.default"}


def test_an_expired_or_missing_identity_is_told(
    secure_azurite: tuple[Azurite, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, certificate = secure_azurite
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    missing = CredentialUnavailableError(message="No managed identity here.")
    for identity in (Identity(start=time.time() - 86_400), Identity(error=missing)):
        with (
            tables_of(server.table_url, identity) as opened,
            pytest.raises(RetryableError, match=r"refuses this sign-in.*Storage Table Data Contributor"),
        ):
            opened().load("orders")
