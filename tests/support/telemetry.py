"""OpenTelemetry whose exporters keep what they get, and control planes that are watched by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from sync_core.adapters.telemetry import OpenTelemetry, with_exporters
from sync_core.control_plane import ControlPlane
from sync_core.domain.facts import ColumnFact, Facts, StepTime
from sync_core.domain.run import RunOrder, RunResult
from sync_core.telemetry_doors import observe
from sync_core.telemetry_settings import TelemetrySettings
from tests.support.control import START, Site
from tests.support.fake_engine import Place


@dataclass
class Recorder:
    """Telemetry of the environment `test`, and what came out of it."""

    exporter: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)
    reader: InMemoryMetricReader = field(default_factory=InMemoryMetricReader)
    records: InMemoryLogRecordExporter = field(default_factory=InMemoryLogRecordExporter)
    telemetry: OpenTelemetry = field(init=False)

    def __post_init__(self) -> None:
        settings = TelemetrySettings(environment="test", release="abc")
        self.telemetry = with_exporters(settings, [self.exporter], [self.reader], [self.records])

    def flush(self) -> None:
        for provider in self.telemetry._providers:
            provider.force_flush()

    def spans(self) -> list[ReadableSpan]:
        self.flush()
        return list(self.exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        found = self.named(name)
        assert len(found) == 1, [span.name for span in self.spans()]
        return found[0]

    def points(self, name: str) -> list[tuple[Mapping[str, Any], float]]:
        """Attributes and value of each series: the sum of a histogram and of a counter, a gauge's last value."""
        data = self.reader.get_metrics_data()
        found: list[tuple[Mapping[str, Any], float]] = []
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    if metric.name == name:
                        for point in metric.data.data_points:
                            value: Any = getattr(point, "sum", None)
                            found.append((dict(point.attributes or {}), point.value if value is None else value))  # type: ignore[union-attr]
        return found

    def total(self, name: str, **wanted: str) -> float:
        """The sum over the series that have these attributes."""
        return sum(value for about, value in self.points(name) if wanted.items() <= about.items())

    def logs(self) -> list[dict[str, Any]]:
        self.flush()
        return [
            {
                "body": one.log_record.body,
                "trace_id": one.log_record.trace_id,
                **dict(one.log_record.attributes or {}),
            }
            for one in self.records.get_finished_logs()
        ]

    def text(self) -> str:
        """All that came out, as text: to look for what must not be in it."""
        spans = [span.to_json() for span in self.spans()]
        return "\n".join([*spans, str(self.reader.get_metrics_data()), str(self.logs())])


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
