"""What every AlertSink does, and what is special to each: a real HTTP server receives."""

from __future__ import annotations

import json
import logging
import ssl
from collections.abc import Callable, Generator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_structured_event
from standardwebhooks import Webhook, WebhookVerificationError

from sync_core.adapters.alert_sink import ChannelSink
from sync_core.adapters.alert_text import body, spell, title
from sync_core.adapters.apprise_sink import AppriseSink
from sync_core.adapters.webhook_sink import WebhookSink
from sync_core.domain.alert import Condition, Notice, Phase
from sync_core.domain.codec import from_json
from sync_core.domain.connection import Channel
from sync_core.domain.errors import PermanentError, RetryableError, SyncError
from sync_core.ports import AlertSink
from tests.support.alerts import AT, KEY, OLD_KEY, REFERENCE, notice, now, secrets, webhook
from tests.support.receiver import Answer, Received, Receiver
from tests.support.tls import Authority

SOURCE = "/universal-data-sync/test"
HIDDEN = "hidden-2b7e1516"
"""Stands in each address where a secret could stand; nobody may ever read it."""


@pytest.fixture
def receiver() -> Generator[Receiver]:
    with Receiver() as running:
        yield running


@pytest.fixture
def open_webhook() -> Generator[Callable[..., WebhookSink]]:
    opened: list[WebhookSink] = []

    def make(
        secret: str = KEY,
        answer_seconds: float = 10.0,
        trusted: ssl.SSLContext | None = None,
        clock: Callable[[], datetime] = now,
    ) -> WebhookSink:
        opened.append(WebhookSink(secrets(secret), SOURCE, clock, answer_seconds, trusted))
        return opened[-1]

    yield make
    for sink in opened:
        sink.close()


Pair = tuple[AlertSink, Channel]


@pytest.fixture(params=["webhook", "apprise"])
def pair(request: pytest.FixtureRequest, receiver: Receiver, open_webhook: Callable[..., WebhookSink]) -> Pair:
    """A sink, all through the one that dispatches, and a channel whose address holds a secret."""
    address = f"json://user:{HIDDEN}@127.0.0.1:{receiver.port}/{HIDDEN}/?+X-Token={HIDDEN}&rto=0.3&-k={HIDDEN}"
    sink = ChannelSink(
        {"webhook": open_webhook(answer_seconds=0.3), "apprise": AppriseSink(secrets(address))},
    )
    url = receiver.url(f"/hook/{HIDDEN}?token={HIDDEN}")
    return sink, Channel("ops", request.param, url if request.param == "webhook" else None, REFERENCE)


def test_a_notice_is_taken(pair: Pair, receiver: Receiver) -> None:
    sink, channel = pair
    sink.deliver(channel, notice())
    assert len(receiver.received) == 1
    assert "SALES.ORDERS" in receiver.received[0].body.decode()


def test_a_receiver_that_is_down_is_reached_when_it_is_back(pair: Pair, receiver: Receiver) -> None:
    sink, channel = pair
    sink.deliver(channel, notice())
    receiver.stop()
    with pytest.raises(RetryableError):
        sink.deliver(channel, notice())
    receiver.start()
    sink.deliver(channel, notice())
    assert len(receiver.received) == 2


@pytest.mark.parametrize("answer", [Answer(500), Answer(503), Answer(429), Answer(hangs=True)])
def test_a_busy_receiver_is_asked_again(pair: Pair, receiver: Receiver, answer: Answer) -> None:
    sink, channel = pair
    receiver.answers = [answer]
    with pytest.raises(RetryableError, match="ops"):
        sink.deliver(channel, notice())
    sink.deliver(channel, notice())


