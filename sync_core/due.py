"""Which slots of a schedule are due: from the last slot that was begun, whatever ticks were late or missed (P22). Pure.

A cron is a set of local times. Each one that exists is one slot: the first of two where the clock goes back, none
where it leaps over the time. Local times are walked without a zone and then placed in it; the library's own rules for
daylight saving would fire some twice and move others.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from sync_core.domain.schedule import Cron, Every

MOST_SLOTS = 1_000
"""So many missed slots are made up for with `catch_up: all`, the newest; older ones are left out."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MINUTE = timedelta(minutes=1)


def due_slots(schedule: Cron | Every, last_slot: datetime | None, now: datetime) -> list[datetime]:
    """Slots after `last_slot` that are due at `now`, oldest first, in UTC.

    Of missed slots only the latest is due, unless `catch_up` is all. A pipeline that never began is due at its latest slot.
    """
    latest = latest_slot(schedule, now)
    if latest is None or (last_slot is not None and last_slot >= latest):
        return []
    if last_slot is None or schedule.catch_up == "latest":
        return [latest]
    return slots_after(schedule, last_slot, now)


def latest_slot(schedule: Cron | Every, now: datetime) -> datetime | None:
    """The latest slot at or before `now`, in UTC; None when there is none in the 50 years before it."""
    if isinstance(schedule, Every):
        step = _step(schedule)
        return _EPOCH + (now - _EPOCH) // step * step
    return _latest(schedule.expression, schedule.timezone, _minute(now))


def next_slot(schedule: Cron | Every, now: datetime) -> datetime | None:
    """The first slot after `now`, in UTC; None when there is none in the 50 years after it."""
    if isinstance(schedule, Every):
        step = _step(schedule)
        return _EPOCH + ((now - _EPOCH) // step + 1) * step
    return _next(schedule.expression, schedule.timezone, _minute(now))


def slots_after(schedule: Cron | Every, last: datetime, now: datetime) -> list[datetime]:
    """The slots after `last` and not after `now`, oldest first, in UTC; of more than `MOST_SLOTS` the newest."""
    if isinstance(schedule, Every):
        step = _step(schedule)
        newest = (now - _EPOCH) // step
        oldest = max((last - _EPOCH) // step + 1, newest - MOST_SLOTS + 1)
        return [_EPOCH + number * step for number in range(oldest, newest + 1)]
    slots: tuple[datetime, ...] = ()
    for count in (2, 50, MOST_SLOTS):
        slots = _newest(schedule.expression, schedule.timezone, _minute(now), count)
        if len(slots) < count or slots[0] <= last:
            break
    return list(slots[bisect_right(slots, last) :])


def fires(schedule: Cron) -> bool:
    """Whether a cron ever fires: not on 30 February, nor at a local time that its zone always leaps over."""
    zone = ZoneInfo(schedule.timezone)
    try:
        times = CronSim(schedule.expression, datetime(2026, 1, 1))
    except CronSimError:
        return False
    return any(_place(local, zone) is not None for local in islice(times, 1_000))


def _step(schedule: Every) -> timedelta:
    # Whole microseconds, so that a slot is the same moment from wherever it is counted.
    return round(schedule.seconds * 1_000_000) * _MICROSECOND


def _minute(now: datetime) -> int:
    return (now - _EPOCH) // _MINUTE


# 100,000 pipelines have few schedules, and one minute has one answer for each: some 2 MB when it is full.
@lru_cache(maxsize=4_096)
def _latest(expression: str, timezone: str, minute: int) -> datetime | None:
    return next(_backwards(expression, timezone, minute), None)


@lru_cache(maxsize=4_096)
def _next(expression: str, timezone: str, minute: int) -> datetime | None:
    zone = ZoneInfo(timezone)
    now = _EPOCH + minute * _MINUTE
    for local in CronSim(expression, now.astimezone(zone).replace(tzinfo=None, fold=0)):
        slot = _place(local, zone)
        if slot is not None and slot > now:
            return slot
    return None


# Two slots an entry, and up to 1,000 (60 KB) where a pipeline is far behind: some 30 MB when it is full of those.
@lru_cache(maxsize=512)
def _newest(expression: str, timezone: str, minute: int, count: int) -> tuple[datetime, ...]:
    return tuple(islice(_backwards(expression, timezone, minute), count))[::-1]


def _backwards(expression: str, timezone: str, minute: int) -> Iterator[datetime]:
    """The slots of a cron at and before a minute since the epoch, latest first."""
    zone = ZoneInfo(timezone)
    until = _EPOCH + minute * _MINUTE
    wall = until.astimezone(zone)
    # While local times repeat, those ahead of the wall clock have had their first passing too.
    repeated = until - wall.replace(fold=0).astimezone(UTC)
    ahead = wall.replace(tzinfo=None, fold=0) + repeated + timedelta(seconds=1)
    for local in CronSim(expression, ahead, reverse=True):
        slot = _place(local, zone)
        if slot is not None and slot <= until:
            yield slot


def _place(local: datetime, zone: ZoneInfo) -> datetime | None:
    """The moment of a local time, in UTC: the first of two; None for a local time that does not exist."""
    moment = local.replace(tzinfo=zone, fold=0).astimezone(UTC)
    return moment if moment.astimezone(zone).replace(tzinfo=None) == local else None
