"""How a Databricks workspace is reached, and what its errors mean here."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import cached_property
from urllib.parse import urlsplit

import requests
from azure.core.credentials import TokenCredential
from azure.core.exceptions import AzureError, ClientAuthenticationError
from azure.identity import CredentialUnavailableError
from databricks.sdk import WorkspaceClient
from databricks.sdk.clock import RealClock
from databricks.sdk.config import Config
from databricks.sdk.credentials_provider import CredentialsStrategy
from databricks.sdk.errors import (
    BadRequest,
    NotFound,
    PermissionDenied,
    ResourceConflict,
    TooManyRequests,
    Unauthenticated,
)
from databricks.sdk.errors import NotImplemented as NotImplementedThere
from databricks.sdk.errors.base import DatabricksError

from sync_core.domain.errors import PermanentError, RetryableError, SyncError

DATABRICKS_SCOPE = "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d/.default"
"""The Azure Databricks application in Microsoft Entra ID, the same in every tenant."""

ANSWER_SECONDS = 20.0
"""How long one request may take."""

RETRY_SECONDS = 20
"""How long the SDK begins one request anew on 429, 503 and lost connections; after that the message is retried."""

LONGEST_PAUSE = 10.0
"""Seconds between two tries, whatever Retry-After says: it may be an hour, and a Functions invocation has minutes."""

_LIMIT_CODES = frozenset({"QUOTA_EXCEEDED", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED"})

_LIMIT_MESSAGE = re.compile(r"\b(quota|concurrent|active runs|rate limit)\b", re.I)

_SAID_LENGTH = 300


class DatabricksWorkspace:
    """One workspace: with an Azure identity, or with a token for local servers.

    `answer_seconds` bounds one request, `retry_seconds` how long the SDK begins it anew. The client is built on first use, because its constructor asks the host for its metadata: a workspace that is out
    of reach must not keep the control plane from starting.
    """

    def __init__(
        self,
        host: str,
        credential: TokenCredential | None = None,
        token: str | None = None,
        answer_seconds: float = ANSWER_SECONDS,
        retry_seconds: int = RETRY_SECONDS,
    ) -> None:
        if (credential is None) == (token is None):
            raise ValueError("A workspace needs either a credential or a token.")
        _check(host, with_token=token is not None)
        self.host = host
        self._credential = credential
        self._token = token
        self._answer_seconds = answer_seconds
        self._retry_seconds = retry_seconds

    @cached_property
    def client(self) -> WorkspaceClient:
        """Raises PermanentError when the SDK refuses the settings."""
        identity = AzureIdentity(self._credential) if self._credential else None
        try:
            return WorkspaceClient(
                config=Config(
                    host=self.host,
                    token=self._token,
                    # Named, or variables of other sign-ins in the environment (ARM_…, DATABRICKS_…) are a conflict.
                    auth_type=identity.auth_type() if identity else "pat",
                    credentials_strategy=identity,
                    http_timeout_seconds=self._answer_seconds,
                    retry_timeout_seconds=self._retry_seconds,
                    # Files go through the workspace's own host. The SDK's other way is presigned URLs of the storage
                    # account, which private networks close (databricks-sdk-py issue 1084).
                    disable_experimental_files_api_client=True,
                    clock=PatientClock(),
                )
            )
        except ValueError as error:
            raise PermanentError(
                "databricks.settings",
                f"The Databricks workspace {self.host} cannot be used: {_first_sentence(str(error))}.",
                "Check the DATABRICKS_… variables in the environment: none is needed.",
            ) from error


def _check(host: str, *, with_token: bool) -> None:
    """Refuse what is no address, one that a token would travel to in the clear, and a local server's token elsewhere."""
    address = urlsplit(host)
    is_local = address.hostname in ("127.0.0.1", "localhost", "::1")
    if not address.hostname or address.scheme not in ("https", "http"):
        problem = "is not an address"
    elif address.scheme == "http" and not is_local:
        problem = "is not reached over https"
    elif with_token and not is_local:
        raise PermanentError(
            "databricks.settings",
            f"The Databricks workspace {host} is not on this machine, and a token is given for it.",
            "Take UDS_DATABRICKS_LOCAL_TOKEN away, which is for servers on this machine alone: the identity signs in.",
        )
    else:
        return
    raise PermanentError(
        "databricks.settings",
        f"The Databricks workspace {host or '(empty)'} {problem}.",
        "Set the workspace's address, as https://adb-….azuredatabricks.net.",
    )


