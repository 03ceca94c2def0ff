"""Channels of type `webhook`: a CloudEvents 1.0 body, signed by the Standard Webhooks convention, over HTTPS.

The receiver checks `webhook-signature` over `webhook-id`, `webhook-timestamp` and the body with the shared secret, and
tells a repeated delivery by `webhook-id`, which is the notice's id.
"""

from __future__ import annotations

import base64
import binascii
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from ipaddress import ip_address

import httpx
from cloudevents.core.bindings.http import HTTPMessage, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from standardwebhooks import Webhook

from sync_core.adapters.quiet_loggers import keep_addresses_out_of_logs
from sync_core.domain.alert import Notice
from sync_core.domain.codec import to_json
from sync_core.domain.connection import Channel, SecretReference
from sync_core.domain.errors import PermanentError, RetryableError
from sync_core.ports import Secrets

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 15.0
"""What Standard Webhooks suggests as the least that a sender should wait."""

_PREFIX = "whsec_"
_RETRYABLE = frozenset({408, 425, 429})


class WebhookSink:
    """An AlertSink for channels with a `url` and a key `whsec_…` to sign with; of two, separated by a space, both sign.

    `source` is the CloudEvents source: a URI reference that tells one installation from another. `trusted` is for
    receivers whose certificate is signed by a private authority; None trusts the public ones.
    """

    def __init__(
        self,
        secrets: Secrets,
        source: str,
        now: Callable[[], datetime],
        answer_seconds: float = ANSWER_SECONDS,
        trusted: ssl.SSLContext | None = None,
    ) -> None:
        keep_addresses_out_of_logs()
        self._secrets = secrets
        self._source = source
        self._now = now
        self._client = httpx.Client(
            timeout=httpx.Timeout(answer_seconds, connect=min(CONNECT_SECONDS, answer_seconds)),
            follow_redirects=False,
            verify=trusted or True,
            # Plain HTTP goes to this machine alone, and so never through a proxy.
            mounts={"http://": None},
        )

    def deliver(self, channel: Channel, notice: Notice) -> None:
        url = _address(channel)
        keys = _keys(channel, self._secrets.get)
        try:
            self._send(channel, url, notice, keys)
        except PermanentError as error:
            # The receiver may have a newer secret than the one that is kept here.
            renewed = keys if error.code != "alert.refused" else _keys(channel, self._secrets.renew)
            if renewed == keys:
                raise
            self._send(channel, url, notice, renewed)

    def _send(self, channel: Channel, url: httpx.URL, notice: Notice, keys: list[str]) -> None:
        message = make_event(notice, self._source)
        sent_at = self._now().astimezone(UTC)
        text = message.body.decode()
        headers = {
            **message.headers,
            "user-agent": "universal-data-sync",
            "webhook-id": notice.notice_id,
            "webhook-timestamp": str(int(sent_at.timestamp())),
            "webhook-signature": " ".join(Webhook(key).sign(notice.notice_id, sent_at, text) for key in keys),
        }
        try:
            # Only the status counts: the answer's body, which may be of any size, is not read.
            with self._client.stream("POST", url, content=message.body, headers=headers) as response:
                _judge(channel, url.host, response, sent_at)
        except httpx.TimeoutException as error:
            raise RetryableError(
                "alert.timeout",
                f"Alert channel {channel.name}: {url.host} did not answer in time.",
                "It is sent again. Let the receiver answer first and work afterwards.",
            ) from error
        except httpx.TransportError as error:
            raise RetryableError(
                "alert.unreachable",
                f"Alert channel {channel.name}: {url.host} cannot be reached ({type(error).__name__}).",
                "It is sent again. Check that the receiver runs, its name, its certificate and the firewall.",
            ) from error

    def close(self) -> None:
        """Close the connections that are kept open."""
        self._client.close()


