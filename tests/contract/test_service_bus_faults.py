"""The Service Bus queue when the network, the service or the sign-in fails: the real SDK against a local broker."""

from __future__ import annotations

import time
from collections.abc import Generator
from datetime import timedelta
from typing import Any

import pytest
from azure.core.exceptions import ClientAuthenticationError
from azure.servicebus import ServiceBusClient

from sync_core.adapters.service_bus_queue import ServiceBusQueue
from sync_core.domain.errors import PermanentError, RetryableError, SyncError
from sync_core.ports import Message
from tests.support.service_bus import CuttingProxy, ServiceBusBroker, connection_string

WAIT = timedelta(seconds=0.4)
LOCK = timedelta(seconds=1)
KEYS: dict[str, Any] = {
    "both": {"key": "right-key", "rights": ["send", "listen"]},  # pragma: allowlist secret
    "sender": {"key": "sender-key", "rights": ["send"]},  # pragma: allowlist secret
    "listener": {"key": "listener-key", "rights": ["listen"]},  # pragma: allowlist secret
}


@pytest.fixture
def proxy(service_bus: ServiceBusBroker) -> Generator[CuttingProxy]:
    with CuttingProxy(service_bus.port) as opened:
        yield opened


@pytest.fixture
def queue(proxy: CuttingProxy) -> Generator[ServiceBusQueue]:
    opened = ServiceBusQueue.for_local_server(connection_string(proxy.port), WAIT)
    yield opened
    opened.close()


def receive(queue: ServiceBusQueue, name: str) -> Message:
    deadline = time.monotonic() + 60
    while (message := queue.receive(name, LOCK)) is None:
        assert time.monotonic() < deadline, "it never came"
    return message


def test_an_answer_lost_in_the_middle_of_a_send_leaves_one_message(
    service_bus: ServiceBusBroker, proxy: CuttingProxy, queue: ServiceBusQueue
) -> None:
    name = service_bus.queue(duplicate_window=600)
    queue.send(name, "opens the link", "first")
    queue.complete(receive(queue, name))
    proxy.cut_after(b"the answer to this is lost")
    queue.send(name, "the answer to this is lost", "a")
    assert proxy.cuts == 1
    message = receive(queue, name)
    assert message.body == "the answer to this is lost"
    queue.complete(message)
    assert queue.receive(name) is None


def test_without_duplicate_detection_the_same_cut_would_double(
    service_bus: ServiceBusBroker, proxy: CuttingProxy, queue: ServiceBusQueue
) -> None:
    """The cut comes after the broker took the message: the test above proves something."""
    name = service_bus.queue()
    queue.send(name, "opens the link", "first")
    queue.complete(receive(queue, name))
    proxy.cut_after(b"the answer to this is lost")
    queue.send(name, "the answer to this is lost", "a")
    assert [receive(queue, name).key, receive(queue, name).key] == ["a", "a"]


def test_calls_go_on_after_every_connection_was_cut(
    service_bus: ServiceBusBroker, proxy: CuttingProxy, queue: ServiceBusQueue
) -> None:
    name = service_bus.queue(lock=30, duplicate_window=600)
    queue.send(name, "A", "a")
    held = receive(queue, name)
    proxy.cut()
    queue.complete(held)
    proxy.cut()
    queue.send(name, "B", "b")
    proxy.cut()
    message = receive(queue, name)
    assert (message.body, message.deliveries) == ("B", 1)
    queue.dead_letter(message, "It is wrong.")
    proxy.cut()
    assert [one.dead for one in queue.dead_letters(name)] == ["It is wrong."]
    proxy.cut()
    assert [one.dead for one in queue.dead_letters(name)] == ["It is wrong."]


def test_links_that_the_service_closed_for_idleness_are_opened_again(
    service_bus: ServiceBusBroker, queue: ServiceBusQueue
) -> None:
    name = service_bus.queue(lock=30)
    queue.send(name, "A", "a")
    held = receive(queue, name)
    service_bus.detach(name)
    queue.send(name, "B", "b")
    queue.complete(held)
    assert receive(queue, name).body == "B"
    assert queue.receive(name) is None


def test_a_lock_lost_while_we_hold_a_message_is_no_error(service_bus: ServiceBusBroker, queue: ServiceBusQueue) -> None:
    name = service_bus.queue(lock=1)
    queue.send(name, "A", "a")
    first = queue.receive(name, LOCK) or receive(queue, name)
    service_bus.create(name, lock=30)
    # The broker forgot the message and with it the lock, while the SDK believes in it.
    queue.complete(first)
    queue.abandon(first)
    queue.dead_letter(first, "It is wrong.")
    assert queue.dead_letters(name) == []


