"""Metrics and log records of the control plane, and no run that feels it is watched."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import StatusCode

from sync_core.adapters.telemetry import with_exporters
from sync_core.app import open_telemetry
from sync_core.domain.errors import ConfigError, RetryableError
from sync_core.domain.pipeline import Cursor
from sync_core.domain.trace import TraceContext, read_trace
from sync_core.domain.watermark import CursorType, Watermark
from sync_core.messages import REQUESTS, RUNS
from sync_core.telemetry import METRICS, Attributes, NoTelemetry
from sync_core.telemetry_doors import observe
from sync_core.telemetry_settings import TelemetrySettings, read_telemetry_settings
from tests.support.control import HOURLY, START, Site, fail_runs
from tests.support.flows import Crash, pipeline
from tests.support.telemetry import Recorder, ids, watched

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


def test_every_measurement_has_the_attributes_that_its_metric_declares(
    site: Site, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    on = fail_runs(monkeypatch)
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
