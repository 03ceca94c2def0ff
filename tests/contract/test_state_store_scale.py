"""What every StateStore does with large bodies, many runs, unusual names and long histories."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta

from sync_core.domain.run import (
    OutboxEntry,
    PipelineRecord,
    RunRecord,
    RunState,
)
from sync_core.ports import StateStore
from tests.support.stores import NOW, a_run, a_success, an_episode, keys, put

DAY = timedelta(days=1)


def test_large_bodies(store: StateStore) -> None:
    notes = tuple(f"Column {number} became longer: é 😀 \u0001 " + "x" * 500 for number in range(250))
    run = a_success("a", NOW)
    assert run.result is not None
    run = replace(run, result=replace(run.result, notes=notes))
    outbox = tuple(OutboxEntry("alerts", str(number), "y" * 1000) for number in range(120))
    store.save(store.load("orders"), PipelineRecord("orders", outbox=outbox), [run])
    assert store.load("orders").record.outbox == outbox
    assert store.run("orders", "a") == store.last_success("orders") == run
    assert store.runs("orders", 1) == [run]
    put(store, a_success("a", NOW))
    store.save(store.load("orders"), PipelineRecord("orders"))
    assert store.run("orders", "a") == a_success("a", NOW)
    assert store.load("orders").record == PipelineRecord("orders")


def test_more_runs_of_one_pipeline_than_two_pages_hold(store: StateStore) -> None:
    made = [a_run(f"{number:064x}", RunState.FAILED, NOW + timedelta(minutes=number)) for number in range(2500)]
    for start in range(0, 2500, 40):
        put(store, *made[start : start + 40])
    put(store, a_success("old", NOW - DAY))
    assert store.runs("orders", 20) == made[: -20 - 1 : -1]
    assert keys(store.runs("orders", 1500)) == keys(made[: -1500 - 1 : -1])
    assert store.run("orders", made[1234].run_key) == made[1234]
    assert store.last_success("orders") == a_success("old", NOW - DAY)
    assert store.forget_runs("orders", NOW + timedelta(minutes=2490)) == 2490
    assert keys(store.runs("orders", 99)) == [*keys(made[: -10 - 1 : -1]), "old"]
    assert store.forget_runs("orders", NOW + timedelta(minutes=2490)) == 0


NAMES = [
    "0",
    "a.b-c_d",
    "a..",
    "a-",
    "9_",
    "a" * 100,
    "record",
    "success",
    "orders",
    "orders.",
    "runs_",
    "con",
    "nul.txt",
    "$control-plane",
]


def test_unusual_names_have_partitions_of_their_own(store: StateStore) -> None:
    rows = {name: a_run(name, pipeline=name, at=NOW) for name in NAMES}
    for name, run in rows.items():
        put(store, run, replace(an_episode(name), pipeline_id=name), name=name)
    assert sorted(store.pipelines()) == sorted(NAMES)
    assert {name: store.runs(name, 9) for name in NAMES} == {name: [run] for name, run in rows.items()}
    assert [one.record.pipeline_id for one in store.load_many(NAMES)] == NAMES
    assert all(store.load(name).tag for name in NAMES)


def test_more_pipelines_than_one_page_holds(store: StateStore) -> None:
    names = [f"p{number:04}" for number in range(1100)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: put(store, name=name), names))
    assert sorted(store.pipelines()) == names


def test_any_sequence_of_writes_comes_to_what_a_plain_model_says(store: StateStore) -> None:
    """Runs that come, succeed, fail again and are forgotten, in any order."""
    dice = random.Random(7)
    runs: dict[str, RunRecord] = {}
    for _ in range(80):
        if dice.random() < 0.15:
            before = NOW + dice.randrange(30) * DAY
            best = max((run for run in runs.values() if is_success(run)), key=order, default=None)
            old = [
                run.run_key
                for run in runs.values()
                if run.closed_at is not None and run.closed_at < before and run != best
            ]
            assert store.forget_runs("orders", before) == len(old)
            runs = {key: run for key, run in runs.items() if key not in old}
        else:
            chosen = [str(number) for number in dice.sample(range(12), dice.randrange(1, 4))]
            made = [
                a_success(key, NOW + dice.randrange(30) * DAY)
                if dice.random() < 0.5
                else a_run(key, dice.choice(list(RunState)), NOW + dice.randrange(30) * DAY)
                for key in chosen
            ]
            put(store, *made)
            runs |= {run.run_key: run for run in made}
        assert store.runs("orders", 99) == sorted(runs.values(), key=order, reverse=True)
        assert store.last_success("orders") == max(filter(is_success, runs.values()), key=order, default=None)


def is_success(run: RunRecord) -> bool:
    return run.result is not None


def order(run: RunRecord) -> tuple[datetime, int]:
    """By time; of one moment the lower key is the newer."""
    return run.created_at, -sum(ord(letter) * 1000 ** (9 - place) for place, letter in enumerate(run.run_key))
