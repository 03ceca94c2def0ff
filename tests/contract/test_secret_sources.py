"""What every Secrets does, and what is special to Azure Key Vault: the real SDK against a vault on loopback."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from azure.identity import ManagedIdentityCredential
from azure.keyvault.secrets._shared import http_challenge_cache

from sync_core.adapters.environment_secrets import EnvironmentSecrets
from sync_core.adapters.key_vault_secrets import KEPT, RENEWED, ROLE, KeyVaultSecrets
from sync_core.domain.connection import SecretReference
from sync_core.domain.errors import PermanentError, RetryableError
from sync_core.ports import Secrets
from tests.support.alerts import Clock
from tests.support.tls import Authority
from tests.support.vault import Refusal, Vault

REFERENCE = SecretReference("kv", "oracle-pw")
VALUE = "s3cret-d41d8cd9"


@dataclass(frozen=True)
class World:
    """An implementation, and how a person puts a value where it looks."""

    secrets: Secrets
    put: Callable[[SecretReference, str], None]
    clock: Clock


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def vault(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[Vault]:
    """A vault, and the identity of an Azure Functions app: both are found where Functions puts them."""
    http_challenge_cache.clear()
    with Vault(authority) as running:
        monkeypatch.setenv("IDENTITY_ENDPOINT", running.identity_url)
        monkeypatch.setenv("IDENTITY_HEADER", running.identity_header)
        yield running


@pytest.fixture
def open_vault(
    vault: Vault, authority: Authority, clock: Clock, tmp_path: Path
) -> Generator[Callable[..., KeyVaultSecrets]]:
    opened: list[KeyVaultSecrets | ManagedIdentityCredential] = []

    def make(
        url: str = "", trusted: bool = True, verify_resource: bool = False, answer_seconds: float = 10.0
    ) -> KeyVaultSecrets:
        credential = ManagedIdentityCredential()
        found = KeyVaultSecrets(
            {"kv": url or vault.url, "other": url or vault.url},
            credential,
            clock,
            certificates=authority.write(tmp_path / "authority.pem") if trusted else None,
            verify_resource=verify_resource,
            answer_seconds=answer_seconds,
        )
        opened.extend((found, credential))
        return found

    yield make
    for one in opened:
        one.close()


@contextmanager
def environment_world(clock: Clock) -> Generator[World]:
    environment: dict[str, str] = {}
    yield World(
        EnvironmentSecrets(environment),
        lambda reference, value: environment.update({reference.environment_variable: value}),
        clock,
    )


@pytest.fixture(params=["environment", "key_vault"])
def world(request: pytest.FixtureRequest, clock: Clock) -> Iterator[World]:
    if request.param == "environment":
        with environment_world(clock) as made:
            yield made
    else:
        vault: Vault = request.getfixturevalue("vault")
        secrets: KeyVaultSecrets = request.getfixturevalue("open_vault")()

        def put(reference: SecretReference, value: str) -> None:
            vault.put(reference.key, value)

        yield World(secrets, put, clock)


@pytest.mark.parametrize("value", [VALUE, "with spaces, ünïcode and =&?/", "a" * 20_000])
def test_a_secret_is_read_as_it_was_put(world: World, value: str) -> None:
    world.put(REFERENCE, value)
    assert world.secrets.get(REFERENCE) == value
    assert world.secrets.get(REFERENCE) == value


def test_keys_are_told_apart(world: World) -> None:
    world.put(REFERENCE, VALUE)
    world.put(SecretReference("kv", "postgres-pw"), "another")
    assert world.secrets.get(SecretReference("kv", "postgres-pw")) == "another"
    assert world.secrets.get(REFERENCE) == VALUE


@pytest.mark.parametrize("value", [None, ""])
def test_a_secret_that_is_not_there_is_named(world: World, value: str | None) -> None:
    if value is not None:
        world.put(REFERENCE, value)
    with pytest.raises(PermanentError, match="kv/oracle-pw") as raised:
        world.secrets.get(REFERENCE)
    assert raised.value.code == "secrets.missing"
    assert raised.value.remedy


def test_a_secret_that_comes_later_is_found(world: World) -> None:
    with pytest.raises(PermanentError):
        world.secrets.get(REFERENCE)
    world.put(REFERENCE, VALUE)
    assert world.secrets.get(REFERENCE) == VALUE


def test_a_rotated_secret_is_taken_without_a_restart(world: World) -> None:
    world.put(REFERENCE, VALUE)
    assert world.secrets.get(REFERENCE) == VALUE
    world.put(REFERENCE, "rotated")
    world.clock.pass_by(KEPT)
    assert world.secrets.get(REFERENCE) == "rotated"


def test_a_value_that_was_refused_is_read_anew(world: World) -> None:
    world.put(REFERENCE, VALUE)
    assert world.secrets.get(REFERENCE) == VALUE
    world.put(REFERENCE, "rotated")
    world.clock.pass_by(RENEWED)
    assert world.secrets.renew(REFERENCE) == "rotated"
    assert world.secrets.get(REFERENCE) == "rotated"


def test_p26_a_secret_is_never_logged(
    world: World, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(1)
    world.put(REFERENCE, VALUE)
    assert world.secrets.get(REFERENCE) == VALUE
    printed = capfd.readouterr()
    assert VALUE not in caplog.text + printed.out + printed.err + repr(world.secrets)


# Azure Key Vault.

Open = Callable[..., KeyVaultSecrets]


def test_a_value_is_kept_for_its_time_and_no_longer(vault: Vault, open_vault: Open, clock: Clock) -> None:
    secrets = open_vault()
    vault.put("oracle-pw", VALUE)
    assert secrets.get(REFERENCE) == VALUE
    vault.put("oracle-pw", "rotated")
    clock.pass_by(KEPT - timedelta(seconds=1))
    assert secrets.get(REFERENCE) == VALUE
    assert len(vault.reads) == 1
    clock.pass_by(timedelta(seconds=1))
    assert secrets.get(REFERENCE) == "rotated"
    assert secrets.get(REFERENCE) == "rotated"
    assert len(vault.reads) == 2


def test_refusals_from_outside_do_not_flood_the_vault(vault: Vault, open_vault: Open, clock: Clock) -> None:
    secrets = open_vault()
    vault.put("oracle-pw", VALUE)
    for _ in range(500):
        assert secrets.renew(REFERENCE) == VALUE
        clock.pass_by(RENEWED / 100)
    assert len(vault.reads) == 5
    assert secrets.get(REFERENCE) == VALUE
    assert len(vault.reads) == 5


def test_a_rotation_that_the_vault_does_not_answer_keeps_the_old_value(
    vault: Vault, open_vault: Open, clock: Clock
) -> None:
    secrets = open_vault()
    vault.put("oracle-pw", VALUE)
    assert secrets.get(REFERENCE) == VALUE
    clock.pass_by(RENEWED)
    vault.refusals = [Refusal(503)]
    with pytest.raises(RetryableError):
        secrets.renew(REFERENCE)
    assert secrets.get(REFERENCE) == VALUE


def test_a_secret_that_was_removed_is_not_served_for_longer(vault: Vault, open_vault: Open, clock: Clock) -> None:
    secrets = open_vault()
    vault.put("oracle-pw", VALUE)
    assert secrets.get(REFERENCE) == VALUE
    vault.delete("oracle-pw")
    clock.pass_by(KEPT)
    with pytest.raises(PermanentError, match=r"kv/oracle-pw is not in the vault 127\.0\.0\.1"):
        secrets.get(REFERENCE)


def test_a_version_stays_what_it_was(vault: Vault, open_vault: Open) -> None:
    first = vault.put("oracle-pw", "first")
    vault.put("oracle-pw", "second")
    secrets = open_vault()
    assert secrets.get(REFERENCE) == "second"
    assert secrets.get(SecretReference("kv", f"oracle-pw/{first}")) == "first"
    with pytest.raises(PermanentError, match=f"kv/oracle-pw/{'0' * 32} is not in the vault"):
        secrets.get(SecretReference("kv", f"oracle-pw/{'0' * 32}"))


def test_it_signs_in_once_for_all_scopes(vault: Vault, open_vault: Open, clock: Clock) -> None:
    secrets = open_vault()
    vault.put("oracle-pw", VALUE)
    assert secrets.get(REFERENCE) == VALUE
    assert secrets.get(SecretReference("other", "oracle-pw")) == VALUE
    clock.pass_by(KEPT)
    assert secrets.get(REFERENCE) == VALUE
    assert vault.sign_ins == 1


def test_a_token_that_the_vault_refuses(vault: Vault, open_vault: Open, clock: Clock) -> None:
    secrets = open_vault()
    vault.put("oracle-pw", VALUE)
    assert secrets.get(REFERENCE) == VALUE
    vault.forget_tokens()
    clock.pass_by(KEPT)
    with pytest.raises(RetryableError, match="did not accept the sign-in"):
        secrets.get(REFERENCE)


@pytest.mark.parametrize("inner_code", ["ForbiddenByRbac", "ForbiddenByPolicy", "", "Forbidden\n<b>"])
def test_403_names_the_role(vault: Vault, open_vault: Open, inner_code: str) -> None:
    vault.refusals = [Refusal(403, inner_code)]
    with pytest.raises(RetryableError, match=f'kv/oracle-pw.*answered 403.*role "{ROLE}"'):
        open_vault().get(REFERENCE)


def test_403_for_other_reasons_names_these(vault: Vault, open_vault: Open) -> None:
    vault.refusals = [Refusal(403, "SecretDisabled"), Refusal(403, "ForbiddenByFirewall")]
    with pytest.raises(PermanentError, match="Enable it"):
        open_vault().get(REFERENCE)
    with pytest.raises(PermanentError, match=r"network \(ForbiddenByFirewall\)"):
        open_vault().get(REFERENCE)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_busy_vault_is_asked_again(vault: Vault, open_vault: Open, status: int) -> None:
    vault.put("oracle-pw", VALUE)
    # The time-out of the test would pass if the SDK slept through what the vault asks for.
    vault.refusals = [Refusal(status, headers={"Retry-After": "86400"})]
    secrets = open_vault()
    with pytest.raises(RetryableError, match=f"answered {status}") as raised:
        secrets.get(REFERENCE)
    assert raised.value.retry_after == timedelta(days=1)
    assert secrets.get(REFERENCE) == VALUE


def test_a_vault_that_refuses_is_not_asked_in_vain(vault: Vault, open_vault: Open) -> None:
    vault.refusals = [Refusal(400)]
    with pytest.raises(PermanentError, match="answered 400"):
        open_vault().get(REFERENCE)


def test_a_vault_that_hangs_is_given_up_for_now(vault: Vault, open_vault: Open) -> None:
    vault.refusals = [Refusal(500, hangs=True)]
    with pytest.raises(RetryableError, match="cannot be reached"):
        open_vault(answer_seconds=0.2).get(REFERENCE)


def test_a_vault_that_is_not_there_is_asked_again(open_vault: Open) -> None:
    with pytest.raises(RetryableError, match=r"127.0.0.1:1 cannot be reached"):
        open_vault("https://127.0.0.1:1").get(REFERENCE)


def test_a_certificate_that_is_not_trusted(vault: Vault, open_vault: Open) -> None:
    with pytest.raises(RetryableError, match="certificate"):
        open_vault(trusted=False).get(REFERENCE)
    assert vault.reads == []


def test_an_identity_that_cannot_sign_in(vault: Vault, open_vault: Open) -> None:
    vault.put("oracle-pw", VALUE)
    vault.signs_in = False
    secrets = open_vault()
    with pytest.raises(RetryableError, match="managed identity"):
        secrets.get(REFERENCE)
    vault.signs_in = True
    assert secrets.get(REFERENCE) == VALUE


def test_a_host_that_only_looks_like_a_vault_gets_no_token(vault: Vault, open_vault: Open) -> None:
    """The sign-in is for vault.azure.net, and this host is not under it."""
    with pytest.raises(PermanentError, match="sign in somewhere else"):
        open_vault(verify_resource=True).get(REFERENCE)
    assert vault.sign_ins == 0
    assert vault.reads == []


@pytest.mark.parametrize("challenge", ["", "Bearer", "Basic realm=x", 'Bearer resource="https://vault.azure.net"'])
def test_a_host_that_is_no_vault(vault: Vault, open_vault: Open, challenge: str) -> None:
    vault.challenge = challenge
    with pytest.raises((PermanentError, RetryableError), match="kv/oracle-pw"):
        open_vault().get(REFERENCE)


def test_an_unknown_scope_names_those_that_are_known(open_vault: Open) -> None:
    with pytest.raises(PermanentError, match=r"nowhere/x: no vault is known for the scope nowhere.*kv, other"):
        open_vault().get(SecretReference("nowhere", "x"))


@pytest.mark.parametrize(
    "key", ["", "under_score", "a/b/c", "a/", "/v", "../keys/x", "a?b", "a b", "é", "a" * 128, "a\n"]
)
def test_a_key_that_no_vault_can_have(vault: Vault, open_vault: Open, key: str) -> None:
    with pytest.raises(PermanentError, match=re.escape(f"kv/{key} cannot be in a key vault")):
        open_vault().get(SecretReference("kv", key))
    assert vault.reads == []
