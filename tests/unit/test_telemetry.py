"""Traces, metrics and log records of the control plane: one trace a batch, nothing twice, and no run that feels them."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from azure_functions_runtime.otel import configure_opentelemetry, update_opentelemetry_status
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import NonRecordingSpan, SpanContext, StatusCode, TraceFlags

from sync_core.adapters.telemetry import AZURE_REPORTS, with_exporters
from sync_core.app import open_telemetry
from sync_core.control_plane import ControlPlane
from sync_core.domain.codec import from_json, to_json
from sync_core.domain.connection import Connection
from sync_core.domain.errors import ConfigError, RetryableError
from sync_core.domain.facts import ColumnFact, Facts, StepTime
from sync_core.domain.pipeline import Cursor
from sync_core.domain.run import Outcome, PipelineRecord, RunError, RunOrder, RunRecord, RunResult
from sync_core.domain.schedule import OnDemand, Retry
from sync_core.domain.trace import TraceContext, begin_trace, read_trace
from sync_core.domain.watermark import CursorType, Watermark
from sync_core.messages import REQUESTS, RUNS, decode_request
from sync_core.telemetry import METRICS, Attributes, NoTelemetry
from sync_core.telemetry_doors import observe
from sync_core.telemetry_runs import lag_of
from sync_core.telemetry_settings import TelemetrySettings, read_telemetry_settings
from tests.support.control import HOURLY, START, Site
from tests.support.fake_engine import Place
from tests.support.flows import Crash, pipeline
from tests.support.receiver import Answer, Receiver
from tests.support.telemetry import Recorder

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site(tmp_path)
    made.has(3)
    return made


@pytest.fixture
def recorder() -> Generator[Recorder]:
    made = Recorder()
    yield made
    made.telemetry.close()


def watched(site: Site, recorder: Recorder, crash_at: int | None = None) -> ControlPlane:
    return observe(site.plane(crash_at), recorder.telemetry, "test")


def ids(span: ReadableSpan) -> tuple[int, int, int | None]:
    """Trace, span and parent."""
    assert span.context is not None
    return span.context.trace_id, span.context.span_id, span.parent.span_id if span.parent else None


def with_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in of the engine tells what a real one does."""
    load = Place.load

    def told(self: Place, order: RunOrder, batch_id: str) -> RunResult:
        steps = tuple(StepTime(name, START, START + timedelta(seconds=1)) for name in ("ledger", "write"))
        columns = (ColumnFact("id", "bigint", "int8"),)
        return replace(
            load(self, order, batch_id),
            started_at=START, finished_at=START + timedelta(seconds=3),
            facts=Facts(steps, columns, columns, "1.0", "4.2.0"),
        )  # fmt: skip

    monkeypatch.setattr(Place, "load", told)


def failing(monkeypatch: pytest.MonkeyPatch, kind: str = "retryable") -> list[bool]:
    """The engine fails while the list is not empty."""
    on, load = [True], Place.load

    def fail(self: Place, order: RunOrder, batch_id: str) -> RunResult:
        if not on:
            return load(self, order, batch_id)
        name = order.pipeline.pipeline_id
        error = RunError("source.gone", kind, f"Pipeline {name}: the source is gone.")  # type: ignore[arg-type]
        return RunResult(name, order.run_key, batch_id, order.kind, order.attempt, Outcome.FAILED, error=error)

    monkeypatch.setattr(Place, "load", fail)
    return on


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
    on = failing(monkeypatch)
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


# ---- metrics and log records


