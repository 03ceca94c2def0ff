"""The state store on Azure: Table Storage, one partition a pipeline (`table_keys` has its layout)."""

from __future__ import annotations

import contextlib
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from itertools import batched

from azure.data.tables import TableServiceClient

from sync_core.adapters.store_rows import check_rows, decode, encode, epoch_taken, operation_key, sortable, succeeded
from sync_core.adapters.table_keys import (
    CONNECTIONS,
    PIPELINES,
    RECORD,
    SUCCESS,
    after,
    clean,
    inverted,
    inverted_time,
    join,
    split,
)
from sync_core.adapters.table_service import (
    CALLS,
    LARGEST_TRANSACTION,
    Entity,
    Refused,
    Table,
    Write,
    create,
    delete,
    put,
    replace_version,
)
from sync_core.domain.alert import Episode
from sync_core.domain.errors import PermanentError, SyncError
from sync_core.domain.run import ConnectionRecord, Operation, PipelineRecord, RunRecord, WatermarkChange
from sync_core.ports import Conflict, Row, Stored, StoredConnection

READ_AHEAD = CALLS * 4
"""How many reads `load_many` has under way or waiting to be taken."""

WRITES_KEPT = 8
"""A record carries the ids of its last writes: a write is recognised though others came over it since."""

FORGET_TRIES = 5
"""How often rows to forget are looked for anew when somebody changed or forgot them at the same moment."""


