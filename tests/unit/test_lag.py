"""The lag of a watermark, as `uds status` and the metric `uds.lag` tell it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from sync_core.domain.connection import Connection
from sync_core.domain.lag import lag_of
from sync_core.domain.pipeline import Cursor
from sync_core.domain.watermark import CursorType, Watermark
from tests.support.flows import pipeline

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
OSLO = "Europe/Oslo"


@pytest.mark.parametrize(
    ("kind", "value", "zone", "seconds"),
    [
        (CursorType.TIMESTAMP_TZ, "2026-07-01T11:00:00Z", None, 3600.0),
        (CursorType.TIMESTAMP_TZ, "2026-07-01T11:00:00.5Z", OSLO, 3599.5),
        (CursorType.TIMESTAMP, "2026-07-01T11:00:00", None, 3600.0),
        (CursorType.TIMESTAMP, "2026-07-01T13:00:00.1234567", OSLO, 3599.876544),
        (CursorType.TIMESTAMP, "2026-07-01T14:00:00", OSLO, 0.0),
        (CursorType.TIMESTAMP, "2027-01-01T00:00:00", None, 0.0),
        (CursorType.DATE, "2026-06-30", None, 43200.0),
        (CursorType.DATE, "2026-07-01", None, 0.0),
        (CursorType.NUMBER, "5", None, None),
        (CursorType.ROWVERSION, "0x00000000000007D1", None, None),
    ],
)
def test_the_lag_of_each_cursor(kind: CursorType, value: str, zone: str | None, seconds: float | None) -> None:
    found = lag_of(Watermark(kind, value), pipeline(), {"shop": Connection("shop", "postgresql", timezone=zone)}, NOW)
    assert found == (seconds if seconds is None else pytest.approx(seconds, abs=0.00001))


def test_the_zone_of_the_cursor_comes_before_the_connections() -> None:
    zoned = replace(pipeline(), cursor=Cursor("at", CursorType.TIMESTAMP, timezone=OSLO))
    shop = Connection("shop", "postgresql", timezone="America/New_York")
    mark = Watermark(CursorType.TIMESTAMP, "2026-07-01T13:00:00")
    assert lag_of(mark, zoned, {"shop": shop}, NOW) == 3600.0
    assert lag_of(None, zoned, {"shop": shop}, NOW) is None
