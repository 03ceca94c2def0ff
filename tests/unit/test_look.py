"""A target is looked at until its rows and its ledger fit each other, and not for ever."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from spark_entry.adapters.base import TargetState
from spark_entry.engine import LOOKS, look_at_target


def look(*states: TargetState) -> tuple[TargetState, int]:
    """What was found, and by how many looks."""
    seen: list[TargetState] = []

    def inspect(*_: object) -> TargetState:
        seen.append(states[min(len(seen), len(states) - 1)])
        return seen[-1]

    pipeline = SimpleNamespace(target=None, pipeline_id="orders")
    execution: Any = SimpleNamespace(
        order=SimpleNamespace(pipeline=pipeline), target=SimpleNamespace(inspect_target=inspect)
    )
    return look_at_target(execution), len(seen)


def state(version: int, *, has_rows: bool) -> TargetState:
    return TargetState(exists=True, has_rows=has_rows, version=version)


def test_what_fits_is_looked_at_once() -> None:
    assert look(state(1, has_rows=False)) == (state(1, has_rows=False), 1)


def test_what_does_not_fit_twice_in_the_same_way_is_so() -> None:
    assert look(state(1, has_rows=True)) == (state(1, has_rows=True), 2)


def test_a_commit_between_two_looks_is_passed() -> None:
    assert look(state(1, has_rows=True), state(2, has_rows=False)) == (state(2, has_rows=False), 2)


def test_a_table_that_others_write_to_all_the_time_is_not_looked_at_for_ever() -> None:
    assert look(*(state(version, has_rows=True) for version in range(99)))[1] == LOOKS + 1
