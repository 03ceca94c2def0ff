"""Tokens of a Microsoft Entra service principal, by the client-credentials grant: no Azure library has to be on the cluster."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException

from sync_core.domain.connection import Connection
from sync_core.domain.errors import AGAIN, ConfigError, PermanentError, RetryableError

AUTHORITY = "https://login.microsoftonline.com"
ANSWER_SECONDS = 15
_TRY_LATER = (408, 429)


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
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:  # noqa: S310
            return str(json.load(answer)["access_token"])
    except urllib.error.HTTPError as error:
        said = f"status {error.code}{_reason(error)}"
        if error.code in _TRY_LATER or error.code >= 500:
            raise RetryableError("database.unreachable", f"{who} gives no token now ({said}).", AGAIN) from None
        raise PermanentError(
            "database.sign_in",
            f"{who} refused the service principal {connection.client_id} ({said}).",
            "Check tenant_id, client_id and whether the secret has expired.",
        ) from None
    except (OSError, HTTPException) as error:
        raise RetryableError(
            "database.unreachable",
            f"{who} cannot be reached: {error or type(error).__name__}.",
            "Check the network and firewall of the compute.",
        ) from None
    except (ValueError, KeyError, TypeError):
        raise RetryableError(
            "database.unreachable",
            f"{who} answered with what is no token: something in between answers for it.",
            "Check the proxy and firewall of the compute.",
        ) from None


def _reason(error: urllib.error.HTTPError) -> str:
    """What Entra says of it (`AADSTS7000222: …`), without the ids of the trace."""
    try:
        described = str(json.loads(error.read())["error_description"])
    except (OSError, HTTPException, ValueError, KeyError, TypeError):
        return ""
    first = described.splitlines()[0] if described else ""
    return f": {first.split(' Trace ID:')[0].rstrip('. ')[:300]}" if first else ""