def test_lag_open_alerts_and_dead_letters_as_they_are(site: Site, recorder: Recorder) -> None:
    cursor = Cursor("at", CursorType.TIMESTAMP, timezone="Europe/Zurich")
    site.pipelines["orders"] = replace(
        site.pipelines["orders"], cursor=cursor, alerts=replace(site.pipelines["orders"].alerts, stale_after=60.0)
    )
    stored = site.store.load("orders")
    record = replace(
        stored.record, first_begun_at=START - timedelta(days=1),
        watermark=Watermark(CursorType.TIMESTAMP, "2026-01-05T12:30:00.123456789"),
    )  # fmt: skip
    site.store.save(stored, record)
    plane = watched(site, recorder)
    plane.queue.reject(REQUESTS, "{", "nonsense", "not JSON")
    plane.watch()
    (lag,) = recorder.points("uds.lag")
    # 12:30 in Zurich is 11:30 UTC, half an hour before START.
    assert lag == (
        {"pipeline_id": "orders", "mode": "incremental", "environment": "test"},
        pytest.approx(1799.88, 0.01),
    )
    assert recorder.total("uds.alerts.open", condition="stale") == 1
    assert recorder.total("uds.alerts.open", condition="dead_letters") == 1
    assert recorder.total("uds.alerts.open", condition="failed") == 0
    assert recorder.total("uds.dead_letters", queue=REQUESTS) == 1


@pytest.mark.parametrize(
    ("kind", "value", "zone", "seconds"),
    [
        (CursorType.TIMESTAMP_TZ, "2026-01-05T11:00:00Z", None, 3600.0),
        (CursorType.TIMESTAMP, "2026-01-05T11:00:00", None, 3600.0),
        (CursorType.TIMESTAMP, "2026-01-05T13:00:00", "Europe/Zurich", 0.0),
        (CursorType.DATE, "2026-01-04", None, 43200.0),
        (CursorType.DATE, "2026-01-05", None, 0.0),
        (CursorType.NUMBER, "5", None, None),
        (CursorType.ROWVERSION, "0x00000000000007D1", None, None),
    ],
)
def test_the_lag_of_each_cursor(kind: CursorType, value: str, zone: str | None, seconds: float | None) -> None:
    record = PipelineRecord("orders", watermark=Watermark(kind, value))
    found = lag_of(record, pipeline(), {"shop": Connection("shop", "postgresql", timezone=zone)}, START)
    assert found == (seconds if seconds is None else pytest.approx(seconds, abs=0.001))