@pytest.mark.parametrize(
    "answer", [Answer(200), Answer(500), Answer(404), Answer(302, {"Location": f"/{HIDDEN}"}), Answer(hangs=True), None]
)
def test_p26_no_part_of_an_address_is_told(
    pair: Pair,
    receiver: Receiver,
    answer: Answer | None,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    sink, channel = pair
    caplog.set_level(1)
    if answer is None:
        receiver.stop()
    else:
        receiver.answers = [answer]
    told = ""
    try:
        sink.deliver(channel, notice())
    except SyncError as error:
        told = f"{error} {error.code} {error.__cause__!r} {error.__context__!r}"
    else:
        assert answer is not None
        assert answer.status == 200
    logging.getLogger("tests").warning("the log is looked at")
    printed = capfd.readouterr()
    assert "the log is looked at" in caplog.text
    for text in (told, caplog.text, printed.out, printed.err):
        assert HIDDEN not in text
        assert KEY not in text


def test_a_redirect_is_not_followed(pair: Pair, receiver: Receiver) -> None:
    sink, channel = pair
    receiver.answers = [Answer(307, {"Location": receiver.url("/elsewhere")})]
    with pytest.raises(SyncError):
        sink.deliver(channel, notice())
    assert len(receiver.received) == 1


def test_a_channel_without_a_secret_is_refused(pair: Pair, receiver: Receiver) -> None:
    sink, channel = pair
    with pytest.raises(PermanentError, match=r"ops.*secret_scope"):
        sink.deliver(replace(channel, secret=None), notice())
    assert receiver.received == []


def test_an_unknown_type_is_refused_with_those_that_are_known(pair: Pair) -> None:
    sink, channel = pair
    with pytest.raises(PermanentError, match=r"ops has the type 'pigeon'.*apprise, webhook"):
        sink.deliver(replace(channel, type="pigeon"), notice())


# The webhook.


def verify(key: str, received: Received) -> dict[str, object]:
    return Webhook(key).verify(received.body, dict(received.headers))


@pytest.mark.parametrize("phase", list(Phase))
def test_a_webhook_is_a_signed_cloud_event(
    receiver: Receiver, open_webhook: Callable[..., WebhookSink], phase: Phase
) -> None:
    sent = notice(phase=phase, at=AT + timedelta(hours=1), channels=("ops",))
    open_webhook().deliver(webhook(receiver.url("/hook?team=sales")), sent)
    received = receiver.received[0]
    verify(KEY, received)
    with pytest.raises(WebhookVerificationError):
        verify(OLD_KEY, received)
    with pytest.raises(WebhookVerificationError):
        verify(KEY, replace(received, body=received.body.replace(b"orders", b"others")))
    headers = {name.lower(): value for name, value in received.headers.items()}
    assert received.path == "/hook?team=sales"
    assert headers["webhook-id"] == sent.notice_id
    assert headers["content-type"] == "application/cloudevents+json"
    event = from_structured_event(HTTPMessage(headers, received.body))
    assert event.get_specversion() == "1.0"
    assert event.get_id() == sent.notice_id
    assert event.get_source() == SOURCE
    assert event.get_type() == f"sync.alert.{phase.value}"
    assert event.get_subject() == "orders"
    assert event.get_time() == sent.at
    assert from_json(Notice, event.get_data()) == sent


def test_a_repeated_delivery_has_the_same_id_and_body(
    receiver: Receiver, open_webhook: Callable[..., WebhookSink]
) -> None:
    sink = open_webhook()
    receiver.answers = [Answer(500)]
    with pytest.raises(RetryableError):
        sink.deliver(webhook(receiver.url()), notice())
    sink.deliver(webhook(receiver.url()), notice())
    first, second = receiver.received
    assert {name: first.headers[name] for name in ("webhook-id",)} == {"webhook-id": second.headers["webhook-id"]}
    assert first.body == second.body


def test_a_webhook_is_signed_with_the_time_it_is_sent(
    receiver: Receiver, open_webhook: Callable[..., WebhookSink]
) -> None:
    """A receiver refuses old signatures: a notice that waited for days is signed anew."""
    elsewhere = datetime.now(UTC).astimezone().tzinfo
    open_webhook(clock=lambda: datetime(2026, 1, 4, 9, 0, 0, 700_000, UTC).astimezone(elsewhere)).deliver(
        webhook(receiver.url()), notice()
    )
    assert receiver.received[0].headers["webhook-timestamp"] == str(
        int(datetime(2026, 1, 4, 9, tzinfo=UTC).timestamp())
    )
    with pytest.raises(WebhookVerificationError, match=r"too (old|new)"):
        verify(KEY, receiver.received[0])


def test_while_a_key_is_rotated_both_sign(receiver: Receiver, open_webhook: Callable[..., WebhookSink]) -> None:
    open_webhook(f"{KEY} {OLD_KEY}").deliver(webhook(receiver.url()), notice())
    verify(KEY, receiver.received[0])
    verify(OLD_KEY, receiver.received[0])


@pytest.mark.parametrize(
    "secret",
    ["hunter2-hunter2-hunter2", "whsec_", "whsec_bm90aGluZw bm90aGluZx$", "whsec_bm90aGluZw$", f"{KEY} x", " "],
)
def test_a_secret_that_is_none_is_refused(
    receiver: Receiver, open_webhook: Callable[..., WebhookSink], secret: str
) -> None:
    with pytest.raises(PermanentError, match="alerts/key is not a webhook secret") as raised:
        open_webhook(secret).deliver(webhook(receiver.url()), notice())
    shown = f"{raised.value} {raised.value.__cause__!r} {raised.value.__context__!r}"
    assert all(part not in shown for part in secret.removeprefix("whsec_").split() if len(part) > 1)
    assert receiver.received == []


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_these_answers_are_for_now(receiver: Receiver, open_webhook: Callable[..., WebhookSink], status: int) -> None:
    receiver.answers = [Answer(status)]
    with pytest.raises(RetryableError, match=f"ops: 127.0.0.1 answered {status}") as raised:
        open_webhook().deliver(webhook(receiver.url()), notice())
    assert raised.value.retry_after is None


@pytest.mark.parametrize(
    ("status", "check"),
    [
        (301, "final address"),
        (308, "final address"),
        (400, "receiver's log"),
        (401, "same secret"),
        (404, "path"),
        (410, "removed"),
        (413, "256 KB"),
    ],
)
def test_these_answers_are_for_good(
    receiver: Receiver, open_webhook: Callable[..., WebhookSink], status: int, check: str
) -> None:
    receiver.answers = [Answer(status, {"Location": receiver.url()} if status < 400 else {})]
    with pytest.raises(PermanentError, match=rf"answered {status}.*{check}"):
        open_webhook().deliver(webhook(receiver.url()), notice())
    assert len(receiver.received) == 1


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("120", timedelta(minutes=2)),
        (format_datetime(AT + timedelta(minutes=3), usegmt=True), timedelta(minutes=3)),
        (format_datetime(AT - timedelta(minutes=3), usegmt=True), None),
        ("0", None),
        ("-5", None),
        ("soon", None),
        ("9" * 40, None),
    ],
)
def test_what_the_receiver_asks_for_is_carried(
    receiver: Receiver, open_webhook: Callable[..., WebhookSink], header: str, expected: timedelta | None
) -> None:
    receiver.answers = [Answer(429, {"Retry-After": header})]
    with pytest.raises(RetryableError) as raised:
        open_webhook(clock=lambda: AT).deliver(webhook(receiver.url()), notice())
    assert raised.value.retry_after == expected


