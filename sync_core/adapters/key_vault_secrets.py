"""Secrets in Azure Key Vault: a scope is a vault, a key the name of a secret, or `name/version` for one of its versions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast
from urllib.parse import urlsplit

from azure.core.credentials import TokenCredential
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ResourceNotFoundError,
)
from azure.core.rest import HttpResponse
from azure.keyvault.secrets import SecretClient

from sync_core.domain.connection import SecretReference
from sync_core.domain.errors import PermanentError, RetryableError, SyncError

ROLE = "Key Vault Secrets User"
KEPT = timedelta(minutes=5)
RENEWED = timedelta(seconds=10)
"""How old a value must be before a refusal makes it read again: wrong sign-ins from outside cannot flood the vault."""

_KEY = re.compile(r"(?P<name>[0-9A-Za-z-]{1,127})(?:/(?P<version>[0-9A-Za-z]{1,64}))?")


@dataclass(frozen=True)
class _Cached:
    value: str
    read_at: datetime


class KeyVaultSecrets:
    """Secrets in the vaults of `vaults`: scope to URL, as `https://my-vault.vault.azure.net`.

    A value is kept for `kept` and then read again; one that is refused is read again at once (`renew`), so that a
    rotated secret is taken without a failure when the old one is refused, and within `kept` else. `certificates` is a
    file of authorities to trust instead of the public ones; `verify_resource` False accepts a vault that is not under
    the domain it signs in to, which a private stand-in needs.
    """

    def __init__(
        self,
        vaults: Mapping[str, str],
        credential: TokenCredential,
        now: Callable[[], datetime],
        kept: timedelta = KEPT,
        certificates: str | None = None,
        verify_resource: bool = True,
        answer_seconds: float = 10.0,
    ) -> None:
        self._now = now
        self._kept = kept
        self._cache: dict[SecretReference, _Cached] = {}
        self._clients = {
            scope: SecretClient(
                url,
                credential,
                connection_verify=certificates or True,
                verify_challenge_resource=verify_resource,
                # What calls this is repeated by its queue; the SDK would sleep through a Retry-After in the meantime.
                retry_total=0,
                connection_timeout=min(5.0, answer_seconds),
                read_timeout=answer_seconds,
            )
            for scope, url in vaults.items()
        }

    def get(self, reference: SecretReference) -> str:
        return self._newer_than(reference, self._kept)

    def renew(self, reference: SecretReference) -> str:
        return self._newer_than(reference, min(RENEWED, self._kept))

    def _newer_than(self, reference: SecretReference, age: timedelta) -> str:
        now = self._now()
        cached = self._cache.get(reference)
        if cached is not None and now < cached.read_at + age:
            return cached.value
        value = self._read(reference)
        self._cache[reference] = _Cached(value, now)
        return value

    def close(self) -> None:
        """Close the connections that are kept open."""
        for client in self._clients.values():
            client.close()

    def _read(self, reference: SecretReference) -> str:
        client = self._clients.get(reference.scope)
        if client is None:
            raise PermanentError(
                "secrets.scope",
                f"Secret {_name(reference)}: no vault is known for the scope {reference.scope}, "
                f"only for: {', '.join(sorted(self._clients)) or 'none'}.",
                "Name its vault, or use a scope that has one.",
            )
        key = _KEY.fullmatch(reference.key)
        if key is None:
            raise PermanentError(
                "secrets.key",
                f"Secret {_name(reference)} cannot be in a key vault: {reference.key!r} is not a name of a secret.",
                "Use letters, digits and dashes; a version may follow after a slash.",
            )
        try:
            value = client.get_secret(key["name"], key["version"]).value
        except (AzureError, ValueError) as error:
            raise translate(error, reference, urlsplit(client.vault_url).netloc) from error
        if not value:
            raise PermanentError(
                "secrets.missing", f"Secret {_name(reference)} is empty in its vault.", "Give it a value there."
            )
        return value


def translate(error: AzureError | ValueError, reference: SecretReference, vault: str) -> SyncError:
    """What the SDK raised, by the reader's next move; the SDK's texts are not repeated."""
    what = f"Secret {_name(reference)}: the vault {vault}"
    if isinstance(error, ResourceNotFoundError):
        return PermanentError(
            "secrets.missing", f"Secret {_name(reference)} is not in the vault {vault}.", "Create it there."
        )
    if isinstance(error, ClientAuthenticationError):
        return RetryableError(
            "secrets.sign_in",
            f"{what} or its tenant did not accept the sign-in ({type(error).__name__}).",
            "Check that the managed identity is assigned and belongs to the vault's tenant.",
        )
    if isinstance(error, HttpResponseError) and error.status_code is not None:
        return _translate_status(error, error.status_code, what)
    if isinstance(error, AzureError):
        return RetryableError(
            "secrets.unreachable",
            f"{what} cannot be reached ({type(error).__name__}).",
            "Check the vault's URL, its certificate and the network.",
        )
    # The policy that answers the vault's sign-in challenge raises ValueError when the challenge is from elsewhere.
    return PermanentError(
        "secrets.not_a_vault", f"{what} asks to sign in somewhere else.", "Check the URL of the scope's vault."
    )


def _translate_status(error: HttpResponseError, status: int, what: str) -> SyncError:
    if status in (408, 429) or status >= 500:
        response = cast("HttpResponse | None", error.response)
        pause = response.headers.get("Retry-After", "") if response is not None else ""
        return RetryableError(
            "secrets.busy",
            f"{what} answered {status}.",
            "It is asked again.",
            timedelta(seconds=int(pause)) if pause.isdecimal() and len(pause) < 7 else None,
        )
    if status == 403:
        reason = _inner_code(error)
        if reason == "SecretDisabled":
            return PermanentError("secrets.disabled", f"{what} has disabled it.", "Enable it, or its newest version.")
        if reason.startswith("ForbiddenBy") and reason not in ("ForbiddenByRbac", "ForbiddenByPolicy"):
            return PermanentError(
                "secrets.network",
                f"{what} answered 403: it takes no calls from this network ({reason}).",
                "Allow it in the vault's networking, or use its private endpoint.",
            )
        return RetryableError(
            "secrets.forbidden",
            f"{what} answered 403: this identity may not read it.",
            f'Grant it the role "{ROLE}" on the vault; a new grant takes some minutes.',
        )
    return PermanentError(
        "secrets.refused", f"{what} answered {status}.", "Check the scope's vault URL and the secret's name."
    )


def _inner_code(error: HttpResponseError) -> str:
    """`error.innererror.code` of the vault's answer: why exactly it refuses."""
    response = cast("HttpResponse | None", error.response)
    try:
        found: Any = response.json() if response is not None else None
    except ValueError:
        return ""
    for part in ("error", "innererror", "code"):
        found = cast("dict[str, Any]", found).get(part) if isinstance(found, dict) else None
    return found if isinstance(found, str) and re.fullmatch(r"[A-Za-z]{1,60}", found) else ""


def _name(reference: SecretReference) -> str:
    return f"{reference.scope}/{reference.key}"
