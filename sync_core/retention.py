"""Forget what is old: runs, their folders, closed alert episodes. Open runs and each pipeline's last success never go."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sync_core.ports import RunFolder, StateStore


@dataclass(frozen=True)
class Retention:
    """Days that each is kept. Audit rows are the engine's to forget (AuditPlace)."""

    runs: int = 90
    folders: int = 30
    episodes: int = 365


def forget(store: StateStore, folder: RunFolder, retention: Retention, now: datetime) -> None:
    """Delete what is older than it is kept."""
    kept: set[str] = set()
    for pipeline_id in store.pipelines():
        store.forget_runs(pipeline_id, now - timedelta(days=retention.runs))
        store.forget_episodes(pipeline_id, now - timedelta(days=retention.episodes))
        open_run = store.load(pipeline_id).record.open_run
        runs = (store.run(pipeline_id, open_run) if open_run else None, store.last_success(pipeline_id))
        kept |= {run.batch_id for run in runs if run is not None}
    folder.forget(now - timedelta(days=retention.folders), kept)
