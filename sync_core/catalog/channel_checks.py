"""What a channel of each type needs, and what it must not hold."""

from __future__ import annotations

import re
from ipaddress import ip_address
from urllib.parse import parse_qsl, urlsplit

from sync_core.catalog.connection_checks import is_name, pair_faults
from sync_core.catalog.document import Node
from sync_core.catalog.faults import Fault
from sync_core.catalog.secrets import holds_credentials, is_secret_key

_STORE_ADDRESS = "store the whole address as a secret, and name it with secret_scope and secret_key"
_KEYS_IN_QUERIES = ("code", "key", "auth", "signature", "access_token")
_SIGNING_KEY = re.compile(r"whsec_", re.IGNORECASE)


def check_channel(name: str, node: Node) -> list[Fault]:
    """The faults of one channel that its model cannot see. No message repeats a value: it may be a secret."""
    faults: list[Fault] = []
    if not is_name(name):
        faults.append(node.fault("is not a channel's name", "write letters, digits, _ . - and begin with a letter"))
    faults.extend(pair_faults(node))
    for key in ("secret_scope", "secret_key"):
        written = node.get(key)
        if written and written.text and _SIGNING_KEY.match(written.text):
            message = "holds the secret itself"
            faults.append(written.fault(message, "store it in a secret scope, and write the name it has there"))
    kind, url = node.text_of("type"), node.get("url")
    if kind not in ("webhook", "apprise"):
        return faults
    if not node.get("secret_scope") and not node.get("secret_key"):
        what = "the key whsec_… that signs the webhook" if kind == "webhook" else "the Apprise address"
        faults.append(node.fault(f"is missing: a channel of type {kind} needs a secret, {what}", "write secret_scope: … and secret_key: …", key="secret_key"))  # fmt: skip
    if kind == "apprise":
        return [*faults, url.fault("means nothing for type apprise, whose address is a secret", _STORE_ADDRESS)] if url else faults  # fmt: skip
    if url is None:
        return [*faults, node.fault("is missing", "write url: https://…", key="url")]
    return [*faults, *_address_faults(url)]


def _address_faults(url: Node) -> list[Fault]:
    if not url.text:
        return []
    remedy = "write one like https://alerts.example.com/sync"
    try:
        address = urlsplit(url.text)
        host, _ = address.hostname, address.port
    except ValueError:
        return [url.fault("is not an address", remedy)]
    names = [key.lower() for key, _ in parse_qsl(address.query, keep_blank_values=True)]
    if (
        address.username is not None
        or holds_credentials(url.text)
        or any(name in _KEYS_IN_QUERIES or is_secret_key(name) for name in names)
    ):
        return [url.fault("carries a user, a password or another secret", "write the address alone: the webhook is signed with its secret")]  # fmt: skip
    if not host or address.scheme not in ("http", "https"):
        return [url.fault("is not an https address", remedy)]
    if address.scheme == "http" and not _is_this_machine(host):
        return [url.fault("is plain http", "write https://; http is for receivers on this machine alone")]
    return []


def _is_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
