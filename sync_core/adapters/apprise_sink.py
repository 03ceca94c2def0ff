"""Channels of type `apprise`: chat, mail and whatever else Apprise has an address for. The address is the secret."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any, cast

from apprise import Apprise, AppriseAsset, NotifyFormat, NotifyType, PersistentStoreMode
from apprise.plugins.base import NotifyBase
from apprise.result import AppriseResult

from sync_core.adapters.alert_text import body, title
from sync_core.adapters.quiet_loggers import keep_addresses_out_of_logs
from sync_core.domain.alert import Notice, Phase
from sync_core.domain.connection import Channel
from sync_core.domain.errors import PermanentError, RetryableError
from sync_core.ports import Secrets

ANSWER = timedelta(seconds=30)
"""How long one delivery may take in all; each of Apprise's own reads waits 4 seconds."""

_STATUS = re.compile(r"status (\d{3})")


class AppriseSink:
    """An AlertSink for channels whose secret is an Apprise address (`mailto://…`, `slack://…`, `json://…`)."""

    def __init__(self, secrets: Secrets, answer: timedelta = ANSWER) -> None:
        keep_addresses_out_of_logs()
        self._secrets = secrets
        self._asset = AppriseAsset(
            app_id="Universal Data Sync",
            app_desc="Universal Data Sync alerts",
            app_url="",
            # Nothing of an address is kept on disk, and no key pair is made there.
            storage_mode=PersistentStoreMode.MEMORY,
            pgp_autogen=False,
            pem_autogen=False,
            async_mode=False,
            http_redirects=False,
            allow_templates=False,
            secure_logging=True,
            service_timeout=answer.total_seconds(),
        )

    def deliver(self, channel: Channel, notice: Notice) -> None:
        sender = cast("Any", Apprise(asset=self._asset))
        sender.add(self._service(channel))
        result: AppriseResult
        with sender.notify(
            title=title(notice), body=body(notice), notify_type=_kind(notice), body_format=NotifyFormat.TEXT
        ) as result:
            if not result:
                raise RetryableError(
                    "alert.not_taken",
                    f"Alert channel {channel.name}: the service did not take the notice{_status(result)}.",
                    "It is sent again. Check the Apprise address in the channel's secret, and that the service runs.",
                )

    def _service(self, channel: Channel) -> NotifyBase:
        if channel.secret is None:
            raise PermanentError(
                "alert.no_address",
                f"Alert channel {channel.name} has no address.",
                "Give it secret_scope and secret_key; the secret is the whole Apprise address.",
            )
        address = self._secrets.get(channel.secret).strip()
        # `instantiate` takes it as one address, where `add` would split it at commas and spaces.
        service: NotifyBase | None = cast("Any", Apprise).instantiate(address, asset=self._asset)
        if service is None:
            raise PermanentError(
                "alert.address",
                f"Alert channel {channel.name}: Apprise does not understand the address in secret "
                f"{channel.secret.scope}/{channel.secret.key}.",
                "Check it by the Apprise documentation; some services also need a package of their own.",
            )
        return service


def _kind(notice: Notice) -> NotifyType:
    if notice.phase is Phase.RECOVERED:
        return NotifyType.SUCCESS
    return NotifyType.WARNING if notice.condition.is_event else NotifyType.FAILURE


def _status(result: AppriseResult) -> str:
    """The HTTP status, the one thing that `keep_addresses_out_of_logs` leaves of Apprise's own words."""
    found = [match[1] for entry in result.logs() if (match := _STATUS.search(entry.message))]
    return f" (status {found[-1]})" if found else ""
