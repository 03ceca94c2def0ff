"""The Service Bus stand-in does what the real SDK expects of the service."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from azure.servicebus import (
    NEXT_AVAILABLE_SESSION,
    AutoLockRenewer,
    ServiceBusClient,
    ServiceBusMessage,
    ServiceBusReceivedMessage,
    ServiceBusReceiveMode,
    ServiceBusReceiver,
    ServiceBusSubQueue,
)
from azure.servicebus.aio import ServiceBusClient as AsyncServiceBusClient
from azure.servicebus.exceptions import (
    MessageLockLostError,
    MessagingEntityNotFoundError,
    OperationTimeoutError,
    ServiceBusError,
    SessionCannotBeLockedError,
    SessionLockLostError,
)

from tests.support.service_bus import ServiceBusBroker

LOCK = 30.0
BRIEF = 1.5
"""Seconds of a lock whose end a test waits for."""
RENEWED = 4.0
"""Seconds of a lock that is renewed before its end, however slow the machine."""
QUIET = 0.5
"""Seconds without a message after which there is none."""


@pytest.fixture(scope="module")
def broker() -> Generator[ServiceBusBroker]:
    with ServiceBusBroker({"topics": {"news": {"first": {}, "second": {}}}}) as started:
        yield started


@pytest.fixture
def client(broker: ServiceBusBroker) -> Generator[ServiceBusClient]:
    with ServiceBusClient.from_connection_string(broker.connection_string, retry_total=0) as opened:
        yield opened


@pytest.fixture
def plain(broker: ServiceBusBroker) -> str:
    return broker.queue(lock=LOCK, max_deliveries=3)


@pytest.fixture
def brief(broker: ServiceBusBroker) -> str:
    return broker.queue(lock=BRIEF)


@pytest.fixture
def renewed(broker: ServiceBusBroker) -> str:
    return broker.queue(lock=RENEWED)


@pytest.fixture
def unique(broker: ServiceBusBroker) -> str:
    return broker.queue(duplicate_window=600)


@pytest.fixture
def sessions(broker: ServiceBusBroker) -> str:
    return broker.queue(sessions=True, lock=LOCK)


def send(client: ServiceBusClient, queue: str, *bodies: str, session: str | None = None) -> None:
    with client.get_queue_sender(queue) as sender:
        for body in bodies:
            sender.send_messages(ServiceBusMessage(body, session_id=session))


def take(receiver: ServiceBusReceiver) -> ServiceBusReceivedMessage:
    return receiver.receive_messages(1, max_wait_time=30)[0]


def take_all(receiver: ServiceBusReceiver, expected: int = 0) -> list[str]:
    """What is there, completed: the expected messages however long they take, and others that come at once."""
    found: list[str] = []
    while received := receiver.receive_messages(1, max_wait_time=30 if len(found) < expected else QUIET):
        found.append(str(received[0]))
        receiver.complete_message(received[0])
    return found


def wait_until(moment: datetime | None) -> None:
    assert moment is not None
    while datetime.now(UTC) <= moment:
        threading.Event().wait(0.05)


def test_send_receive_complete(client: ServiceBusClient, plain: str) -> None:
    with client.get_queue_sender(plain) as sender:
        sender.send_messages(
            ServiceBusMessage(
                b'{"a":1}',
                message_id="m1",
                application_properties={"k": "v"},
                content_type="application/json",
                correlation_id="c1",
                subject="s",
            )
        )
    with client.get_queue_receiver(plain) as receiver:
        message = take(receiver)
        assert b"".join(message.body) == b'{"a":1}'
        assert (message.message_id, message.correlation_id, message.subject) == ("m1", "c1", "s")
        assert message.content_type == "application/json"
        assert message.application_properties == {b"k": b"v"}
        assert message.delivery_count == 0
        assert message.sequence_number
        assert message.locked_until_utc
        assert message.enqueued_time_utc
        receiver.complete_message(message)
        assert take_all(receiver) == []


def test_batches(client: ServiceBusClient, plain: str) -> None:
    with client.get_queue_sender(plain) as sender:
        batch = sender.create_message_batch()
        for number in range(5):
            batch.add_message(ServiceBusMessage(f"x{number}"))
        sender.send_messages(batch)
        sender.send_messages([ServiceBusMessage("y0")])
    with client.get_queue_receiver(plain) as receiver:
        found: list[str] = []
        while received := receiver.receive_messages(10, max_wait_time=30 if len(found) < 6 else QUIET):
            for message in received:
                found.append(str(message))
                receiver.complete_message(message)
    assert found == ["x0", "x1", "x2", "x3", "x4", "y0"]


def test_too_many_deliveries_end_among_the_dead_letters(client: ServiceBusClient, plain: str) -> None:
    send(client, plain, "A")
    with client.get_queue_receiver(plain) as receiver:
        for count in range(3):
            message = take(receiver)
            assert message.delivery_count == count
            receiver.abandon_message(message)
        assert take_all(receiver) == []
    with client.get_queue_receiver(plain, sub_queue=ServiceBusSubQueue.DEAD_LETTER) as receiver:
        dead = take(receiver)
        assert (dead.dead_letter_reason, dead.dead_letter_source) == ("MaxDeliveryCountExceeded", plain)
        receiver.complete_message(dead)
        assert take_all(receiver) == []


def test_dead_letter(client: ServiceBusClient, plain: str) -> None:
    send(client, plain, "A")
    with client.get_queue_receiver(plain) as receiver:
        receiver.dead_letter_message(take(receiver), reason="bad", error_description="why")
    with client.get_queue_receiver(plain, sub_queue=ServiceBusSubQueue.DEAD_LETTER) as receiver:
        dead = take(receiver)
        assert (str(dead), dead.dead_letter_reason, dead.dead_letter_error_description) == ("A", "bad", "why")
        receiver.complete_message(dead)


def test_a_lock_that_is_over_gives_the_message_to_the_next(client: ServiceBusClient, brief: str) -> None:
    send(client, brief, "A")
    with client.get_queue_receiver(brief) as receiver:
        first = take(receiver)
        wait_until(first.locked_until_utc)
        with pytest.raises(MessageLockLostError):
            receiver.complete_message(first)
        second = take(receiver)
        assert second.delivery_count == 1
        receiver.complete_message(second)


def test_the_broker_itself_refuses_a_late_end(client: ServiceBusClient, brief: str) -> None:
    send(client, brief, "A")
    with client.get_queue_receiver(brief) as receiver:
        first = take(receiver)
        wait_until(first.locked_until_utc)
        second = take(receiver)
        # The SDK's own look at the clock is made blind, so that the broker has to answer.
        first._expiry = datetime.now(UTC) + timedelta(minutes=1)
        with pytest.raises(MessageLockLostError):
            receiver.complete_message(first)
        receiver.complete_message(second)


def test_a_lock_is_renewed(client: ServiceBusClient, renewed: str) -> None:
    send(client, renewed, "A")
    with client.get_queue_receiver(renewed) as receiver:
        message = take(receiver)
        before = message.locked_until_utc
        assert before is not None
        threading.Event().wait(RENEWED / 4)
        assert receiver.renew_message_lock(message) > before
        wait_until(before)
        receiver.complete_message(message)
        assert take_all(receiver) == []


def test_the_sdks_lock_renewer_works(client: ServiceBusClient, renewed: str) -> None:
    send(client, renewed, "A")
    with client.get_queue_receiver(renewed) as receiver, AutoLockRenewer() as renewer:
        message = take(receiver)
        first = message.locked_until_utc
        assert first is not None
        renewer.register(receiver, message, max_lock_renewal_duration=20)
        wait_until(first + timedelta(seconds=RENEWED))
        receiver.complete_message(message)


def test_defer(client: ServiceBusClient, plain: str) -> None:
    send(client, plain, "A")
    with client.get_queue_receiver(plain) as receiver:
        message = take(receiver)
        receiver.defer_message(message)
        assert take_all(receiver) == []
        assert message.sequence_number is not None
        deferred = receiver.receive_deferred_messages(message.sequence_number)[0]
        assert str(deferred) == "A"
        receiver.complete_message(deferred)


def test_peek(client: ServiceBusClient, plain: str) -> None:
    send(client, plain, "A", "B")
    with client.get_queue_receiver(plain) as receiver:
        assert [str(one) for one in receiver.peek_messages(5)] == ["A", "B"]
        assert take_all(receiver, 2) == ["A", "B"]


def test_scheduled_and_cancelled(client: ServiceBusClient, plain: str) -> None:
    due = datetime.now(UTC) + timedelta(seconds=1)
    with client.get_queue_sender(plain) as sender:
        numbers = sender.schedule_messages([ServiceBusMessage("A"), ServiceBusMessage("B")], due)
        sender.cancel_scheduled_messages(numbers[1])
    with client.get_queue_receiver(plain) as receiver:
        message = take(receiver)
        assert datetime.now(UTC) > due
        assert str(message) == "A"
        receiver.complete_message(message)
        assert take_all(receiver) == []


def test_scheduled_by_property(client: ServiceBusClient, plain: str) -> None:
    due = datetime.now(UTC) + timedelta(seconds=1)
    with client.get_queue_sender(plain) as sender:
        sender.send_messages(ServiceBusMessage("A", scheduled_enqueue_time_utc=due))
    with client.get_queue_receiver(plain) as receiver:
        message = take(receiver)
        assert datetime.now(UTC) > due
        receiver.complete_message(message)


def test_duplicates_are_dropped_in_silence(client: ServiceBusClient, unique: str) -> None:
    with client.get_queue_sender(unique) as sender:
        for number in range(3):
            sender.send_messages(ServiceBusMessage(f"d{number}", message_id="same"))
        sender.send_messages(ServiceBusMessage("other", message_id="o"))
    with client.get_queue_receiver(unique) as receiver:
        assert take_all(receiver, 2) == ["d0", "other"]


def test_receive_and_delete(client: ServiceBusClient, plain: str) -> None:
    send(client, plain, "A")
    mode = ServiceBusReceiveMode.RECEIVE_AND_DELETE
    with client.get_queue_receiver(plain, receive_mode=mode) as receiver:
        assert str(take(receiver)) == "A"
    with client.get_queue_receiver(plain) as receiver:
        assert take_all(receiver) == []


def test_a_session_has_one_owner_state_and_order(
    client: ServiceBusClient, broker: ServiceBusBroker, sessions: str
) -> None:
    for number in range(3):
        send(client, sessions, f"A{number}", session="A")
        send(client, sessions, f"B{number}", session="B")
    with client.get_queue_receiver(sessions, session_id="A") as receiver:
        receiver.session.set_state(b"state")
        assert receiver.session.get_state() == b"state"
        assert receiver.session.renew_lock() > datetime.now(UTC)
        with ServiceBusClient.from_connection_string(broker.connection_string, retry_total=0) as second:
            other = second.get_queue_receiver(sessions, session_id="A")
            with pytest.raises(SessionCannotBeLockedError):
                other.__enter__()
        assert take_all(receiver, 3) == ["A0", "A1", "A2"]


def test_the_next_session_that_is_free(client: ServiceBusClient, sessions: str) -> None:
    send(client, sessions, "B0", "B1", session="B")
    with client.get_queue_receiver(sessions, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=30) as receiver:
        assert receiver.session.session_id == "B"
        assert take_all(receiver, 2) == ["B0", "B1"]
    none = client.get_queue_receiver(sessions, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=0.5)
    with pytest.raises(OperationTimeoutError):
        none.__enter__()


def test_a_session_lock_that_is_over(client: ServiceBusClient, broker: ServiceBusBroker) -> None:
    sessions = broker.queue(sessions=True, lock=RENEWED)
    send(client, sessions, "A", session="A")
    with client.get_queue_receiver(sessions, session_id="A") as receiver:
        message = take(receiver)
        wait_until(receiver.session.locked_until_utc)
        with pytest.raises(SessionLockLostError):
            receiver.complete_message(message)
    with client.get_queue_receiver(sessions, session_id="A") as receiver:
        message = take(receiver)
        assert message.delivery_count == 1
        receiver.complete_message(message)


def test_an_unknown_queue(client: ServiceBusClient) -> None:
    sender = client.get_queue_sender("no-such-queue")
    with pytest.raises(MessagingEntityNotFoundError):
        sender.send_messages(ServiceBusMessage("A"))


def test_a_receiver_without_session_is_refused_by_a_queue_with_sessions(
    client: ServiceBusClient, sessions: str
) -> None:
    receiver = client.get_queue_receiver(sessions)
    with pytest.raises(ServiceBusError, match=r"not-allowed|NotAllowed"):
        receiver.receive_messages(1, max_wait_time=5)


def test_a_topic_reaches_every_subscription(client: ServiceBusClient) -> None:
    with client.get_topic_sender("news") as sender:
        sender.send_messages(ServiceBusMessage("A"))
    for name in ("first", "second"):
        with client.get_subscription_receiver("news", name) as receiver:
            assert take_all(receiver, 1) == ["A"]


def test_the_async_client(broker: ServiceBusBroker, plain: str) -> None:
    async def exchange() -> str:
        async with AsyncServiceBusClient.from_connection_string(broker.connection_string, retry_total=0) as opened:
            async with opened.get_queue_sender(plain) as sender:
                await sender.send_messages(ServiceBusMessage("A"))
            async with opened.get_queue_receiver(plain) as receiver:
                message = (await receiver.receive_messages(1, max_wait_time=30))[0]
                await receiver.complete_message(message)
                return str(message)

    assert asyncio.run(exchange()) == "A"


def test_a_large_message_and_prefetch(client: ServiceBusClient, broker: ServiceBusBroker) -> None:
    queue = broker.queue()
    send(client, queue, "x" * 300_000, *(str(number) for number in range(30)))
    with client.get_queue_receiver(queue, prefetch_count=20) as receiver:
        found = take_all(receiver, 31)
    assert len(found[0]) == 300_000
    assert found[1:] == [str(number) for number in range(30)]


def test_competing_receivers_share_without_doubles(
    client: ServiceBusClient, broker: ServiceBusBroker, unique: str
) -> None:
    with client.get_queue_sender(unique) as sender:
        sender.send_messages([ServiceBusMessage(str(number), message_id=str(number)) for number in range(60)])

    def work(_: int) -> list[str]:
        with (
            ServiceBusClient.from_connection_string(broker.connection_string, retry_total=0) as own,
            own.get_queue_receiver(unique) as receiver,
        ):
            return take_all(receiver)

    with ThreadPoolExecutor(4) as pool:
        found = [body for part in pool.map(work, range(4)) for body in part]
    assert sorted(found, key=int) == [str(number) for number in range(60)]


def test_a_receiver_that_dies_leaves_its_message_to_the_next(
    client: ServiceBusClient, broker: ServiceBusBroker, brief: str
) -> None:
    send(client, brief, "A")
    program = (
        "import os, sys; from azure.servicebus import ServiceBusClient\n"
        "client = ServiceBusClient.from_connection_string(sys.argv[1])\n"
        "print(client.get_queue_receiver(sys.argv[2]).receive_messages(1, max_wait_time=30)[0], flush=True)\n"
        "os._exit(9)"
    )
    command = [sys.executable, "-c", program, broker.connection_string, brief]
    died = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (died.returncode, died.stdout) == (9, "A\n")
    with client.get_queue_receiver(brief) as receiver:
        message = take(receiver)
        assert message.delivery_count == 1
        receiver.complete_message(message)


def test_many_messages_one_after_the_other(client: ServiceBusClient, plain: str) -> None:
    started = time.monotonic()
    send(client, plain, *(str(number) for number in range(300)))
    with client.get_queue_receiver(plain, prefetch_count=50) as receiver:
        assert take_all(receiver, 300) == [str(number) for number in range(300)]
    print(f"300 messages sent, received and completed in {time.monotonic() - started:.1f} s")
