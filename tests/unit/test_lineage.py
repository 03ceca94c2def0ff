"""Lineage is owed with the run and sent after it: none is lost while the receiver is away, and no run waits for it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from sync_core.adapters.lineage import EventBuilder, LineageClient, run_id
from sync_core.control_plane import ControlPlane
from sync_core.domain.errors import PermanentError, RetryableError
from sync_core.domain.run import Outcome, RunState
from sync_core.domain.schedule import Retry
from sync_core.lineage import LONGEST, LineageEvent, LineageSink, Phase, owe
from sync_core.telemetry import NoTelemetry
from sync_core.telemetry_doors import observe
from tests.support.control import Site, fail_runs
from tests.support.flows import Crash
from tests.support.lineage import closed, valid
from tests.support.receiver import Answer, Receiver


def client(site: Site, receiver: Receiver, keys: list[str] | None = None) -> LineageClient:
    api_key = (lambda: keys.pop(0) if len(keys) > 1 else keys[0]) if keys else None
    return LineageClient(
        receiver.url(""), EventBuilder("test", "https://adb-1.azuredatabricks.net/"), site.clock, api_key
    )


def watched(site: Site, sink: LineageSink, crash_at: int | None = None) -> ControlPlane:
    return observe(site.plane(crash_at), NoTelemetry(), "test", sink)


def events(receiver: Receiver) -> list[dict[str, Any]]:
    """What was taken."""
    return [json.loads(one.body) for one in receiver.received if one.status < 400]


def told(receiver: Receiver) -> list[str]:
    return [event["eventType"] for event in events(receiver)]


def test_start_and_complete_arrive(site: Site, receiver: Receiver) -> None:
    sink = client(site, receiver)
    for _ in range(4):
        site.cycle(watched(site, sink))
    (run,) = site.runs()
    start, complete = map(valid, events(receiver))
    assert {one.path for one in receiver.received} == {"/api/v1/lineage"}
    assert (start["eventType"], complete["eventType"]) == ("START", "COMPLETE")
    assert start["run"]["runId"] == complete["run"]["runId"] == run_id(run.run_key)
    assert start["job"] == complete["job"]
    assert complete["outputs"][0]["outputFacets"]["outputStatistics"]["rowCount"] == 3
    assert site.store.load("orders").record.lineage == ()
    site.check()


def test_a_receiver_that_is_away_blocks_no_run_and_loses_no_event(site: Site, receiver: Receiver) -> None:
    sink, port = client(site, receiver), receiver.port
    receiver.stop()
    for _ in range(4):
        site.cycle(watched(site, sink))
    site.clock.pass_by(hours=2)
    for _ in range(4):
        site.cycle(watched(site, sink))
    assert [run.state for run in site.runs()] == [RunState.SUCCEEDED, RunState.SUCCEEDED]
    owed = site.store.load("orders").record.lineage
    assert [entry.split()[0] for entry in owed] == ["start", "end", "start", "end"]
    receiver.start()
    assert receiver.port == port
    receiver.answers = [Answer(204), Answer(503)]
    site.cycle(watched(site, sink))
    assert told(receiver) == ["START"]
    site.cycle(watched(site, sink))
    assert told(receiver) == ["START", "COMPLETE", "START", "COMPLETE"]
    assert site.store.load("orders").record.lineage == ()


def test_a_receiver_that_was_away_is_not_asked_at_once_again(site: Site, receiver: Receiver) -> None:
    receiver.answers = [Answer(503)] * 9
    sink = client(site, receiver)
    for _ in range(4):
        site.cycle(watched(site, sink), seconds=10)
    assert len(receiver.received) == 2, "at the first reconcile that owed an event, and once 30 seconds were over"


def test_a_slow_receiver_holds_no_timer_up(site: Site) -> None:
    sink = Slow(site)
    for number in range(9):
        stored = site.store.load("orders")
        run = replace(closed(RunState.SUCCEEDED, Outcome.SUCCEEDED), run_key=f"{number}" * 64)
        site.store.save(stored, owe(stored.record, run.run_key, Phase.START), (run,))
    watched(site, sink).reconcile()
    assert (sink.taken, len(site.store.load("orders").record.lineage)) == (4, 5)


@dataclass
class Slow:
    """Takes 20 seconds for each event."""

    site: Site
    taken: int = 0

    def send(self, event: LineageEvent) -> None:
        self.taken += 1
        self.site.clock.pass_by(seconds=20)


def test_an_event_that_is_refused_for_good_holds_up_no_other(
    site: Site, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answers = [Answer(400)]
    for _ in range(4):
        site.cycle(watched(site, client(site, receiver)))
    assert told(receiver) == ["COMPLETE"]
    assert "status 400" in caplog.text


def test_the_key_is_sent_and_asked_for_again_when_it_is_refused(site: Site, receiver: Receiver) -> None:
    keys = ["the old one", "the new one"]
    receiver.answers = [Answer(401)]
    sink = client(site, receiver, keys)
    for _ in range(4):
        site.cycle(watched(site, sink))
    sent = [(one.status, one.headers["Authorization"]) for one in receiver.received]
    assert sent == [(401, "Bearer the old one"), (204, "Bearer the new one"), (204, "Bearer the new one")]
    assert all("one" not in one.body.decode().replace("None", "") for one in receiver.received)


def test_a_secret_that_is_not_there_is_told_and_the_event_kept(site: Site, receiver: Receiver) -> None:
    def missing() -> str:
        raise PermanentError("secrets.missing", "Secret ops/lineage is not there.")

    sink = LineageClient(receiver.url(""), EventBuilder(), site.clock, missing)
    for _ in range(4):
        site.cycle(watched(site, sink))
    assert [run.state for run in site.runs()] == [RunState.SUCCEEDED]
    assert len(site.store.load("orders").record.lineage) == 2


def test_a_retry_is_a_run_of_its_own(site: Site, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = fail_runs(monkeypatch)
    site.pipelines["orders"] = replace(site.pipelines["orders"], retry=Retry(attempts=3))
    sink = client(site, receiver)
    for _ in range(6):
        site.cycle(watched(site, sink), minutes=5)
        failing.clear()
    assert sorted(told(receiver)) == ["COMPLETE", "FAIL", "START", "START"]
    assert len({event["run"]["runId"] for event in events(receiver)}) == 2


def test_a_pipeline_that_was_removed_owes_nothing_for_ever(site: Site, receiver: Receiver) -> None:
    receiver.answers = [Answer(503)] * 20
    for _ in range(4):
        site.cycle(watched(site, client(site, receiver)))
    receiver.answers.clear()
    del site.pipelines["orders"]
    site.cycle(watched(site, client(site, receiver)))
    assert told(receiver) == []
    assert site.store.load("orders").record.lineage == ()


def test_a_record_owes_each_event_once_and_not_without_end(site: Site) -> None:
    record = site.store.load("orders").record
    assert owe(owe(record, "k", Phase.START), "k", Phase.START).lineage == ("start k",)
    for number in range(LONGEST + 5):
        record = owe(record, str(number), Phase.END)
    assert len(record.lineage) == LONGEST
    assert record.lineage[-1] == f"end {LONGEST + 4}"


@dataclass
class Taking:
    """A receiver in this process."""

    taken: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    def send(self, event: LineageEvent) -> None:
        if event.ended and len(self.taken) == 1:
            self.taken.append(("away", ""))
            raise RetryableError("lineage.away", "Away for a moment.")
        self.taken.append((event.phase.value, event.run.run_key))


@pytest.mark.parametrize("at", range(0, 40, 3))
def test_killed_at_any_write_every_event_arrives(site: Site, at: int) -> None:
    sink = Taking()
    try:
        for _ in range(3):
            site.cycle(watched(site, sink, crash_at=at))
    except Crash:
        pass
    for _ in range(10):
        site.cycle(watched(site, sink), minutes=5)
    site.check()
    wanted = {(phase.value, run.run_key) for run in site.runs() for phase in Phase}
    assert set(sink.taken) - {("away", "")} == wanted
    assert site.store.load("orders").record.lineage == ()


def test_connections_that_are_gone_make_no_event(site: Site, receiver: Receiver) -> None:
    event = LineageEvent(Phase.START, closed(RunState.FAILED, Outcome.FAILED), site.pipelines["orders"], {})
    with pytest.raises(PermanentError):
        client(site, receiver).send(event)
    assert receiver.received == []