class TableStore:
    """A StateStore in one table, which is made when it is missing.

    A record and its rows are one transaction, conditional on the record's tag. So whatever is read between `load` and
    `save` to prepare that transaction is up to date when it succeeds: every other `save` changes the tag.
    """

    def __init__(
        self, service: TableServiceClient, table: str = "udsstate", new_id: Callable[[], str] = lambda: uuid.uuid4().hex
    ) -> None:
        self._table = Table(service, table)
        self._new_id = new_id
        self._pool = ThreadPoolExecutor(CALLS, thread_name_prefix="table-store")

    def close(self) -> None:
        """End its threads and connections."""
        self._pool.shutdown()
        self._table.close()

    def load(self, pipeline_id: str) -> Stored:
        found = self._table.get(clean(pipeline_id), RECORD)
        if found is None:
            return Stored(PipelineRecord(pipeline_id), None)
        return Stored(_decoded(PipelineRecord, found, pipeline_id), _tag(found))

    def load_many(self, pipeline_ids: Sequence[str]) -> Iterator[Stored]:
        return self._in_order(self.load, pipeline_ids)

    def save(self, stored: Stored, record: PipelineRecord, rows: Sequence[Row] = ()) -> None:
        check_rows(record, rows)
        name, partition = record.pipeline_id, clean(record.pipeline_id)
        if stored.tag is None:
            # Before the record: a crash in between leaves a name without a record, which `pipelines` finds out.
            self._table.merge(PIPELINES, partition, {"name": name})
        writes = [
            *self._run_writes(name, [row for row in rows if isinstance(row, RunRecord)]),
            *self._episode_writes(name, [row for row in rows if isinstance(row, Episode)]),
        ]
        for row in rows:
            if isinstance(row, WatermarkChange):
                writes.append(create(_change_key(record.epoch), split(encode(row), f"A change of {name}")))
            elif isinstance(row, Operation):
                place = f"operation_{inverted_time(row.at)}_{operation_key(row)}"
                writes.append(put(place, split(encode(row), f"An operation on {name}")))
        try:
            self._replace(partition, RECORD, name, stored.tag, encode(record), _distinct(writes))
        except Conflict:
            for row in rows:
                if isinstance(row, WatermarkChange) and self._is_unchanged(partition, stored.tag):
                    raise epoch_taken(name, record.epoch, row) from None
            raise
        if stored.tag is None:
            # What was asked for is done. Without the mark `pipelines` looks whether there is a record.
            with contextlib.suppress(SyncError):
                self._table.merge(PIPELINES, partition, {"name": name, "confirmed": True})

    def run(self, pipeline_id: str, run_key: str) -> RunRecord | None:
        found = self._table.get(clean(pipeline_id), f"run_{clean(run_key)}")
        return _decoded(RunRecord, found, pipeline_id) if found else None

    def runs(self, pipeline_id: str, limit: int) -> list[RunRecord]:
        return self._newest(RunRecord, pipeline_id, "runs_", limit)

    def last_success(self, pipeline_id: str) -> RunRecord | None:
        found = self._table.get(clean(pipeline_id), SUCCESS)
        return _decoded(RunRecord, found, pipeline_id) if found else None

    def changes(self, pipeline_id: str, limit: int) -> list[WatermarkChange]:
        return self._newest(WatermarkChange, pipeline_id, "change_", limit)

    def episodes(self, pipeline_id: str, limit: int) -> list[Episode]:
        return self._newest(Episode, pipeline_id, "episodes_", limit)

    def operations(self, pipeline_id: str, limit: int) -> list[Operation]:
        return self._newest(Operation, pipeline_id, "operation_", limit)

    def pipelines(self) -> Iterator[str]:
        for found in self._table.query(PIPELINES, "-", "~", select=("name", "confirmed")):
            partition = found.row_key
            if found.values.get("confirmed") or self._table.get(partition, RECORD, ("writes",)) is not None:
                yield found.values["name"]

    def forget_runs(self, pipeline_id: str, before: datetime) -> int:
        return self._forget(clean(pipeline_id), "runs_", "run_", before)

    def forget_episodes(self, pipeline_id: str, before: datetime) -> int:
        return self._forget(clean(pipeline_id), "episodes_", "episode_", before)

    def load_connection(self, name: str) -> StoredConnection:
        found = self._table.get(CONNECTIONS, clean(name))
        if found is None:
            return StoredConnection(ConnectionRecord(name), None)
        return StoredConnection(_decoded(ConnectionRecord, found, name), _tag(found))

    def save_connection(self, stored: StoredConnection, record: ConnectionRecord) -> None:
        self._replace(CONNECTIONS, clean(record.name), record.name, stored.tag, encode(record))

    def _replace(
        self, partition: str, row_key: str, name: str, tag: str | None, body: str, beside: Sequence[Write] = ()
    ) -> None:
        """Write one tagged row and what lies beside it, only if it still has the tag. Raises Conflict."""
        write = self._new_id()
        version, _, earlier = (tag or "").partition("\n")
        ids = " ".join([write, *earlier.split()][:WRITES_KEPT])
        values = {"writes": ids, **split(body, f"The record of {name}")}
        first = create(row_key, values) if tag is None else replace_version(row_key, values, version)
        try:
            self._table.transact(partition, [first, *beside])
        except Refused as error:
            found = self._table.get(partition, row_key, ("writes",))
            if found is None or write not in found.values["writes"].split():
                raise Conflict(name) from error
            # It was written, but the answer was lost, and its repetition was refused by what it had written itself.

    def _is_unchanged(self, partition: str, tag: str | None) -> bool:
        found = self._table.get(partition, RECORD, ("writes",))
        return (_tag(found) if found else None) == tag

    def _run_writes(self, name: str, rows: Sequence[RunRecord]) -> list[Write]:
        runs = {run.run_key: run for run in rows}
        partition = clean(name)
        keys = [f"run_{clean(key)}" for key in runs]
        earlier = list(self._in_order(lambda key: self._table.get(partition, key, ("place", "succeeded")), keys))
        writes: list[Write] = []
        for run, key, old in zip(runs.values(), keys, earlier, strict=True):
            place, body = _run_place(run), split(encode(run), f"Run {run.run_key} of {name}")
            marks = {"place": place, "succeeded": succeeded(run), "closed": _closed(run)}
            writes += [put(key, marks | body), put(f"runs_{place}", marks | body)]
            if old is not None and old.values["place"] != place:
                writes.append(delete(f"runs_{old.values['place']}"))
        if any(map(succeeded, runs.values())) or any(old is not None and old.values["succeeded"] for old in earlier):
            writes += self._success_writes(partition, runs)
        return writes

    def _success_writes(self, partition: str, runs: Mapping[str, RunRecord]) -> list[Write]:
        """Keep the newest success in a row of its own, when these runs become it or are it no more."""
        current = self._table.get(partition, SUCCESS, ("place",))
        best = min((run for run in runs.values() if succeeded(run)), key=_run_place, default=None)
        if best is not None and (current is None or _run_place(best) <= current.values["place"]):
            return [_success(_run_place(best), encode(best))]
        replaced = {clean(key) for key in runs}
        if current is None or _key_of(current) not in replaced:
            return []
        found = self._table.query(partition, "runs_", after("runs_"), where="succeeded eq true")
        before = next((one for one in found if _key_of(one) not in replaced), None)
        if before is not None and (best is None or before.values["place"] < _run_place(best)):
            return [_success(before.values["place"], join(before.values))]
        return [_success(_run_place(best), encode(best))] if best is not None else [delete(SUCCESS)]

    def _episode_writes(self, name: str, rows: Sequence[Episode]) -> list[Write]:
        episodes = {episode.episode_id: episode for episode in rows}
        partition = clean(name)
        keys = [f"episode_{clean(key)}" for key in episodes]
        earlier = list(self._in_order(lambda key: self._table.get(partition, key), keys))
        writes: list[Write] = []
        for episode, key, old in zip(episodes.values(), keys, earlier, strict=True):
            place = f"{inverted_time(episode.opened_at)}_{clean(episode.episode_id)}"
            body = split(encode(episode), f"An episode of {name}")
            writes += [put(key, {"place": place}), put(f"episodes_{place}", {"closed": _closed(episode), **body})]
            if old is not None and old.values["place"] != place:
                writes.append(delete(f"episodes_{old.values['place']}"))
        return writes

    def _newest[T](self, kind: type[T], pipeline_id: str, prefix: str, limit: int) -> list[T]:
        found = self._table.query(clean(pipeline_id), prefix, after(prefix), limit)
        return [_decoded(kind, one, pipeline_id) for one in found]

    def _forget(self, partition: str, prefix: str, key_prefix: str, before: datetime) -> int:
        """Delete what was closed before a time. Nothing is closed before it began: the range holds all that may go."""
        forgotten = 0
        for _ in range(FORGET_TRIES):
            low = prefix + inverted_time(before)
            found = self._table.query(partition, low, after(prefix), select=("closed",))
            old = [one for one in found if one.values["closed"] and one.values["closed"] < sortable(before)]
            kept = self._table.get(partition, SUCCESS, ("place",)) if old and prefix == "runs_" else None
            kept_key = f"runs_{kept.values['place']}" if kept else ""
            again = False
            for some in batched((one for one in old if one.row_key != kept_key), LARGEST_TRANSACTION // 2):
                writes = [
                    write
                    for one in some
                    for write in (delete(one.row_key, one.tag), delete(key_prefix + one.row_key.split("_", 2)[2]))
                ]
                try:
                    self._table.transact(partition, writes)
                    forgotten += len(some)
                except Refused:
                    again = True
            if not again:
                break
        return forgotten

    def _in_order[T, R](self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """`map`, many calls at a time, with a bounded number of answers waiting."""
        waiting: deque[Future[R]] = deque()
        try:
            for item in items:
                if len(waiting) >= READ_AHEAD:
                    yield waiting.popleft().result()
                waiting.append(self._pool.submit(function, item))
            while waiting:
                yield waiting.popleft().result()
        finally:
            for left in waiting:
                left.cancel()


def _tag(found: Entity) -> str:
    """The version, and the ids of the writes that led to it."""
    return f"{found.tag}\n{found.values['writes']}"


def _change_key(epoch: int) -> str:
    return f"change_{inverted(epoch)}"


def _run_place(run: RunRecord) -> str:
    return f"{inverted_time(run.created_at)}_{clean(run.run_key)}"


def _key_of(found: Entity) -> str:
    """The run_key, as keys hold it, of a row that has a run's place."""
    return found.values["place"].split("_", 1)[1]


def _success(place: str, body: str) -> Write:
    return put(SUCCESS, {"place": place, **split(body, "The last success")})


def _closed(row: RunRecord | Episode) -> str:
    return sortable(row.closed_at) if row.closed_at else ""


def _distinct(writes: Sequence[Write]) -> list[Write]:
    """The last write of each row: a transaction takes one."""
    return list({write.row_key: write for write in writes}.values())


def _decoded[T](kind: type[T], found: Entity, name: str) -> T:
    try:
        return decode(kind, join(found.values))
    except ValueError as error:
        raise PermanentError(
            "store.damaged",
            f"What the state store holds of {name} in row {found.row_key} is not what uds wrote: {error}.",
            "Delete that row: the next run takes over the target's ledger.",
        ) from error
