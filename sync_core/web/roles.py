"""Who asks over HTTP and what they may do: a Microsoft Entra principal, a function key's holder, this machine's user."""

from __future__ import annotations

import base64
import binascii
import getpass
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sync_core.domain.errors import ConfigError, PermanentError

PRINCIPAL = "x-ms-client-principal"
"""The header in which App Service authentication hands over who signed in. Learn, "Work with user identities"."""

LONGEST_NAME = 100
"""Characters of a caller's name, as in `requested_by`."""


class Role(StrEnum):
    """App roles of the Entra application; `Sync.Operate` includes the two others."""

    READ = "Sync.Read"
    REQUEST = "Sync.Request"
    OPERATE = "Sync.Operate"


@dataclass(frozen=True)
class Caller:
    """`name` goes into the record of what was done. `proven`: the platform vouches for it, whatever the body says."""

    name: str
    roles: frozenset[Role]
    proven: bool = False

    def may(self, role: Role) -> bool:
        return role in self.roles or Role.OPERATE in self.roles


class NotSignedIn(Exception):
    """Nobody signed in; the text says why it is thought so, and never repeats what was sent."""


Admission = Callable[[Mapping[str, str]], Caller]
"""The caller by a request's headers, whose names are in lower case. Raises NotSignedIn, PermanentError where the app is
not protected as it should be."""


def admit_key_holder(_headers: Mapping[str, str]) -> Caller:
    """The host has checked the function key, which tells nobody apart and opens everything."""
    return Caller("somebody with a function key", frozenset({Role.OPERATE}))


def admit_user(_headers: Mapping[str, str]) -> Caller:
    """The user of this machine, whose loopback alone `uds up` answers to."""
    return Caller(getpass.getuser(), frozenset({Role.OPERATE}))


def admit_principal(headers: Mapping[str, str]) -> Caller:
    """Whom App Service authentication signed in by Microsoft Entra."""
    header = headers.get(PRINCIPAL)
    if not header:
        raise NotSignedIn("Nobody signed in.")
    try:
        found: Any = json.loads(base64.b64decode(header, validate=True))
        claims = [(claim["typ"], claim["val"]) for claim in found["claims"]]
        provider = found["auth_typ"]
    except (binascii.Error, ValueError, KeyError, TypeError, RecursionError) as error:
        raise NotSignedIn("The sign-in cannot be read.") from error
    if provider != "aad":
        raise NotSignedIn("The sign-in is not one of Microsoft Entra.")
    texts = [(kind, value) for kind, value in claims if isinstance(kind, str) and isinstance(value, str)]
    known = {role.value: role for role in Role}
    roles = frozenset(known[value] for kind, value in texts if kind in _ROLE_CLAIMS and value in known)
    return Caller(_name(dict(texts)), roles, proven=True)


def admission(http_auth: str, environment: Mapping[str, str]) -> Admission:
    """How callers are admitted under the setting UDS_HTTP_AUTH. Raises ConfigError for one that is not known.

    Under `entra` nobody is, unless the platform says that its authentication is on; where it says nothing,
    UDS_HTTP_AUTH_CHECKED says that a person has looked.
    """
    if http_auth == "keys":
        return admit_key_holder
    if http_auth != "entra":
        raise ConfigError("settings.wrong", "UDS_HTTP_AUTH is neither entra nor keys.", "See docs/security.md.")
    # The platform takes the header out of what comes from outside only while its authentication is on, and tells the app
    # so. What it does not say is not believed: a header that anybody can write would open everything.
    said = environment.get("WEBSITE_AUTH_ENABLED", "").lower()
    if said != "true" and (said or environment.get("UDS_HTTP_AUTH_CHECKED") != "true"):
        return _admit_nobody
    return admit_principal


def _admit_nobody(_headers: Mapping[str, str]) -> Caller:
    raise PermanentError(
        "http.unprotected",
        "UDS_HTTP_AUTH is entra, but App Service authentication is not known to be on, so anybody could say who they are.",
        "Turn it on (authsettingsV2), or set UDS_HTTP_AUTH to keys. See docs/security.md.",
    )


_ROLE_CLAIMS = ("roles", "http://schemas.microsoft.com/ws/2008/06/identity/claims/role")
_OBJECT_CLAIMS = ("http://schemas.microsoft.com/identity/claims/objectidentifier", "oid")
_NAME_CLAIMS = (
    "preferred_username",
    "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/upn",
    "upn",
    "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/emailaddress",
    "azp",
    "appid",
)


def _name(claims: Mapping[str, str]) -> str:
    """A name that people know and the object id, which nobody can change or take over; both fit into LONGEST_NAME."""
    identity = _first(claims, _OBJECT_CLAIMS)
    if identity is None:
        raise NotSignedIn("The sign-in names no object id.")
    shown = _first(claims, _NAME_CLAIMS)
    return identity[:36] if shown is None else f"{shown[: LONGEST_NAME - 39]} ({identity[:36]})"


def _first(claims: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    found = next((claims[name] for name in names if claims.get(name)), None)
    return found if found is not None and found.isprintable() else None
