"""P22: which slots are due, against a clock that walks through a year minute by minute."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim, CronSimError
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sync_core.domain.schedule import Cron, Every
from sync_core.due import MOST_SLOTS, due_slots, fires, latest_slot, next_slot, slots_after

ZONES = ["Europe/Oslo", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "UTC"]
MINUTE = timedelta(minutes=1)
START, END = datetime(2025, 12, 31, tzinfo=UTC), datetime(2027, 1, 2, tzinfo=UTC)
MINUTES = int((END - START) / MINUTE)

# Expression, and what it means: minutes, hours, days, months, weekdays (0 is Sunday) and whether both days must match.
Meaning = tuple[set[int], set[int], set[int], set[int], set[int], bool]
EVERY_HOUR, EVERY_DAY, EVERY_MONTH, EVERY_WEEKDAY = set(range(24)), set(range(1, 32)), set(range(1, 13)), set(range(7))
MEANINGS: dict[str, Meaning] = {
    "* * * * *": (set(range(60)), EVERY_HOUR, EVERY_DAY, EVERY_MONTH, EVERY_WEEKDAY, True),
    "*/15 * * * *": ({0, 15, 30, 45}, EVERY_HOUR, EVERY_DAY, EVERY_MONTH, EVERY_WEEKDAY, True),
    "30 2 * * *": ({30}, {2}, EVERY_DAY, EVERY_MONTH, EVERY_WEEKDAY, True),
    "10,50 1-3 * * 0,6": ({10, 50}, {1, 2, 3}, EVERY_DAY, EVERY_MONTH, {0, 6}, True),
    "0 0 * * MON-FRI": ({0}, {0}, EVERY_DAY, EVERY_MONTH, {1, 2, 3, 4, 5}, True),
    "59 23 31 * *": ({59}, {23}, {31}, EVERY_MONTH, EVERY_WEEKDAY, True),
    "0 12 1 3,10 SUN": ({0}, {12}, {1}, {3, 10}, {0}, False),
    "45 1 */7 * 7": ({45}, {1}, set(range(1, 32, 7)), EVERY_MONTH, {0}, True),
}


@cache
def walk(zone: str) -> dict[str, list[datetime]]:
    """What a clock on the wall sees in a year: a cron fires when it shows one of its times for the first time."""
    place = ZoneInfo(zone)
    fired: dict[str, list[datetime]] = {expression: [] for expression in MEANINGS}
    seen: set[datetime] = set()
    of_minute = [
        [(one, *meaning[1:]) for one, meaning in MEANINGS.items() if minute in meaning[0]] for minute in range(60)
    ]
    for number in range(MINUTES):
        moment = START + number * MINUTE
        wall = moment.astimezone(place).replace(tzinfo=None, fold=0)
        if wall in seen:
            continue
        if wall.month in (3, 4, 9, 10, 11):
            seen.add(wall)
        for expression, hours, days, months, weekdays, both in of_minute[wall.minute]:
            if wall.hour in hours and wall.month in months:
                matches = (wall.day in days, wall.isoweekday() % 7 in weekdays)
                if all(matches) if both else any(matches):
                    fired[expression].append(moment)
    return fired


def changes(zone: str) -> Iterator[datetime]:
    """The moments of the year at which the zone's offset changes."""
    place = ZoneInfo(zone)
    hours = [START + timedelta(hours=number) for number in range(MINUTES // 60)]
    for before, after in pairwise(hours):
        if before.astimezone(place).utcoffset() != after.astimezone(place).utcoffset():
            yield after


@pytest.mark.parametrize("zone", ZONES)
def test_p22_a_cron_fires_once_for_each_local_time_that_exists(zone: str) -> None:
    model = walk(zone)
    assert len(list(changes(zone))) == (2 if zone in ZONES[:3] else 0)
    for change in changes(zone):
        last, now = change - timedelta(hours=8), change + timedelta(hours=8)
        each = model["* * * * *"]
        expected = each[bisect_right(each, last) : bisect_right(each, now)]
        assert slots_after(Cron("* * * * *", zone, "all"), last, now) == expected
    for expression, expected in model.items():
        if expression == "* * * * *":
            continue
        schedule = Cron(expression, zone, "all")
        found: list[datetime] = []
        last = START - MINUTE
        while last < END - MINUTE:
            now = min(last + timedelta(days=10), END - MINUTE)
            found += slots_after(schedule, last, now)
            last = now
        assert found == expected, expression


@pytest.mark.parametrize("zone", ZONES[:3])
@pytest.mark.parametrize("expression", MEANINGS)
def test_p22_around_a_change_every_minute_knows_its_latest_slot(zone: str, expression: str) -> None:
    expected = walk(zone)[expression]
    for change in changes(zone):
        for number in range(-240, 240):
            now = change + number * MINUTE + timedelta(seconds=number % 60, microseconds=number % 7)
            before = bisect_right(expected, now)
            if before:
                assert latest_slot(Cron(expression, zone), now) == expected[before - 1]


minutes = st.integers(2 * 1440, MINUTES - 1).map(lambda number: START + number * MINUTE)
moments = st.builds(lambda at, seconds: at + timedelta(seconds=seconds), minutes, st.floats(0, 59.9))
many = settings(max_examples=150, deadline=None)


@many
@given(st.sampled_from(ZONES), st.sampled_from(list(MEANINGS)), moments, moments)
def test_slots_after_are_those_of_the_model_and_the_newest(
    zone: str, expression: str, one: datetime, two: datetime
) -> None:
    last, now = sorted((one, two))
    model = walk(zone)[expression]
    expected = model[bisect_right(model, last) : bisect_right(model, now)]
    assert slots_after(Cron(expression, zone), last, now) == expected[-MOST_SLOTS:]


@st.composite
def ticks(draw: st.DrawFn) -> list[datetime]:
    """Ticks that come in time, late, not at all, twice, and now and then from a clock that went back."""
    now = draw(minutes)
    times = [now]
    for _ in range(draw(st.integers(1, 40))):
        pause = draw(st.sampled_from([0, 1, 1, 1, 2, 5, 61, 1441, -1]))
        now += timedelta(minutes=pause, seconds=draw(st.integers(0, 59)))
        times.append(now)
    return times


schedules = st.one_of(
    st.builds(Cron, st.sampled_from(list(MEANINGS)), st.sampled_from(ZONES), st.sampled_from(["latest", "all"])),
    st.builds(Every, st.sampled_from([60.0, 90.0, 61.7, 3600.0]), st.sampled_from(["latest", "all"])),
)


@many
@given(schedules, ticks(), st.booleans())
def test_p22_any_ticks_fire_each_slot_once_and_the_latest_always(
    schedule: Cron | Every, times: list[datetime], has_run: bool
) -> None:
    last = latest_slot(schedule, times[0]) if has_run else None
    begun: list[datetime] = []
    for now in times:
        due = due_slots(schedule, last, now)
        assert due == sorted(set(due))
        latest = latest_slot(schedule, now)
        assert due == [] or due[-1] == latest
        if schedule.catch_up == "latest":
            assert len(due) <= 1
        # A tick begins the first; those behind it come with the ticks after it.
        for slot in due if schedule.catch_up == "all" else due[:1]:
            begun.append(slot)
            last = slot
        assert latest is None or (last is not None and last >= latest)
        assert due_slots(schedule, last, now) == [], "a doubled tick"
    assert begun == sorted(set(begun))
    if schedule.catch_up == "all" and begun:
        between = slots_after(schedule, begun[0] - timedelta(microseconds=1), max(times))
        assert begun[-MOST_SLOTS:] == between or len(between) == MOST_SLOTS


@many
@given(st.sampled_from([60.0, 90.0, 61.7, 0.000_3, 86_400.0]), moments, st.integers(0, 5000))
def test_every_counts_whole_multiples_since_1970(seconds: float, now: datetime, behind: int) -> None:
    schedule = Every(seconds, "all")
    latest = latest_slot(schedule, now)
    step = timedelta(microseconds=round(seconds * 1_000_000))
    assert latest is not None
    assert latest <= now < latest + step
    assert (latest - datetime(1970, 1, 1, tzinfo=UTC)) % step == timedelta()
    found = slots_after(schedule, latest - behind * step, now)
    assert found == [latest - number * step for number in range(min(behind, MOST_SLOTS))][::-1]


def test_what_never_ran_is_due_at_its_latest_slot_at_once() -> None:
    now = datetime(2026, 6, 1, 11, 59, tzinfo=UTC)
    noon = [datetime(2026, 5, 31, 10, 0, tzinfo=UTC)]
    assert due_slots(Cron("0 12 * * *", "Europe/Oslo"), None, now.replace(hour=9)) == noon
    assert due_slots(Cron("0 12 * * *", "Europe/Oslo", "all"), None, now.replace(hour=9)) == noon
    assert due_slots(Every(3600), None, now) == [datetime(2026, 6, 1, 11, tzinfo=UTC)]


def test_the_autumn_and_the_spring_of_oslo() -> None:
    half_past_two = Cron("30 2 * * *", "Europe/Oslo", "all")
    autumn = slots_after(half_past_two, datetime(2026, 10, 24, 12, tzinfo=UTC), datetime(2026, 10, 26, 12, tzinfo=UTC))
    assert autumn == [datetime(2026, 10, 25, 0, 30, tzinfo=UTC), datetime(2026, 10, 26, 1, 30, tzinfo=UTC)]
    spring = slots_after(half_past_two, datetime(2026, 3, 28, 12, tzinfo=UTC), datetime(2026, 3, 30, 12, tzinfo=UTC))
    assert spring == [datetime(2026, 3, 30, 0, 30, tzinfo=UTC)]


def test_a_leap_day_is_found_over_years() -> None:
    leap = Cron("0 0 29 2 *")
    assert latest_slot(leap, datetime(2027, 6, 1, tzinfo=UTC)) == datetime(2024, 2, 29, tzinfo=UTC)
    assert len(slots_after(leap, datetime(2001, 1, 1, tzinfo=UTC), datetime(2027, 6, 1, tzinfo=UTC))) == 6


@pytest.mark.parametrize(
    ("expression", "zone", "answer"),
    [
        ("* * * * *", "UTC", True),
        ("0 0 29 2 *", "UTC", True),
        ("0 0 30 2 *", "UTC", False),
        ("0 0 31 4,6,9,11 *", "UTC", False),
        ("0 0 30 2 1", "UTC", True),
        ("0 0 */31 * MON#5", "UTC", False),
        ("30 2 * 3 0L", "Europe/Oslo", False),
        ("30 2 * 3 0L", "UTC", True),
        ("30 2 29 3 *", "Europe/Oslo", True),
        ("15 2 * 10 SUN#1", "Australia/Lord_Howe", False),
        ("45 2 * 10 SUN#1", "Australia/Lord_Howe", True),
    ],
)
def test_whether_a_cron_ever_fires(expression: str, zone: str, answer: bool) -> None:
    assert fires(Cron(expression, zone)) is answer


@many
@given(
    st.lists(st.sampled_from(["*", "*/7", "1", "2", "30", "31", "29-31", "L", "LW", "MON#5", "5L", "1-5"]), min_size=5, max_size=5),
    st.sampled_from(ZONES),
    moments,
)  # fmt: skip
def test_whatever_the_library_takes_has_an_answer(fields: list[str], zone: str, now: datetime) -> None:
    expression = " ".join(fields)
    try:
        CronSim(expression, datetime(2026, 1, 1))
    except CronSimError:
        assert not fires(Cron(expression, zone))
        return
    latest = latest_slot(Cron(expression, zone), now)
    assert latest is None or latest <= now


@given(st.sampled_from(sorted(MEANINGS)), st.sampled_from(ZONES), st.integers(0, MINUTES))
def test_p22_the_next_slot_is_the_first_that_the_wall_clock_sees(expression: str, zone: str, minute: int) -> None:
    now, slots = START + minute * MINUTE, walk(zone)[expression]
    place = bisect_right(slots, now)
    assume(place < len(slots))
    assert next_slot(Cron(expression, zone), now) == slots[place]


@given(st.integers(1, 10**6), moments)
def test_the_next_slot_of_every_is_one_step_after_the_latest(seconds: int, now: datetime) -> None:
    latest, following = latest_slot(Every(seconds), now), next_slot(Every(seconds), now)
    assert latest is not None
    assert following is not None
    assert (following > now, following) == (True, latest + timedelta(seconds=seconds))
