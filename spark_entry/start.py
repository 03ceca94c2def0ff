"""What a run may do, given the ledger it finds in the target (R10). Pure: values in, a decision or an error out."""

from __future__ import annotations

from dataclasses import dataclass

from spark_entry.adapters.base import TargetState
from spark_entry.ledger import LedgerEntry
from sync_core.domain.errors import PermanentError
from sync_core.domain.pipeline import LoadMode, Pipeline
from sync_core.domain.run import RunKind, RunOrder, Seen, fingerprint
from sync_core.domain.watermark import Watermark


@dataclass(frozen=True)
class Start:
    """Where a run goes on from: the ledger's generation, and the epoch and watermark of ledger or manifest.

    `seen` is the number cursor's pair; one of another epoch is None, for it may be of another cursor.
    """

    kind: RunKind
    epoch: int
    generation: int
    watermark: Watermark | None
    fingerprint: str
    seen: Seen | None = None


def effective_kind(order: RunOrder) -> RunKind:
    """A pipeline whose mode is full_refresh always loads everything, except in a backfill."""
    if order.kind is RunKind.INCREMENTAL and order.pipeline.mode is LoadMode.FULL_REFRESH:
        return RunKind.FULL_REFRESH
    return order.kind


def own_entry(order: RunOrder, recent: tuple[LedgerEntry, ...]) -> LedgerEntry | None:
    """What this run, or another one of its request, has committed already."""
    for entry in recent:
        if entry.run_key == order.run_key:
            return entry
        if order.request_id is not None and entry.request_id == order.request_id:
            return entry
    return None


def decide_start(order: RunOrder, state: TargetState) -> Start:
    """Rules R10a-d. Raises PermanentError that names the command which mends what it finds."""
    kind = effective_kind(order)
    ledger = state.ledger
    current = fingerprint(order.pipeline)
    fault = find_fault(order, state, current)
    if fault and kind is not RunKind.FULL_REFRESH:
        raise fault
    if state.has_rows and ledger is None and not _foreign_rows_allowed(order, kind):
        raise PermanentError(
            "target.not_empty",
            f"Pipeline {order.pipeline.pipeline_id}: the target {order.pipeline.target.table} holds rows that this "
            "pipeline never wrote.",
            f"To keep them and go on from there: {_adoption(order.pipeline)}. "
            f"To replace them: uds run {order.pipeline.pipeline_id} --full-refresh.",
        )
    epoch, generation, watermark = order.epoch, 0, order.watermark
    if ledger is not None:
        generation = ledger.generation
        if ledger.epoch >= order.epoch:
            epoch, watermark = ledger.epoch, ledger.watermark
    if fault:
        # The full refresh mends: a new epoch makes its ledger greater than whatever the store remembers.
        # Delta remembers the greatest generation it ever saw and skips what is not greater, in silence.
        epoch, generation, watermark = max(epoch, order.epoch) + 1, max(generation, order.generation), None
    seen = order.seen if epoch == order.epoch else None
    return Start(kind, epoch, generation, watermark, current, seen)


def _adoption(pipeline: Pipeline) -> str:
    what = f"set {pipeline.pipeline_id} VALUE" if pipeline.cursor is not None else f"reset {pipeline.pipeline_id}"
    return f"uds watermark {what} --adopt --reason WHY"


def _foreign_rows_allowed(order: RunOrder, kind: RunKind) -> bool:
    asked_by_a_person = kind is RunKind.FULL_REFRESH and order.request_id is not None
    return order.adopt or asked_by_a_person or order.generation > 0


def find_fault(order: RunOrder, state: TargetState, current: str) -> PermanentError | None:
    """Why the target or its ledger cannot be trusted to hold all rows up to the watermark; None when it can."""
    name, table, ledger = order.pipeline.pipeline_id, order.pipeline.target.table, state.ledger
    mend = (
        f"Load it again with: uds run {name} --full-refresh. "
        f"Or, when you know that nothing is missing: uds watermark reset {name} --reason WHY."
    )
    if order.generation == 0 and (ledger is None or ledger.epoch < order.epoch):
        # Never loaded, or a person has set the watermark since, knowing what is in the target (R8).
        return None
    if not state.exists:
        return PermanentError(
            "target.missing", f"Pipeline {name}: the target {table} was loaded before and is gone.", mend
        )
    if ledger is None or (order.generation > 0 and (ledger.epoch, ledger.generation) < (order.epoch, order.generation)):
        found = "none" if ledger is None else f"{ledger.generation}"
        return PermanentError(
            "ledger.behind",
            f"Pipeline {name}: the target {table} records load {found}, but load {order.generation} has been reported: "
            "the target was dropped, restored or replaced.",
            mend,
        )
    if ledger.fingerprint != current:
        return PermanentError(
            "ledger.other_source",
            f"Pipeline {name}: source, cursor or target in the configuration is not what the watermark "
            f"{ledger.watermark.value if ledger.watermark else 'none'} was taken from.",
            mend,
        )
    if not state.same_object:
        return PermanentError(
            "target.replaced",
            f"Pipeline {name}: the target {table} is another table than the one that was loaded.",
            mend,
        )
    if state.disturbed:
        return PermanentError(
            "target.disturbed",
            f"Pipeline {name}: since the last load somebody changed {table}: {state.disturbed}.",
            mend,
        )
    if ledger.holds_rows and not state.has_rows:
        return PermanentError(
            "target.emptied", f"Pipeline {name}: the target {table} held rows and is empty now.", mend
        )
    return None
