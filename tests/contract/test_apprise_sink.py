"""Chat and mail through Apprise, by its json plugin and a real HTTP server."""

from __future__ import annotations

import json

import pytest

from sync_core.adapters.alert_text import body, title
from sync_core.adapters.apprise_sink import AppriseSink
from sync_core.domain.alert import Condition, Notice, Phase
from sync_core.domain.connection import Channel
from sync_core.domain.errors import PermanentError, RetryableError
from sync_core.ports import AlertSink
from tests.support.alerts import HIDDEN, REFERENCE, notice, secrets
from tests.support.receiver import Answer, Receiver

Pair = tuple[AlertSink, Channel]


def apprise(address: str) -> Pair:
    return AppriseSink(secrets(address)), Channel("chat", "apprise", None, REFERENCE)


@pytest.mark.parametrize(
    ("sent", "kind"),
    [
        (notice(), "failure"),
        (notice(phase=Phase.REPEATED), "failure"),
        (notice(phase=Phase.RECOVERED), "success"),
        (notice(condition=Condition.SCHEMA_CHANGE), "warning"),
    ],
)
def test_apprise_sends_title_and_text(receiver: Receiver, sent: Notice, kind: str) -> None:
    sink, channel = apprise(f"json://127.0.0.1:{receiver.port}/a/path")
    sink.deliver(channel, sent)
    (received,) = receiver.received
    content = json.loads(received.body)
    assert received.path.rstrip("/") == "/a/path"
    assert content["title"] == title(sent)
    assert content["message"] == body(sent)
    assert content["type"] == kind


def test_apprise_names_the_status_it_got(receiver: Receiver) -> None:
    receiver.answers = [Answer(503)]
    sink, channel = apprise(f"json://127.0.0.1:{receiver.port}/")
    with pytest.raises(RetryableError, match=r"chat: the service did not take the notice \(status 503\)\."):
        sink.deliver(channel, notice())


@pytest.mark.parametrize(
    "address", ["nonsense", "http//x", f"unheard://user:{HIDDEN}@host", "json://", f"slack://{HIDDEN}", "[::"]
)
def test_an_address_that_apprise_does_not_understand_is_refused(
    address: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(1)
    sink, channel = apprise(address)
    with pytest.raises(PermanentError, match="chat: Apprise does not understand the address in secret alerts/key") as e:
        sink.deliver(channel, notice())
    printed = capfd.readouterr()
    for text in (str(e.value), caplog.text, printed.out, printed.err):
        assert address not in text
        assert HIDDEN not in text


def test_an_address_with_a_comma_is_one_address(receiver: Receiver) -> None:
    sink, channel = apprise(f"json://127.0.0.1:{receiver.port}/a,json://127.0.0.1:{receiver.port}/b")
    sink.deliver(channel, notice())
    assert len(receiver.received) == 1
