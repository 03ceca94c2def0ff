"""P9: nothing depends on the time zone of the process. The engine runs as a process of its own, in two zones."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sync_core.app import build
from sync_core.domain.pipeline import Cursor, LoadMode, Pipeline, Source, Target
from sync_core.domain.watermark import CursorType
from sync_core.settings import Settings
from tests.support.world import KINDS, SECRET, World

APPEND = LoadMode.INCREMENTAL

BEFORE = (
    "0001-01-01 00:00:00",
    "1582-10-04 23:59:59.999999",
    "1582-10-10 12:00:00",  # a day that the Julian calendar's end skipped
    "1883-11-18 12:01:02",  # New York leaves its local mean time
    "1941-10-01 00:00:30",  # Calcutta's half hours
    "1969-12-31 23:59:59.999999",
    "2023-11-05 01:30:00",  # twice in New York
    "2024-03-10 02:30:00",  # never in New York
)
AFTER = (
    "2024-03-10 02:30:00",
    "2024-03-10 02:30:00.000001",
    "2024-03-31 02:30:00",  # never in Berlin
    "2024-11-03 01:30:00",
    "2024-11-03 01:59:59.999999",
    "2024-11-03 06:30:00",
)
LAST = ("9999-12-31 23:59:59.999999",)


def insert(world: World, moments: tuple[str, ...]) -> None:
    for moment in moments:
        world.sql(
            "INSERT INTO moments (at, zoned, day, text) "
            f"VALUES ('{moment}', '{moment}+00', '{moment[:10]}', '{moment}')"
        )


def test_p09_moments_pass_unchanged_whatever_the_time_zone_of_the_process(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.sql(
        "CREATE TABLE moments (id bigserial PRIMARY KEY, at timestamp, zoned timestamptz, day date, text text)",
        f"ALTER ROLE {world.postgres.username} SET TimeZone TO 'Australia/Lord_Howe'",
    )
    monkeypatch.setenv(SECRET.environment_variable, world.postgres.password)
    cursors = {
        "number": Cursor("id", CursorType.NUMBER, settle_seconds=0),
        "plain": Cursor("at", CursorType.TIMESTAMP, settle_seconds=0, timezone="UTC"),
        "zoned": Cursor("zoned", CursorType.TIMESTAMP_TZ, settle_seconds=0),
        "day": Cursor("day", CursorType.DATE, settle_seconds=0, timezone="UTC"),
    }
    pipelines = [
        world.pipeline(kind, LoadMode.MERGE if name == "number" else APPEND, "moments", f"{name}_{kind}", cursor=cursor)
        for name, cursor in cursors.items()
        for kind in KINDS
    ]
    back = replace(
        world.pipeline("postgresql", APPEND, "number_delta", "back", cursor=cursors["plain"]),
        source=Source("delta", "number_delta"),
        target=Target("postgresql", "back"),
    )

    def run(zone: str, *wanted: Pipeline) -> None:
        monkeypatch.setenv("TZ", zone)
        results, refusals = build(Settings(world.folder / "engine")).run(wanted, world.connections, lambda _event: None)
        assert not refusals
        for result in results:
            assert result.error is None, result

    try:
        insert(world, BEFORE)
        run("America/New_York", *pipelines)
        insert(world, (*AFTER, *LAST))
        run("Asia/Kolkata", *pipelines)
        run("America/New_York", back)
    finally:
        world.sql(f"ALTER ROLE {world.postgres.username} RESET TimeZone")
    world.assert_equal(*pipelines[:2])
    world.assert_equal(*pipelines[2:], where="day < '9999-01-01'")
    assert world.target_rows(back) == world.source_rows("moments", "day < '9999-01-01'")
