"""R10: a run goes on only from a ledger that can be trusted, and says how to mend what it refuses."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from spark_entry.adapters.base import TargetState
from spark_entry.ledger import LedgerEntry
from spark_entry.start import decide_start, effective_kind, own_entry
from sync_core.domain.errors import PermanentError
from sync_core.domain.pipeline import Cursor, LoadMode, Pipeline, Source, Target
from sync_core.domain.run import RunKind, RunOrder, Seen, fingerprint
from sync_core.domain.watermark import CursorType, Watermark

PIPELINE = Pipeline(
    "orders", Source("db", "orders"), Target("lake", "orders"), LoadMode.MERGE, Cursor("u", CursorType.NUMBER), ("id",)
)


def mark(value: int) -> Watermark:
    return Watermark.parse(CursorType.NUMBER, str(value))


LEDGER = LedgerEntry(
    "orders", 2, 5, mark(50), "r5", RunKind.INCREMENTAL, fingerprint(PIPELINE), holds_rows=True, object_id="t1"
)
LOADED = TargetState(exists=True, has_rows=True, ledger=LEDGER, recent=(LEDGER,), object_id="t1")
ORDER = RunOrder("r6", PIPELINE, RunKind.INCREMENTAL, epoch=2, generation=5, watermark=mark(50))


def refusal(order: RunOrder, state: TargetState) -> PermanentError:
    with pytest.raises(PermanentError) as caught:
        decide_start(order, state)
    return caught.value


def test_the_ledger_goes_before_the_manifest() -> None:
    start = decide_start(replace(ORDER, epoch=0, generation=0, watermark=None), LOADED)
    assert (start.epoch, start.generation, start.watermark) == (2, 5, mark(50))


def test_a_stale_manifest_is_overtaken_by_the_ledger() -> None:
    start = decide_start(replace(ORDER, generation=3, watermark=mark(30)), LOADED)
    assert (start.generation, start.watermark) == (5, mark(50))


def test_a_reset_brings_its_own_epoch_and_watermark_but_not_its_generation() -> None:
    start = decide_start(replace(ORDER, epoch=9, generation=0, watermark=mark(10)), LOADED)
    assert (start.epoch, start.generation, start.watermark) == (9, 5, mark(10))


def test_a_first_load_starts_at_nothing() -> None:
    start = decide_start(replace(ORDER, epoch=0, generation=0, watermark=None), TargetState(exists=False))
    assert (start.epoch, start.generation, start.watermark) == (0, 0, None)


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (TargetState(exists=False), "target.missing"),
        (TargetState(exists=False, ledger=LEDGER, recent=(LEDGER,)), "target.missing"),
        (TargetState(exists=True, object_id="t1"), "ledger.behind"),
        (replace(LOADED, ledger=replace(LEDGER, generation=4)), "ledger.behind"),
        (replace(LOADED, ledger=replace(LEDGER, epoch=1, generation=9)), "ledger.behind"),
        (replace(LOADED, object_id="t2"), "target.replaced"),
        (replace(LOADED, disturbed="RESTORE at version 12"), "target.disturbed"),
        (replace(LOADED, has_rows=False), "target.emptied"),
    ],
)
def test_a_target_that_lost_rows_is_refused_and_mended_by_a_full_refresh(state: TargetState, code: str) -> None:
    error = refusal(ORDER, state)
    assert error.code == code
    assert "uds run orders --full-refresh" in error.remedy
    start = decide_start(replace(ORDER, kind=RunKind.FULL_REFRESH, request_id="asked"), state)
    assert start.epoch > ORDER.epoch
    assert start.watermark is None


@pytest.mark.parametrize(
    "changed",
    [
        replace(PIPELINE, source=Source("db", "orders_2")),
        replace(PIPELINE, cursor=Cursor("v", CursorType.NUMBER)),
        replace(PIPELINE, cursor=Cursor("u", CursorType.ROWVERSION)),
        replace(PIPELINE, target=Target("lake", "orders_2")),
    ],
)
def test_p10_another_source_or_cursor_is_refused(changed: Pipeline) -> None:
    error = refusal(replace(ORDER, pipeline=changed), LOADED)
    assert error.code == "ledger.other_source"
    assert "uds watermark reset orders" in error.remedy


def test_p10_a_reset_accepts_the_new_source() -> None:
    changed = replace(PIPELINE, source=Source("db", "orders_2"))
    start = decide_start(replace(ORDER, pipeline=changed, epoch=1_700_000_000, generation=0, watermark=None), LOADED)
    assert (start.epoch, start.generation, start.watermark) == (1_700_000_000, 5, None)


def test_p10_another_mode_may_go_on() -> None:
    start = decide_start(replace(ORDER, pipeline=replace(PIPELINE, mode=LoadMode.INCREMENTAL)), LOADED)
    assert start.watermark == mark(50)


def test_rows_that_somebody_else_wrote_need_an_explicit_yes() -> None:
    foreign = TargetState(exists=True, has_rows=True, object_id="t1")
    first = replace(ORDER, epoch=0, generation=0, watermark=None)
    assert refusal(first, foreign).code == "target.not_empty"
    assert refusal(replace(first, kind=RunKind.FULL_REFRESH), foreign).code == "target.not_empty"
    assert decide_start(replace(first, adopt=True, watermark=mark(7)), foreign).watermark == mark(7)
    assert decide_start(replace(first, kind=RunKind.FULL_REFRESH, request_id="asked"), foreign).generation == 0


def test_a_run_finds_what_it_or_its_request_has_committed() -> None:
    assert own_entry(ORDER, LOADED.recent) is None
    assert own_entry(replace(ORDER, run_key="r5"), LOADED.recent) is LEDGER
    asked = replace(LEDGER, request_id="asked")
    assert own_entry(replace(ORDER, request_id="asked"), (asked,)) is asked


def test_a_full_refresh_pipeline_loads_everything_unless_it_backfills() -> None:
    refreshing = replace(ORDER, pipeline=replace(PIPELINE, mode=LoadMode.FULL_REFRESH))
    assert effective_kind(refreshing) is RunKind.FULL_REFRESH
    assert effective_kind(replace(refreshing, kind=RunKind.BACKFILL)) is RunKind.BACKFILL


def test_p01_what_was_seen_of_another_epoch_is_forgotten() -> None:
    """The changed source's numbers are others: a pair of the old ones would make unripe numbers safe."""
    order = replace(ORDER, kind=RunKind.FULL_REFRESH, seen=Seen(mark(9000), datetime(2024, 1, 1, tzinfo=UTC)))
    assert decide_start(order, LOADED).seen == order.seen
    changed = replace(LEDGER, fingerprint="of another cursor")
    start = decide_start(order, replace(LOADED, ledger=changed))
    assert (start.epoch, start.seen) == (3, None)
