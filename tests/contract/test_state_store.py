"""What every StateStore does."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta, timezone

import pytest

from sync_core.domain.errors import PermanentError
from sync_core.domain.run import (
    ConnectionRecord,
    Holder,
    OutboxEntry,
    Pause,
    PendingRequest,
    PipelineRecord,
    Range,
    RunKind,
    RunState,
    Seen,
    WatermarkChange,
)
from sync_core.ports import Conflict, StateStore
from sync_core.update import update
from tests.support.stores import FIVE, NOW, a_run, a_success, an_episode, an_operation, keys, put

DAY = timedelta(days=1)
Open = Callable[[], StateStore]


def test_a_pipeline_without_a_record_is_empty(open_store: Open) -> None:
    stored = open_store().load("orders")
    assert stored.record == PipelineRecord("orders")
    assert stored.tag is None
    assert list(open_store().pipelines()) == []
    assert open_store().run("orders", "a") is None
    assert open_store().last_success("orders") is None
    assert open_store().runs("orders", 9) == open_store().changes("orders", 9) == []
    assert open_store().episodes("orders", 9) == open_store().operations("orders", 9) == []
    assert open_store().forget_runs("orders", NOW) == open_store().forget_episodes("orders", NOW) == 0


def test_what_was_saved_is_read_by_another_process(open_store: Open) -> None:
    record = PipelineRecord(
        "orders", 3, 4, FIVE, "a", NOW, (PendingRequest("r", RunKind.BACKFILL, Range(FIVE, None), NOW),),
        Seen(FIVE, NOW), (OutboxEntry("alerts", "k", '{"a": "é 😀 \\u0000 "}'),), consumed={"other": 3},
        episodes=(an_episode("e"),), paused=Pause(NOW, "eve", "It's \"quoted\" / \\ # ? and\nbroken"),
    )  # fmt: skip
    store = open_store()
    change = WatermarkChange(NOW, "eve", "for a test", None, FIVE)
    store.save(store.load("orders"), record, [a_run("a"), an_episode("e"), an_operation("pause"), change])
    assert open_store().load("orders").record == record
    assert open_store().run("orders", "a") == a_run("a")
    assert open_store().runs("orders", 9) == [a_run("a")]
    assert open_store().episodes("orders", 9) == [an_episode("e")]
    assert open_store().operations("orders", 9) == [an_operation("pause")]
    assert open_store().changes("orders", 9) == [change]
    assert list(open_store().pipelines()) == ["orders"]


@pytest.mark.parametrize("existing", [False, True])
def test_of_two_writers_one_gets_a_conflict_and_writes_nothing(open_store: Open, existing: bool) -> None:
    one, two = open_store(), open_store()
    if existing:
        one.save(one.load("orders"), PipelineRecord("orders", epoch=9))
    first, second = one.load("orders"), two.load("orders")
    one.save(first, replace(first.record, generation=1), [a_run("a")])
    rows = [
        a_success("a"), a_run("b"), an_episode("e"), an_operation("pause"), WatermarkChange(NOW, "eve", "", None, None),
    ]  # fmt: skip
    with pytest.raises(Conflict, match="orders"):
        two.save(second, replace(second.record, generation=2, epoch=10), rows)
    assert two.load("orders").record.generation == 1
    assert two.run("orders", "a") == a_run("a")
    assert two.run("orders", "b") is None
    assert two.runs("orders", 9) == [a_run("a")]
    assert two.last_success("orders") is None
    assert two.episodes("orders", 9) == two.operations("orders", 9) == two.changes("orders", 9) == []


def test_a_tag_is_used_once(store: StateStore) -> None:
    put(store)
    stored = store.load("orders")
    store.save(stored, replace(stored.record, generation=1))
    with pytest.raises(Conflict):
        store.save(stored, replace(stored.record, generation=1))


def test_a_write_of_a_run_alone_changes_the_tag(store: StateStore) -> None:
    put(store)
    before = store.load("orders")
    store.save(before, before.record, [a_run("a")])
    assert store.load("orders").tag != before.tag


def test_many_writers_lose_nothing(open_store: Open) -> None:
    def add(number: int) -> None:
        store = open_store()
        while True:
            try:
                update(
                    store,
                    "orders",
                    lambda record: (replace(record, generation=record.generation + 1), (a_run(f"{number}"),)),
                )
            except Conflict:
                continue
            return

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(40)))
    assert open_store().load("orders").record.generation == 40
    assert len(open_store().runs("orders", 99)) == 40


def test_one_store_is_used_by_many_threads(store: StateStore) -> None:
    def write(name: str) -> str:
        put(store, a_run("a", pipeline=name), name=name)
        return name

    names = [f"p{number:02}" for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(write, names)) == names
    assert sorted(store.pipelines()) == names
    assert all(store.run(name, "a") == a_run("a", pipeline=name) for name in names)


def test_many_records_are_loaded_in_the_order_asked_for(store: StateStore) -> None:
    names = [f"p{number}" for number in range(150)]
    for number, name in enumerate(names[:100]):
        store.save(store.load(name), PipelineRecord(name, epoch=number))
    asked = [*names[::-1], "p3", "p149"]
    found = list(store.load_many(asked))
    assert [one.record.pipeline_id for one in found] == asked
    assert [one.record.epoch for one in found[50:150]] == list(range(100))[::-1]
    assert {one.tag is None for one in found[:50]} == {True}
    assert found[-2] == store.load("p3")
    store.save(found[-2], PipelineRecord("p3", epoch=500))
    assert store.load("p3").record.epoch == 500
    assert list(store.load_many([])) == []


def test_loading_many_can_be_given_up_half_way(store: StateStore) -> None:
    put(store)
    some = store.load_many(["orders"] * 500)
    assert next(some).record == PipelineRecord("orders")
    del some
    assert store.load("orders").record == PipelineRecord("orders")


def test_runs_come_newest_first(store: StateStore) -> None:
    zone = timezone(timedelta(hours=5))
    times = [NOW, NOW + timedelta(microseconds=1), (NOW + timedelta(seconds=1)).astimezone(zone), NOW - DAY]
    for number, at in enumerate(times):
        put(store, a_run(str(number), at=at))
    put(store, a_run("x", pipeline="other"), name="other")
    assert keys(store.runs("orders", 3)) == ["2", "1", "0"]
    assert keys(store.runs("orders", 99)) == ["2", "1", "0", "3"]
    assert keys(store.runs("orders", 0)) == []


def test_a_run_replaces_the_one_of_its_key_and_keeps_its_place(store: StateStore) -> None:
    for number in range(3):
        put(store, a_run(str(number), at=NOW + number * DAY))
    put(store, a_success("1", NOW + DAY))
    assert store.runs("orders", 9) == [a_run("2", at=NOW + 2 * DAY), a_success("1", NOW + DAY), a_run("0")]
    assert store.run("orders", "1") == a_success("1", NOW + DAY)
    put(store, a_run("1", at=NOW + 5 * DAY))
    assert keys(store.runs("orders", 9)) == ["1", "2", "0"]


def test_the_last_success_is_the_newest_whatever_came_after_it(store: StateStore) -> None:
    put(store, a_success("1", NOW))
    put(store, a_success("2", NOW + DAY, unchanged=True))
    for number in range(3, 40):
        put(store, a_run(str(number), RunState.FAILED, NOW + number * DAY))
    assert store.last_success("orders") == a_success("2", NOW + DAY, unchanged=True)


def test_a_late_success_counts_by_the_time_of_its_run(store: StateStore) -> None:
    put(store, a_success("2", NOW + DAY), a_run("1", RunState.FAILED), a_run("3", RunState.FAILED, NOW + 2 * DAY))
    late = replace(a_success("1", NOW), state=RunState.FAILED, late_success=True)
    put(store, late)
    assert store.last_success("orders") == a_success("2", NOW + DAY)
    later = replace(a_success("3", NOW + 2 * DAY), state=RunState.FAILED, late_success=True)
    put(store, later)
    assert store.last_success("orders") == later
    counted = replace(later, counted_generation=7)
    put(store, counted)
    assert store.last_success("orders") == counted


def test_a_success_that_is_none_any_more_gives_way_to_the_one_before(store: StateStore) -> None:
    put(store, a_success("1", NOW), a_success("2", NOW + DAY), a_success("3", NOW + 2 * DAY))
    put(store, a_run("3", RunState.FAILED, NOW + 2 * DAY))
    assert store.last_success("orders") == a_success("2", NOW + DAY)
    put(store, a_run("2", RunState.FAILED, NOW + DAY), a_success("0", NOW - DAY))
    assert store.last_success("orders") == a_success("1", NOW)
    put(store, a_run("1", RunState.FAILED, NOW), a_run("0", RunState.FAILED, NOW - DAY))
    assert store.last_success("orders") is None


def test_changes_are_kept_for_good_newest_first(store: StateStore) -> None:
    changes = [WatermarkChange(NOW + number * DAY, "eve", str(number), None, FIVE) for number in range(4)]
    for number, change in enumerate(changes):
        store.save(store.load("orders"), PipelineRecord("orders", epoch=10**number), [change])
    assert store.changes("orders", 3) == [changes[3], changes[2], changes[1]]
    assert store.changes("orders", 99) == changes[::-1]
    with pytest.raises(PermanentError, match=r"Epoch 1000 of pipeline orders already has a watermark change"):
        store.save(store.load("orders"), PipelineRecord("orders", epoch=1000, generation=5), [changes[0]])
    assert store.changes("orders", 99) == changes[::-1]
    assert store.load("orders").record.generation == 0


def test_episodes_come_newest_first_and_are_replaced_by_their_id(store: StateStore) -> None:
    for number in (2, 0, 1):
        put(store, an_episode(str(number), NOW + number * DAY))
    closed = replace(an_episode("1", NOW + DAY), notices=5, closed_at=NOW + 3 * DAY)
    put(store, closed)
    assert store.episodes("orders", 9) == [an_episode("2", NOW + 2 * DAY), closed, an_episode("0", NOW)]
    assert store.episodes("orders", 1) == [an_episode("2", NOW + 2 * DAY)]
    again = an_episode("0", NOW + 9 * DAY)
    put(store, again)
    assert store.episodes("orders", 9) == [again, an_episode("2", NOW + 2 * DAY), closed]


def test_episodes_closed_long_ago_are_forgotten(store: StateStore) -> None:
    rows = [replace(an_episode(str(number), NOW + number * DAY), closed_at=NOW + 5 * DAY) for number in range(3)]
    rows += [an_episode("3", NOW), replace(an_episode("4", NOW), closed_at=NOW + 9 * DAY)]
    put(store, *rows)
    assert store.forget_episodes("orders", NOW + 5 * DAY) == 0
    assert store.forget_episodes("orders", NOW + 5 * DAY + timedelta(microseconds=1)) == 3
    assert sorted(episode.episode_id for episode in store.episodes("orders", 9)) == ["3", "4"]
    assert store.forget_episodes("orders", NOW + 6 * DAY) == 0
    put(store, rows[0])
    assert store.episodes("orders", 1) == [rows[0]] or rows[0] in store.episodes("orders", 9)


def test_operations_come_newest_first_several_of_one_moment_are_kept(store: StateStore) -> None:
    put(store, an_operation("pause"), an_operation("cancel"))
    put(store, an_operation("resume", NOW + DAY))
    assert store.operations("orders", 1) == [an_operation("resume", NOW + DAY)]
    found = [operation.what for operation in store.operations("orders", 9)]
    assert found[0] == "resume"
    assert sorted(found[1:]) == ["cancel", "pause"]


def test_rows_of_another_pipeline_are_refused(store: StateStore) -> None:
    for row in (a_run("a", pipeline="other"), replace(an_episode("e"), pipeline_id="other")):
        with pytest.raises(ValueError, match="other cannot be saved with the record of orders"):
            put(store, row)
    assert list(store.pipelines()) == []


def test_retention_keeps_open_runs_and_the_last_success(store: StateStore) -> None:
    runs = [
        a_success("0", NOW),
        a_success("1", NOW + DAY),
        a_run("2", RunState.FAILED, NOW + 2 * DAY),
        a_run("3", RunState.LAUNCHED, NOW + 3 * DAY),
        a_run("4", RunState.CANCELLED, NOW + 4 * DAY),
        a_run("5", RunState.BEGUN, NOW - DAY),
        replace(a_run("6", RunState.FAILED, NOW - DAY), closed_at=NOW + 8 * DAY),
    ]
    put(store, *runs)
    assert store.forget_runs("orders", NOW + 3 * DAY) == 2
    assert keys(store.runs("orders", 9)) == ["4", "3", "1", "5", "6"]
    assert store.run("orders", "0") is None
    assert store.run("orders", "6") == runs[6]
    assert store.last_success("orders") == runs[1]
    assert store.forget_runs("orders", NOW + 3 * DAY) == 0
    put(store, a_success("7", NOW + 9 * DAY))
    assert store.forget_runs("orders", NOW + 3 * DAY) == 1
    assert keys(store.runs("orders", 9)) == ["7", "4", "3", "5", "6"]


def test_a_forgotten_success_is_none_any_more(store: StateStore) -> None:
    slow = replace(a_success("0", NOW - DAY), closed_at=NOW + 9 * DAY)
    put(store, slow, a_success("1", NOW), a_success("2", NOW + DAY))
    assert store.forget_runs("orders", NOW + 2 * DAY) == 1
    put(store, a_run("2", RunState.FAILED, NOW + DAY))
    assert store.last_success("orders") == slow


def test_two_who_forget_at_once_forget_each_run_once(open_store: Open) -> None:
    put(open_store(), *(a_run(f"{number}", RunState.FAILED, NOW) for number in range(40)))
    with ThreadPoolExecutor(4) as pool:
        gone = list(pool.map(lambda _: open_store().forget_runs("orders", NOW + DAY), range(4)))
    assert sum(gone) == 40
    assert open_store().runs("orders", 99) == []


@pytest.mark.parametrize("name", ["lake", "Ørsted/prod #1?\\ 'x' %2F =41", "~pipelines", "."])
def test_connections_have_records_of_their_own(open_store: Open, name: str) -> None:
    store = open_store()
    empty = store.load_connection(name)
    assert (empty.record, empty.tag) == (ConnectionRecord(name), None)
    record = ConnectionRecord(
        name, (Holder("batch", (("orders", "a"), ("other", "b")), 2),), Pause(NOW, "eve", "upgrade"),
        (an_operation("pause"),),
    )  # fmt: skip
    store.save_connection(empty, record)
    assert open_store().load_connection(name).record == record
    with pytest.raises(Conflict):
        open_store().save_connection(empty, ConnectionRecord(name))
    stored = open_store().load_connection(name)
    store.save_connection(stored, ConnectionRecord(name))
    with pytest.raises(Conflict):
        store.save_connection(stored, record)
    assert store.load_connection(name).record == ConnectionRecord(name)
    assert store.load_connection("other").tag is None
    assert list(store.pipelines()) == []


def test_a_connection_and_a_pipeline_of_one_name_are_two(store: StateStore) -> None:
    store.save_connection(store.load_connection("lake"), ConnectionRecord("lake"))
    assert store.load("lake").tag is None
    put(store, name="lake")
    assert store.load_connection("lake").record == ConnectionRecord("lake")
