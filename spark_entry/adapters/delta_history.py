"""The ledger in a Delta table's history: found, and checked for what others did after it (R3, R10d)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from spark_entry.ledger import LedgerEntry

DATA_OPERATIONS = ("WRITE", "MERGE")
"""Commits of this product; ALTER TABLE and others may inherit a session's userMetadata and are no loads."""

_REPLACING = (
    "RESTORE",
    "CLONE",
    "TRUNCATE",
    "REPLACE TABLE",
    "REPLACE TABLE AS SELECT",
    "CREATE OR REPLACE TABLE",
    "CREATE OR REPLACE TABLE AS SELECT",
)
"""Operations that take all rows away; a DELETE where true and an overwrite do as well."""

_ALL_ROWS: tuple[list[str], ...] = ([], ["true"])

Identity = tuple[int, int, str]
"""Epoch, generation and run key: what tells one load from another."""


@dataclass(frozen=True)
class Past:
    """One pipeline's view of a history: its entries, newest first, and what disturbed the newest one."""

    entries: tuple[LedgerEntry, ...]
    disturbed: str | None

    @property
    def ledger(self) -> LedgerEntry | None:
        return self.entries[0] if self.entries else None


@dataclass(frozen=True)
class PastCommit:
    """One row of DESCRIBE HISTORY."""

    version: int
    operation: str
    parameters: Mapping[str, str | None]
    metrics: Mapping[str, str]
    user_metadata: str | None

    def entry(self, pipeline_id: str) -> LedgerEntry | None:
        """This pipeline's ledger entry, with the rows that Delta counted; None when the commit is not a load of its."""
        if self.operation not in DATA_OPERATIONS:
            return None
        entry = LedgerEntry.from_text(self.user_metadata)
        if entry is None or entry.pipeline_id != pipeline_id:
            return None
        rows = self.inserted + self.updated
        return replace(entry, commit_version=self.version, rows=rows, holds_rows=entry.holds_rows or rows > 0)

    @property
    def inserted(self) -> int:
        name = "numTargetRowsInserted" if self.operation == "MERGE" else "numOutputRows"
        return int(self.metrics.get(name, 0))

    @property
    def updated(self) -> int:
        return int(self.metrics.get("numTargetRowsUpdated", 0)) if self.operation == "MERGE" else 0

    @property
    def replaces_rows(self) -> bool:
        """Whether it took all rows away that a ledger before it counted on."""
        if self.operation == "DELETE":
            return _predicates(self.parameters.get("predicate")) in _ALL_ROWS
        if self.operation == "WRITE":
            return self.parameters.get("mode") == "Overwrite" and not self.parameters.get("predicate")
        return self.operation in _REPLACING


def read_past(commits: Iterable[PastCommit], pipeline_id: str) -> Past:
    """Walk back through `commits`, newest first. Another pipeline's full refresh disturbs, too."""
    entries: list[LedgerEntry] = []
    disturbed: str | None = None
    for commit in commits:
        entry = commit.entry(pipeline_id)
        if entry is not None:
            entries.append(entry)
        elif not entries and disturbed is None and commit.replaces_rows:
            disturbed = f"{commit.operation} at version {commit.version}"
    return Past(tuple(entries), disturbed if entries else None)


def identity(entry: LedgerEntry | None) -> Identity | None:
    """What the fence compares."""
    return (entry.epoch, entry.generation, entry.run_key) if entry else None


def to_commit(row: Mapping[str, Any]) -> PastCommit:
    """A row of DESCRIBE HISTORY as a value."""
    return PastCommit(
        int(row["version"]),
        row["operation"],
        row["operationParameters"] or {},
        row["operationMetrics"] or {},
        row["userMetadata"],
    )


def _predicates(text: str | None) -> object:
    """The predicates of a DELETE: a JSON list of texts; what cannot be read is taken as a predicate."""
    try:
        return json.loads(text or "[]")
    except ValueError:
        return [text]
