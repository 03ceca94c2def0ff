"""What the Service Bus stand-in reads from tokens, batches and filters."""

from __future__ import annotations

import base64
import hashlib
import hmac
import urllib.parse
from typing import Any

SESSION_FILTER = "com.microsoft:session-filter"


def rights_of(token: str, keys: dict[str, dict[str, Any]]) -> set[str] | None:
    """What a shared access signature allows; None when it was made with none of these keys. No keys: everything."""
    if not keys:
        return {"send", "listen"}
    pairs = token.removeprefix("SharedAccessSignature ").split("&")
    fields = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    known = keys.get(urllib.parse.unquote(fields.get("skn", "")))
    if known is None:
        return None
    signed = f"{fields.get('sr', '')}\n{fields.get('se', '')}".encode()
    expected = base64.b64encode(hmac.digest(known["key"].encode(), signed, hashlib.sha256)).decode()
    return set(known["rights"]) if expected == urllib.parse.unquote(fields.get("sig", "")) else None


def split_batch(raw: bytes) -> list[bytes]:
    """The encoded messages of a batch (one data section each), none for a plain message."""
    section = b"\x00\x53\x75"
    position = raw.find(section)
    messages: list[bytes] = []
    while 0 <= position < len(raw) and raw[position : position + 3] == section:
        kind = raw[position + 3]
        if kind == 0xA0:
            length, position = raw[position + 4], position + 5
        elif kind == 0xB0:
            length, position = int.from_bytes(raw[position + 4 : position + 8], "big"), position + 8
        else:
            return []
        messages.append(raw[position : position + length])
        position += length
    whole = all(one[:2] == b"\x00\x53" and 0x70 <= one[2] <= 0x78 for one in messages)
    return messages if whole else []


def session_filter(link: Any) -> tuple[str | None] | None:
    """The session a receiver asks for, (None,) for the next one; None when it asks for none."""
    data = link.remote_source.filter
    data.rewind()
    found = data.get_object() if data.next() else {}
    filters = {str(name): value for name, value in found.items()} if isinstance(found, dict) else {}
    if SESSION_FILTER not in filters:
        return None
    wanted = filters[SESSION_FILTER]
    return (getattr(wanted, "value", wanted),)
