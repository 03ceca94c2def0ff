"""Tokens of a Microsoft Entra service principal, by the client-credentials grant: no Azure library has to be on the cluster."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPException
from typing import IO, Any, cast

from sync_core.domain.connection import Connection
from sync_core.domain.errors import AGAIN, ConfigError, PermanentError, RetryableError, SyncError

AUTHORITY = "https://login.microsoftonline.com"
ANSWER_SECONDS = 15
_TRY_LATER = (408, 429)
_BUSY = ("temporarily_unavailable", "server_error")
_LONGEST = 1_000_000


def fetch_token(connection: Connection, secret: str, scope: str, authority: str = AUTHORITY) -> str:
    """A new token for `scope`.

    Raises PermanentError `database.sign_in` when Entra refuses the principal, RetryableError `database.unreachable` when
    it gives no answer now, ConfigError when the connection does not name its principal.
    """
    if not (connection.tenant_id and connection.client_id):
        raise ConfigError(
            "connection.service_principal",
            f"Connection {connection.name} signs in as a service principal without naming it.",
            "Set tenant_id, client_id, and the secret.",
        )
    form = {
        "grant_type": "client_credentials",
        "client_id": connection.client_id,
        "client_secret": secret,
        "scope": scope,
    }
    tenant = urllib.parse.quote(connection.tenant_id, safe="")
    data = urllib.parse.urlencode(form).encode()
    request = urllib.request.Request(f"{authority}/{tenant}/oauth2/v2.0/token", data)  # noqa: S310  # no caller names a file
    who = f"Connection {connection.name}: Microsoft Entra"
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:  # noqa: S310  # as above
            token = _body(answer).get("access_token")
    except urllib.error.HTTPError as error:
        raise _refusal(error, who, connection.client_id) from None
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise RetryableError(
            "database.unreachable",
            f"{who} cannot be reached: {reason}.",
            "Check the way from the compute to login.microsoftonline.com, port 443.",
        ) from None
    if not isinstance(token, str):
        raise _not_entra(who, "no token")
    return token


def _refusal(error: urllib.error.HTTPError, who: str, client_id: str) -> SyncError:
    body: Mapping[str, Any] = {}
    with suppress(OSError):
        body = _body(error)
    described = str(body.get("error_description") or "").splitlines()
    reason = described[0].split(" Trace ID:")[0].rstrip(". ")[:300] if described else ""
    said = f"status {error.code}: {reason}" if reason else f"status {error.code}"
    if error.code in _TRY_LATER or error.code >= 500 or body.get("error") in _BUSY:
        return RetryableError("database.unreachable", f"{who} gives no token now ({said}).", AGAIN)
    if "error" not in body:
        return _not_entra(who, said)
    return PermanentError(
        "database.sign_in",
        f"{who} refused the service principal {client_id} ({said}).",
        "Check tenant_id, client_id and whether the secret has expired.",
    )


def _not_entra(who: str, said: str) -> RetryableError:
    return RetryableError(
        "database.unreachable",
        f"{who} was asked, and something in between answered: {said}.",
        "Check the proxy and firewall between the compute and login.microsoftonline.com.",
    )


def _body(answer: IO[bytes]) -> Mapping[str, Any]:
    """The JSON object of an answer, empty when it holds none."""
    try:
        body = json.loads(answer.read(_LONGEST))
    except (ValueError, HTTPException):
        return {}
    return cast("Mapping[str, Any]", body) if isinstance(body, dict) else {}
