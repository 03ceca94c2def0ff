"""How the table state store lays a pipeline's partition out: keys that sort, and bodies cut to the service's limits.

| row key | what |
|---|---|
| `record` | the record; every transaction of the partition replaces it |
| `run_KEY` | a run, read by its key |
| `runs_TIME_KEY` | the same run, newest first |
| `success` | the newest run that succeeded |
| `change_EPOCH` | a watermark change, newest first |
| `episode_ID` | where the episode of this id is |
| `episodes_TIME_ID` | the episode, newest first |
| `operation_TIME_KEY` | an operation, newest first |

TIME and EPOCH are inverted, so that the newest sorts first: the service sorts by key alone, upwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sync_core.domain.errors import PermanentError

RECORD = "record"
SUCCESS = "success"
PIPELINES = "~pipelines"
"""The partition that names every pipeline: no pipeline's own, for `clean` leaves no `~` in a key."""
CONNECTIONS = "~connections"

_SAFE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._")
_HIGHEST = 10**20 - 1
_BEGINNING = datetime.min.replace(tzinfo=UTC)

# A property holds 64 KiB of UTF-16 and an entity 1 MiB; bodies are ASCII, so a character is two bytes.
_PART = 32_000
_PARTS = 15


def clean(text: str) -> str:
    """The text as a part of a key: what keys forbid (`/ \\ # ?`, control characters) and all else unusual as `=XX`."""
    return "".join(
        letter if letter in _SAFE else "".join(f"={byte:02X}" for byte in letter.encode()) for letter in text
    )


def inverted(number: int) -> str:
    """20 digits that sort the greatest number first."""
    return f"{_HIGHEST - number:020d}"


def inverted_time(time: datetime) -> str:
    """20 digits that sort the latest time first, to the microsecond."""
    past = time.astimezone(UTC) - _BEGINNING
    return inverted((past.days * 86_400 + past.seconds) * 1_000_000 + past.microseconds)


def after(prefix: str) -> str:
    """The first key beyond all that begin with the prefix."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


def split(body: str, subject: str) -> dict[str, str]:
    """The body as properties `body0`, `body1`, ... Raises PermanentError when one entity cannot hold it."""
    if len(body) > _PART * _PARTS:
        raise PermanentError(
            "store.too_large",
            f"{subject} has {len(body):,} characters; the state store keeps up to {_PART * _PARTS:,}.",
            "Look at what makes it so large: its notes, schema changes, pending requests or messages not yet sent.",
        )
    parts = [body[start : start + _PART] for start in range(0, len(body), _PART)]
    return {f"body{number}": part for number, part in enumerate(parts)}


def join(values: Mapping[str, Any]) -> str:
    """The body that `split` cut."""
    parts: list[str] = []
    while (part := values.get(f"body{len(parts)}")) is not None:
        parts.append(part)
    return "".join(parts)
