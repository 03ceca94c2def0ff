"""Takes messages of the alerts queue as the shell does, and what tests ask of receivers."""

from __future__ import annotations

from standardwebhooks import Webhook

from sync_core.adapters.alert_sink import ChannelSink
from sync_core.alert_delivery import (
    QUEUE,
    deliver_alert,
    owe,
)
from sync_core.domain.alert import Notice
from sync_core.domain.connection import Channel
from sync_core.ports import Message
from tests.support.alerts import KEY, AlertQueue, Clock
from tests.support.receiver import Receiver


class Worker:
    """Takes messages as the shell does: completed, or dead-lettered when they cannot be understood."""

    def __init__(self, queue: AlertQueue, sink: ChannelSink, channels: dict[str, Channel], clock: Clock) -> None:
        self.queue, self.sink, self.channels, self.clock = queue, sink, channels, clock

    def take(self) -> Message | None:
        """The next message is taken and handled, but not brought to an end."""
        message = self.queue.receive(QUEUE)
        if message is not None:
            deliver_alert(self.queue, self.sink, self.channels, message.body, self.clock())
        return message

    def work(self) -> int:
        """All that is due; returns how many messages."""
        done = 0
        while (message := self.take()) is not None:
            self.queue.complete(message)
            done += 1
        return done


def begin(queue: AlertQueue, sent: Notice) -> None:
    entry = owe(sent)
    queue.send(entry.queue, entry.body, entry.key)


def paths(receiver: Receiver) -> list[str]:
    return [received.path for received in receiver.received]


def ids(receiver: Receiver) -> set[str]:
    for received in receiver.received:
        Webhook(KEY).verify(received.body, dict(received.headers))
    return {received.headers["webhook-id"] for received in receiver.received}
