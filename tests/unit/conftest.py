"""One installation of the control plane with a stand-in for its engine, what its telemetry told, and a worker of alerts."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from sync_core.adapters.alert_sink import ChannelSink
from sync_core.adapters.webhook_sink import WebhookSink
from sync_core.domain.connection import Channel
from tests.support.alert_worker import Worker
from tests.support.alerts import KEY, AlertQueue, Clock, now, secrets, webhook
from tests.support.control import Site
from tests.support.receiver import Receiver
from tests.support.telemetry import Recorder


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """The pipeline `orders`, hourly, and three rows at its source."""
    made = Site(tmp_path)
    made.has(3)
    return made


@pytest.fixture
def recorder() -> Generator[Recorder]:
    made = Recorder()
    yield made
    made.telemetry.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(tmp_path: Path, clock: Clock) -> AlertQueue:
    return AlertQueue(tmp_path, clock)


@pytest.fixture
def sink() -> Generator[ChannelSink]:
    opened = WebhookSink(secrets(KEY), "/test", now, 0.3)
    yield ChannelSink({"webhook": opened})
    opened.close()


@pytest.fixture
def channels(receiver: Receiver) -> dict[str, Channel]:
    """Two channels of one receiver, told apart by their path."""
    return {name: webhook(receiver.url(f"/{name}"), name) for name in ("ops", "team")}


@pytest.fixture
def worker(queue: AlertQueue, sink: ChannelSink, channels: dict[str, Channel], clock: Clock) -> Worker:
    return Worker(queue, sink, channels, clock)
