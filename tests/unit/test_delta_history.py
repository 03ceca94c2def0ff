"""What a Delta history says about a pipeline's ledger, in the words that DESCRIBE HISTORY of Delta 4.4 uses."""

from __future__ import annotations

import pytest

from spark_entry.adapters.delta_history import PastCommit, read_past
from spark_entry.ledger import LedgerEntry
from sync_core.domain.run import RunKind


def entry(generation: int = 1, pipeline: str = "orders", *, holds_rows: bool = False) -> str:
    return LedgerEntry(
        pipeline, 0, generation, None, f"key{generation}", RunKind.INCREMENTAL, "f", holds_rows=holds_rows
    ).to_text()


def commit(
    operation: str, metadata: str | None = None, rows: int = 0, version: int = 0, **parameters: str | None
) -> PastCommit:
    name = "numTargetRowsInserted" if operation == "MERGE" else "numOutputRows"
    return PastCommit(version, operation, parameters, {name: str(rows)}, metadata)


LOAD = commit("WRITE", entry(), 3, mode="Append")


@pytest.mark.parametrize(
    "other",
    [
        commit("RESTORE", version=9),
        commit("RESTORE", entry(2)),
        commit("CREATE OR REPLACE TABLE"),
        commit("REPLACE TABLE AS SELECT"),
        commit("CREATE OR REPLACE TABLE AS SELECT"),
        commit("CLONE"),
        commit("TRUNCATE"),
        commit("DELETE", predicate='["true"]'),
        commit("DELETE", predicate="[]"),
        commit("DELETE", predicate=None),
        commit("WRITE", mode="Overwrite"),
        commit("WRITE", entry(7, "another"), mode="Overwrite"),
    ],
)
def test_what_takes_all_rows_away_disturbs(other: PastCommit) -> None:
    past = read_past([other, LOAD], "orders")
    assert past.disturbed == f"{other.operation} at version {other.version}"
    assert past.ledger is not None
    assert past.ledger.generation == 1
    assert read_past([LOAD, other], "orders").disturbed is None


@pytest.mark.parametrize(
    "other",
    [
        commit("DELETE", predicate='["(id#200 = 1)"]'),
        commit("UPDATE", predicate='["(id#200 = 1)"]'),
        commit("WRITE", mode="Append"),
        commit("WRITE", mode="Overwrite", predicate="id=1"),
        commit("MERGE", entry(7, "another")),
        commit("OPTIMIZE", predicate="[]"),
        commit("ADD COLUMNS", entry(7)),
        commit("SET TBLPROPERTIES", entry(7)),
        commit("VACUUM END"),
    ],
)
def test_what_leaves_rows_alone_does_not(other: PastCommit) -> None:
    past = read_past([other, LOAD], "orders")
    assert past.disturbed is None
    assert past.ledger is not None
    assert past.ledger.generation == 1


def test_a_table_without_a_load_is_not_disturbed() -> None:
    assert read_past([commit("CREATE OR REPLACE TABLE"), commit("WRITE", "a note")], "orders").entries == ()


@pytest.mark.parametrize(("stored", "rows", "holds"), [(False, 0, False), (False, 2, True), (True, 0, True)])
def test_rows_that_a_load_left(stored: bool, rows: int, holds: bool) -> None:
    ledger = read_past([commit("MERGE", entry(holds_rows=stored), rows, version=4)], "orders").ledger
    assert ledger is not None
    assert (ledger.rows, ledger.holds_rows, ledger.commit_version) == (rows, holds, 4)
