"""A notice as people read it in chat and mail: one line of title, a few lines of plain text. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sync_core.domain.alert import Condition, Notice, Phase

_CONDITIONS = {
    Condition.FAILED: "a run failed",
    Condition.STALE: "the data are stale",
    Condition.ZERO_ROWS: "no rows arrive",
    Condition.LONG_RUNNING: "a run takes too long",
    Condition.SOURCE_BEHIND: "the source is behind the watermark",
    Condition.SCHEMA_CHANGE: "the source's columns changed",
    Condition.RECONCILIATION: "the counts of rows do not agree",
    Condition.DEAD_LETTERS: "messages were put aside",
}


def title(notice: Notice) -> str:
    """What happened, to which pipeline, in one line."""
    lead = {Phase.RAISED: "", Phase.REPEATED: "Still: ", Phase.RECOVERED: "Recovered: "}[notice.phase]
    return f"{lead}{notice.pipeline_id}: {_CONDITIONS[notice.condition]}"


def body(notice: Notice) -> str:
    """The message, the pipeline, since when, what to do and whose it is. Times are UTC."""
    lines = [notice.message, "", f"Pipeline: {notice.pipeline_id}"]
    lasted = spell(notice.at - notice.opened_at)
    if notice.condition.is_event:
        lines.append(f"Seen at: {_moment(notice.at)}")
    elif notice.phase is Phase.RECOVERED:
        lines += [f"Began: {_moment(notice.opened_at)}", f"Over since: {_moment(notice.at)}, after {lasted}"]
    elif notice.phase is Phase.REPEATED:
        lines.append(f"Since: {_moment(notice.opened_at)}, for {lasted}; this is notice {notice.count}")
    else:
        lines.append(f"Since: {_moment(notice.opened_at)}")
    if notice.remedy:
        lines.append(f"What to do: {notice.remedy}")
    if notice.owner:
        lines.append(f"Owner: {notice.owner}")
    return "\n".join(lines)


def spell(duration: timedelta) -> str:
    """A duration in its two largest units: `3 d 4 h`, `2 h 5 min`, `7 min`, `less than a minute`."""
    minutes = max(0, int(duration.total_seconds() // 60))
    days, hours, rest = minutes // 1440, minutes // 60 % 24, minutes % 60
    parts = [f"{number} {unit}" for number, unit in ((days, "d"), (hours, "h"), (rest, "min")) if number]
    return " ".join(parts[:2]) or "less than a minute"


def _moment(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
