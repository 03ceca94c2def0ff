"""Time zones whose clocks run backwards now and then."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo


def offset_minutes(zone: ZoneInfo, at: datetime) -> float:
    """Minutes east of UTC; `at` has a zone of its own."""
    offset = at.astimezone(zone).utcoffset()
    return offset.total_seconds() / 60 if offset else 0.0


def has_summer_time(zone: ZoneInfo, now: datetime) -> bool:
    """Whether its offset changes in the year before or after `now`."""
    # Week by week: Morocco changes its clocks for Ramadan alone, whatever the season.
    return len({offset_minutes(zone, now + timedelta(weeks=week)) for week in range(-52, 53)}) > 1
