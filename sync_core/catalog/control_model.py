"""What may be written for the control plane: when pipelines run, what they are watched for, and who is told."""

from __future__ import annotations

from typing import Annotated, Literal, cast

from pydantic import AfterValidator, BeforeValidator, Field

from sync_core.catalog.section import SecretName, Section, distinct
from sync_core.catalog.values import (
    Address,
    CronExpression,
    Duration,
    Interval,
    OneName,
    TimeZone,
    Truth,
    kind_of,
    matching,
    one_of,
    refuse,
    whole,
)
from sync_core.domain.alert import Condition

CatchUp = Annotated[Literal["latest", "all"], one_of(("latest", "all"))]
ChannelType = Annotated[Literal["webhook", "apprise"], one_of(("webhook", "apprise"))]
ConditionWord = Annotated[Condition, one_of(Condition)]
Conditions = Annotated[list[ConditionWord], AfterValidator(distinct)]
OneNames = Annotated[list[OneName], AfterValidator(distinct)]
Attempts = Annotated[int, whole(1, 10)]
Group = Annotated[str, matching(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", "a compute group: letters, digits, _ . -", "large")]


class ScheduleEntry(Section):
    """When the pipeline runs: exactly one of `cron`, `every`, `after` and `on_demand`."""

    cron: CronExpression | None = Field(None, examples=["*/15 * * * *"])
    """Five fields: minute, hour, day of the month, month, weekday."""

    every: Interval | None = Field(None, examples=["15m"])
    """At whole multiples of this duration since 1970-01-01T00:00:00Z; at least `1m`."""

    after: OneNames | None = None
    """Ids of pipelines: it runs once each of them has succeeded anew."""

    on_demand: Truth | None = None
    """`true`: only when it is asked for, as without a schedule."""

    timezone: TimeZone | None = None
    """IANA zone of the times of `cron`. Without it UTC."""

    catch_up: CatchUp | None = None
    """Slots that were missed (`cron`, `every`): `latest` runs once for all of them, `all` once for each, oldest
    first. Without it `latest`."""


def _schedule(value: object) -> object:
    if not isinstance(value, dict):
        raise refuse(
            f"must be a mapping, not {kind_of(value)}", 'write {cron: "0 5 * * *"}, {every: 15m} or {after: […]}'
        )
    return cast("object", value)


Schedule = Annotated[ScheduleEntry, BeforeValidator(_schedule)]


class RetryEntry(Section):
    """What happens after a run has failed for a reason that may pass."""

    attempts: Attempts = 3
    """How often it is tried in all; `1` never tries again."""

    delay: Duration = "1m"
    """Pause before the second attempt; it doubles before each further one."""

    max_delay: Duration | None = None
    """Longest pause. Without it `1h`, or `delay` where that is longer."""


class AlertsEntry(Section):
    """What the pipeline is watched for."""

    failed: Truth = True
    """A run has failed and is not tried again."""

    stale_after: Interval | None = None
    """The last success is older than this. Without it not watched; nor is a pipeline on demand or a paused one."""

    max_duration: Interval | None = None
    """A run takes longer than this. It goes on; `timeout` would stop it."""

    zero_rows: Truth = True
    """Runs bring no rows at a time of the week at which they always did."""

    schema_changes: Truth = True
    """A column of the source is new, gone or wider."""

    repeat_every: Interval = "4h"
    """How often an alert is told again while its condition lasts."""


class ChannelEntry(Section):
    """Where alerts go."""

    type: ChannelType = Field(examples=["webhook"])
    """`webhook`: a CloudEvent, signed by the Standard Webhooks convention. `apprise`: chat, mail and others by an
    Apprise address."""

    url: Address | None = None
    """Address of a `webhook`: https, without user and password. An Apprise address is a secret and stands in none."""

    secret_scope: SecretName | None = None
    """Where the secret lies, as with a connection."""

    secret_key: SecretName | None = None
    """Name of the secret in its scope: the key `whsec_…` that signs a webhook, or the whole Apprise address."""

    conditions: Conditions | None = None
    """Which alerts go there. Without it all of them."""
