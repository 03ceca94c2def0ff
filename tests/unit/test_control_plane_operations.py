"""What operators do through the control plane: pause and resume, set a watermark, cancel, run again."""

from __future__ import annotations

import pytest

from sync_core.control_plane import ControlPlane
from sync_core.domain.errors import ConfigError
from sync_core.domain.run import RunState
from sync_core.messages import REQUESTS
from tests.support.control import Site, request_of
from tests.support.flows import pipeline


def test_a_paused_pipeline_begins_nothing_until_it_is_resumed(site: Site) -> None:
    plane = site.plane()
    plane.pause("orders", "eve", "the source is being moved")
    for _ in range(3):
        site.cycle()
    assert site.runs() == []
    plane.submit(request_of("r"))
    site.cycle()
    assert site.runs() == []
    plane.resume("orders", "eve", "it has moved")
    site.settle()
    assert "r" in [run.request_id for run in site.runs()]
    operations = [(one.what, one.who, one.reason) for one in site.store.operations("orders", 9)]
    assert operations == [("resume", "eve", "it has moved"), ("pause", "eve", "the source is being moved")]
    site.check()


def test_a_paused_connection_holds_all_that_use_it(site: Site) -> None:
    plane = site.plane()
    plane.pause("shop", "eve", "maintenance", connection=True)
    site.cycle()
    assert site.runs() == []
    plane.resume("shop", "eve", "done", connection=True)
    site.settle()
    site.check()


def test_a_batch_that_is_queued_when_its_connection_is_paused_waits(site: Site) -> None:
    plane = site.plane()
    plane.tick()
    plane.pause("shop", "eve", "maintenance", connection=True)
    for _ in range(3):
        site.cycle()
    assert site.launched == []
    assert plane.pipeline_status("orders")["paused"] is True
    plane.resume("shop", "eve", "done", connection=True)
    site.settle()
    assert site.launched
    site.check()


def test_a_watermark_is_set_through_the_control_plane_and_the_next_run_starts_from_it(site: Site) -> None:
    site.has(5)
    site.settle()
    before, after = site.plane().change_watermark("orders", "2", "eve", "the source was restored")
    assert (before.watermark and before.watermark.value, after.watermark and after.watermark.value) == ("5", "2")
    assert site.store.load("orders").record.epoch == after.epoch > before.epoch
    with pytest.raises(ConfigError, match="orders"):
        site.plane().change_watermark("orders", "not a number", "eve", "why")
    site.plane().change_watermark("orders", None, "eve", "from the beginning")
    changes = site.store.changes("orders", 9)
    assert [change.after and change.after.value for change in changes] == [None, "2"]


def test_a_cancelled_run_is_closed_and_its_request_given_up(site: Site) -> None:
    plane = site.plane()
    plane.handle(REQUESTS, request_of("r"))
    run = plane.cancel("orders", "eve", "not today")
    assert (run.state, site.store.load("orders").record.pending) == (RunState.CANCELLED, ())
    site.pipelines["orders"] = pipeline()
    site.settle()
    assert [one.state for one in site.runs()] == [RunState.CANCELLED]
    assert site.launched == []
    with pytest.raises(ConfigError, match="no open run"):
        plane.cancel("orders", "eve", "again")


def test_a_run_is_done_again_by_hand(site: Site) -> None:
    site.settle()
    plane = site.plane()
    asked = plane.retry("orders", None, "eve", "to be sure")
    site.settle()
    run = site.store.run("orders", asked.run_key)
    assert run is not None
    assert run.state is RunState.SUCCEEDED
    site.check()


def test_a_pipeline_that_left_the_configuration_is_closed(site: Site) -> None:
    plane: ControlPlane = site.plane()
    plane.tick()
    del site.pipelines["orders"]
    site.pipelines["items"] = pipeline("items")
    site.settle()
    run = site.runs()[0]
    assert run.state is RunState.FAILED
    assert run.result is not None
    assert run.result.error is not None
    assert run.result.error.code == "pipeline.removed"
