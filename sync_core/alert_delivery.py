"""Bring notices to their channels: each is told at least once, alone, however long its receiver is away (P25).

A message of the queue `sync-alerts` holds one notice and the channels that are still owed it. What a channel did not
take goes back to the queue, a message for each, with a longer and longer delay.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from sync_core.domain.alert import Notice
from sync_core.domain.codec import from_json, to_json
from sync_core.domain.connection import Channel
from sync_core.domain.errors import PermanentError, RetryableError, SyncError
from sync_core.domain.run import OutboxEntry
from sync_core.ports import AlertSink, Queue

QUEUE = "sync-alerts"

FIRST_PAUSE = timedelta(seconds=30)
LONGEST_PAUSE = timedelta(hours=1)
TRIED_FOR = timedelta(days=3)
"""From the first attempt; after that it lies with the dead letters and waits for a person."""

VERSION = 1

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Delivery:
    """The body of a message. `owed` None: nobody was told yet; `tried_since` is the time of the first attempt.

    `round` counts how often it was given up: a message that a person sends again has keys that were never used.
    """

    notice: Notice
    owed: tuple[str, ...] | None = None
    attempt: int = 1
    tried_since: datetime | None = None
    round: int = 1
    version: int = VERSION


@dataclass(frozen=True)
class Told:
    """What became of each channel: it took the notice, is owed it still, or is given up, with the reason."""

    taken: tuple[str, ...] = ()
    owed: Mapping[str, RetryableError] = field(default_factory=dict[str, RetryableError])
    given_up: Mapping[str, SyncError] = field(default_factory=dict[str, SyncError])


def owe(notice: Notice) -> OutboxEntry:
    """The message that begins the delivery of a notice: once for each notice, whoever sends it."""
    return OutboxEntry(QUEUE, notice.notice_id, encode(Delivery(notice)))


def encode(delivery: Delivery) -> str:
    """The body of a message."""
    return json.dumps(to_json(delivery), separators=(",", ":"))


def decode(body: str) -> Delivery:
    """The delivery in a body. Raises PermanentError that says what is wrong with it."""
    try:
        delivery = from_json(Delivery, json.loads(body))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise PermanentError(
            "alert.unreadable",
            f"A message of {QUEUE} cannot be understood: {str(error)[:300]}.",
            "Look into what sent it; the notice can be read in its body.",
        ) from error
    if delivery.version > VERSION:
        raise PermanentError(
            "alert.version",
            f"A message of {QUEUE} has version {delivery.version}; this installation reads {VERSION}.",
            "Finish the upgrade of the control plane, then send the message again.",
        )
    moments = (delivery.notice.at, delivery.notice.opened_at, delivery.tried_since or delivery.notice.at)
    if delivery.attempt < 1 or any(moment.tzinfo is None for moment in moments):
        raise PermanentError(
            "alert.unreadable",
            f"A message of {QUEUE} cannot be understood: an attempt is 1 or more, and a time has its zone.",
            "Look into what sent it; the notice can be read in its body.",
        )
    return delivery


def backoff(attempt: int) -> timedelta:
    """The pause after a failed attempt: 30 seconds after the first, twice as long after each, at most one hour."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(max(attempt, 1) - 1, 16))


def addressees(notice: Notice, channels: Mapping[str, Channel]) -> tuple[str, ...]:
    """Of the channels it names, or of all when it names none, those whose conditions match, and those nobody knows."""

    def matches(name: str) -> bool:
        conditions = channels[name].conditions if name in channels else ()
        return not conditions or notice.condition.value in conditions

    return tuple(name for name in dict.fromkeys(notice.channels or channels) if matches(name))


def deliver(
    notice: Notice, channels: Mapping[str, Channel], sink: AlertSink, owed: Sequence[str] | None = None
) -> Told:
    """Try each channel that is owed the notice (None: all its addressees) once; no channel's failure hinders another."""
    taken: list[str] = []
    later: dict[str, RetryableError] = {}
    given_up: dict[str, SyncError] = {}
    for name in addressees(notice, channels) if owed is None else owed:
        channel = channels.get(name)
        if channel is None:
            given_up[name] = PermanentError(
                "alert.channel_unknown",
                f"No alert channel is named {name}.",
                "Add it to the configuration, or take it out of the pipeline's channels.",
            )
            continue
        try:
            sink.deliver(channel, notice)
        except RetryableError as error:
            later[name] = error
        except SyncError as error:
            given_up[name] = error
        else:
            taken.append(name)
    return Told(tuple(taken), later, given_up)


def deliver_alert(queue: Queue, sink: AlertSink, channels: Mapping[str, Channel], body: str, now: datetime) -> None:
    """Take one message of `sync-alerts`; when it returns, the message is done.

    Killed anywhere in it, it is taken again and some channels hear twice, under the same notice_id. Raises
    PermanentError for a body that cannot be understood, RetryableError when the queue cannot be written.
    """
    delivery = decode(body)
    notice = delivery.notice
    if not channels or (delivery.owed is None and not addressees(notice, channels)):
        _tell(logging.WARNING, "alert.without_channel", notice, notice=to_json(notice))
        return
    told = deliver(notice, channels, sink, delivery.owed)
    since = delivery.tried_since or now
    given_up = dict(told.given_up)
    for name in told.taken:
        _tell(logging.INFO, "alert.delivered", notice, channel=name, attempt=delivery.attempt)
    for name, error in told.owed.items():
        pause = pause_before(delivery.attempt + 1, error)
        if now + pause - since > TRIED_FOR:
            given_up[name] = _too_long(name, error, delivery.attempt, since)
            continue
        again = replace(delivery, owed=(name,), attempt=delivery.attempt + 1, tried_since=since)
        queue.send(QUEUE, encode(again), key_of(again), pause)
        _tell(
            logging.WARNING, "alert.delayed", notice,
            channel=name, attempt=delivery.attempt, seconds=pause.total_seconds(), code=error.code, reason=str(error),
        )  # fmt: skip
    for name, error in given_up.items():
        # Sent again by a person, it has its three days anew.
        anew = Delivery(notice, (name,), round=delivery.round + 1)
        queue.reject(QUEUE, encode(anew), key_of(anew), f"{name}: {error}")
        _tell(
            logging.ERROR, "alert.given_up", notice,
            channel=name, attempt=delivery.attempt, code=error.code, reason=str(error),
        )  # fmt: skip


def pause_before(attempt: int, error: RetryableError) -> timedelta:
    """The backoff, or what the receiver asked for when that is longer; never more than one hour."""
    return min(LONGEST_PAUSE, max(backoff(attempt - 1), error.retry_after or timedelta()))


def key_of(delivery: Delivery) -> str:
    """The message's key: the notice, the set of channels and the attempt. The same when a message is taken again."""
    parts = (delivery.notice.notice_id, *sorted(delivery.owed or ()), str(delivery.attempt), str(delivery.round))
    return hashlib.sha256("\x00".join(parts).encode()).hexdigest()


def _too_long(name: str, error: RetryableError, attempt: int, since: datetime) -> PermanentError:
    return PermanentError(
        "alert.undeliverable",
        f"It was not taken in {TRIED_FOR.days} days, {attempt} attempts since {since:%Y-%m-%d %H:%M} UTC. "
        f"The last one: {error.message}",
        f"Mend channel {name} and send the message again.",
    )


def _tell(level: int, event: str, notice: Notice, /, **facts: Any) -> None:
    """One structured line."""
    about = {"event": event, "notice_id": notice.notice_id, "pipeline_id": notice.pipeline_id, **facts}
    _log.log(level, "%s", json.dumps(about))
