"""Senders and receivers of Service Bus that are kept open, one thread at a time, and its errors in the house's words."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from azure.core.exceptions import AzureError, ClientAuthenticationError
from azure.servicebus import ServiceBusReceivedMessage, ServiceBusReceiver, ServiceBusSender
from azure.servicebus.exceptions import (
    MessageAlreadySettled,
    MessageLockLostError,
    MessageNotFoundError,
    MessageSizeExceededError,
    MessagingEntityDisabledError,
    MessagingEntityNotFoundError,
    ServiceBusAuthenticationError,
    ServiceBusAuthorizationError,
    ServiceBusError,
    ServiceBusQuotaExceededError,
)

from sync_core.domain.errors import PermanentError, RetryableError, SyncError

VOID = (MessageLockLostError, MessageAlreadySettled, MessageNotFoundError)
"""What settling says when the lock went to another receiver, or the message is gone."""

REFUSALS = ("amqp:not-allowed", "amqp:not-implemented", "amqp:invalid-field", "com.microsoft:argument-error")
"""Conditions of requests that would be refused again."""

_LASTING = (
    MessageSizeExceededError,
    MessagingEntityDisabledError,
    MessagingEntityNotFoundError,
    ServiceBusAuthenticationError,
    ServiceBusAuthorizationError,
    ServiceBusQuotaExceededError,
)
"""What a new link would not help."""


PAUSES = (0.0, 0.5, 2.0)
"""Seconds before each further try: at once for a link that the service closed while it was idle, then with backoff."""


class _Turn:
    """A lock whose urgent takers go first: a renewal must not wait behind everyone who asks for the next message."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._taken = False
        self._urgent = 0

    @contextmanager
    def take(self, *, urgent: bool) -> Generator[None]:
        with self._changed:
            self._urgent += urgent
            self._changed.wait_for(lambda: not self._taken and (urgent or not self._urgent))
            self._urgent -= urgent
            self._taken = True
        try:
            yield
        finally:
            with self._changed:
                self._taken = False
                self._changed.notify_all()


class Link[Handler: (ServiceBusSender, ServiceBusReceiver)]:
    """One sender or receiver, opened when it is first used and kept: each has a connection of its own.

    The SDK's handlers serve one thread at a time. The tries are counted here and the SDK's own are off: it leaves the
    socket of a broken connection open when it makes a new one (7.15: Connection.close returns before the transport's).
    """

    def __init__(self, queue: str, role: str, make: Callable[[], Handler]) -> None:
        self._queue = queue
        self._role = role
        self._make = make
        self._turn = _Turn()
        self._handler: Handler | None = None
        self._transport: Any = None

    def use[Result](self, work: Callable[[Handler], Result], *, urgent: bool = False) -> Result:
        """Do work that may be done twice. Raises SyncError, and VOID's errors as they are."""
        with self._turn.take(urgent=urgent):
            for pause in (*PAUSES, None):
                try:
                    return work(self._opened())
                except VOID:
                    raise
                except AzureError as error:
                    self._discard()
                    lasting = isinstance(error, _LASTING) or _was_refused(error) or _sign_in_error(error) is not None
                    if lasting or pause is None:
                        raise translate(error, self._queue, self._role) from error
                time.sleep(pause)
        raise AssertionError("the last try returns or raises")

    def close(self) -> None:
        with self._turn.take(urgent=True):
            self._discard()

    def _opened(self) -> Handler:
        if self._handler is None:
            self._handler = self._make()
        # Attaching has a time of its own: within a short receive there is none for it.
        self._handler.__enter__()
        connection = getattr(getattr(self._handler, "_handler", None), "_connection", None)
        self._transport = getattr(connection, "_transport", None)
        return self._handler

    def _discard(self) -> None:
        handler, self._handler = self._handler, None
        transport, self._transport = self._transport, None
        if handler is not None:
            handler.close()
        if transport is not None:
            transport.close()


