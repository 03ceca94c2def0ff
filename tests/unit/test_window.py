"""R11: the window is safe whatever the source's cursor does."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_entry.adapters.base import CursorProbe
from spark_entry.start import Start
from spark_entry.window import FixedWindow, fix_window
from spark_entry.zones import has_summer_time
from sync_core.domain.errors import PermanentError
from sync_core.domain.pipeline import Cursor, LoadMode, NullCursor, Pipeline, Source, Target
from sync_core.domain.run import Range, RunKind, Seen, Window
from sync_core.domain.watermark import CursorType, Watermark

NOW = datetime(2024, 6, 1, 12, 0, tzinfo=UTC)


def number(value: int) -> Watermark:
    return Watermark.parse(CursorType.NUMBER, str(value))


def moment(text: str) -> Watermark:
    return Watermark.parse(CursorType.TIMESTAMP, text)


def pipeline(cursor: Cursor, mode: LoadMode = LoadMode.MERGE) -> Pipeline:
    return Pipeline("orders", Source("db", "orders"), Target("lake", "orders"), mode, cursor, ("id",))


def begin(mark: Watermark | None, kind: RunKind = RunKind.INCREMENTAL) -> Start:
    return Start(kind, 0, 1, mark, "f")


def fix(
    cursor: Cursor, start: Start, probe: CursorProbe, seen: Seen | None = None, asked: Range | None = None
) -> FixedWindow:
    return fix_window(pipeline(cursor), start, probe, seen, asked)


TIME = Cursor("u", CursorType.TIMESTAMP)
NUMBER = Cursor("u", CursorType.NUMBER, settle_seconds=30)


def timed(safe: str | None, highest: str | None = None, **more: int) -> CursorProbe:
    high = highest or safe
    return CursorProbe(
        moment(safe) if safe else None, moment(high) if high else None, more.get("nulls", 0), more.get("future", 0), NOW
    )


def counted(highest: int | None, at: datetime = NOW) -> CursorProbe:
    return CursorProbe(None, number(highest) if highest is not None else None, 0, 0, at)


def test_p01_the_safe_bound_of_a_timestamp_is_read_to_and_becomes_the_watermark() -> None:
    fixed = fix(TIME, begin(moment("2024-06-01T10:00:00")), timed("2024-06-01T11:59:30"))
    assert fixed.window == Window(
        moment("2024-06-01T10:00:00"), moment("2024-06-01T11:59:30"), moment("2024-06-01T11:59:30")
    )


def test_p01_the_look_back_lowers_the_window() -> None:
    fixed = fix(replace(TIME, lookback=600), begin(moment("2024-06-01T10:00:00")), timed("2024-06-01T11:59:30"))
    assert fixed.window.low == moment("2024-06-01T09:50:00")


def test_a_zone_with_daylight_saving_looks_back_over_the_autumn_fold() -> None:
    probe = replace(timed("2024-06-01T11:59:30"), daylight_saving=True)
    assert fix(TIME, begin(moment("2024-06-01T10:00:00")), probe).window.low == moment("2024-06-01T09:00:00")


def test_p06_an_empty_source_keeps_the_watermark() -> None:
    mark = moment("2024-06-01T10:00:00")
    assert fix(TIME, begin(mark), timed(None)).window.high == mark
    assert fix(NUMBER, begin(number(5)), counted(None)).window.high == number(5)


def test_a_source_whose_newest_rows_went_keeps_the_watermark_and_says_so() -> None:
    mark = moment("2024-06-01T10:00:00")
    fixed = fix(TIME, begin(mark), timed("2024-06-01T09:00:00"))
    assert fixed.window.high == mark
    assert fixed.window.read_bound == mark
    assert "behind the watermark" in fixed.notes[0]


def test_rows_all_younger_than_the_safe_bound_wait() -> None:
    fixed = fix(TIME, begin(None), timed(None, "2024-06-01T11:59:59"))
    assert fixed.window.high is None
    assert fixed.window.read_bound == moment("0001-01-01")


def test_p07_null_cursors_fail_unless_the_policy_says_otherwise() -> None:
    probe = timed("2024-06-01T11:00:00", nulls=3)
    with pytest.raises(PermanentError, match="3 rows") as caught:
        fix(TIME, begin(None), probe)
    assert caught.value.code == "cursor.null"
    assert fix(replace(TIME, nulls=NullCursor.INCLUDE), begin(None), probe).with_nulls
    ignored = fix(replace(TIME, nulls=NullCursor.IGNORE), begin(None), probe)
    assert not ignored.with_nulls
    assert "3 rows" in ignored.notes[0]


def test_p28_future_values_are_capped_and_reported() -> None:
    fixed = fix(TIME, begin(None), timed("2024-06-01T11:00:00", "9999-12-31", future=2))
    assert fixed.window.high == moment("2024-06-01T11:00:00")
    assert "2 rows" in fixed.notes[0]


def test_p01_a_number_is_read_at_once_but_safe_only_after_settling() -> None:
    first = fix(NUMBER, begin(number(5)), counted(9))
    assert first.window == Window(number(5), number(5), number(9))
    assert first.seen == Seen(number(9), NOW)
    early = fix(NUMBER, begin(number(5)), counted(12, NOW + timedelta(seconds=29)), first.seen)
    assert early.window.high == number(5)
    assert early.seen == first.seen
    ripe = fix(NUMBER, begin(number(5)), counted(12, NOW + timedelta(seconds=30)), first.seen)
    assert ripe.window == Window(number(5), number(9), number(12))
    assert ripe.seen == Seen(number(12), NOW + timedelta(seconds=30))


def test_a_full_refresh_records_the_bound_of_its_start() -> None:
    fixed = fix(TIME, begin(moment("2024-06-01T10:00:00"), RunKind.FULL_REFRESH), timed("2024-05-01T00:00:00"))
    assert fixed.window == Window(None, moment("2024-05-01"), moment("2024-05-01"))


def test_initial_is_where_the_first_load_and_a_full_refresh_begin() -> None:
    cursor = replace(TIME, initial="2020-01-01")
    assert fix(cursor, begin(None), timed("2024-05-01")).window.low == moment("2020-01-01")
    assert fix(cursor, begin(moment("2024-01-01"), RunKind.FULL_REFRESH), timed("2024-05-01")).window.low == moment(
        "2020-01-01"
    )


def test_a_backfill_keeps_the_watermark_and_stays_below_the_safe_bound() -> None:
    asked = Range(moment("2024-01-01"), moment("2025-01-01"))
    mark = moment("2024-03-01")
    merged = fix(TIME, begin(mark, RunKind.BACKFILL), timed("2024-05-01"), asked=asked)
    assert merged.window == Window(moment("2024-01-01"), mark, moment("2024-05-01"))
    appending = pipeline(TIME, LoadMode.INCREMENTAL)
    appended = fix_window(appending, begin(mark, RunKind.BACKFILL), timed("2024-05-01"), None, asked)
    assert appended.window.read_bound == mark


@given(
    st.integers(-50, 50),
    st.lists(st.tuples(st.integers(0, 20), st.integers(-60, 60)), min_size=1, max_size=20),
)
def test_p01_a_number_watermark_never_passes_what_was_seen_a_settle_ago(
    initial: int, steps: list[tuple[int, int]]
) -> None:
    """Whatever the maxima and the gaps between runs, the watermark only holds values seen at least `settle` before."""
    mark, seen, at = number(initial), None, NOW
    history: list[tuple[datetime, Watermark]] = []
    for gap, highest in steps:
        at += timedelta(seconds=gap)
        history.append((at, number(highest)))
        fixed = fix(NUMBER, begin(mark), counted(highest, at), seen)
        high = fixed.window.high
        assert high is not None
        assert mark <= high
        if high != mark:
            assert any(value == high and at - when >= timedelta(seconds=30) for when, value in history)
        assert fixed.window.read_bound is not None
        assert high <= fixed.window.read_bound
        mark, seen = high, fixed.seen


@pytest.mark.parametrize(("initial", "low"), [("0", None), ("1", "0"), ("5", "4")])
def test_the_initial_version_is_read(initial: str, low: str | None) -> None:
    """The filter of versions leaves its low end out, for a watermark was read; `initial` was not."""
    probe = CursorProbe(Watermark(CursorType.VERSION, "9"), Watermark(CursorType.VERSION, "9"), 0, 0, NOW)
    window = fix(Cursor("", CursorType.VERSION, initial=initial), begin(None), probe).window
    assert (window.low.value if window.low else None) == low


def test_versions_never_fall_unless_the_source_was_made_anew() -> None:
    """Its first versions would be taken for ones that were read."""
    low = Watermark(CursorType.VERSION, "3")
    probe, start = CursorProbe(low, low, 0, 0, NOW), begin(Watermark(CursorType.VERSION, "9"))
    with pytest.raises(PermanentError) as caught:
        fix(Cursor("", CursorType.VERSION), start, probe)
    assert caught.value.code == "source.replaced"
    refresh = replace(start, kind=RunKind.FULL_REFRESH)
    assert fix(Cursor("", CursorType.VERSION), refresh, probe).window.high == low


@pytest.mark.parametrize(
    ("zone", "changes"),
    [
        ("UTC", False),
        ("Asia/Tokyo", False),
        ("Europe/Oslo", True),
        ("America/Santiago", True),
        ("Africa/Casablanca", True),
    ],
)
@pytest.mark.parametrize("month", range(1, 13))
def test_p01_zones_whose_clocks_run_backwards(zone: str, changes: bool, month: int) -> None:
    assert has_summer_time(ZoneInfo(zone), datetime(2026, month, 29 if month != 2 else 1, tzinfo=UTC)) is changes
