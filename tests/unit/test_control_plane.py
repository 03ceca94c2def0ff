"""The control plane as a whole: slots, requests, retries, alerts and limits, with crashes at every write."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from sync_core.control_plane import ControlPlane
from sync_core.domain.alert import AlertRules
from sync_core.domain.connection import Connection
from sync_core.domain.errors import ConfigError, PermanentError
from sync_core.domain.run import PipelineRecord, RunResult, RunState
from sync_core.domain.schedule import After, OnDemand, Retry
from sync_core.loop import Loop
from sync_core.messages import REQUESTS
from sync_core.ports import Row, Stored
from tests.support.control import HOURLY, START, Site, fail_runs, request_of
from tests.support.flows import CONNECTIONS, Crash, Folder, InProcess, Store, pipeline

# ---- slots


def test_p22_a_due_slot_runs_once_and_missed_ones_coalesce(site: Site) -> None:
    for _ in range(4):
        site.cycle()
    assert [run.slot for run in site.runs()] == [START]
    site.clock.pass_by(hours=7)
    for _ in range(4):
        site.cycle()
    assert [run.slot for run in site.runs()] == [START, START + timedelta(hours=7)]
    site.check()


def test_p22_two_ticks_at_once_begin_one_run(site: Site) -> None:
    one, two = site.plane(), site.plane()
    assert len(one.tick()) == 1
    assert two.tick() == []
    site.settle()
    site.check()


def test_a_pipeline_follows_others_once_all_have_succeeded_anew(site: Site) -> None:
    site.pipelines["items"] = replace(pipeline("items"), schedule=OnDemand())
    site.pipelines["report"] = replace(pipeline("report"), schedule=After(("orders", "items")))
    for _ in range(4):
        site.cycle()
    assert site.runs("report") == []
    site.plane().submit(request_of("1", "items"))
    for _ in range(4):
        site.cycle()
    assert len(site.runs("report")) == 1
    site.clock.pass_by(hours=1)
    for _ in range(4):
        site.cycle()
    assert len(site.runs("report")) == 1, "items has not succeeded anew"
    site.check("report")


def test_due_pipelines_share_a_batch_of_their_compute_group(site: Site) -> None:
    for name, compute in (("a", "default"), ("b", "large"), ("c", "large")):
        site.pipelines[name] = replace(pipeline(name), schedule=HOURLY, compute=compute)
    batches = site.plane().tick()
    assert [(batch.compute, [name for name, _ in batch.runs]) for batch in batches] == [
        ("default", ["a", "orders"]),
        ("large", ["b", "c"]),
    ]
    site.settle()
    for name in site.pipelines:
        site.check(name)


# ---- crashes


@pytest.mark.parametrize("kind", ["incremental", "full_refresh"])
def test_p04_p21_p23_killed_at_any_write_it_ends_the_same(tmp_path: Path, kind: str) -> None:
    at = 0
    while True:
        site = Site(tmp_path / str(at))
        site.has(3)
        plane = site.plane(at)
        try:
            plane.submit(request_of("r", kind=kind))
            for _ in range(3):
                site.cycle(plane)
        except Crash:
            if at % 3 == 0:
                site.has(4)
            site.settle()
            site.plane().submit(request_of("last"))
            site.settle()
            site.check()
            assert site.dead_letters() == []
            at += 1
            continue
        break
    assert at > 30, "a request, its batch, its launch and its completion are many writes"


def test_p21_messages_doubled_reordered_and_late_start_nothing_twice(site: Site) -> None:
    plane = site.plane()
    bodies: list[tuple[str, str]] = []
    plane.submit(request_of("r"))
    for _ in range(6):
        for queue in ("sync-requests", "sync-runs"):
            while (message := plane.queue.receive(queue)) is not None:
                bodies.append((queue, message.body))
                plane.handle(queue, message.body)
                plane.handle(queue, message.body)
                plane.queue.complete(message)
        plane.reconcile()
    assert len(bodies) >= 2
    # Long after the queue forgot their keys, and in another order.
    site.clock.pass_by(days=1)
    for queue, body in reversed(bodies):
        plane.handle(queue, body)
    site.settle()
    requested = [run for run in site.runs() if run.request_id == "r"]
    assert [(run.state, run.attempt) for run in requested] == [(RunState.SUCCEEDED, 1)]
    site.check()


# ---- requests


def test_a_request_waits_for_the_open_run_and_is_then_carried_out(site: Site) -> None:
    plane = site.plane()
    plane.tick()
    plane.handle(REQUESTS, request_of("r", kind="full_refresh"))
    assert [one.request_id for one in site.store.load("orders").record.pending] == ["r"]
    site.settle()
    assert [(run.request_id, run.kind.value) for run in site.runs()][:2] == [
        (None, "incremental"),
        ("r", "full_refresh"),
    ]
    site.check()


def test_who_asked_stays_with_the_run_its_retries_and_its_repetition(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    on = fail_runs(monkeypatch)
    site.pipelines["orders"] = replace(site.pipelines["orders"], schedule=OnDemand(), retry=Retry(2, 60, 60))
    plane = site.plane()
    plane.submit(request_of("r1", requested_by="erp"))
    plane.submit(request_of("r2", requested_by="the chief executive"), "ada@example.com")
    site.settle()
    on.clear()
    plane.retry("orders", site.runs()[0].run_key, "eve", "it is mended")
    site.settle()
    assert [(run.attempt, run.requested_by) for run in site.runs()] == [
        (1, "erp"),
        (2, "erp"),
        (1, "ada@example.com"),
        (2, "ada@example.com"),
        (1, "eve"),
    ]
    shown = site.plane().pipeline_status("orders")["runs"]
    assert [run["requested_by"] for run in shown] == ["eve", "ada@example.com", "ada@example.com", "erp", "erp"]
    assert site.plane().run_status("orders", site.runs()[0].run_key)["requested_by"] == "erp"


@pytest.mark.parametrize("text", ["{}", "slot {}", "run {}", "request {}"])
def test_p21_a_request_whose_id_is_the_time_of_a_slot_is_carried_out(site: Site, text: str) -> None:
    site.settle()
    slot = site.runs()[-1].slot
    assert slot is not None
    request_id = text.format(slot.isoformat())
    site.plane().submit(request_of(request_id, kind="full_refresh"))
    site.settle()
    assert [(run.request_id, run.kind.value) for run in site.runs() if run.request_id] == [(request_id, "full_refresh")]


def test_a_slot_was_asked_for_by_nobody(site: Site) -> None:
    site.settle()
    assert {run.requested_by for run in site.runs()} == {""}


class FullStore(Store):
    """One pipeline's record has no room left, as the table store says of one that it cannot hold."""

    def save(self, stored: Stored, record: PipelineRecord, rows: Sequence[Row] = ()) -> None:
        if record.pipeline_id == "full":
            raise PermanentError("store.too_large", "The record of full is too large.", "Look at its requests.")
        super().save(stored, record, rows)