def translate(error: AzureError, queue: str, role: str) -> SyncError:
    """A vendor's error as the next move. `role` is what the identity needs for the call that failed."""
    sign_in = _sign_in_error(error)
    if sign_in is not None:
        return RetryableError(
            "queue.sign_in",
            f"No token for Service Bus queue {queue} could be had: {type(sign_in).__name__}.",
            f"Give the process a managed identity that has the role {role}.",
        )
    if isinstance(error, ServiceBusAuthenticationError | ServiceBusAuthorizationError):
        return RetryableError(
            "queue.forbidden",
            f"Service Bus refused access to queue {queue}.",
            f"Give the identity the role {role} on the namespace or the queue.",
        )
    if isinstance(error, MessagingEntityNotFoundError):
        return PermanentError(
            "queue.missing", f"There is no Service Bus queue {queue}.", "Deploy the infrastructure, which makes it."
        )
    if isinstance(error, MessagingEntityDisabledError):
        return PermanentError(
            "queue.disabled", f"Service Bus queue {queue} is disabled.", "Enable it in the Azure portal."
        )
    if isinstance(error, MessageSizeExceededError):
        return PermanentError(
            "queue.too_large",
            f"A message is larger than Service Bus queue {queue} takes.",
            "Ask for fewer pipelines at once: the Standard tier takes 256 KB.",
        )
    if isinstance(error, ServiceBusQuotaExceededError):
        return RetryableError(
            "queue.full", f"Service Bus queue {queue} is full.", "Find out why nothing receives its messages."
        )
    if _was_refused(error):
        return PermanentError(
            "queue.refused",
            f"Service Bus queue {queue} refused a request: {_condition(error)}.",
            "Compare the queue with the one that the infrastructure describes; it must have no sessions.",
        )
    return RetryableError(
        "queue.unavailable",
        f"Service Bus queue {queue} cannot be used now: {_condition(error) or type(error).__name__}.",
        "Wait; if it lasts, check the namespace, its network rules and the Azure status page.",
    )


def _condition(error: AzureError) -> str:
    return str(getattr(error, "_condition", None) or "")


def _was_refused(error: AzureError) -> bool:
    return isinstance(error, ServiceBusError) and _condition(error) in REFUSALS


def _sign_in_error(error: AzureError) -> ClientAuthenticationError | None:
    """The credential's own error: the SDK wraps whatever happens while it opens a link."""
    found: object = error
    while isinstance(found, AzureError):
        if isinstance(found, ClientAuthenticationError):
            return found
        found = found.inner_exception
    return None


@dataclass
class Held:
    """A message that one caller holds, under the queue's own lock; it is renewed until `needed_until`."""

    link: Link[ServiceBusReceiver]
    message: ServiceBusReceivedMessage
    needed_until: datetime
    renew_at: datetime

    @property
    def locked_until(self) -> datetime:
        return self.message.locked_until_utc or datetime.min.replace(tzinfo=UTC)


class HeldMessages:
    """What was received and not ended, by receipt. One thread renews locks that must outlast the queue's own."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held: dict[str, Held] = {}
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(self, link: Link[ServiceBusReceiver], message: ServiceBusReceivedMessage, lock: timedelta) -> str:
        """Hold a message that was received just now for `lock`. Returns its receipt."""
        now = datetime.now(UTC)
        held = Held(link, message, now + lock, now)
        held.renew_at = _half_way(now, held)
        receipt = str(message.lock_token)
        with self._changed:
            self._held = {key: one for key, one in self._held.items() if one.locked_until > now}
            self._held[receipt] = held
            if held.needed_until > held.locked_until and self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._renew, name="service-bus-locks", daemon=True)
                self._thread.start()
            self._changed.notify()
        return receipt

    def get(self, receipt: str) -> Held | None:
        with self._changed:
            return self._held.get(receipt)

    def drop(self, receipt: str) -> None:
        with self._changed:
            self._held.pop(receipt, None)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._held.clear()
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _renew(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    return
                now = datetime.now(UTC)
                waiting = {key: one for key, one in self._held.items() if one.needed_until > one.locked_until > now}
                due = min((one.renew_at for one in waiting.values()), default=None)
                if due is None or due > now:
                    self._changed.wait((due - now).total_seconds() if due else None)
                    continue
            for receipt, held in waiting.items():
                if held.renew_at <= now:
                    self._renew_one(receipt, held)

    def _renew_one(self, receipt: str, held: Held) -> None:
        def renew(receiver: ServiceBusReceiver) -> None:
            # It may have been ended while this thread waited for the link.
            if self.get(receipt) is held:
                receiver.renew_message_lock(held.message)

        try:
            held.link.use(renew, urgent=True)
        except (SyncError, *VOID):
            # Whoever holds it finds out when it ends it: the receipt is void by then.
            self.drop(receipt)
        else:
            held.renew_at = _half_way(datetime.now(UTC), held)


def _half_way(now: datetime, held: Held) -> datetime:
    return now + (held.locked_until - now) / 2
