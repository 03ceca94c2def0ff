"""Traces of the control plane: one a batch, from the tick to the commit, and no span or count twice."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from azure_functions_runtime.otel import configure_opentelemetry, update_opentelemetry_status
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, StatusCode, TraceFlags

from sync_core.domain.codec import from_json, to_json
from sync_core.domain.facts import Facts, StepTime
from sync_core.domain.run import PipelineRecord, RunRecord, RunResult
from sync_core.domain.schedule import OnDemand, Retry
from sync_core.domain.trace import TraceContext, begin_trace, read_trace
from sync_core.messages import REQUESTS, RUNS, decode_request
from tests.support.control import HOURLY, START, Site, fail_runs
from tests.support.flows import pipeline
from tests.support.telemetry import Recorder, ids, watched, with_facts

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


# ---- one trace


def test_one_trace_from_the_tick_to_the_commit(site: Site, recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    with_facts(monkeypatch)
    for _ in range(3):
        site.cycle(watched(site, recorder))
    (run,) = site.runs()
    assert run.result is not None
    assert run.result.facts is None, "facts stay in the run folder"
    root = read_trace(run.trace)
    assert root == read_trace(begin_trace(run.batch_id))
    assert root is not None
    spans = recorder.spans()
    assert {ids(span)[0] for span in spans} == {int(root.trace_id, 16)}
    top = recorder.one("uds.tick")
    assert ids(top) == (int(root.trace_id, 16), int(root.span_id, 16), None)
    whole, engine = recorder.one("uds.run"), recorder.one("uds.engine")
    for below, above in (
        (recorder.one("uds.launch"), top),
        (recorder.one("uds.reconcile"), top),
        (whole, top),
        (engine, whole),
        (recorder.one("uds.engine.ledger"), engine),
        (recorder.one("uds.engine.write"), engine),
    ):
        assert ids(below)[2] == ids(above)[1], below.name
    assert len({ids(span)[1] for span in spans}) == len(spans) == 7
    assert whole.attributes is not None
    assert whole.attributes["rows_inserted"] == 3
    assert (whole.attributes["outcome"], whole.attributes["run_key"]) == ("succeeded", run.run_key)
    assert whole.start_time == int(run.created_at.timestamp()) * 10**9
    assert (engine.start_time, engine.end_time) == tuple(int(START.timestamp() + n) * 10**9 for n in (0, 3))
    assert engine.attributes is not None
    assert engine.attributes["spark_version"] == "4.2.0"
    assert dict(top.resource.attributes)["deployment.environment.name"] == "test"
    assert dict(top.resource.attributes)["service.version"] == "abc"
    site.check()


def test_runs_of_one_batch_share_a_trace_and_another_batch_has_its_own(site: Site, recorder: Recorder) -> None:
    site.pipelines["items"] = replace(pipeline("items"), schedule=HOURLY)
    site.pipelines["big"] = replace(pipeline("big"), schedule=HOURLY, compute="large")
    watched(site, recorder).tick()
    traces = {name: site.runs(name)[0].trace for name in site.pipelines}
    assert traces["items"] == traces["orders"] != traces["big"]
    found = recorder.named("uds.tick")
    assert sorted(str((span.attributes or {})["runs"]) for span in found) == ["1", "2"]
    assert {ids(span)[2] for span in found} == {None}


def test_the_manifest_and_the_message_carry_the_trace_and_doubles_stay_doubles(site: Site, recorder: Recorder) -> None:
    plane = watched(site, recorder)
    plane.tick()
    (run,) = site.runs()
    first = plane.queue.receive(RUNS)
    assert first is not None
    plane.queue.complete(first)
    site.clock.pass_by(minutes=3)
    plane.reconcile()
    second = plane.queue.receive(RUNS)
    assert second is not None
    assert (first.body, first.key) == (second.body, run.batch_id)
    assert json.loads(first.body)["trace"] == run.trace
    plane.handle(RUNS, first.body)
    manifest = plane.folder.read_manifest(run.batch_id)
    assert manifest is not None
    assert [order.trace for order in manifest.runs] == [run.trace]


def test_a_retry_continues_the_trace_of_its_first_attempt(
    site: Site, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    on = fail_runs(monkeypatch)
    site.pipelines["orders"] = replace(site.pipelines["orders"], retry=Retry(attempts=3))
    for _ in range(8):
        site.cycle(watched(site, recorder), minutes=5)
        if len(site.runs()) == 2:
            on.clear()
    first, second = site.runs()
    assert first.trace == second.trace == begin_trace(first.batch_id)
    assert first.batch_id != second.batch_id
    assert len({ids(span)[0] for span in recorder.spans()}) == 1
    assert len(recorder.named("uds.tick")) == 1
    failed, done = sorted(recorder.named("uds.run"), key=lambda span: str((span.attributes or {})["attempt"]))
    assert (failed.status.status_code, done.status.status_code) == (StatusCode.ERROR, StatusCode.UNSET)
    assert failed.status.description == "source.gone: Pipeline orders: the source is gone."
    assert recorder.total("uds.failures", error_code="source.gone", pipeline_id="orders", mode="incremental") == 1


def test_a_request_is_linked_to_its_caller_also_when_it_waited(site: Site, recorder: Recorder) -> None:
    site.pipelines["items"] = replace(pipeline("items"), schedule=OnDemand())
    caller = read_trace(CALLER)
    assert caller is not None
    plane = watched(site, recorder)
    plane.pause("items", "eve", "later")
    plane.submit(json.dumps({"request_id": "r1", "pipelines": ["items"], "traceparent": CALLER}))
    site.cycle(plane)
    assert site.runs("items") == []
    plane.resume("items", "eve", "now")
    for _ in range(3):
        site.cycle(plane)
    assert [run.caller for run in site.runs("items")] == [CALLER]
    (root,) = [span for span in recorder.named("uds.tick") if (span.attributes or {}).get("pipeline_id") == "items"]
    assert [link.context.trace_id for link in root.links] == [int(caller.trace_id, 16)]


def test_the_functions_worker_hands_the_host_s_span_over(recorder: Recorder) -> None:
    """What the worker does before it calls a function when PYTHON_ENABLE_OPENTELEMETRY is true."""
    update_opentelemetry_status()
    told = SimpleNamespace(trace_context=SimpleNamespace(trace_parent=CALLER, trace_state=""))

    async def invocation() -> TraceContext | None:
        configure_opentelemetry(told)
        return await asyncio.to_thread(recorder.telemetry.current)

    assert str(asyncio.run(invocation())) == CALLER


def test_a_request_over_http_is_asked_under_the_host_s_span(site: Site, recorder: Recorder) -> None:
    host = SpanContext(int("a" * 32, 16), int("b" * 16, 16), is_remote=True, trace_flags=TraceFlags(1))
    token = otel_context.attach(trace.set_span_in_context(NonRecordingSpan(host)))
    try:
        plane = watched(site, recorder)
        plane.submit(json.dumps({"request_id": "r1", "pipelines": ["orders"]}))
        message = plane.queue.receive(REQUESTS)
        assert message is not None
        assert json.loads(message.body)["traceparent"] == f"00-{'a' * 32}-{'b' * 16}-01"
        plane.tick()
    finally:
        otel_context.detach(token)
    (root,) = recorder.named("uds.tick")
    assert ids(root)[2] is None, "the host's trace is linked, not continued"
    assert [link.context.trace_id for link in root.links] == [host.trace_id]


@pytest.mark.parametrize("given", ["", "00-" + "0" * 32 + "-b7ad6b7169203331-01", "ff-x", CALLER.upper(), 7, None])
def test_a_trace_that_cannot_be_understood_is_passed_over(given: object) -> None:
    body = json.dumps({"request_id": "r", "pipelines": ["a"], "traceparent": given})
    assert decode_request(body).traceparent == ""


def test_what_an_older_release_wrote_is_read() -> None:
    now = START.isoformat()
    old: dict[str, Any] = {
        "pipeline_id": "p", "run_key": "k", "batch_id": "b", "kind": "incremental", "attempt": 1, "state": "succeeded",
    }  # fmt: skip
    assert from_json(RunResult, old).facts is None
    new = replace(from_json(RunResult, old), facts=Facts((StepTime("write", START, START),), version=9))
    data = to_json(new)
    data["facts"]["of_the_future"] = [1]
    assert from_json(RunResult, data) == new
    run = from_json(RunRecord, {**old, "state": "begun", "created_at": now})
    assert (run.trace, run.caller) == ("", "")
    assert from_json(PipelineRecord, {"pipeline_id": "p"}).lineage == ()


# ---- nothing twice


def test_a_completion_taken_twice_tells_nothing_twice(
    site: Site, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_facts(monkeypatch)
    plane = watched(site, recorder)
    plane.tick()
    message = plane.queue.receive(RUNS)
    assert message is not None
    plane.handle(RUNS, message.body)
    hint = json.dumps({"batch_id": site.runs()[0].batch_id})
    plane.handle("sync-completions", hint)
    plane.handle("sync-completions", hint)
    plane.reconcile()
    plane.handle(RUNS, message.body)
    assert recorder.one("uds.complete")
    assert recorder.one("uds.run")
    assert recorder.total("uds.rows", kind="inserted") == 3
    assert len(recorder.points("uds.run.duration")) == 1
    assert recorder.total("uds.launch.delay") == 0


def test_a_result_that_comes_late_is_the_same_span_again_and_its_rows_count_once(
    site: Site, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_facts(monkeypatch)
    site.pipelines["orders"] = replace(site.pipelines["orders"], retry=Retry(attempts=1))
    plane = watched(site, recorder)
    plane.tick()
    message = plane.queue.receive(RUNS)
    assert message is not None
    plane.handle(RUNS, message.body)
    (run,) = site.runs()
    result = site.folder / "runs" / run.batch_id / "results" / f"{run.run_key}.json"
    hidden = result.rename(result.with_suffix(".late"))
    plane.reconcile()
    assert site.runs()[0].state.value == "failed"
    hidden.rename(result)
    plane.handle("sync-completions", json.dumps({"batch_id": run.batch_id}))
    assert site.runs()[0].late_success
    before, after = recorder.named("uds.run")
    assert ids(before) == ids(after)
    assert (after.attributes or {})["outcome"] == "succeeded"
    assert recorder.total("uds.rows", kind="inserted") == 3
    assert recorder.points("uds.failures") == [
        ({"pipeline_id": "orders", "mode": "incremental", "environment": "test", "error_code": "engine.died"}, 1)
    ]
    assert [about["outcome"] for about, _ in recorder.points("uds.run.duration")] == ["failed"]
    assert recorder.one("uds.engine.write")
