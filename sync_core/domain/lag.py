"""How far a watermark lies behind. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from zoneinfo import ZoneInfo

from sync_core.domain.connection import Connection
from sync_core.domain.pipeline import Pipeline
from sync_core.domain.watermark import CursorType, Watermark


def lag_of(
    watermark: Watermark | None, pipeline: Pipeline, connections: Mapping[str, Connection], now: datetime
) -> float | None:
    """Seconds from the watermark to now, not below 0; None for cursors that are no times.

    A value without a zone is read in the cursor's, else the connection's, else UTC. A date is its last moment.
    """
    if watermark is None or not watermark.type.is_temporal:
        return None
    source = connections.get(pipeline.source.connection)
    zone_name = (pipeline.cursor.timezone if pipeline.cursor else None) or (source.timezone if source else None)
    zone = ZoneInfo(zone_name) if zone_name else UTC
    if watermark.type is CursorType.DATE:
        moment = datetime.combine(date.fromisoformat(watermark.value), time.max, zone)
    else:
        moment = datetime.fromisoformat(watermark.value)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=zone)
    return max(0.0, (now - moment).total_seconds())
