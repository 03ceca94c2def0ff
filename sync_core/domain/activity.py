"""In which hours of the last weeks a pipeline brought rows: its own baseline for silence (P25). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

WEEKS = 5
"""The present week and the four before it."""

HOUR = timedelta(hours=1)
WEEK = timedelta(weeks=1)


@dataclass(frozen=True)
class Activity:
    """Week (days since 1970-01-01 of its Thursday, divided by 7) to the hours in it that brought rows.

    Hours are bits of a hexadecimal number, the first hour of the week the lowest.
    """

    weeks: Mapping[str, str] = field(default_factory=dict[str, str])

    def with_rows_at(self, at: datetime) -> Activity:
        """The hour of `at` brought rows; weeks that are too old are forgotten."""
        week, hour = _place(at)
        kept = {name: bits for name, bits in self.weeks.items() if int(name) > week - WEEKS}
        kept[str(week)] = f"{int(kept.get(str(week), '0'), 16) | 1 << hour:x}"
        return Activity(kept)

    def had_rows(self, start: datetime, end: datetime) -> bool:
        """Whether any hour from that of `start` to that of `end` brought rows."""
        at = start.replace(minute=0, second=0, microsecond=0)
        while at <= end:
            week, hour = _place(at)
            if int(self.weeks.get(str(week), "0"), 16) >> hour & 1:
                return True
            at += HOUR
        return False

    def usually_had_rows(self, start: datetime, end: datetime) -> bool:
        """Whether each earlier week that is known brought rows at this time of the week; False when none is known.

        A week is known when it or an earlier one brought any row. An hour on each side makes up for daylight saving.
        """
        first = min((int(name) for name in self.weeks), default=None)
        if first is None:
            return False
        known = 0
        for back in range(1, WEEKS):
            low, high = start - back * WEEK - HOUR, end - back * WEEK + HOUR
            if _place(low)[0] < first or end - start >= WEEK:
                break
            known += 1
            if not self.had_rows(low, high):
                return False
        return known > 0


def _place(at: datetime) -> tuple[int, int]:
    hours = int(at.astimezone(UTC).timestamp()) // 3600
    return divmod(hours, 168)
