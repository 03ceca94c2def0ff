"""The queue on Azure: Service Bus. Keys are message ids, so that duplicate detection is the service's own.

How long a key is remembered, how long a lock lasts and how often a message is delivered are properties of each queue
(ten minutes, one minute and ten times by default); queues have no sessions.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from azure.core.credentials import TokenCredential
from azure.servicebus import (
    ServiceBusClient,
    ServiceBusMessage,
    ServiceBusReceivedMessage,
    ServiceBusReceiver,
    ServiceBusSender,
    ServiceBusSubQueue,
)
from azure.servicebus.amqp import AmqpMessageBodyType

from sync_core.adapters.service_bus_links import VOID, HeldMessages, Link
from sync_core.domain.errors import PermanentError, SyncError
from sync_core.ports import Message

REJECTED = "sync-rejected"
"""The queue of what `reject` puts aside: only the receiver of a message can dead-letter it."""

MOST_DEAD_LETTERS = 100
LONGEST_KEY = 128
LONGEST_REASON = 4096
"""Limits of Service Bus, in characters."""

TRY_SECONDS = 15.0
"""How long one try may take; Link counts the tries."""

WAIT = timedelta(seconds=1)
"""How long `receive` waits for the service to say that there is something."""

SENDER = "Azure Service Bus Data Sender"
RECEIVER = "Azure Service Bus Data Receiver"


class ServiceBusQueue:
    """A Queue in a Service Bus namespace. Threads may share it; `close` it in the end.

    A lock lasts as long as the queue's own, and is renewed when `receive` asks for more.
    """

    def __init__(
        self,
        client: ServiceBusClient,
        wait: timedelta = WAIT,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._wait = wait.total_seconds()
        self._now = now
        self._lock = threading.Lock()
        self._senders: dict[str, Link[ServiceBusSender]] = {}
        self._receivers: dict[tuple[str, ServiceBusSubQueue | None], Link[ServiceBusReceiver]] = {}
        self._held = HeldMessages()
        self._closed = False

    @classmethod
    def for_namespace(cls, namespace: str, credential: TokenCredential) -> ServiceBusQueue:
        """Sign in as an identity. `namespace` is its full name, `example.servicebus.windows.net`."""
        if "=" in namespace or "." not in namespace:
            raise PermanentError(
                "queue.namespace",
                "The Service Bus namespace is not a full host name.",
                "Write it as example.servicebus.windows.net; a connection string is for local servers only.",
            )
        return cls(
            ServiceBusClient(
                namespace,
                credential,
                retry_total=0,
                try_timeout=TRY_SECONDS,
            )
        )

    @classmethod
    def for_local_server(cls, connection_string: str, wait: timedelta = WAIT) -> ServiceBusQueue:
        """Sign in by a connection string, which only an emulator may have."""
        if "usedevelopmentemulator=true" not in connection_string.lower():
            raise PermanentError(
                "queue.connection_string",
                "A Service Bus connection string was given that is not for a local server.",
                "Name the namespace instead (example.servicebus.windows.net) and give the identity the roles "
                f"{SENDER} and {RECEIVER}.",
            )
        try:
            client = ServiceBusClient.from_connection_string(
                connection_string,
                retry_total=0,
                try_timeout=TRY_SECONDS,
            )
        except ValueError as error:
            raise PermanentError(
                "queue.connection_string",
                "The connection string of the local Service Bus cannot be understood.",
                "Write Endpoint=sb://HOST:PORT;SharedAccessKeyName=…;SharedAccessKey=…;UseDevelopmentEmulator=true;",
            ) from error
        return cls(client, wait)

    def send(self, queue: str, body: str, key: str, delay: timedelta = timedelta()) -> None:
        if not 1 <= len(key) <= LONGEST_KEY:
            raise PermanentError(
                "queue.key",
                f"A message for queue {queue} has a key of {len(key)} characters.",
                f"Give it one of 1 to {LONGEST_KEY} characters.",
            )
        due = self._now() + delay if delay > timedelta() else None
        self._send(
            queue,
            lambda: ServiceBusMessage(
                body, message_id=key, content_type="application/json", scheduled_enqueue_time_utc=due
            ),
        )

    def receive(self, queue: str, lock: timedelta = timedelta(minutes=1)) -> Message | None:
        link = self._receiver(queue)
        received = link.use(lambda receiver: receiver.receive_messages(1, max_wait_time=self._wait))
        if not received:
            return None
        receipt = self._held.add(link, received[0], lock)
        deliveries = (received[0].delivery_count or 0) + 1
        return Message(queue, str(received[0].message_id or ""), _body(received[0]), deliveries, receipt)

    def complete(self, message: Message) -> None:
        self._end(message, lambda receiver, held: receiver.complete_message(held))

    def abandon(self, message: Message) -> None:
        self._end(message, lambda receiver, held: receiver.abandon_message(held))

    def dead_letter(self, message: Message, reason: str) -> None:
        description = f"Put aside by the control plane at delivery {message.deliveries}."
        self._end(
            message,
            lambda receiver, held: receiver.dead_letter_message(
                held, reason=reason[:LONGEST_REASON], error_description=description
            ),
        )

    def reject(self, queue: str, body: str, key: str, reason: str) -> None:
        # Without a key of its own a message is known by what it says.
        digest = hashlib.sha256("\0".join((queue, key, "" if key else body)).encode()).hexdigest()
        properties: dict[str | bytes, str] = {"queue": queue, "key": key, "reason": reason[:LONGEST_REASON]}
        self._send(
            REJECTED,
            lambda: ServiceBusMessage(
                body, message_id=digest, content_type="application/json", application_properties=dict(properties)
            ),
        )

    def dead_letters(self, queue: str) -> list[Message]:
        found = [
            (one.enqueued_time_utc, _dead_letter(queue, one))
            for one in self._peek(queue, ServiceBusSubQueue.DEAD_LETTER, lambda _one: True)
        ]
        # The service remembers a key for a while; here it counts for good. What was held too often while others were
        # sent again, or lay there too long, is among the dead letters of that queue itself.
        rejected: dict[str, tuple[datetime | None, Message]] = {}
        aside = [
            one
            for part in (None, ServiceBusSubQueue.DEAD_LETTER)
            for one in self._peek(REJECTED, part, lambda one: _property(one, "queue") == queue)
        ]
        for one in aside:
            key = _property(one, "key")
            message = Message(queue, key, _body(one), one.delivery_count or 0, "", _property(one, "reason"))
            rejected.setdefault(str(one.message_id), (one.enqueued_time_utc, message))
        found += rejected.values()
        return [message for _at, message in sorted(found, key=_age)][:MOST_DEAD_LETTERS]

    def send_again(self, queue: str, key: str) -> int:
        def rejected(one: ServiceBusReceivedMessage) -> bool:
            return _property(one, "queue") == queue and _property(one, "key") == key

        dead = ServiceBusSubQueue.DEAD_LETTER
        own = self._take_back(queue, queue, dead, lambda one: str(one.message_id or "") == key)
        return own + sum(self._take_back(queue, REJECTED, part, rejected) for part in (None, dead))

    def close(self) -> None:
        """Give back what is held and close every connection."""
        with self._lock:
            self._closed = True
            links = [*self._senders.values(), *self._receivers.values()]
            self._senders, self._receivers = {}, {}
        self._held.close()
        for link in links:
            link.close()
        self._client.close()

    def _take_back(
        self,
        queue: str,
        source: str,
        part: ServiceBusSubQueue | None,
        wanted: Callable[[ServiceBusReceivedMessage], bool],
    ) -> int:
        """Send what is wanted, then complete it where it lies. The service hands out no message by its number: what
        comes before the wanted one is held and given back."""
        left = len(self._peek(source, part, wanted))
        if not left:
            return 0
        sent = 0
        link = Link(source, RECEIVER, lambda: self._client.get_queue_receiver(source, sub_queue=part))
        held: list[ServiceBusReceivedMessage] = []
        try:
            while sent < left:
                page = link.use(lambda receiver: receiver.receive_messages(MOST_DEAD_LETTERS, max_wait_time=self._wait))
                if not page:
                    break
                for one in page:
                    if sent == left or not wanted(one):
                        held.append(one)
                        continue
                    # Its old key may still be remembered, and the service would drop it in silence.
                    again = hashlib.sha256(f"{source}\0{one.message_id}\0{one.sequence_number}".encode()).hexdigest()
                    body = _body(one)
                    self.send(queue, body, again)
                    link.use(lambda receiver, one=one: receiver.complete_message(one))
                    sent += 1
        finally:
            with contextlib.suppress(SyncError, *VOID):
                for one in held:
                    link.use(lambda receiver, one=one: receiver.abandon_message(one))
            link.close()
        return sent

    def _send(self, queue: str, make: Callable[[], ServiceBusMessage]) -> None:
        """A message is made for each try: its id is what makes the second one harmless."""
        with self._lock:
            self._check_open()
            if queue not in self._senders:
                self._senders[queue] = Link(queue, SENDER, lambda: self._client.get_queue_sender(queue))
            link = self._senders[queue]
        link.use(lambda sender: sender.send_messages(make()))

    def _receiver(self, queue: str, part: ServiceBusSubQueue | None = None) -> Link[ServiceBusReceiver]:
        with self._lock:
            self._check_open()
            if (queue, part) not in self._receivers:
                self._receivers[queue, part] = Link(
                    queue, RECEIVER, lambda: self._client.get_queue_receiver(queue, sub_queue=part)
                )
            return self._receivers[queue, part]

    def _check_open(self) -> None:
        if self._closed:
            raise PermanentError("queue.closed", "The connection to Service Bus is closed.", "Open another one.")

    def _end(self, message: Message, act: Callable[[ServiceBusReceiver, ServiceBusReceivedMessage], None]) -> None:
        """Settle what is still held; by its lock token where the link it came over is gone."""
        held = self._held.get(message.receipt)
        if held is None:
            return
        with contextlib.suppress(*VOID):
            held.link.use(lambda receiver: act(receiver, held.message), urgent=True)
        self._held.drop(message.receipt)

    def _peek(
        self, queue: str, part: ServiceBusSubQueue | None, wanted: Callable[[ServiceBusReceivedMessage], bool]
    ) -> list[ServiceBusReceivedMessage]:
        """The first that are wanted, in the order of their numbers; a page may hold fewer than asked for."""
        link = self._receiver(queue, part)
        found: list[ServiceBusReceivedMessage] = []
        number = 1
        while len(found) < MOST_DEAD_LETTERS:
            page = link.use(
                lambda receiver, first=number: receiver.peek_messages(MOST_DEAD_LETTERS, sequence_number=first)
            )
            if not page:
                break
            found += [one for one in page if wanted(one)]
            number = (page[-1].sequence_number or number) + 1
        return found


def _age(entry: tuple[datetime | None, Message]) -> datetime:
    return entry[0] or datetime.min.replace(tzinfo=UTC)


def _body(message: ServiceBusReceivedMessage) -> str:
    """Its text; bytes that are no text become signs that no reader takes for JSON."""
    if message.body_type is AmqpMessageBodyType.DATA:
        return b"".join(message.body).decode(errors="replace")
    return str(message.body)


def _dead_letter(queue: str, message: ServiceBusReceivedMessage) -> Message:
    deliveries = message.delivery_count or 0
    reason, description = message.dead_letter_reason or "", message.dead_letter_error_description or ""
    if reason == "MaxDeliveryCountExceeded":
        reason = f"It was delivered {deliveries} times and never brought to an end."
    elif " " not in reason:
        # A code of the service or of the Functions host: its description is the sentence.
        reason = ": ".join(part for part in (reason, description) if part) or "No reason was given."
    return Message(queue, str(message.message_id or ""), _body(message), deliveries, "", reason)


def _property(message: ServiceBusReceivedMessage, name: str) -> str:
    """An application property as text: the SDK hands out names and values as bytes."""
    for key, value in (message.application_properties or {}).items():
        if (key.decode() if isinstance(key, bytes) else key) == name:
            return value.decode() if isinstance(value, bytes) else str(value)
    return ""