class AzureIdentity(CredentialsStrategy):
    """Signs in by azure-identity, which caches the token and renews it: the SDK itself knows no managed identity."""

    def __init__(self, credential: TokenCredential) -> None:
        self._credential = credential

    def auth_type(self) -> str:
        return "azure-identity"

    def __call__(self, cfg: Config) -> Callable[[], dict[str, str]]:
        """What the SDK calls for the headers of each request."""
        return lambda: {"Authorization": f"Bearer {self._credential.get_token(DATABRICKS_SCOPE).token}"}


class PatientClock(RealClock):
    """The SDK's clock, which never sleeps long."""

    def sleep(self, seconds: float) -> None:
        super().sleep(min(seconds, LONGEST_PAUSE))


@contextmanager
def databricks_errors(doing: str, permission: str) -> Generator[None]:
    """Turn what the SDK raises within into RetryableError or PermanentError.

    `doing` says what failed, as "Job 7 cannot be started"; `permission` what the identity needs for it.
    """
    try:
        yield
    except (DatabricksError, TimeoutError, requests.RequestException, AzureError) as error:
        raise translate(error, doing, permission) from error


def translate(error: Exception, doing: str, permission: str) -> SyncError:
    """What an error of the SDK, of requests or of azure-identity means for the caller."""
    # When its time is up the SDK raises a TimeoutError of its own, whose cause is the last answer.
    cause = error.__cause__ if isinstance(error, TimeoutError) and isinstance(error.__cause__, Exception) else error
    if isinstance(cause, AzureError):
        return _sign_in_error(cause, doing)
    if is_limit(cause):
        return RetryableError("databricks.busy", f"{doing}: {said(cause)}.", "It is tried again later.")
    if isinstance(cause, Unauthenticated):
        return PermanentError(
            "databricks.sign_in",
            f"{doing}: Databricks does not accept the sign-in: {said(cause)}.",
            f"Add the control plane's identity to the workspace as a service principal, with {permission}.",
        )
    if isinstance(cause, PermissionDenied):
        return PermanentError(
            "databricks.forbidden",
            f"{doing}: Databricks forbids it: {said(cause)}.",
            f"Give the control plane's identity {permission}.",
        )
    if isinstance(cause, NotFound):
        return PermanentError("databricks.not_found", f"{doing}: {said(cause)}.", "Check the settings' names and ids.")
    # A conflict is another caller's request on the same object, over in a moment.
    if isinstance(cause, BadRequest | NotImplementedThere) and not isinstance(cause, ResourceConflict):
        return PermanentError(
            "databricks.refused", f"{doing}: Databricks refuses it: {said(cause)}.", "Check the settings."
        )
    return RetryableError(
        "databricks.unavailable", f"{doing}: {_unavailable(cause)}.", "It is tried again; check the workspace's health."
    )


def is_limit(error: Exception) -> bool:
    """Whether the workspace has no room now: throttled, or at a limit of its own."""
    if isinstance(error, TooManyRequests):
        return True
    if not isinstance(error, BadRequest):
        return False
    return error.error_code in _LIMIT_CODES or bool(_LIMIT_MESSAGE.search(str(error)))


def said(error: Exception) -> str:
    """What Databricks said, short, without the client's settings that the SDK adds to some messages."""
    text = _first_sentence(str(error))
    code = getattr(error, "error_code", None)
    if text and code and code not in text:
        return f"{text} ({code})"
    return text or code or type(error).__name__


def _first_sentence(text: str) -> str:
    text = re.split(r"\.? Config: |\n", text.strip(), maxsplit=1)[0].rstrip(". ")
    return text if len(text) <= _SAID_LENGTH else f"{text[:_SAID_LENGTH]}…"


def _sign_in_error(error: AzureError, doing: str) -> SyncError:
    # Unavailable: nobody was there to be asked for a token. Refused: somebody was, and said no.
    if isinstance(error, ClientAuthenticationError) and not isinstance(error, CredentialUnavailableError):
        return PermanentError(
            "databricks.sign_in",
            f"{doing}: Microsoft Entra ID gives no token for Databricks: {_first_sentence(str(error))}.",
            "Check the identity that the control plane runs as (AZURE_CLIENT_ID), and that its secret is not expired.",
        )
    # Texts of lost connections name addresses of objects in memory.
    why = _first_sentence(str(error)) if isinstance(error, ClientAuthenticationError) else type(error).__name__
    return RetryableError(
        "databricks.sign_in",
        f"{doing}: no token for Databricks can be had now: {why}.",
        "It is tried again; check the identity that the control plane runs as.",
    )


def _unavailable(error: Exception) -> str:
    if isinstance(error, DatabricksError):
        return f"Databricks cannot answer now: {said(error)}"
    if isinstance(error, requests.Timeout):
        return "Databricks did not answer in time"
    # Their texts name addresses of objects in memory and whole URLs.
    return f"the connection to Databricks failed ({type(error).__name__})"