def test_a_broker_that_died_and_came_back() -> None:
    with ServiceBusBroker() as broker:
        name = broker.queue(lock=30)
        queue = ServiceBusQueue.for_local_server(broker.connection_string, WAIT)
        queue.send(name, "A", "a")
        held = receive(queue, name)
        broker.kill()
        for call in (
            lambda: queue.send(name, "B", "b"),
            lambda: queue.receive(name),
            lambda: queue.complete(held),
            lambda: queue.dead_letters(name),
        ):
            with pytest.raises(RetryableError, match=name) as caught:
                call()
            assert caught.value.code == "queue.unavailable"
        broker.start()
        broker.create(name, lock=30)
        queue.complete(held)
        queue.send(name, "B", "b")
        message = receive(queue, name)
        assert (message.body, message.deliveries) == ("B", 1)
        queue.complete(message)
        queue.close()


def assert_says_nothing_secret(error: SyncError) -> None:
    for text in (str(error), str(error.__cause__)):
        assert not any(one["key"] in text for one in KEYS.values())
        assert "wrong-key" not in text


def test_wrong_and_weak_keys_are_refused_with_the_role_that_is_needed() -> None:
    with ServiceBusBroker({"keys": KEYS, "queues": {"runs": {}, "sync-rejected": {}}}) as broker:

        def sign_in(name: str, key: str) -> ServiceBusQueue:
            return ServiceBusQueue.for_local_server(connection_string(broker.port, name, key), WAIT)

        both = sign_in("both", "right-key")
        both.send("runs", "A", "a")
        for queue, call, role in (
            (sign_in("both", "wrong-key"), lambda one: one.send("runs", "B", "b"), "Data Sender"),
            (sign_in("both", "wrong-key"), lambda one: one.receive("runs"), "Data Receiver"),
            (sign_in("listener", "listener-key"), lambda one: one.send("runs", "B", "b"), "Data Sender"),
            (sign_in("sender", "sender-key"), lambda one: one.receive("runs"), "Data Receiver"),
            (sign_in("sender", "sender-key"), lambda one: one.dead_letters("runs"), "Data Receiver"),
        ):
            with pytest.raises(RetryableError, match=f"Azure Service Bus {role}") as caught:
                call(queue)
            assert caught.value.code == "queue.forbidden"
            assert_says_nothing_secret(caught.value)
            queue.close()
        message = receive(both, "runs")
        assert message.body == "A"
        both.complete(message)
        assert both.receive("runs") is None
        both.close()


class NoIdentity:
    """A credential of a machine that has none, as azure-identity reports it."""

    def get_token(self, *scopes: str, **options: Any) -> Any:
        raise ClientAuthenticationError("No identity is configured.")


def test_an_identity_that_gets_no_token_is_told(service_bus: ServiceBusBroker) -> None:
    name = service_bus.queue()
    client = ServiceBusClient(f"127.0.0.1:{service_bus.port}", NoIdentity(), use_tls=False, retry_total=0)
    queue = ServiceBusQueue(client, WAIT)
    with pytest.raises(RetryableError, match="Azure Service Bus Data Sender") as caught:
        queue.send(name, "A", "a")
    assert caught.value.code == "queue.sign_in"
    queue.close()


def test_what_the_service_does_not_take(service_bus: ServiceBusBroker, queue: ServiceBusQueue) -> None:
    name, sessions = service_bus.queue(), service_bus.queue(sessions=True)
    for code, call in (
        ("queue.too_large", lambda: queue.send(name, "x" * 2_000_000, "a")),
        ("queue.key", lambda: queue.send(name, "A", "k" * 129)),
        ("queue.key", lambda: queue.send(name, "A", "")),
        ("queue.missing", lambda: queue.send("no-such-queue", "A", "a")),
        ("queue.missing", lambda: queue.receive("no-such-queue")),
        ("queue.refused", lambda: queue.receive(sessions)),
    ):
        with pytest.raises(PermanentError) as caught:
            call()
        assert caught.value.code == code
    queue.send(name, "A", "a")
    assert receive(queue, name).body == "A"


def test_addresses_that_must_not_be_used() -> None:
    secret = "Endpoint=sb://example.servicebus.windows.net/;SharedAccessKeyName=Root;SharedAccessKey=c2VjcmV0"  # pragma: allowlist secret
    for call in (
        lambda: ServiceBusQueue.for_local_server(secret),
        lambda: ServiceBusQueue.for_local_server("nonsense;UseDevelopmentEmulator=true;c2VjcmV0"),
        lambda: ServiceBusQueue.for_namespace(secret, NoIdentity()),
        lambda: ServiceBusQueue.for_namespace("example", NoIdentity()),
    ):
        with pytest.raises(PermanentError) as caught:
            call()
        assert "c2VjcmV0" not in str(caught.value)


def test_a_closed_queue_says_so_and_gives_back_what_nobody_received(service_bus: ServiceBusBroker) -> None:
    name = service_bus.queue(lock=30)
    first = ServiceBusQueue.for_local_server(service_bus.connection_string, WAIT)
    assert first.receive(name) is None
    # It comes over the open link of `first`, which nobody reads: closing gives it back at once.
    first.send(name, "A", "a")
    first.close()
    first.close()
    with pytest.raises(PermanentError, match="closed"):
        first.send(name, "B", "b")
    second = ServiceBusQueue.for_local_server(service_bus.connection_string, WAIT)
    message = receive(second, name)
    assert (message.body, message.deliveries) == ("A", 1)
    second.close()
