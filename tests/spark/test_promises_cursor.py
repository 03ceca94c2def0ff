"""Promises about the cursor: late rows, ties, NULLs, precision and the far future, to every kind of target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from sync_core.domain.pipeline import Cursor, LoadMode, NullCursor
from sync_core.domain.run import Outcome
from sync_core.domain.watermark import CursorType
from tests.support.world import World

MERGE, APPEND = LoadMode.MERGE, LoadMode.INCREMENTAL
NOON = "2024-01-01 12:00:00"


def at(**changes: Any) -> Cursor:
    return replace(Cursor("at", CursorType.TIMESTAMP, settle_seconds=0), **changes)


def ago(world: World, minutes: int) -> str:
    """A moment before now on the source's clock."""
    return str(world.sql(f"SELECT date_trunc('second', localtimestamp) - interval '{minutes} minutes'")[0][0])


def test_p01_a_row_committed_within_settle_arrives(world: World) -> None:
    old, new, late = ago(world, 180), ago(world, 30), ago(world, 40)
    world.orders((1, "old", old), (2, "new", new))
    waiting = world.pipelines(MERGE, APPEND, cursor=at(settle_seconds=3600))
    for result in world.good(*waiting):
        assert result.watermark is not None
        assert result.watermark.value == old.replace(" ", "T")
    world.assert_equal(*waiting, where="id = 1")
    world.insert((3, "late", late))
    settled = world.pipelines(MERGE, APPEND)
    for result in world.good(*settled):
        assert result.watermark is not None
        assert result.watermark.value == new.replace(" ", "T")
    world.assert_equal(*settled)


def test_p01_a_row_committed_within_lookback_arrives(world: World) -> None:
    world.orders((1, "first", NOON))
    pipelines = world.pipelines(MERGE, APPEND, cursor=at(lookback=7200))
    world.good(*pipelines)
    world.insert((2, "an hour late", "2024-01-01 11:00:00"), (3, "new", "2024-01-01 12:30:00"))
    world.good(*pipelines)
    world.assert_equal(*pipelines)
    assert {result.state for result in world.good(*pipelines)} == {Outcome.UNCHANGED}


def test_p01_a_number_committed_late_arrives(world: World) -> None:
    world.sql("CREATE TABLE items (id bigint PRIMARY KEY, name text)")

    def pipelines(settle: float) -> Any:
        return world.pipelines(MERGE, APPEND, table="items", cursor=Cursor("id", CursorType.NUMBER, None, settle))

    with world.connect() as late:
        # The first load notes the maximum, waits, and reads: what was open at that moment is in it.
        late.execute("INSERT INTO items VALUES (2, 'open at the first load')")
        world.insert((1, "a"), (3, "b"), table="items")

        def commit(event: str, _fields: Mapping[str, Any]) -> None:
            if event == "settle.waiting":
                late.commit()

        with world.events.listening(commit):
            first = world.good(*pipelines(0.2))
        world.assert_equal(*pipelines(0.2))
        assert {result.watermark.value for result in first if result.watermark} == {"3"}

        # Later runs read at once what is there, and again until it is `settle` old.
        late.execute("INSERT INTO items VALUES (5, 'open at the second run')")
        world.insert((6, "c"), table="items")
        world.good(*pipelines(3600))
        world.assert_equal(*pipelines(3600))
        late.commit()
    unripe = world.good(*pipelines(3600))
    world.assert_equal(*pipelines(3600))
    for result in unripe:
        assert result.watermark is not None
        assert result.seen is not None
        assert (result.watermark.value, result.seen.value.value) == ("3", "6")
    ripe = world.good(*pipelines(0.01))
    assert {result.watermark.value for result in ripe if result.watermark} == {"6"}


def test_p02_ties_at_the_boundary_are_neither_lost_nor_doubled(world: World) -> None:
    world.orders((1, "a", NOON), (2, "b", NOON))
    world.orders((1, "same", NOON), (1, "same", NOON), table="log", key=False)
    keyed = [world.pipeline(kind, APPEND, name=f"keyed_{kind}", merge_keys=("id",)) for kind in ("delta", "postgresql")]
    pipelines = [*world.pipelines(MERGE), *world.pipelines(APPEND, table="log"), *keyed]
    world.good(*pipelines)
    world.assert_equal(*pipelines)
    world.insert((3, "c", NOON))
    world.insert((1, "same", NOON), (2, "other", NOON), table="log")
    world.good(*pipelines)
    world.assert_equal(*pipelines)
    world.sql(f"UPDATE orders SET name = 'changed in the same instant' WHERE id = 1 AND at = '{NOON}'")
    world.good(*pipelines[:4])
    world.assert_equal(*pipelines[:4])
    assert {result.state for result in world.good(*pipelines[:4])} == {Outcome.UNCHANGED}


