"""Which cursor values a run reads, decided before any row is (R11). Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

from spark_entry.adapters.base import CursorProbe
from spark_entry.start import Start
from sync_core.domain.errors import PermanentError
from sync_core.domain.pipeline import Cursor, LoadMode, NullCursor, Pipeline
from sync_core.domain.run import SOURCE_BEHIND, Range, RunKind, Seen, Window
from sync_core.domain.watermark import CursorType, Watermark, latest

FOLD_SECONDS = 3600.0
"""How far local time runs backwards when daylight saving ends; rows of that hour lie below the watermark."""

_FIRST = {
    CursorType.DATE: "0001-01-01",
    CursorType.TIMESTAMP: "0001-01-01T00:00:00",
    CursorType.TIMESTAMP_TZ: "0001-01-01T00:00:00Z",
}


@dataclass(frozen=True)
class FixedWindow:
    """The window, the number cursor's pair to keep (R11b), whether NULL cursors are read, and what to tell."""

    window: Window
    with_nulls: bool
    seen: Seen | None = None
    notes: tuple[str, ...] = ()


def fix_window(
    pipeline: Pipeline, start: Start, probe: CursorProbe | None, seen: Seen | None, asked: Range | None
) -> FixedWindow:
    """Rules R11a-d for one run. Raises PermanentError when a NULL cursor is found and `nulls: fail` (P7)."""
    cursor = pipeline.cursor
    if cursor is None or probe is None:
        return FixedWindow(Window(None, None, None), with_nulls=True)
    if probe.nulls and cursor.nulls is NullCursor.FAIL:
        raise PermanentError(
            "cursor.null",
            f"Pipeline {pipeline.pipeline_id}: {probe.nulls} rows of the source have no value in the cursor {cursor.column}.",
            "Fill them, or set cursor.nulls to include or ignore.",
        )
    fixed = _bounds(pipeline.pipeline_id, cursor, start, probe, seen)
    if start.kind is RunKind.BACKFILL:
        return _backfill(pipeline, start, fixed, asked or Range())
    return replace(fixed, notes=fixed.notes + _notes(cursor, probe))


def _bounds(pipeline_id: str, cursor: Cursor, start: Start, probe: CursorProbe, seen: Seen | None) -> FixedWindow:
    refresh = start.kind is RunKind.FULL_REFRESH
    mark = start.watermark
    kept: Seen | None = None
    notes: tuple[str, ...] = ()
    if cursor.type is CursorType.NUMBER:
        safe, kept = _safe_number(cursor, mark, probe, seen)
        read = probe.highest
    else:
        safe = read = probe.safe
    if cursor.type is CursorType.VERSION and not refresh and mark is not None and (safe is None or safe < mark):
        raise PermanentError(
            "source.replaced",
            f"The source's version is {safe.value if safe else 'none'}, the watermark {mark.value}: the table was made "
            "anew, and its versions count from 0 again.",
            f"Load it again with: uds run {pipeline_id} --full-refresh.",
        )
    if refresh:
        safe = safe if read is None or safe is None or safe <= read else read
    elif mark is not None and (safe is None or safe < mark):
        # R11d: rows were deleted, or the source is a restored copy. The look-back is read all the same.
        if probe.highest is None or probe.highest < mark:
            notes = (SOURCE_BEHIND,)
        safe = mark
    read = latest(safe, read)
    low = _low(cursor, None if refresh else mark, probe.daylight_saving)
    if read is None and cursor.type.is_temporal:
        # Every row is younger than the safe bound: read none of them, which no open end can say.
        read = Watermark(cursor.type, _FIRST[cursor.type])
    return FixedWindow(Window(low, safe, read), cursor.nulls is NullCursor.INCLUDE, kept, notes)


def _safe_number(
    cursor: Cursor, mark: Watermark | None, probe: CursorProbe, seen: Seen | None
) -> tuple[Watermark | None, Seen | None]:
    """R11b: a maximum becomes safe once it is `settle` old; an unripe pair is kept, never replaced."""
    if cursor.settle_seconds == 0:
        return probe.highest, None
    fresh = Seen(probe.highest, probe.clock) if probe.highest is not None else None
    if seen is None:
        return mark, fresh
    if probe.clock - seen.at < timedelta(seconds=cursor.settle_seconds):
        return mark, seen
    return seen.value, fresh if fresh is not None and seen.value < fresh.value else None


def _low(cursor: Cursor, mark: Watermark | None, daylight_saving: bool) -> Watermark | None:
    if mark is None:
        first = Watermark.parse(cursor.type, cursor.initial) if cursor.initial is not None else None
        if first is None or cursor.type is not CursorType.VERSION:
            return first
        # The low end of versions is exclusive (a watermark was read), the first version of all is the table itself.
        return Watermark(cursor.type, str(int(first.value) - 1)) if int(first.value) > 0 else None
    lookback = cursor.lookback
    if daylight_saving and cursor.type is CursorType.TIMESTAMP:
        lookback = max(lookback, FOLD_SECONDS)
    return mark.back(lookback)


def _backfill(pipeline: Pipeline, start: Start, fixed: FixedWindow, asked: Range) -> FixedWindow:
    """The asked range, never past the safe bound; in append mode never past the watermark (R12)."""
    ends = [end for end in (asked.until, fixed.window.read_bound) if end is not None]
    if pipeline.mode is LoadMode.INCREMENTAL and start.watermark is not None:
        ends.append(start.watermark)
    bound = min(ends, key=lambda end: end.order) if ends else None
    return FixedWindow(Window(asked.since, start.watermark, bound), with_nulls=False)


def _notes(cursor: Cursor, probe: CursorProbe) -> tuple[str, ...]:
    notes: list[str] = []
    if probe.future:
        what = "later than the source's clock" if cursor.type.is_temporal else "beyond all numbers"
        notes.append(f"{probe.future} rows have a {cursor.column} {what}; they wait")
    if probe.nulls and cursor.nulls is NullCursor.IGNORE:
        notes.append(f"{probe.nulls} rows without {cursor.column} are ignored")
    return tuple(notes)
