"""Numbers, times and outcomes as people read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from sync_core.domain.run import RowCounts, RunRecord, RunResult


def number(value: int) -> str:
    """`1,234,567`."""
    return f"{value:,}"


def duration(seconds: float | None) -> str:
    """`850 ms`, `12.3 s`, `4 m 05 s`, `3 h 20 m`, `2 d 4 h`."""
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{round(seconds * 1000)} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} m"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def is_told(result: RunResult) -> bool:
    """Whether rows and seconds are an engine's own account: not when it died, or was never started."""
    return result.error is None or result.seconds.total > 0


def took(result: RunResult) -> str:
    """How long a run took; empty where nobody knows."""
    return duration(result.seconds.total) if is_told(result) else ""


def ago(moment: datetime | None, now: datetime) -> str:
    """`12.3 s ago`; a dash for never."""
    return f"{duration(max(timedelta(), now - moment).total_seconds())} ago" if moment else "—"


def rows_text(rows: Mapping[str, Any] | RowCounts) -> str:
    """`1,000 read, 990 inserted, 10 updated`: what is zero is left out, except the rows read."""
    counts = asdict(rows) if isinstance(rows, RowCounts) else rows
    parts = [f"{number(counts.get('read', 0))} read"]
    parts += [f"{number(counts[name])} {name}" for name in ("inserted", "updated", "deleted") if counts.get(name)]
    labels = {"older": "older than the target's", "null_keys": "without a key", "future": "in the future"}
    parts += [f"{number(counts[name])} {label}" for name, label in labels.items() if counts.get(name)]
    return ", ".join(parts)


def result_text(result: RunResult) -> str:
    """One line on how a run ended."""
    if result.error is not None:
        message = result.error.message.removeprefix(f"Pipeline {result.pipeline_id}: ")
        return f"{message} → {result.error.remedy}" if result.error.remedy else message
    text = rows_text(result.rows)
    if result.watermark is not None:
        text += f"; watermark {result.watermark.value}"
    return text


def run_text(run: RunRecord) -> str:
    """One line on a closed run: `orders: succeeded in 12.3 s: 5,000 read; watermark 42`."""
    if run.result is None:
        return f"{run.pipeline_id}: {run.state.value}"
    return outcome_text(run.result)


def outcome_text(result: RunResult) -> str:
    """The same of a result."""
    how = f"{result.state.value} in {took(result)}".removesuffix(" in ")
    return f"{result.pipeline_id}: {how}: {result_text(result)}"
