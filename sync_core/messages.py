"""What the queues carry, as text and back. A body that cannot be understood raises ConfigError with the reason (P21)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard, cast

from sync_core.domain.codec import from_json, to_json
from sync_core.domain.errors import ConfigError
from sync_core.domain.run import RunKind
from sync_core.domain.trace import read_trace

REQUESTS = "sync-requests"
RUNS = "sync-runs"
COMPLETIONS = "sync-completions"
ALERTS = "sync-alerts"
QUEUES = (REQUESTS, RUNS, COMPLETIONS, ALERTS)

LONGEST_ID = 100
MOST_NAMES = 1000


@dataclass(frozen=True)
class SyncRequest:
    """An upstream system asks pipelines to run. `pipelines` are ids, globs and `tag:NAME`; the range is cursor text.

    `traceparent` is the W3C trace context that it asks under.
    """

    request_id: str
    pipelines: tuple[str, ...]
    kind: RunKind = RunKind.INCREMENTAL
    since: str | None = None
    until: str | None = None
    requested_by: str = ""
    traceparent: str = ""


@dataclass(frozen=True)
class BatchMessage:
    """A batch to launch: its runs as (pipeline_id, run_key), and the `traceparent` that they share.

    The same batch always makes the same text: `trace` is derived, so that doubles are known as such.
    """

    batch_id: str
    runs: tuple[tuple[str, ...], ...]
    trace: str = ""


@dataclass(frozen=True)
class CompletionHint:
    """A launch may have ended: by its id (a Databricks run id), or by its batch."""

    launch_id: str | None = None
    batch_id: str | None = None


def encode(message: SyncRequest | BatchMessage | CompletionHint) -> str:
    """One line of JSON."""
    return json.dumps(to_json(message), separators=(",", ":"))


def decode_request(body: str) -> SyncRequest:
    """A request as upstream systems write it. Raises ConfigError `request.wrong` that says what to write."""
    data = _object(body, "request.wrong")
    unknown = sorted(set(data) - {"request_id", "pipelines", "kind", "since", "until", "requested_by", "traceparent"})
    if unknown:
        raise _wrong(
            f"unknown keys {', '.join(unknown)[:200]}",
            "Known are request_id, pipelines, kind, since, until, requested_by, traceparent.",
        )
    identity, names = data.get("request_id"), cast("object", data.get("pipelines"))
    if not isinstance(identity, str) or not 1 <= len(identity) <= LONGEST_ID or not identity.isprintable():
        raise _wrong(f"request_id must be text of 1 to {LONGEST_ID} characters", "Give each request an id of its own.")
    if not _is_texts(names) or len(names) > MOST_NAMES:
        raise _wrong("pipelines must be a list of names", 'Write "pipelines": ["orders", "sales.*", "tag:nightly"].')
    kind = data.get("kind", RunKind.INCREMENTAL.value)
    since, until = data.get("since"), data.get("until")
    kinds = [known.value for known in RunKind]
    if kind not in kinds:
        raise _wrong(f"kind {str(kind)[:50]!r} is not known", f"Write one of {', '.join(kinds)}.")
    if not all(end is None or (isinstance(end, str) and 0 < len(end) <= LONGEST_ID) for end in (since, until)):
        raise _wrong("since and until must be text", 'Write cursor values in quotes: "since": "2024-01-31".')
    if (since is None and until is None) == (kind == RunKind.BACKFILL.value):
        raise _wrong("since and until belong to kind backfill, which needs one of them", "Name the range to load.")
    by = data.get("requested_by", "")
    if not isinstance(by, str) or len(by) > LONGEST_ID:
        raise _wrong(f"requested_by must be text of up to {LONGEST_ID} characters", "Name the system that asks.")
    trace = data.get("traceparent")
    # What cannot be understood is passed over, as W3C asks: nobody's run fails for its telemetry.
    caller = trace if isinstance(trace, str) and read_trace(trace) else ""
    return SyncRequest(identity, tuple(names), RunKind(kind), since, until, by, caller)


def decode_batch(body: str) -> BatchMessage:
    """What `encode` made. Raises ConfigError `message.wrong`."""
    return _decode(BatchMessage, body)


def decode_completion(body: str) -> CompletionHint:
    """What `encode` made. Raises ConfigError `message.wrong`."""
    return _decode(CompletionHint, body)


def batch_message(batch_id: str, runs: Sequence[tuple[str, str]], trace: str = "") -> str:
    """The message that launches these runs."""
    return encode(BatchMessage(batch_id, tuple(runs), trace))


def _decode[T](kind: type[T], body: str) -> T:
    try:
        return from_json(kind, _object(body, "message.wrong"))
    except ValueError as error:
        raise ConfigError(
            "message.wrong", f"The message is not a {kind.__name__}: {error}.", "Only the control plane sends these."
        ) from error


def _object(body: str, code: str) -> dict[str, Any]:
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ConfigError(code, "The message is not JSON.", "Send one JSON object.") from error
    if not isinstance(data, dict):
        raise ConfigError(code, "The message is not a JSON object.", "Send one JSON object.")
    return cast("dict[str, Any]", data)


def _is_texts(value: object) -> TypeGuard[list[str]]:
    items = cast("list[object]", value) if isinstance(value, list) else []
    return bool(items) and all(isinstance(item, str) and 0 < len(item) <= 200 for item in items)


def _wrong(what: str, remedy: str) -> ConfigError:
    return ConfigError("request.wrong", f"The request is wrong: {what}.", remedy)
