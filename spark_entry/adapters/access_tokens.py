"""Access tokens of Microsoft Entra, which expire: how long one lasts, and what to do about it. Nothing is verified here."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import UTC, datetime
from typing import Any

from sync_core.domain.connection import Authentication, Connection
from sync_core.domain.errors import PermanentError


def expires_at(token: str) -> datetime | None:
    """When a token says that it expires (the claim `exp`); None when it is none that can be read."""
    try:
        body = token.split(".")[1]
        claims: Any = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        return datetime.fromtimestamp(int(claims["exp"]), UTC)
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error, OverflowError, RecursionError):
        return None


def expired(connection: Connection, token: str, now: datetime) -> PermanentError | None:
    """Why a sign-in with this token fails, when it is because the token has expired."""
    end = expires_at(token)
    if end is None or now < end:
        return None
    who = f"Connection {connection.name}"
    at = f"{end:%Y-%m-%d %H:%M:%S} UTC"
    if connection.auth is Authentication.TOKEN and connection.secret is not None:
        return PermanentError(
            "database.token_expired",
            f"{who}: the access token in the secret {connection.secret.scope}/{connection.secret.key} expired at {at}.",
            "Put a new token there, or use auth: service_principal or service_credential, which fetch their own.",
        )
    return PermanentError(
        "database.token_expired",
        f"{who}: the access token of this run expired at {at}, before every task of the read or write had connected. "
        "Spark gives one token to all tasks of a job.",
        "Make the job shorter: more cores, a smaller window (--since, --until), a narrower filter. Or let the driver "
        "fetch tokens itself, as docs/security.md says under Entra tokens.",
    )
