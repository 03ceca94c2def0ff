"""Webhooks: signed by Standard Webhooks, CloudEvents inside, received by a real HTTP server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from zoneinfo import ZoneInfo

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_structured_event
from standardwebhooks import Webhook, WebhookVerificationError

from sync_core.adapters.webhook_sink import WebhookSink
from sync_core.domain.alert import Notice, Phase
from sync_core.domain.codec import from_json
from sync_core.domain.connection import SecretReference
from sync_core.domain.errors import PermanentError, RetryableError
from tests.support.alerts import AT, KEY, OLD_KEY, SOURCE, notice, now, webhook
from tests.support.receiver import Answer, Received, Receiver
from tests.support.tls import Authority


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
    tokyo = ZoneInfo("Asia/Tokyo")
    sink = open_webhook(clock=lambda: datetime(2026, 1, 4, 9, 0, 0, 700_000, tokyo))
    sink.deliver(webhook(receiver.url()), notice())
    assert receiver.received[0].headers["webhook-timestamp"] == str(int(datetime(2026, 1, 4, tzinfo=UTC).timestamp()))
    with pytest.raises(WebhookVerificationError, match=r"too (old|new)"):
        verify(KEY, receiver.received[0])
    open_webhook(clock=lambda: datetime.now(tokyo)).deliver(webhook(receiver.url()), notice())
    verify(KEY, receiver.received[1])


def test_while_a_key_is_rotated_both_sign(receiver: Receiver, open_webhook: Callable[..., WebhookSink]) -> None:
    open_webhook(f"{KEY} {OLD_KEY}").deliver(webhook(receiver.url()), notice())
    verify(KEY, receiver.received[0])
    verify(OLD_KEY, receiver.received[0])


class Rotated:
    """Secrets of which the kept value is older than the one in the vault."""

    def __init__(self, kept: str, newest: str) -> None:
        self.kept, self.newest, self.renewals = kept, newest, 0

    def get(self, reference: SecretReference) -> str:
        return self.kept

    def renew(self, reference: SecretReference) -> str:
        self.renewals += 1
        self.kept = self.newest
        return self.kept


def test_a_rotation_whose_new_key_the_receiver_has_first(receiver: Receiver) -> None:
    """The receiver refuses the old signature: the secret is read anew and the same notice is signed again."""
    receiver.answers = [Answer(401)]
    rotated = Rotated(OLD_KEY, KEY)
    sink = WebhookSink(rotated, SOURCE, now)
    sink.deliver(webhook(receiver.url()), notice())
    sink.close()
    first, second = receiver.received
    verify(OLD_KEY, first)
    verify(KEY, second)
    assert first.body == second.body
    assert rotated.renewals == 1


def test_a_receiver_that_refuses_the_newest_key_too_is_asked_once(receiver: Receiver) -> None:
    receiver.answers = [Answer(401), Answer(401)]
    rotated = Rotated(KEY, KEY)
    sink = WebhookSink(rotated, SOURCE, now)
    with pytest.raises(PermanentError, match="same secret"):
        sink.deliver(webhook(receiver.url()), notice())
    sink.close()
    assert len(receiver.received) == 1


def test_a_whole_rotation_loses_no_notice(receiver: Receiver, open_webhook: Callable[..., WebhookSink]) -> None:
    """Old key, both keys, new key: a receiver that changes over at any moment in between takes every delivery."""
    for sender, receivers in ((OLD_KEY, [OLD_KEY]), (f"{KEY} {OLD_KEY}", [OLD_KEY, KEY]), (KEY, [KEY])):
        open_webhook(sender).deliver(webhook(receiver.url()), notice())
        for key in receivers:
            verify(key, receiver.received[-1])
    with pytest.raises(WebhookVerificationError):
        verify(OLD_KEY, receiver.received[-1])


@pytest.mark.parametrize(
    "secret",
    ["hunter2-hunter2-hunter2", "whsec_", "whsec_bm90aGluZw bm90aGluZx$", "whsec_bm90$aGl1", f"{KEY} x", " "],
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
        "https://user:pw@127.0.0.1/",  # pragma: allowlist secret
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


def test_plain_http_never_goes_through_a_proxy(
    receiver: Receiver, open_webhook: Callable[..., WebhookSink], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    open_webhook().deliver(webhook(receiver.url()), notice())
    assert len(receiver.received) == 1


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()
