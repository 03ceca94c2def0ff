"""Requests to stop as the engine reads them, and limits as it names them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from spark_entry.stops import RunTimeout, Stops, requests
from sync_core.adapters.local_run_folder import LocalRunFolder
from sync_core.domain.run import RunKind, RunOrder
from tests.support.flows import pipeline

ORDERS = [RunOrder(name, pipeline(name), RunKind.INCREMENTAL) for name in ("a", "b")]


def test_what_the_run_folder_writes_the_engine_reads(tmp_path: Path) -> None:
    folder = LocalRunFolder(tmp_path)
    assert requests(tmp_path / "batch/stop") == frozenset()
    folder.ask_to_stop("batch", "a")
    folder.ask_to_stop("batch", "of another batch")
    changes: list[None] = []
    with Stops(tmp_path / "batch/stop", "batch", ORDERS, lambda: changes.append(None)) as stops:
        assert [signal.reason and signal.reason.code for signal in stops.signals.values()] == ["run.stopped", None]
        assert len(changes) == 1
        stops.stop_all()
        assert [signal.reason and signal.reason.code for signal in stops.signals.values()] == [
            "run.stopped",
            "engine.stopped",
        ]


def test_a_folder_that_cannot_be_read_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "stop").write_text("not a folder")
    assert requests(tmp_path / "stop") == frozenset()


def test_the_time_limit_ends_with_the_run(tmp_path: Path) -> None:
    (order,) = (replace(ORDERS[0], pipeline=replace(ORDERS[0].pipeline, timeout_seconds=0.0)),)
    signal = Stops(None, "batch", [order], lambda: None).signals["a"]
    signal.press()
    assert signal.reason is None, "it has not begun"
    with signal.running():
        signal.end()
        signal.press()
        assert signal.reason is None, "it has ended"
    with signal.running():
        signal.press()
        with pytest.raises(RunTimeout):
            signal.check()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1.5, "1.5 s"), (90, "90 s"), (120, "2 min"), (3600, "1 h"), (5400, "1 h 30 min"), (3725, "1 h 2 min 5 s")],
)
def test_a_limit_is_told_as_a_person_would(seconds: float, text: str) -> None:
    assert f"its limit of {text} (timeout)" in RunTimeout("orders", seconds).message
