"""The queues of the Service Bus stand-in: messages, locks, duplicates, dead letters, sessions. Times are seconds since 1970."""

from __future__ import annotations

import itertools
import secrets
import uuid
from collections.abc import Iterator
from typing import Any, Protocol

from proton import Message, symbol, timestamp

DEAD_LETTER_SUFFIX = "/$deadletterqueue"
NEVER = 10**9


class Fault(Exception):
    """An error that the broker answers with: an AMQP condition and a text."""

    def __init__(self, condition: str, text: str = "") -> None:
        super().__init__(text or condition)
        self.condition = condition


def milliseconds(seconds: float) -> timestamp:
    """A point in time as AMQP writes it."""
    return timestamp(int(seconds * 1000))


class BrokerMessage:
    """A message with what the broker knows about it. `dead` is (reason, description, queue it came from)."""

    def __init__(self, number: int, raw: bytes, parsed: Message, now: float) -> None:
        self.number = number
        self.enqueued = now
        self.session: str | None = parsed.group_id
        due = (parsed.annotations or {}).get("x-opt-scheduled-enqueue-time")
        self.due: float | None = due / 1000 if due else None
        self.expires: float | None = now + parsed.ttl if parsed.ttl else None
        self.deliveries = 0
        self.token: str | None = None
        self.locked_until = 0.0
        self.deferred = False
        self.dead: tuple[str, str, str] | None = None
        self._raw = raw

    def encode(self, *, locked: bool) -> bytes:
        """As it goes over the wire, with a header: proton omits one of defaults, and the SDK wants its delivery count."""
        message = Message()
        message.decode(self._raw)
        state = 1 if self.deferred else 2 if self.due else 0
        annotations: dict[str, Any] = dict(message.annotations or {}) | {
            "x-opt-sequence-number": self.number,
            "x-opt-enqueue-sequence-number": self.number,
            "x-opt-enqueued-time": milliseconds(self.enqueued),
            "x-opt-message-state": state,
        }
        if locked:
            annotations["x-opt-locked-until"] = milliseconds(self.locked_until)
        if self.dead:
            reason, description, source = self.dead
            annotations["x-opt-deadletter-source"] = source
            properties = {"DeadLetterReason": reason, "DeadLetterErrorDescription": description}
            message.properties = dict(message.properties or {}) | properties
        message.annotations = {symbol(name): value for name, value in annotations.items()}
        time_to_live = int(message.ttl * 1000) if message.ttl else 0
        message.durable, message.first_acquirer, message.priority, message.ttl = False, False, 4, 0
        message.delivery_count = 0
        lifetime = b"\x70" + time_to_live.to_bytes(4, "big") if time_to_live else b"\x40"
        header = b"\x42\x40" + lifetime + b"\x42\x70" + self.deliveries.to_bytes(4, "big")
        encoded = message.encode().removeprefix(b"\x00\x53\x70\x45")
        return b"\x00\x53\x70\xc0" + bytes([len(header) + 1, 5]) + header + encoded


class LinkKeeper(Protocol):
    """What a queue asks of the broker that owns the links."""

    numbers: itertools.count[int]

    def deliver(self, queue: BrokerQueue) -> None: ...
    def open_session(self, link: Any, session: str, until: float) -> None: ...
    def refuse(self, link: Any, condition: str, text: str = "") -> None: ...
    def detach(self, link: Any, condition: str, text: str) -> None: ...


