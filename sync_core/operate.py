"""What an operator changes by hand: the watermark, with the value before, a reason and a name (R8)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from sync_core.domain.run import PipelineRecord, WatermarkChange
from sync_core.domain.watermark import Watermark
from sync_core.ports import StateStore
from sync_core.update import update


def set_watermark(
    record: PipelineRecord, value: Watermark | None, who: str, reason: str, adopt: bool, now: datetime
) -> tuple[PipelineRecord, WatermarkChange]:
    """A new epoch, greater than any before, with this watermark: the next run starts from it whatever the ledger says.

    Needs no lock: a run that is under way keeps the old epoch, and its result is not taken.
    """
    epoch = max(record.epoch + 1, int(now.timestamp()))
    changed = replace(record, epoch=epoch, generation=0, watermark=value, seen=None, adopt=adopt)
    return changed, WatermarkChange(now, who, reason, record.watermark, value)


def change_watermark(
    store: StateStore, pipeline_id: str, value: Watermark | None, who: str, reason: str, adopt: bool, now: datetime
) -> tuple[PipelineRecord, PipelineRecord]:
    """Set or (value None) reset the watermark. Returns the record before and after."""
    before = store.load(pipeline_id).record

    def decide(record: PipelineRecord) -> tuple[PipelineRecord, tuple[WatermarkChange]]:
        nonlocal before
        before = record
        record, change = set_watermark(record, value, who, reason, adopt, now)
        return record, (change,)

    after, _ = update(store, pipeline_id, decide)
    return before, after
