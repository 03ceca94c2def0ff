"""Where telemetry goes: OTLP, Application Insights, or nowhere, by the environment."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import threading

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sync_core.adapters.telemetry import AZURE_REPORTS
from sync_core.app import open_telemetry
from sync_core.domain.errors import ConfigError
from sync_core.telemetry_doors import observe
from sync_core.telemetry_settings import read_telemetry_settings
from tests.support.control import Site
from tests.support.receiver import Answer, Receiver
from tests.support.telemetry import with_facts


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