class BrokerQueue:
    """`lock` and `duplicate_window` in seconds; a window of 0 detects no duplicates."""

    def __init__(
        self,
        name: str,
        broker: LinkKeeper,
        lock: float = 30.0,
        max_deliveries: int = 10,
        duplicate_window: float = 0,
        sessions: bool = False,
        dead_letters: bool = True,
    ) -> None:
        self.name = name
        self.lock = lock
        self.max_deliveries = max_deliveries
        self.duplicate_window = duplicate_window
        self.needs_session = sessions
        self.messages: dict[int, BrokerMessage] = {}
        self.links: list[Any] = []
        self.waiting: list[tuple[Any, str | None, float]] = []
        self.session_state: dict[str, bytes | None] = {}
        self.session_locks: dict[str, tuple[Any, float]] = {}
        self._broker = broker
        self._seen: dict[object, float] = {}
        self.dead_letters = (
            BrokerQueue(name + DEAD_LETTER_SUFFIX, broker, lock, NEVER, dead_letters=False) if dead_letters else None
        )

    def put(self, raw: bytes, message: Message, now: float) -> int | None:
        """Its sequence number; None when it is a duplicate, which is dropped in silence as the service does."""
        if self.needs_session and not message.group_id:
            raise Fault("amqp:not-allowed", "The queue needs a session id.")
        if self.duplicate_window and message.id is not None:
            self._seen = {key: at for key, at in self._seen.items() if at > now - self.duplicate_window}
            if message.id in self._seen:
                return None
            self._seen[message.id] = now
        stored = BrokerMessage(next(self._broker.numbers), raw, message, now)
        self.messages[stored.number] = stored
        return stored.number

    def lock_message(self, message: BrokerMessage, now: float) -> str:
        """Its new lock token, random so that a token from before a restart means nothing after it."""
        message.locked_until = now + self.lock
        message.token = secrets.token_hex(8)
        return message.token

    def held_by(self, token: uuid.UUID) -> BrokerMessage:
        for message in self.messages.values():
            if message.token and uuid.UUID(bytes_le=message.token.encode()) == token:
                return message
        raise Fault("com.microsoft:message-lock-lost", "The lock supplied is invalid.")

    def settle(self, message: BrokerMessage, outcome: str, reason: str | None = None, text: str | None = None) -> None:
        """`defered` and `suspended` (dead-lettered) are the protocol's own words."""
        message.token = None
        if outcome == "completed":
            self.messages.pop(message.number, None)
        elif outcome == "released":
            pass
        elif outcome == "defered":
            message.deferred = True
        elif outcome == "suspended":
            self._put_aside(message, reason, text)
        else:
            message.deliveries += 1
            if message.deliveries >= self.max_deliveries:
                text = f"Message could not be consumed after {self.max_deliveries} delivery attempts."
                self._put_aside(message, "MaxDeliveryCountExceeded", text)

    def _put_aside(self, message: BrokerMessage, reason: str | None, text: str | None) -> None:
        self.messages.pop(message.number, None)
        if self.dead_letters is not None:
            message.dead = (reason or "", text or "", self.name)
            message.deferred = False
            self.dead_letters.messages[message.number] = message
            self._broker.deliver(self.dead_letters)

    def ready(self, now: float, session: str | None = None) -> Iterator[BrokerMessage]:
        for message in list(self.messages.values()):
            if message.expires and message.expires < now and not message.token:
                self.messages.pop(message.number)
                continue
            if message.token or message.deferred or (message.due and message.due > now):
                continue
            if self.needs_session and message.session != session:
                continue
            yield message

    def pass_time(self, now: float) -> None:
        for message in list(self.messages.values()):
            if message.due and message.due <= now:
                message.due = None
                message.enqueued = now
            if message.token and not self.needs_session and message.locked_until < now:
                self.settle(message, "abandoned")
        for session, (_link, until) in list(self.session_locks.items()):
            if until < now:
                self.drop_session(session, "com.microsoft:session-lock-lost")
        self.accept_sessions(now)

    # ---- sessions

    def accept_sessions(self, now: float) -> None:
        for entry in list(self.waiting):
            link, wanted, deadline = entry
            session = self._next_session(now) if wanted is None else wanted
            if session is not None and session not in self.session_locks:
                self.waiting.remove(entry)
                self.session_locks[session] = (link, now + self.lock)
                link.session_id = session
                self.links.append(link)
                self._broker.open_session(link, session, now + self.lock)
                self._broker.deliver(self)
            elif wanted is not None:
                self.waiting.remove(entry)
                self._broker.refuse(link, "com.microsoft:session-cannot-be-locked", "The session is locked.")
            elif now > deadline:
                self.waiting.remove(entry)
                self._broker.refuse(link, "com.microsoft:timeout", "No session is available.")

    def _next_session(self, now: float) -> str | None:
        for message in self.messages.values():
            due = not (message.due and message.due > now)
            if message.session not in self.session_locks and not message.deferred and due:
                return message.session
        return None

    def drop_session(self, session: str, condition: str = "") -> None:
        found = self.session_locks.pop(session, None)
        if found is None:
            return
        for message in self.messages.values():
            if message.session == session and message.token:
                message.token = None
                message.deliveries += 1
        link = found[0]
        if link in self.links:
            self.links.remove(link)
        if condition:
            self._broker.detach(link, condition, "The session lock is lost.")

    def forget_link(self, link: Any) -> None:
        self.waiting = [entry for entry in self.waiting if entry[0] != link]
        if link in self.links:
            self.links.remove(link)
        for session, (owner, _until) in list(self.session_locks.items()):
            if owner == link:
                self.drop_session(session)
