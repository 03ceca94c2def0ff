"""One AlertSink for every channel: it hands a notice to the sink of the channel's type."""

from __future__ import annotations

from collections.abc import Mapping

from sync_core.domain.alert import Notice
from sync_core.domain.connection import Channel
from sync_core.domain.errors import PermanentError
from sync_core.ports import AlertSink


class ChannelSink:
    """An AlertSink over the sinks of each channel type, by the type's name."""

    def __init__(self, sinks: Mapping[str, AlertSink]) -> None:
        self._sinks = dict(sinks)

    def deliver(self, channel: Channel, notice: Notice) -> None:
        sink = self._sinks.get(channel.type)
        if sink is None:
            raise PermanentError(
                "alert.channel_type",
                f"Alert channel {channel.name} has the type {channel.type!r}, which is not known.",
                f"Use one of: {', '.join(sorted(self._sinks))}.",
            )
        sink.deliver(channel, notice)
