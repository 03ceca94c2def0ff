"""An AMQP 1.0 broker in memory that speaks Service Bus, for the real SDK, on loopback. Run it as a module.

    python -m tests.support.service_bus_broker --port 5672 --config '{"queues": {"runs": {"lock": 30}}}'

The configuration has `queues` and `topics` (subscriptions by name), each with the arguments of BrokerQueue;
`keys`, {name: {key, rights}}, to refuse other signatures (without it every token is good); `max_message_size` in bytes.
Each line on standard input is a command, answered by one line: {"create": {name: settings}} makes queues, empty if
they were there; {"detach": name} closes a queue's links, as the service does with idle ones. It ends with its
standard input.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import queue
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from proton import Condition, Delivery, Endpoint, Handler, Link, Message, Terminus, symbol
from proton.reactor import Container

from tests.support.service_bus_entities import BrokerQueue, Fault
from tests.support.service_bus_operations import OPERATIONS
from tests.support.service_bus_wire import SESSION_FILTER, rights_of, session_filter, split_batch

LOCKED_UNTIL = "com.microsoft:locked-until-utc"
TICKS_OF_1970 = 621355968000000000
MAX_MESSAGE_SIZE = 1024 * 1024
PERIOD = 0.05
"""Seconds between two looks at locks, schedules and commands."""


class Broker(Handler):
    """Events of proton in, deliveries and answers out."""

    def __init__(self, address: str, config: dict[str, Any], commands: queue.Queue[str | None]) -> None:
        super().__init__()
        self.numbers = itertools.count(1)
        self._address = address
        self._commands = commands
        self._tags = itertools.count(1)
        self._keys: dict[str, dict[str, Any]] = config.get("keys", {})
        self._max_message_size: int = config.get("max_message_size", MAX_MESSAGE_SIZE)
        self._queues: dict[str, BrokerQueue] = {}
        self._topics: dict[str, list[BrokerQueue]] = {}
        self._answers: dict[tuple[Any, str], Any] = {}
        self._rights: dict[Any, set[str]] = {}
        self._attached: list[Any] = []
        self._create(config.get("queues", {}))
        for topic, subscriptions in config.get("topics", {}).items():
            names = {f"{topic}/Subscriptions/{name}": settings for name, settings in subscriptions.items()}
            self._create(names)
            self._topics[topic.lower()] = [self._queues[name.lower()] for name in names]

    def _create(self, queues: dict[str, dict[str, Any]]) -> None:
        for name, settings in queues.items():
            if name.lower() in self._queues:
                self._detach_all(name)
            self._queues[name.lower()] = BrokerQueue(name, self, **settings)

    # ---- connections, time, commands

    def on_reactor_init(self, event: Any) -> None:
        self._container = event.reactor
        self._acceptor = self._container.listen(self._address)
        self._container.schedule(PERIOD, self)
        print("LISTENING", flush=True)

    def on_timer_task(self, event: Any) -> None:
        now = time.time()
        for one in self._all():
            one.pass_time(now)
            self.deliver(one)
        with contextlib.suppress(queue.Empty):
            while (line := self._commands.get_nowait()) is not None:
                self._obey(json.loads(line))
                print("DONE", flush=True)
            self._container.stop()
            return
        self._container.schedule(PERIOD, self)

    def _obey(self, command: dict[str, Any]) -> None:
        self._create(command.get("create", {}))
        if "detach" in command:
            self._detach_all(command["detach"])

    def _detach_all(self, name: str) -> None:
        for link in [link for link in self._attached if link.path.partition("/$")[0] == name.lower()]:
            self._gone(link)
            self.detach(link, "amqp:link:detach-forced", "The link was idle.")

    def _all(self) -> Iterator[BrokerQueue]:
        for one in self._queues.values():
            yield one
            if one.dead_letters:
                yield one.dead_letters

    def on_connection_remote_open(self, event: Any) -> None:
        event.connection.container = "service-bus-stand-in"
        event.connection.open()

    def on_session_remote_open(self, event: Any) -> None:
        event.session.open()

    def on_session_remote_close(self, event: Any) -> None:
        event.session.close()

    def on_connection_remote_close(self, event: Any) -> None:
        event.connection.close()

    def on_transport_closed(self, event: Any) -> None:
        if event.connection:
            self._rights.pop(event.connection._impl, None)
            link = event.connection.link_head(0)
            while link:
                self._gone(link)
                link = link.next(0)

    def on_link_remote_close(self, event: Any) -> None:
        self._gone(event.link)
        event.link.close()

    def on_link_remote_detach(self, event: Any) -> None:
        self.on_link_remote_close(event)

    def _gone(self, link: Any) -> None:
        if link in self._attached:
            self._attached.remove(link)
        for one in self._all():
            one.forget_link(link)

    # ---- links

    def on_link_remote_open(self, event: Any) -> None:
        link = event.link
        link.snd_settle_mode, link.rcv_settle_mode = link.remote_snd_settle_mode, link.remote_rcv_settle_mode
        link.max_message_size = self._max_message_size
        link.path = _path((link.remote_target if link.is_receiver else link.remote_source).address)
        self._attached.append(link)
        try:
            if link.is_receiver:
                self._attach_sender(link)
            else:
                self._attach_receiver(link)
        except Fault as fault:
            self.refuse(link, fault.condition, str(fault))

    def _attach_sender(self, link: Any) -> None:
        if not _is_node(link.path):
            self._require(link, "send")
            if link.path not in self._topics:
                self._find(link.path)
        _open(link)
        link.flow(100)

    def _attach_receiver(self, link: Any) -> None:
        if _is_node(link.path):
            self._answers[(link.connection._impl, link.path)] = link
            link.backlog = []
            _open(link)
            return
        self._require(link, "listen")
        found = self._find(link.path)
        wanted = session_filter(link)
        if wanted is not None:
            if not found.needs_session:
                raise Fault("amqp:not-allowed", "The queue has no sessions.")
            patience = (link.remote_properties or {}).get("com.microsoft:timeout", 60000)
            found.waiting.append((link, wanted[0], time.time() + float(patience) / 1000))
            found.accept_sessions(time.time())
        elif found.needs_session:
            raise Fault("amqp:not-allowed", "A receiver without a session cannot read a queue with sessions.")
        else:
            found.links.append(link)
            _open(link)

    def _require(self, link: Any, right: str) -> None:
        if self._keys and right not in self._rights.get(link.connection._impl, set()):
            raise Fault("amqp:unauthorized-access", f"Unauthorized access. '{right.title()}' claim is required.")

    def _find(self, path: str) -> BrokerQueue:
        base, _, tail = path.partition("/$")
        found = self._queues.get(base)
        if found is None:
            raise Fault("amqp:not-found", f"The messaging entity '{path}' could not be found.")
        if tail.startswith("deadletterqueue") and found.dead_letters:
            return found.dead_letters
        return found

    def refuse(self, link: Any, condition: str, text: str = "") -> None:
        """Null termini first, else the SDK takes the attach for a success."""
        if link.state & Endpoint.LOCAL_UNINIT:
            link.source.type = link.target.type = Terminus.UNSPECIFIED
            link.open()
        self.detach(link, condition, text)

    def detach(self, link: Any, condition: str, text: str) -> None:
        link.condition = Condition(condition, text)
        link.close()

    def open_session(self, link: Any, session: str, until: float) -> None:
        link.source.copy(link.remote_source)
        link.target.copy(link.remote_target)
        link.source.filter.clear()
        link.source.filter.put_object({symbol(SESSION_FILTER): session})
        link.properties = {symbol(LOCKED_UNTIL): int(until * 10_000_000) + TICKS_OF_1970}
        link.open()

    # ---- deliveries out

    def on_link_flow(self, event: Any) -> None:
        link = event.link
        if not link.is_sender or not hasattr(link, "path"):
            return
        if _is_node(link.path):
            self._flush(link)
            return
        with contextlib.suppress(Fault):
            self.deliver(self._find(link.path))
        if link.drain_mode:
            link.drained()

    def deliver(self, queue: BrokerQueue) -> None:
        now = time.time()
        for link in list(queue.links):
            if link.credit <= 0:
                continue
            settled = link.remote_snd_settle_mode == Link.SND_SETTLED
            for message in queue.ready(now, getattr(link, "session_id", None)):
                if link.credit <= 0:
                    break
                delivery = link.delivery(queue.lock_message(message, now))
                link.send(message.encode(locked=not settled))
                link.advance()
                if settled:
                    queue.messages.pop(message.number)
                    delivery.settle()
            if link.drain_mode:
                link.drained()

    # ---- deliveries in, and what receivers decide

    def on_delivery(self, event: Any) -> None:
        delivery, link = event.delivery, event.link
        if link.is_sender:
            if delivery.updated and delivery.remote_state:
                self._disposition(link, delivery)
            return
        if not delivery.readable or delivery.partial or not link.state & Endpoint.LOCAL_ACTIVE:
            return
        raw = link.recv(delivery.pending)
        link.advance()
        link.flow(1)
        try:
            self._incoming(link, raw)
            delivery.update(Delivery.ACCEPTED)
        except Fault as fault:
            # The SDK reads condition, description and info of a rejected send, and waits for ever without the third.
            info: Any = {symbol("tracking-id"): "stand-in"}
            delivery.local.condition = Condition(fault.condition, str(fault), info)
            delivery.update(Delivery.REJECTED)
        delivery.settle()

    def _disposition(self, link: Any, delivery: Any) -> None:
        if _is_node(link.path):
            delivery.settle()
            return
        found, state = self._find(link.path), delivery.remote_state
        message = next((one for one in found.messages.values() if one.token == delivery.tag), None)
        if message is None:
            text = "The lock supplied is invalid."
            delivery.local.condition = Condition("com.microsoft:message-lock-lost", text)
            delivery.update(Delivery.REJECTED)
        else:
            condition = delivery.remote.condition
            details = {str(name): value for name, value in ((condition.info if condition else None) or {}).items()}
            outcomes = {Delivery.ACCEPTED: "completed", Delivery.RELEASED: "released", Delivery.REJECTED: "suspended"}
            modified = "defered" if delivery.remote.undeliverable else "abandoned"
            reason, text = details.get("DeadLetterReason"), details.get("DeadLetterErrorDescription")
            found.settle(message, outcomes.get(state, modified), reason, text)
            delivery.update(state)
        delivery.settle()
        self.deliver(found)

    def _incoming(self, link: Any, raw: bytes) -> None:
        now = time.time()
        if _is_node(link.path):
            message = Message()
            message.decode(raw)
            if link.path == "$cbs":
                self._sign_in(link, message)
            else:
                self._manage(link, message, now)
            return
        if len(raw) > self._max_message_size:
            raise Fault("amqp:link:message-size-exceeded", "The message is larger than the link's limit.")
        targets = self._topics.get(link.path) or [self._find(link.path)]
        for one in split_batch(raw) or [raw]:
            message = Message()
            message.decode(one)
            for target in targets:
                target.put(one, message, now)
        for target in targets:
            target.pass_time(now)
            self.deliver(target)

    # ---- requests and their answers

    def _answer(self, link: Any, request: Message, properties: dict[str, Any], body: Any = None) -> None:
        answer = Message(body=body, correlation_id=request.id, properties=properties)
        answer.inferred = False
        out = self._answers.get((link.connection._impl, link.path))
        if out is not None:
            out.backlog.append(answer.encode())
            self._flush(out)

    def _flush(self, out: Any) -> None:
        while out.backlog and out.credit > 0:
            delivery = out.delivery(f"{next(self._tags):016x}")
            out.send(out.backlog.pop(0))
            out.advance()
            delivery.settle()

    def _sign_in(self, link: Any, request: Message) -> None:
        rights = rights_of(str(request.body), self._keys)
        if rights is None:
            text = "InvalidSignature: The token has an invalid signature."
            self._answer(link, request, {"status-code": 401, "status-description": text})
            return
        self._rights[link.connection._impl] = rights
        self._answer(link, request, {"status-code": 202, "status-description": "Accepted"})

    def _manage(self, link: Any, request: Message, now: float) -> None:
        properties: Any = request.properties
        content: Any = request.body
        operation = str(properties["operation"]).rsplit(":", 1)[-1]
        body = {str(name): value for name, value in (content or {}).items()}
        try:
            self._require(link, "send" if "schedule" in operation else "listen")
            found = self._find(link.path.rsplit("/$management", 1)[0])
            result = OPERATIONS[operation](found, body, now)
            status = {"statusCode": 204 if result is None else 200, "statusDescription": "OK"}
            self._answer(link, request, status, {} if result is None else result)
        except Fault as fault:
            code = 410 if "lost" in fault.condition else 401 if "unauthorized" in fault.condition else 404
            status = {"statusCode": code, "statusDescription": str(fault)}
            self._answer(link, request, status | {"errorCondition": symbol(fault.condition)}, {})
        for one in self._all():
            self.deliver(one)


def _path(address: str | None) -> str:
    text = address or ""
    if "://" in text:
        text = text.split("://", 1)[1].split("/", 1)[1]
    return text.strip("/").lower()


def _is_node(path: str) -> bool:
    return path == "$cbs" or path.endswith("$management")


def _open(link: Any) -> None:
    link.source.copy(link.remote_source)
    link.target.copy(link.remote_target)
    link.open()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--config", type=json.loads, default={})
    arguments = parser.parse_args()
    commands: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            commands.put(line)
        commands.put(None)

    threading.Thread(target=read, daemon=True).start()
    Container(Broker(f"127.0.0.1:{arguments.port}", arguments.config, commands)).run()


if __name__ == "__main__":
    main()
