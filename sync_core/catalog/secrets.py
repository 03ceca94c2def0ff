"""Finds passwords and tokens where they must not be written. Nothing here repeats what it finds (P26)."""

from __future__ import annotations

import re

_LAST_WORDS = {
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "pass",
    "pwd",
    "pw",
    "secret",
    "token",
    "credentials",
    "sig",
    "sas",
}
_ENDINGS = (
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "privatekey",
    "accountkey",
)
_PAIRS = {
    "access key",
    "api key",
    "private key",
    "account key",
    "shared key",
    "secret key",
    "secret value",
    "connection string",
}
_KEY = re.compile(r"(?:^|[;?&,({\s])\s*([A-Za-z][\w.\-]*(?: [\w.\-]+)?)\s*=")
_USER_INFO = re.compile(r"://[^:/?#@\s\[]+:(?!\d{1,5}(?:[/;?,]|$))[^@\s]*@")
_ORACLE_USER = re.compile(r"^\s*(?:jdbc:oracle:\w+:)?[^@/\s(:]+/[^@\s]*@", re.IGNORECASE)


def is_secret_key(key: str) -> bool:
    """Whether a key by its name holds a password, a token or another secret."""
    spaced = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", key)
    words = [word for word in re.split(r"[^a-z0-9]+", spaced.lower()) if word]
    if not words:
        return False
    return words[-1] in _LAST_WORDS or words[-1].endswith(_ENDINGS) or " ".join(words[-2:]) in _PAIRS


def holds_credentials(text: str, is_path: bool = False) -> bool:
    """Whether an address, a URL, a folder or an option carries a password in one of the ways that drivers know."""
    if _USER_INFO.search(text) or (not is_path and _ORACLE_USER.search(text)):
        return True
    return any(is_secret_key(match.group(1)) for match in _KEY.finditer(text))
