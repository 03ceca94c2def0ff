"""The ledger in a Delta table's history: found, and checked for what others did after it (R3, R10d)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from spark_entry.ledger import LedgerEntry

DATA_OPERATIONS = ("WRITE", "MERGE")
"""Commits of this product; ALTER TABLE and others may inherit a session's userMetadata and are no loads."""

_REPLACING = ("RESTORE", "REPLACE TABLE", "CREATE OR REPLACE TABLE", "REPLACE TABLE AS SELECT", "TRUNCATE")
_REPLACING_TOO = ("CREATE OR REPLACE TABLE AS SELECT", "CLONE")


@dataclass(frozen=True)
class Past:
    """One pipeline's view of a history: its entries, newest first, and what disturbed the newest one."""

    entries: tuple[LedgerEntry, ...]
    disturbed: str | None


@dataclass(frozen=True)
class PastCommit:
    """One row of DESCRIBE HISTORY."""

    version: int
    operation: str
    parameters: Mapping[str, str]
    metrics: Mapping[str, str]
    user_metadata: str | None

    def entry(self, pipeline_id: str) -> LedgerEntry | None:
        """This pipeline's ledger entry, with the rows that Delta counted; None when the commit is not a load of its."""
        if self.operation not in DATA_OPERATIONS:
            return None
        entry = LedgerEntry.from_text(self.user_metadata)
        if entry is None or entry.pipeline_id != pipeline_id:
            return None
        return replace(entry, commit_version=self.version, rows=self.inserted + self.updated)

    @property
    def inserted(self) -> int:
        name = "numTargetRowsInserted" if self.operation == "MERGE" else "numOutputRows"
        return int(self.metrics.get(name, 0))

    @property
    def updated(self) -> int:
        return int(self.metrics.get("numTargetRowsUpdated", 0)) if self.operation == "MERGE" else 0

    @property
    def replaces_rows(self) -> bool:
        """Whether it took rows away that a ledger before it counted on."""
        if self.operation in _REPLACING or self.operation in _REPLACING_TOO:
            return True
        if self.operation == "DELETE":
            return json.loads(self.parameters.get("predicate") or "[]") in ([], ["true"])
        overwrites = self.operation == "WRITE" and self.parameters.get("mode") == "Overwrite"
        return overwrites and LedgerEntry.from_text(self.user_metadata) is None


def read_past(commits: Iterable[PastCommit], pipeline_id: str) -> Past:
    """Walk back through `commits`, newest first."""
    entries: list[LedgerEntry] = []
    disturbed: str | None = None
    for commit in commits:
        entry = commit.entry(pipeline_id)
        if entry is not None:
            entries.append(entry)
        elif not entries and disturbed is None and commit.replaces_rows:
            disturbed = f"{commit.operation} at version {commit.version}"
    return Past(tuple(entries), disturbed if entries else None)


def to_commit(row: Mapping[str, Any]) -> PastCommit:
    """A row of DESCRIBE HISTORY as a value."""
    return PastCommit(
        int(row["version"]),
        row["operation"],
        row["operationParameters"] or {},
        row["operationMetrics"] or {},
        row["userMetadata"],
    )