def test_every_measurement_has_the_attributes_that_its_metric_declares(
    site: Site, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    on = failing(monkeypatch)
    cursor = Cursor("at", CursorType.TIMESTAMP)
    for _ in range(6):
        site.cycle(watched(site, recorder), minutes=5)
        on.clear()
    site.pipelines["orders"] = replace(site.pipelines["orders"], cursor=cursor)
    stored = site.store.load("orders")
    site.store.save(stored, replace(stored.record, watermark=Watermark(CursorType.TIMESTAMP, "2026-01-01T00:00:00")))
    watched(site, recorder).watch()
    seen = {name: recorder.points(name) for name in METRICS}
    assert [name for name, points in seen.items() if not points] == []
    for name, points in seen.items():
        assert {tuple(sorted(about)) for about, _ in points} == {tuple(sorted(METRICS[name].attributes))}, name


def test_log_records_carry_what_they_are_about(site: Site, recorder: Recorder) -> None:
    plane = watched(site, recorder)
    plane.tick()
    (run,) = site.runs()
    message = plane.queue.receive(RUNS)
    assert message is not None
    launcher: Any = plane.launcher
    logger = logging.getLogger("uds.control")

    def launch(*_: object) -> str:
        logger.warning("compute is %s", "slow")
        raise RetryableError("launch.busy", "No room.")

    launcher.launch = launch
    plane.handle(RUNS, message.body)
    begun, said, again = recorder.logs()
    root = read_trace(run.trace)
    assert root is not None
    for one in (begun, said, again):
        assert (one["trace_id"], one["batch_id"]) == (int(root.trace_id, 16), run.batch_id)
    assert (begun["step"], begun["run_key"], begun["pipeline_id"]) == ("begun", run.run_key, "orders")
    assert (said["body"], said["door"], said["logger"]) == ("compute is slow", "launch", "uds.control")


# ---- nobody feels it


def test_off_is_off(site: Site) -> None:
    plane = site.plane()
    assert observe(plane, NoTelemetry(), "test") is plane
    assert isinstance(open_telemetry(read_telemetry_settings({}, "test")), NoTelemetry)
    assert isinstance(open_telemetry(read_telemetry_settings({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, "test")), NoTelemetry)  # fmt: skip


def test_watched_or_not_the_state_is_the_same(tmp_path: Path, recorder: Recorder) -> None:
    found: list[Any] = []
    for name in ("plain", "watched"):
        site = Site(tmp_path / name)
        site.has(3)
        site.pipelines["items"] = replace(pipeline("items"), schedule=HOURLY)
        for _ in range(4):
            site.cycle(watched(site, recorder) if name == "watched" else None)
        found.append([(site.store.load(one).record, site.runs(one)) for one in site.pipelines])
        site.check()
    assert found[0] == found[1]


class Broken(SpanExporter):
    """An exporter whose receiver is away, in the worst way."""

    def __init__(self) -> None:
        self.asked = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.asked += 1
        raise OSError("nobody there")

    def shutdown(self) -> None:
        raise OSError("nobody there")


def test_an_exporter_that_fails_fails_no_run(site: Site) -> None:
    broken = Broken()
    telemetry = with_exporters(TelemetrySettings(), [broken], [], [])
    for _ in range(3):
        site.cycle(observe(site.plane(), telemetry, "test"))
    site.check()
    telemetry.close()
    assert broken.asked


class Faulty:
    """Telemetry with a fault of its own."""

    def __init__(self) -> None:
        self.asked = 0

    def current(self) -> TraceContext | None:
        return None

    def within(self, context: TraceContext | None, attributes: Attributes) -> AbstractContextManager[None]:
        return nullcontext()

    def emit(self, *_: object, **__: object) -> None:
        self.asked += 1
        raise ValueError("a fault")

    def close(self) -> None:
        return


def test_a_fault_in_the_telling_fails_no_run(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    telemetry = Faulty()
    for _ in range(3):
        site.cycle(observe(site.plane(), telemetry, "test"))
    site.check()
    assert telemetry.asked
    assert "telemetry failed" in caplog.text


def test_a_door_that_fails_is_told_with_its_code_and_rises(site: Site, recorder: Recorder) -> None:
    plane = watched(site, recorder)
    with pytest.raises(ConfigError):
        plane.handle(REQUESTS, "{")
    span = recorder.one("uds.request")
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["error_code"] == "request.wrong"

    def broken() -> datetime:
        raise OSError("postgresql://me:pa55word@host is away")  # pragma: allowlist secret

    launcher: Any = plane.launcher
    plane.tick()
    message = plane.queue.receive(RUNS)
    assert message is not None
    launcher.launch = lambda *_: broken()
    with pytest.raises(OSError, match="away"):
        plane.handle(RUNS, message.body)
    launched = recorder.one("uds.launch")
    assert ids(launched)[:1] == ids(recorder.one("uds.tick"))[:1]
    assert (launched.attributes or {})["error_code"] == "OSError"
    assert "pa55word" not in recorder.text(), "of an error that nobody foresaw only the type is told"


@pytest.mark.parametrize("at", range(0, 60, 7))
def test_killed_at_any_write_it_ends_the_same(site: Site, recorder: Recorder, at: int) -> None:
    plane = watched(site, recorder, crash_at=at)
    try:
        for _ in range(3):
            site.cycle(plane)
    except Crash:
        pass
    for _ in range(12):
        site.cycle(watched(site, recorder), minutes=5)
    site.check()
    assert {ids(span)[0] for span in recorder.named("uds.run")} <= {
        int(found.trace_id, 16) for run in site.runs() if (found := read_trace(run.trace))
    }


# ---- where it goes


def test_otlp_over_http_gets_spans_and_metrics(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with Receiver() as receiver:
        receiver.otherwise = Answer(200)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url(""))
        monkeypatch.setenv("OTEL_SERVICE_NAME", "our-sync")
        telemetry = open_telemetry(read_telemetry_settings({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url("")}, "dev"))
        for _ in range(3):
            site.cycle(observe(site.plane(), telemetry, "dev"))
        telemetry.close()
    taken = {path: [one.body for one in receiver.received if one.path == path] for path in ("/v1/traces", "/v1/metrics", "/v1/logs")}  # fmt: skip
    assert all(taken.values()), [one.path for one in receiver.received]
    spans = [
        span
        for body in taken["/v1/traces"]
        for resource in ExportTraceServiceRequest.FromString(_plain(body)).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    assert {"uds.tick", "uds.launch", "uds.run"} <= {span.name for span in spans}
    request = ExportMetricsServiceRequest.FromString(_plain(taken["/v1/metrics"][-1]))
    resource = request.resource_metrics[0].resource
    assert "our-sync" in str(resource), "OTEL_SERVICE_NAME comes before our own name"
    assert "uds.ticks" in str(request)


def _plain(body: bytes) -> bytes:
    return gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body


def test_application_insights_gets_what_the_queries_look_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in AZURE_REPORTS:
        monkeypatch.setenv(name, "true")
    with_facts(monkeypatch)
    with Receiver() as receiver:
        receiver.otherwise = Answer(200)
        address = f"InstrumentationKey=00000000-0000-0000-0000-000000000001;IngestionEndpoint={receiver.url('/')}"
        settings = read_telemetry_settings({"APPLICATIONINSIGHTS_CONNECTION_STRING": address}, "dev")
        telemetry = open_telemetry(settings)
        for _ in range(3):
            site.cycle(observe(site.plane(), telemetry, "dev"))
        telemetry.close()
        items = [item for one in receiver.received for item in json.loads(_plain(one.body))]
    data = [(item["data"]["baseType"], item["data"]["baseData"]) for item in items]
    spans = {base["name"]: base for kind, base in data if kind == "RemoteDependencyData"}
    assert {"uds.tick", "uds.launch", "uds.run", "uds.engine", "uds.engine.write"} <= set(spans)
    assert spans["uds.run"]["properties"]["pipeline_id"] == "orders"
    assert spans["uds.run"]["properties"]["state"] == "succeeded"
    metrics = {base["metrics"][0]["name"]: base for kind, base in data if kind == "MetricData"}
    assert {"uds.ticks", "uds.rows", "uds.run.duration", "uds.launch.delay", "uds.dead_letters"} <= set(metrics)
    assert metrics["uds.rows"]["properties"]["environment"] == "dev"
    # Nothing besides: no reports about itself, no settings fetched.
    assert {one.path for one in receiver.received} == {"/v2.1/track"}
    assert not [one.name for one in threading.enumerate() if one.name == "ConfigurationWorker"]
    assert any(base["message"] == "Run of orders begun" for kind, base in data if kind == "MessageData")


def test_wrong_settings_are_told() -> None:
    with pytest.raises(ConfigError, match="UDS_LINEAGE_URL"):
        read_telemetry_settings({"UDS_LINEAGE_URL": "marquez:5000"}, None)
    with pytest.raises(ConfigError, match="UDS_LINEAGE_SECRET"):
        read_telemetry_settings({"UDS_LINEAGE_SECRET": "no-slash"}, None)  # pragma: allowlist secret


def test_nothing_is_imported_until_it_is_asked_for() -> None:
    """`uds` and the Functions app start without OpenTelemetry's and OpenLineage's packages."""
    code = (
        "import sys, sync_core.app, sync_core.cli, sync_core.telemetry_doors\n"
        "from sync_core.telemetry_settings import read_telemetry_settings\n"
        "sync_core.app.open_telemetry(read_telemetry_settings({}, None))\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('opentelemetry', 'openlineage')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