def test_p06_an_empty_window_keeps_the_watermark(world: World) -> None:
    world.orders((1, "a", NOON))
    world.orders(table="nothing")
    pipelines = world.pipelines(MERGE, APPEND)
    empty = world.pipelines(MERGE, table="nothing")
    before = world.good(*pipelines, *empty)
    assert {result.watermark for result in before[4:]} == {None}
    world.sql("DELETE FROM orders")
    for old, new in zip(before, world.good(*pipelines), strict=False):
        assert new.watermark == old.watermark is not None
        assert any("behind the watermark" in note for note in new.notes)
    world.insert((2, "b", "2024-01-02"))
    world.insert((3, "c", "2024-01-03"), table="nothing")
    world.good(*pipelines, *empty)
    world.assert_equal(*empty)
    for pipeline in pipelines:
        assert world.target_rows(pipeline) == {("1", "a", NOON): 1, ("2", "b", "2024-01-02 00:00:00"): 1}


def test_p07_a_null_cursor_follows_its_policy_and_is_counted(world: World) -> None:
    world.orders((1, "a", NOON))
    world.sql("INSERT INTO orders VALUES (2, 'never changed', NULL)")
    named = {
        policy: [
            world.pipeline(kind, mode, name=f"{policy.value}_{kind}_{mode.value}", cursor=at(nulls=policy))
            for mode in (MERGE, APPEND)
            for kind in ("delta", "postgresql")
        ]
        for policy in NullCursor
    }
    ignored, included, failing = named[NullCursor.IGNORE], named[NullCursor.INCLUDE], named[NullCursor.FAIL][:2]
    results = world.run(*ignored, *included, *failing)
    assert {result.rows.null_cursor for result in results[:8]} == {1}
    assert all(any("ignored" in note for note in result.notes) for result in results[:4])
    for result in results[8:]:
        assert result.error is not None
        assert (result.error.code, result.counted_generation) == ("cursor.null", None)
        assert "1 rows" in result.error.message
    world.assert_equal(*ignored, where="at IS NOT NULL")
    world.assert_equal(*included)
    world.sql("INSERT INTO orders VALUES (3, 'never changed', NULL)")
    world.good(*included)
    world.assert_equal(*included)
    assert {result.state for result in world.good(*included)} == {Outcome.UNCHANGED}
    world.assert_equal(*included)


@pytest.mark.parametrize("settle", [0])
def test_p08_the_cursor_keeps_every_digit(world: World, settle: float) -> None:
    cases = {
        "wide": ("numeric(38,0)", CursorType.NUMBER, "-99999999999999999999999999999999999999",
                 "12345678901234567890123456789012345677", "12345678901234567890123456789012345678"),
        "fraction": ("numeric(38,10)", CursorType.NUMBER, "-7.5", "-0.0000000002", "-0.0000000001"),
        "micro": ("timestamp", CursorType.TIMESTAMP, "0001-01-01T00:00:00.000001",
                  "2024-01-01T00:00:00.123456", "2024-01-01T00:00:00.123457"),
        "zoned": ("timestamptz", CursorType.TIMESTAMP_TZ, "0001-01-01T00:00:00.000001Z",
                  "2024-10-27T00:59:59.999999Z", "2024-10-27T01:00:00Z"),
        "day": ("date", CursorType.DATE, "0001-01-01", "1582-10-10", "1582-10-11"),
    }  # fmt: skip
    pipelines: list[Any] = []
    for name, (kind, cursor, low, mark, _) in cases.items():
        world.sql(f"CREATE TABLE {name} (c {kind}, name text)")
        world.insert((low, "a"), (mark, "b"), table=name)
        pipelines += world.pipelines(APPEND, table=name, cursor=Cursor("c", cursor, settle_seconds=settle))
    for result in world.good(*pipelines):
        case = cases[result.pipeline_id.partition("_")[0]]
        assert result.watermark is not None
        assert result.watermark.value == case[3]
    world.assert_equal(*pipelines)
    for name, case in cases.items():
        world.insert((case[4], "next"), table=name)
    for result in world.good(*pipelines):
        case = cases[result.pipeline_id.partition("_")[0]]
        assert result.watermark is not None
        assert result.watermark.value == case[4]
        assert (result.rows.read, result.rows.inserted) == (2, 1), result.pipeline_id
    world.assert_equal(*pipelines)


def test_p28_a_value_in_the_far_future_does_not_freeze_the_pipeline(world: World) -> None:
    world.orders((1, "a", NOON), (2, "typo", "9999-12-31 23:59:59.999999"))
    pipelines = world.pipelines(MERGE, APPEND, LoadMode.FULL_REFRESH)
    for result in world.good(*pipelines):
        assert result.watermark is not None
        assert (result.watermark.value, result.rows.future) == (NOON.replace(" ", "T"), 1)
        assert any("later than the source's clock" in note for note in result.notes)
    world.insert((3, "b", "2024-01-02"))
    world.good(*pipelines)
    world.assert_equal(*pipelines, where="id <> 2")
    world.sql("UPDATE orders SET name = 'corrected', at = '2024-01-03' WHERE id = 2")
    for result in world.good(*pipelines):
        assert result.rows.future == 0
    world.assert_equal(*pipelines)