def with_a_full_record(site: Site) -> ControlPlane:
    for name in ("full", "zebra"):
        site.pipelines[name] = replace(site.pipelines["orders"], pipeline_id=name)
    return replace(site.plane(), store=FullStore(site.folder, lambda: None))


def test_a_record_that_cannot_be_written_keeps_no_other_pipeline_from_its_slot(site: Site) -> None:
    plane = with_a_full_record(site)
    with pytest.raises(PermanentError, match="record of full"):
        plane.tick()
    while Loop(plane).drain():
        pass
    assert [run.state for name in ("orders", "zebra") for run in site.runs(name)] == [RunState.LAUNCHED] * 2


def test_p21_a_request_that_one_pipeline_cannot_take_is_put_aside_and_the_others_run(site: Site) -> None:
    plane = with_a_full_record(site)
    plane.queue.send(REQUESTS, request_of("r", "orders", "full", "zebra"), "r")
    while Loop(plane).drain():
        pass
    assert [run.request_id for name in ("orders", "zebra") for run in site.runs(name)] == ["r", "r"]
    assert [letter.dead for letter in plane.queue.dead_letters(REQUESTS)] == [
        "The record of full is too large. Look at its requests."
    ]


def test_p25_a_record_that_cannot_be_written_keeps_no_other_pipeline_from_its_alerts(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_runs(monkeypatch, "permanent")
    site.pipelines["orders"] = replace(
        site.pipelines["orders"], alerts=AlertRules(failed=False, stale_after=7200, repeat_every=3600)
    )
    with_a_full_record(site)
    site.cycle()
    site.clock.pass_by(hours=3)
    plane = replace(site.plane(), store=FullStore(site.folder, lambda: None))
    with pytest.raises(PermanentError, match="record of full"):
        plane.watch()
    while Loop(plane).drain():
        pass
    assert sorted((one.pipeline_id, one.condition.value) for one in site.sink.notices) == [
        ("orders", "stale"),
        ("zebra", "stale"),
    ]


class ClosedFolder(Folder):
    """Results cannot be read: the permission was taken away, say."""

    def read_result(self, batch_id: str, run_key: str) -> RunResult | None:
        raise PermanentError("databricks.forbidden", "The result cannot be read.", "Give READ VOLUME.")


def test_p23_results_that_are_out_of_reach_say_nothing_of_the_runs(site: Site) -> None:
    plane = site.plane()
    plane.tick()
    while Loop(plane).drain():
        pass
    site.clock.pass_by(minutes=5)
    with pytest.raises(PermanentError, match="cannot be read"):
        replace(plane, folder=ClosedFolder(site.folder / "runs", lambda: None)).reconcile()
    assert [run.state for run in site.runs()] == [RunState.LAUNCHED]
    site.settle()
    assert site.runs()[0].state is RunState.SUCCEEDED
    assert site.sink.told() == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ('{"pipelines": ["orders"]}', "request_id must be text"),
        ('{"request_id": "r", "pipelines": "orders"}', "pipelines must be a list"),
        ('{"request_id": "r", "pipelines": []}', "pipelines must be a list"),
        ('{"request_id": "r", "pipelines": ["nope"]}', "No pipeline is named nope"),
        ('{"request_id": "r", "pipelines": ["orders"], "kind": "half"}', "kind 'half' is not known"),
        ('{"request_id": "r", "pipelines": ["orders"], "kind": "backfill"}', "needs one of them"),
        ('{"request_id": "r", "pipelines": ["orders"], "since": "1"}', "belong to kind backfill"),
        ('{"request_id": "r", "pipelines": ["orders"], "kind": "backfill", "since": "x"}', "orders"),
        (
            '{"request_id": "r", "pipelines": ["orders"], "kind": "backfill", "since": "5", "until": "4"}',
            "before since",
        ),
        ('{"request_id": "r", "pipelines": ["orders"], "colour": 1}', "unknown keys colour"),
    ],
)
def test_p21_a_request_that_cannot_be_understood_is_put_aside_with_its_reason(site: Site, body: str, said: str) -> None:
    plane = site.plane()
    with pytest.raises(ConfigError):
        plane.submit(body)
    plane.queue.send(REQUESTS, body, "key")
    Loop(plane).drain()
    assert [said in reason for reason in site.dead_letters()] == [True], site.dead_letters()
    assert site.runs() == []