@pytest.mark.parametrize(
    "url",
    [
        None,
        "",
        "http://example.com/hook",
        "http://127.0.0.1.example.com/",
        "http://localhost.example.com/",
        "ftp://127.0.0.1/",
        "127.0.0.1/hook",
        "https://",
        "https://user:pw@127.0.0.1/",
        "https://h:port/",
        "https://[::1/",
        "http://\x00/",
    ],
)
def test_only_https_or_this_machine(open_webhook: Callable[..., WebhookSink], url: str | None) -> None:
    with pytest.raises(PermanentError, match="ops: its url"):
        open_webhook().deliver(replace(webhook(""), url=url), notice())


def test_https_with_a_certificate_that_is_trusted_or_not(
    receiver: Receiver, open_webhook: Callable[..., WebhookSink], authority: Authority
) -> None:
    receiver.stop()
    receiver.start_tls(authority.server_context())
    url = receiver.url().replace("http://", "https://")
    open_webhook(trusted=authority.client_context()).deliver(webhook(url), notice())
    verify(KEY, receiver.received[0])
    with pytest.raises(RetryableError, match="certificate"):
        open_webhook().deliver(webhook(url), notice())
    assert len(receiver.received) == 1


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


# Apprise.


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


# The text.


def test_the_text_of_a_notice() -> None:
    assert title(notice()) == "orders: a run failed"
    assert body(notice()).splitlines() == [
        "The run of orders failed: the table SALES.ORDERS is not there. Æøå",
        "",
        "Pipeline: orders",
        "Since: 2026-01-01 12:00 UTC",
        "What to do: Create the table, or mend its name in pipelines.yml.",
        "Owner: team-sales",
    ]


def test_the_text_of_a_repetition_and_of_a_recovery() -> None:
    later = AT + timedelta(hours=4, minutes=5)
    repeated = notice(phase=Phase.REPEATED, at=later, count=2)
    assert title(repeated) == "Still: orders: a run failed"
    assert "Since: 2026-01-01 12:00 UTC, for 4 h 5 min; this is notice 2" in body(repeated)
    over = notice(phase=Phase.RECOVERED, at=later, remedy="", owner=None)
    assert title(over) == "Recovered: orders: a run failed"
    assert body(over).splitlines()[2:] == [
        "Pipeline: orders",
        "Began: 2026-01-01 12:00 UTC",
        "Over since: 2026-01-01 16:05 UTC, after 4 h 5 min",
    ]


def test_every_condition_and_phase_has_a_text() -> None:
    titles = {title(notice(condition=condition, phase=phase)) for condition in Condition for phase in Phase}
    assert len(titles) == len(Condition) * len(Phase)


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(seconds=59), "less than a minute"),
        (timedelta(minutes=7, seconds=50), "7 min"),
        (timedelta(hours=2), "2 h"),
        (timedelta(days=3, hours=4, minutes=5), "3 d 4 h"),
        (timedelta(days=-1), "less than a minute"),
    ],
)
def test_durations(duration: timedelta, text: str) -> None:
    assert spell(duration) == text
