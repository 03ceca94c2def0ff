"""Alerts: what is wrong with a pipeline, in episodes that are raised, repeated and closed (P25). Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum


class Condition(StrEnum):
    """What an alert is about."""

    FAILED = "failed"
    STALE = "stale"
    ZERO_ROWS = "zero_rows"
    LONG_RUNNING = "long_running"
    SOURCE_BEHIND = "source_behind"
    SCHEMA_CHANGE = "schema_change"
    RECONCILIATION = "reconciliation"
    DEAD_LETTERS = "dead_letters"

    @property
    def is_event(self) -> bool:
        """Something that happened once: it is told once and has no recovery."""
        return self is Condition.SCHEMA_CHANGE


class Phase(StrEnum):
    """Where in its episode a notice stands."""

    RAISED = "raised"
    REPEATED = "repeated"
    RECOVERED = "recovered"


@dataclass(frozen=True)
class AlertRules:
    """What a pipeline is watched for; None switches a rule off. Times are seconds.

    `zero_rows` is how many slots in a row may bring nothing where the pipeline's own past always brought rows.
    """

    failed: bool = True
    stale_after: float | None = None
    max_duration: float | None = None
    zero_rows: bool = True
    schema_changes: bool = True
    repeat_every: float = 14_400.0


@dataclass(frozen=True)
class Episode:
    """One condition of one pipeline from its first notice to its recovery. `notices` counts those that were sent."""

    pipeline_id: str
    condition: Condition
    episode_id: str
    message: str
    opened_at: datetime
    noticed_at: datetime
    notices: int = 1
    closed_at: datetime | None = None


@dataclass(frozen=True)
class Finding:
    """A condition that holds now. `subject` tells two events of one condition apart (a run_key)."""

    condition: Condition
    message: str
    remedy: str = ""
    subject: str = ""


@dataclass(frozen=True)
class Notice:
    """What is delivered: one phase of one episode. `notice_id` is the same each time it is delivered again."""

    notice_id: str
    pipeline_id: str
    condition: Condition
    phase: Phase
    episode_id: str
    message: str
    remedy: str
    opened_at: datetime
    at: datetime
    count: int
    owner: str | None = None
    channels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Audience:
    """Who is told."""

    owner: str | None = None
    channels: tuple[str, ...] = ()


def advance(
    pipeline_id: str,
    open_episodes: tuple[Episode, ...],
    findings: Mapping[Condition, Finding | None],
    repeat_every: float,
    audience: Audience,
    now: datetime,
) -> tuple[tuple[Episode, ...], tuple[Episode, ...], tuple[Notice, ...]]:
    """Open, repeat and close episodes by what was looked at: None says that a condition does not hold.

    Conditions that are not in `findings` were not looked at and stay as they are. Returns the episodes that are
    open now, those that changed or closed, and the notices to send.
    """
    still = {episode.condition: episode for episode in open_episodes}
    changed: list[Episode] = []
    notices: list[Notice] = []

    def tell(episode: Episode, phase: Phase, message: str, remedy: str) -> None:
        changed.append(episode)
        notice_id = _digest(episode.episode_id, phase.value, str(episode.notices))
        notices.append(
            Notice(
                notice_id, pipeline_id, episode.condition, phase, episode.episode_id, message, remedy,
                episode.opened_at, now, episode.notices, audience.owner, audience.channels,
            )
        )  # fmt: skip

    for condition, finding in findings.items():
        episode = still.get(condition)
        if finding is None and episode is not None:
            del still[condition]
            tell(replace(episode, closed_at=now), Phase.RECOVERED, f"It is over: {episode.message}", "")
        if finding is None:
            continue
        if condition.is_event:
            opened = _digest(pipeline_id, condition.value, finding.subject)
            tell(
                Episode(pipeline_id, condition, opened, finding.message, now, now, closed_at=now),
                Phase.RAISED, finding.message, finding.remedy,
            )  # fmt: skip
        elif episode is None:
            opened = _digest(pipeline_id, condition.value, now.isoformat())
            still[condition] = Episode(pipeline_id, condition, opened, finding.message, now, now)
            tell(still[condition], Phase.RAISED, finding.message, finding.remedy)
        elif now - episode.noticed_at >= timedelta(seconds=repeat_every):
            still[condition] = replace(episode, message=finding.message, noticed_at=now, notices=episode.notices + 1)
            tell(still[condition], Phase.REPEATED, finding.message, finding.remedy)
    return tuple(still.values()), tuple(changed), tuple(notices)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\x00".join(parts).encode()).hexdigest()[:32]