# ---- retries


def test_p24_a_failed_run_is_retried_as_the_policy_says_and_its_alert_names_the_cause(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    on = fail_runs(monkeypatch)
    site.pipelines["orders"] = replace(
        site.pipelines["orders"], retry=Retry(3, 600, 3600), owner="team-sales", channels=("ops",)
    )
    for _ in range(90):
        site.cycle()
        if len(site.runs()) == 3 and not site.runs()[-1].state.is_open:
            break
    runs = site.runs()
    assert [run.attempt for run in runs] == [1, 2, 3]
    assert len({run.run_key for run in runs}) == len({run.batch_id for run in runs}) == 3
    pauses = [later.created_at + timedelta(seconds=0) <= (later.launched_at or START) for later in runs]
    assert all(pauses)
    assert (runs[1].launched_at or START) - (runs[0].closed_at or START) >= timedelta(seconds=600)
    assert (runs[2].launched_at or START) - (runs[1].closed_at or START) >= timedelta(seconds=1200)
    site.cycle()
    assert site.sink.told() == [("failed", "raised")]
    notice = site.sink.notices[0]
    assert "the source is gone" in notice.message
    assert "tried 3 times" in notice.message
    assert (notice.owner, notice.remedy) == ("team-sales", "Bring it back.")
    on.clear()
    site.clock.pass_by(hours=1)
    for _ in range(4):
        site.cycle()
    assert site.sink.told() == [("failed", "raised"), ("failed", "recovered")]
    site.check()


def test_p24_what_a_person_must_mend_is_not_retried(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_runs(monkeypatch, "permanent")
    for _ in range(10):
        site.cycle()
    assert [run.attempt for run in site.runs()] == [1]


# ---- alerts


def test_p25_a_stale_pipeline_is_told_repeated_and_recovered_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    on = fail_runs(monkeypatch, "permanent")
    rules = AlertRules(failed=False, stale_after=7200, repeat_every=3600)
    site.pipelines["orders"] = replace(site.pipelines["orders"], alerts=rules)
    for _ in range(50):
        site.cycle(minutes=5)
    phases = [phase for condition, phase in site.sink.told() if condition == "stale"]
    assert phases == ["raised", "repeated", "repeated"]
    on.clear()
    for _ in range(15):
        site.cycle(minutes=5)
    assert site.sink.told()[-1] == ("stale", "recovered")
    assert site.store.load("orders").record.episodes == ()


def test_p25_an_unreachable_receiver_loses_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    on = fail_runs(monkeypatch, "permanent")
    site.sink.down = True
    for _ in range(20):
        site.cycle(minutes=1)
    assert site.sink.notices == []
    site.sink.down = False
    on.clear()
    for _ in range(30):
        site.cycle(minutes=10)
    assert set(site.sink.told()) >= {("failed", "raised"), ("failed", "recovered")}


def test_p25_a_dead_letter_is_told(site: Site) -> None:
    plane = site.plane()
    plane.queue.send(REQUESTS, "{", "key")
    for _ in range(3):
        site.cycle()
    assert ("dead_letters", "raised") in site.sink.told()


# ---- limits


def test_a_connection_serves_no_more_batches_than_it_may(site: Site) -> None:
    site.connections = {**CONNECTIONS, "shop": Connection("shop", "postgresql", max_concurrent=1)}
    site.pipelines["items"] = replace(pipeline("items"), schedule=HOURLY, compute="other")
    plane = site.plane()
    held: list[int] = []
    launcher = plane.launcher
    assert isinstance(launcher, InProcess)
    launch = launcher.launch

    def counting(batch_id: str, manifest: str, compute: str = "default") -> str:
        held.append(sum(1 for name in site.pipelines for run in site.runs(name) if run.state is RunState.LAUNCHED))
        assert json.loads(Path(manifest).read_text())["connections"]["shop"]["max_concurrent"] == 1
        return launch(batch_id, manifest, compute)

    launcher.launch = counting  # type: ignore[method-assign]
    plane.tick()
    while Loop(plane).drain():
        pass
    assert held == [0], "the second batch waits"
    for _ in range(6):
        site.cycle(plane)
    assert held == [0, 0]
    site.check()
    site.check("items")
