"""The ledger of a JDBC target: read at the start, taken as the fence, recorded with the data (R3, R10, R14)."""

from __future__ import annotations

from spark_entry.adapters.jdbc_connection import DatabaseFailed, HeldConnection
from spark_entry.dialects.writing import LedgerTables
from spark_entry.ledger import LedgerEntry
from sync_core.domain.errors import FenceLost, PermanentError

KEPT_RUNS = 100


class Ledger:
    """The two tables in the target's schema, through one connection."""

    def __init__(self, connection: HeldConnection, tables: LedgerTables) -> None:
        self._connection = connection
        self._tables = tables

    def read(self, pipeline_id: str) -> tuple[LedgerEntry | None, tuple[LedgerEntry, ...]]:
        """The last committed entry, and the kept ones, newest first."""
        missing = self._missing()
        if missing:
            return None, ()
        last = self._connection.query(self._tables.read(), pipeline_id)
        entry = self._parse(pipeline_id, last[0][0]) if last else None
        runs = self._connection.query(self._tables.read_runs(), pipeline_id)
        return entry, tuple(self._parse(pipeline_id, text) for _, _, text in runs[:KEPT_RUNS])

    def create(self) -> None:
        """Create what is not there yet; another run may be doing the same."""
        for name, statement in self._tables.create():
            if name not in self._missing():
                continue
            try:
                self._connection.execute(statement)
            except DatabaseFailed:
                if name in self._missing():
                    raise

    def take(self, expected: LedgerEntry | None, entry: LedgerEntry) -> None:
        """Move the fence from the entry read at the start to the new one. Raises FenceLost when it stands elsewhere."""
        place = (entry.epoch, entry.generation, entry.run_key, entry.pipeline_id)
        lost = FenceLost(f"Another run of {entry.pipeline_id} has committed since this one began.")
        if expected is None:
            try:
                # It waits for another run that has inserted the same key and not committed.
                self._connection.execute(self._tables.begin(), *place, seconds=self._tables.dialect.fence_seconds)
            except DatabaseFailed as error:
                if (
                    self._tables.dialect.fault(error.fault.state, error.fault.vendor_code, error.fault.message)
                    == "duplicate"
                ):
                    raise lost from error
                raise
            return
        lock = self._tables.lock()
        if lock is not None:
            self._connection.query(lock, entry.pipeline_id)
        old = (expected.epoch, expected.generation, expected.run_key)
        if self._connection.execute(self._tables.take(), *place, *old) != 1:
            raise lost

    def record(self, entry: LedgerEntry) -> None:
        """Write the entry with what it counted, and keep the last runs."""
        pipeline_id, text = entry.pipeline_id, entry.to_text()
        self._connection.execute(self._tables.record(), text, pipeline_id)
        self._connection.execute(self._tables.forget_run(), pipeline_id, entry.epoch, entry.generation)
        self._connection.execute(
            self._tables.add_run(), pipeline_id, entry.epoch, entry.generation, entry.run_key, text
        )
        runs = self._connection.query(self._tables.read_runs(), pipeline_id)
        if len(runs) > KEPT_RUNS:
            epoch, generation = int(runs[KEPT_RUNS][0] or 0), int(runs[KEPT_RUNS][1] or 0)
            self._connection.execute(self._tables.prune_runs(), pipeline_id, epoch, epoch, generation)

    def _missing(self) -> tuple[str, ...]:
        names = [name for name, _ in self._tables.create()]
        wanted = (*names, *(name.upper() for name in names))
        found = {name.lower() for _, name in self._connection.tables(self._tables.schema, wanted)}
        return tuple(name for name in names if name not in found)

    def _parse(self, pipeline_id: str, text: str | None) -> LedgerEntry:
        entry = LedgerEntry.from_text(text)
        if entry is None:
            raise PermanentError(
                "ledger.unreadable",
                f"Pipeline {pipeline_id}: its entry in {self._tables.fence} cannot be read.",
                f"Somebody changed it. Restore it, or load the target again: uds run {pipeline_id} --full-refresh.",
            )
        return entry
