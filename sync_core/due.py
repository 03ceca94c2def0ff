"""Which slots of a schedule are due: from the last slot that was begun, whatever ticks were late or missed (P22). Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice
from zoneinfo import ZoneInfo

from cronsim import CronSim

from sync_core.domain.schedule import Cron, Every

MOST_SLOTS = 1000
"""So many missed slots are made up for with `catch_up: all`; older ones are left out."""


def due_slots(schedule: Cron | Every, last_slot: datetime | None, now: datetime) -> list[datetime]:
    """Slots after `last_slot` that are due at `now`, oldest first, in UTC.

    Missed slots coalesce to the latest unless `catch_up` is all. A pipeline that never began is due at its latest slot.
    """
    latest = latest_slot(schedule, now)
    if latest is None or (last_slot is not None and last_slot >= latest):
        return []
    if schedule.catch_up == "latest" or last_slot is None:
        return [latest]
    missed = [latest]
    for slot in islice(_slots_back(schedule, latest), MOST_SLOTS - 1):
        if slot <= last_slot:
            break
        missed.append(slot)
    return missed[::-1]


def latest_slot(schedule: Cron | Every, now: datetime) -> datetime | None:
    """The latest slot at or before `now`; None when there is none in the 50 years before it."""
    if isinstance(schedule, Every):
        seconds = schedule.seconds
        return datetime.fromtimestamp(now.timestamp() // seconds * seconds, UTC)
    return _latest_of_minute(schedule.expression, schedule.timezone, int(now.timestamp()) // 60)


# Within one minute the answer is the same for every pipeline of the schedule: a tick asks once for each.
@lru_cache(maxsize=4096)
def _latest_of_minute(expression: str, zone: str, minute: int) -> datetime | None:
    now = datetime.fromtimestamp(minute * 60, UTC)
    return next(_cron_back(expression, zone, now + timedelta(microseconds=1)), None)


def _slots_back(schedule: Cron | Every, before: datetime) -> Iterator[datetime]:
    """Slots before a time, latest first."""
    if isinstance(schedule, Cron):
        yield from _cron_back(schedule.expression, schedule.timezone, before)
        return
    slot = before
    while True:
        slot -= timedelta(seconds=schedule.seconds)
        yield slot


def _cron_back(expression: str, zone: str, before: datetime) -> Iterator[datetime]:
    """A local time that exists is one slot, the first of two where the clock goes back; one that does not is none.

    The library walks local times without a zone: its own rules would fire some twice and shift others.
    """
    place = ZoneInfo(zone)
    # In the repeated hour of autumn the first of two equal local times lies up to a fold before its wall clock says.
    wall = (before + timedelta(hours=3)).astimezone(place).replace(tzinfo=None)
    for local in CronSim(expression, wall, reverse=True):
        slot = local.replace(tzinfo=place, fold=0).astimezone(UTC)
        if slot >= before or slot.astimezone(place).replace(tzinfo=None) != local:
            continue
        yield slot