def make_event(notice: Notice, source: str) -> HTTPMessage:
    """The notice as a CloudEvent in structured mode: type `sync.alert.<phase>`, its data the notice."""
    attributes = {
        "id": notice.notice_id,
        "source": source,
        "type": f"sync.alert.{notice.phase.value}",
        "subject": notice.pipeline_id,
        "time": notice.at.astimezone(UTC),
        "datacontenttype": "application/json",
    }
    return to_structured_event(CloudEvent(attributes, to_json(notice)))


def _judge(channel: Channel, host: str, response: httpx.Response, now: datetime) -> None:
    status = response.status_code
    if 200 <= status < 300:
        return
    what = f"Alert channel {channel.name}: {host} answered {status}"
    if status in _RETRYABLE or status >= 500:
        raise RetryableError(
            "alert.refused_now",
            f"{what}.",
            "It is sent again.",
            _retry_after(response.headers.get("retry-after"), now),
        )
    if 300 <= status < 400:
        raise PermanentError(
            "alert.redirected", f"{what}: a redirect, which is not followed.", "Give the channel the final address."
        )
    checks = {
        401: "Check that the receiver checks signatures with the same secret.",
        403: "Check that the receiver checks signatures with the same secret, and its firewall.",
        404: "Check the channel's url: the receiver does not know its path.",
        405: "Check the channel's url: the receiver takes no POST there.",
        410: "The receiver has been removed: remove the channel, or give it a new url.",
        413: "Let the receiver take bodies of at least 256 KB.",
        415: "Let the receiver take the content type application/cloudevents+json.",
    }
    raise PermanentError(
        "alert.refused", f"{what}.", checks.get(status, "Look into the receiver's log for why it refuses.")
    )


def _retry_after(header: str | None, now: datetime) -> timedelta | None:
    """Seconds or an HTTP date, as RFC 9110 has it; None when there is none, it is past or cannot be read."""
    try:
        text = (header or "").strip()
        pause = timedelta(seconds=int(text)) if text.isdecimal() else parsedate_to_datetime(text).astimezone(UTC) - now
    except (ValueError, TypeError, OverflowError):
        return None
    return pause if pause > timedelta() else None


def _address(channel: Channel) -> httpx.URL:
    try:
        url = httpx.URL(channel.url or "")
    except (httpx.InvalidURL, ValueError):
        # Without its cause, whose text repeats parts of the address.
        raise _bad_address(channel, "cannot be understood") from None
    if not url.host or url.scheme not in ("https", "http"):
        raise _bad_address(channel, "is not an https address")
    if url.scheme == "http" and not _is_loopback(url.host):
        raise _bad_address(channel, "is plain http")
    if url.userinfo:
        raise _bad_address(channel, "holds a user or a password")
    return url


def _bad_address(channel: Channel, what: str) -> PermanentError:
    return PermanentError(
        "alert.address",
        f"Alert channel {channel.name}: its url {what}.",
        "Write it as https://host/path; plain http is for this machine alone.",
    )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _keys(channel: Channel, read: Callable[[SecretReference], str]) -> list[str]:
    if channel.secret is None:
        raise PermanentError(
            "alert.unsigned",
            f"Alert channel {channel.name} has no secret to sign with.",
            "Give it secret_scope and secret_key; the secret is whsec_ and 24 to 64 random bytes in base64.",
        )
    keys = read(channel.secret).split()
    if not keys or not all(_is_key(key) for key in keys):
        raise _bad_key(channel, channel.secret)
    return keys


def _is_key(key: str) -> bool:
    """The library takes any text for base64 and skips what it does not know: a typing error would go unnoticed."""
    encoded = key.removeprefix(_PREFIX)
    try:
        return key.startswith(_PREFIX) and bool(base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True))
    except (binascii.Error, ValueError):
        return False


def _bad_key(channel: Channel, reference: SecretReference) -> PermanentError:
    return PermanentError(
        "alert.secret",
        f"Alert channel {channel.name}: secret {reference.scope}/{reference.key} is not a webhook secret.",
        "Write it as whsec_ and 24 to 64 random bytes in base64.",
    )
