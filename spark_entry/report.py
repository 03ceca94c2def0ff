"""The RunResult of an execution: what the ledger says after the fact, verbatim, whatever happened (R15)."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from spark_entry.audit import engine_version
from spark_entry.compute_faults import compute_fault
from spark_entry.execution import Execution
from spark_entry.ledger import LedgerEntry
from spark_entry.load import LOST_DIGITS_MARK, NULL_KEY_MARK
from spark_entry.names import resolve_names
from spark_entry.schema import UNFIT_MARK
from spark_entry.start import effective_kind, own_entry
from spark_entry.stops import EngineStopped, RunStopped
from sync_core.domain.errors import FenceLost, PermanentError, SyncError
from sync_core.domain.facts import Facts
from sync_core.domain.run import Action, Outcome, RowCounts, RunError, RunResult, Seconds

Redact = Callable[[str], str]

_DATA_EXCEPTION = re.compile(r"\[[A-Z_.]+\] [^\n]{1,300}?(?=\. | SQLSTATE)(?=[^\n]*SQLSTATE: 22)")
"""Spark's name of the error and its first sentence."""
_RAISED = re.compile(r"\[USER_RAISED_EXCEPTION\] (uds: .*?)(?: SQLSTATE: \w+|\n|$)")


def report(
    execution: Execution,
    action: Action,
    outcome: Outcome | None,
    error: BaseException | None,
    started: datetime,
    redact: Redact,
) -> RunResult:
    """Read the ledger again and build the result. `outcome` is None when `error` ended the execution."""
    order = execution.order
    entries, blind = _ledger_now(execution)
    entry = own_entry(order, entries) if action is Action.RUN else None
    execution.committed = entry if entry and entry.run_key == order.run_key else None
    rows = execution.rows
    if error is not None:
        outcome = _outcome_of(error, entry)
    if outcome in (Outcome.FAILED, Outcome.SUPERSEDED, Outcome.CANCELLED):
        rows = replace(rows, inserted=0, updated=0, deleted=0)
    elif error is not None and entry is not None:
        rows = RowCounts(inserted=execution.committed.rows if execution.committed else 0)
    ledger = entries[0] if entries else None
    finished = execution.now()
    total = (finished - started).total_seconds()
    result = RunResult(
        pipeline_id=order.pipeline.pipeline_id,
        run_key=order.run_key,
        batch_id=execution.batch_id,
        kind=effective_kind(order),
        attempt=order.attempt,
        state=outcome or Outcome.FAILED,
        request_id=order.request_id,
        epoch=ledger.epoch if ledger else 0,
        generation=ledger.generation if ledger else 0,
        watermark=ledger.watermark if ledger else None,
        seen=execution.seen,
        window=execution.window,
        rows=rows,
        counted_generation=execution.committed.generation if execution.committed else None,
        seconds=Seconds(round(total, 3), dict(execution.steps)),
        schema_changes=execution.schema_changes,
        notes=tuple(execution.notes),
        plan=execution.plan,
        problems=tuple(
            RunError("privilege.missing", "permanent", redact(problem), "Grant it.") for problem in execution.problems
        ),
        started_at=started,
        finished_at=finished,
        facts=Facts(
            tuple(execution.times),
            execution.source_columns,
            execution.target_columns,
            engine_version(),
            execution.target.spark.version,
        ),
    )
    if error is not None and outcome in (Outcome.FAILED, Outcome.CANCELLED):
        result = replace(result, error=_describe(execution, error, redact))
    elif isinstance(error, FenceLost):
        result = replace(
            result,
            notes=(*result.notes, "another run of this pipeline committed first; this one wrote nothing"),
        )
    if blind is not None and error is None:
        result = replace(result, state=Outcome.FAILED, error=_describe(execution, blind, redact))
    return result


def _ledger_now(execution: Execution) -> tuple[tuple[LedgerEntry, ...], BaseException | None]:
    pipeline = execution.order.pipeline
    try:
        with execution.step("report"):
            return execution.target.read_ledger(pipeline.target, pipeline.pipeline_id), None
    except Exception as error:  # the run's own error comes first; this one is told when there is no other
        return (), error


def _outcome_of(error: BaseException, entry: LedgerEntry | None) -> Outcome:
    """A commit whose answer was lost has happened all the same; a run that lost the fence has not failed."""
    if entry is not None:
        return Outcome.SUCCEEDED
    if isinstance(error, FenceLost):
        return Outcome.SUPERSEDED
    if isinstance(error, RunStopped | EngineStopped):
        return Outcome.CANCELLED
    return Outcome.FAILED


def describe(pipeline_id: str, error: BaseException, fault: SyncError | None, redact: Redact) -> RunError:
    """An error as the result tells it; `fault` is what it means, None when nobody foresaw it."""
    if fault is None:
        lines = traceback.format_exception_only(error)
        # Before the cut, or the half of a secret that it leaves would not be known for one.
        text = redact(lines[-1].strip()).splitlines()[0][:500]
        return RunError(
            "engine.internal",
            "internal",
            f"Pipeline {pipeline_id}: {text}",
            "The engine log in the run folder has the whole story; please report it.",
        )
    prefix = f"Pipeline {pipeline_id}: "
    message = fault.message if fault.message.startswith(prefix) else prefix + fault.message
    # An adapter does not know whose table it describes.
    remedy = fault.remedy.replace("uds run PIPELINE", f"uds run {pipeline_id}")
    return RunError(fault.code, fault.kind, redact(message), redact(remedy))


def _describe(execution: Execution, error: BaseException, redact: Redact) -> RunError:
    return describe(execution.order.pipeline.pipeline_id, error, _translate(execution, error), redact)


def count_rows(number: int) -> str:
    """`1 row`, `2 rows`."""
    return "1 row" if number == 1 else f"{number:,} rows"


def _translate(execution: Execution, error: BaseException) -> SyncError | None:
    if isinstance(error, SyncError):
        return error
    pipeline = execution.order.pipeline
    # Spark's word before it: the plan that other errors print holds our words, too.
    raised = _RAISED.search(str(error))
    text = raised[1] if raised else ""
    if NULL_KEY_MARK in text:
        relation = execution.source.describe_source(pipeline.source, pipeline.types)
        pipeline = resolve_names(pipeline, relation)
        count = execution.source.count_nulls(relation, pipeline.merge_keys, None)
        return PermanentError(
            "key.null",
            f"{count_rows(count)} of {relation.name} without a value in a merge key ({', '.join(pipeline.merge_keys)}).",
            "Fill the keys, filter those rows out, or set null_keys: ignore to leave them out, counted.",
        )
    if LOST_DIGITS_MARK in text:
        return PermanentError(
            "type.lossy",
            "a value has digits below a microsecond, which the target cannot hold, and lossy is refuse.",
            "Set lossy: cut to cut and count them.",
        )
    if text.startswith(UNFIT_MARK):
        return PermanentError(
            "type.lossy",
            f"{pipeline.target.table}: {text.removeprefix(UNFIT_MARK).strip()}.",
            "Give the column of the target a wider type, or round the value in a transformation.",
        )
    said = execution.source.translate_error(error) or execution.target.translate_error(error)
    return said or _value_fault(str(error)) or compute_fault(error)


def _value_fault(text: str) -> PermanentError | None:
    """A value that a cast, a filter or an expression could not take: Spark's SQLSTATE class 22."""
    found = _DATA_EXCEPTION.search(text)
    if found is None:
        return None
    return PermanentError(
        "row.invalid",
        f"a value does not fit a transformation or the target's type: {found[0]}.",
        "Correct the value at the source, filter its row out, or change the transformation.",
    )
