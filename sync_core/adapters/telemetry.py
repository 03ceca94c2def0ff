"""OpenTelemetry: spans with the ids they are given, metrics, and log records; to OTLP, to Application Insights, or both.

The SDK is imported when telemetry is on, and not before: it would make up a good part of the time that `uds` takes to start.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.metrics import Counter, Histogram
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, Status, StatusCode, TraceFlags

from sync_core.domain.trace import TraceContext
from sync_core.telemetry import METRICS, NONE, Attributes, Event, Instrument, Measurement, Span
from sync_core.telemetry_settings import TelemetrySettings

LOG = logging.getLogger("uds.telemetry")

SCOPE = "universal-data-sync"
LOGGERS = ("uds", "sync_core")
"""What the control plane logs by; other packages' logs may hold anything and stay where they are."""

CLOSE_MILLISECONDS = 5_000

AZURE_REPORTS = (
    "APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL",
    "APPLICATIONINSIGHTS_SDKSTATS_DISABLED",
    "APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED",
)
"""What the exporter for Azure sends and fetches besides: reports about itself, and settings from a public address, which a
private network does not reach. Set one to `false` to have it."""

_NEXT: ContextVar[TraceContext | None] = ContextVar("uds_next_span", default=None)
_ABOUT: ContextVar[Attributes] = ContextVar("uds_about", default=NONE)


class GivenIds(RandomIdGenerator):
    """The ids of the span that is being told, else random ones."""

    def generate_span_id(self) -> int:
        given = _NEXT.get()
        return int(given.span_id, 16) if given else super().generate_span_id()

    def generate_trace_id(self) -> int:
        given = _NEXT.get()
        return int(given.trace_id, 16) if given else super().generate_trace_id()


class OpenTelemetry:
    """Sends by an SDK of its own, so that it neither meddles with nor depends on what the process has set up globally."""

    def __init__(self, traces: TracerProvider, metrics: MeterProvider, logs: LoggerProvider) -> None:
        self._providers = (traces, metrics, logs)
        self._tracer = traces.get_tracer(SCOPE)
        self._logger = logs.get_logger(SCOPE)
        meter = metrics.get_meter(SCOPE)
        makers = {
            Instrument.COUNTER: meter.create_counter,
            Instrument.HISTOGRAM: meter.create_histogram,
            Instrument.GAUGE: meter.create_gauge,
        }
        self._instruments = {
            name: makers[metric.instrument](name, unit=metric.unit, description=metric.description)
            for name, metric in METRICS.items()
        }
        self._handler = _LogHandler(self._log)
        for name in LOGGERS:
            logging.getLogger(name).addHandler(self._handler)

    def current(self) -> TraceContext | None:
        found = trace.get_current_span().get_span_context()
        return TraceContext(f"{found.trace_id:032x}", f"{found.span_id:016x}") if found.is_valid else None

    @contextmanager
    def within(self, context: TraceContext | None, attributes: Attributes) -> Generator[None]:
        about = _ABOUT.set(attributes)
        token = otel_context.attach(_parent(context, otel_context.get_current())) if context else None
        try:
            yield
        finally:
            if token is not None:
                otel_context.detach(token)
            _ABOUT.reset(about)

    def emit(
        self, spans: Sequence[Span] = (), measurements: Sequence[Measurement] = (), events: Sequence[Event] = ()
    ) -> None:
        try:
            for span in spans:
                self._span(span)
            for one in measurements:
                self._measure(one)
            for event in events:
                self._event(event)
        except Exception:
            LOG.warning("telemetry could not be taken", exc_info=True)

    def close(self) -> None:
        for name in LOGGERS:
            logging.getLogger(name).removeHandler(self._handler)
        for provider in self._providers:
            try:
                provider.force_flush(CLOSE_MILLISECONDS)
                provider.shutdown()
            except Exception:
                LOG.warning("telemetry could not be closed", exc_info=True)

    def _span(self, span: Span) -> None:
        parent = TraceContext(span.context.trace_id, span.parent) if span.parent else None
        # Without a parent the context must be empty: the Functions host's span would become one.
        under = _parent(parent, Context()) if parent else Context()
        token = _NEXT.set(span.context)
        try:
            made = self._tracer.start_span(
                span.name,
                context=under,
                attributes=span.attributes,
                links=[Link(_context(one)) for one in span.links],
                start_time=_nanos(span.started_at),
            )
        finally:
            _NEXT.reset(token)
        if span.error is not None:
            made.set_status(Status(StatusCode.ERROR, span.error))
        made.end(_nanos(span.finished_at))

    def _measure(self, one: Measurement) -> None:
        instrument = self._instruments[one.name]
        if isinstance(instrument, Counter):
            instrument.add(one.value, one.attributes)
        elif isinstance(instrument, Histogram):
            instrument.record(one.value, one.attributes)
        else:
            instrument.set(one.value, one.attributes)

    def _event(self, event: Event) -> None:
        self._logger.emit(
            LogRecord(
                timestamp=_nanos(event.at),
                context=_parent(event.context, Context()),
                severity_text="ERROR" if event.failed else "INFO",
                severity_number=SeverityNumber.ERROR if event.failed else SeverityNumber.INFO,
                body=event.text,
                attributes=event.attributes,
            )
        )

    def _log(self, record: logging.LogRecord) -> None:
        failed = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None
        about = {**_ABOUT.get(), "logger": record.name}
        self._logger.emit(
            LogRecord(
                timestamp=int(record.created * 1e9),
                context=otel_context.get_current(),
                severity_text=record.levelname,
                severity_number=_severity(record.levelno),
                body=record.getMessage(),
                # The type alone: a stack of somebody else's package may hold an address with a password in it.
                attributes={**about, "exception.type": failed} if failed else about,
            )
        )


class _LogHandler(logging.Handler):
    """Hands log records over; what goes wrong with one is nobody else's matter."""

    def __init__(self, take: Callable[[logging.LogRecord], None]) -> None:
        super().__init__()
        self._take = take

    def emit(self, record: logging.LogRecord) -> None:
        # Its own failures would come back here without end.
        if record.name == LOG.name:
            return
        try:
            self._take(record)
        except Exception:
            LOG.warning("a log record could not be taken", exc_info=True)


def open_telemetry(settings: TelemetrySettings) -> OpenTelemetry:
    """The exporters that the settings name. `OTEL_*` variables say the rest: headers, sampler, resource attributes."""
    spans: list[SpanExporter] = []
    readers: list[MetricReader] = []
    records: list[LogRecordExporter] = []
    if settings.otlp:
        from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        spans.append(OTLPSpanExporter())
        readers.append(PeriodicExportingMetricReader(OTLPMetricExporter()))
        records.append(OTLPLogExporter())
    if settings.azure:
        for name in AZURE_REPORTS:
            os.environ.setdefault(name, "true")
        from azure.monitor.opentelemetry.exporter import (
            AzureMonitorLogExporter,
            AzureMonitorMetricExporter,
            AzureMonitorTraceExporter,
        )

        # These read APPLICATIONINSIGHTS_AUTHENTICATION_STRING and sign in by the identity that it names. What a receiver
        # does not take is lost rather than kept in files: an instance of the Functions app and its disk are gone in minutes.
        where = {"connection_string": settings.azure, "disable_offline_storage": True}
        spans.append(AzureMonitorTraceExporter(**where))
        readers.append(PeriodicExportingMetricReader(AzureMonitorMetricExporter(**where)))
        records.append(AzureMonitorLogExporter(**where))
    return with_exporters(settings, spans, readers, records)


def with_exporters(
    settings: TelemetrySettings,
    spans: Sequence[SpanExporter],
    readers: Sequence[MetricReader],
    records: Sequence[LogRecordExporter],
) -> OpenTelemetry:
    """Telemetry that goes to these. Each gets bundles in a thread of its own: no door waits for a receiver."""
    named = {"service.name": "uds-control-plane", "service.namespace": SCOPE}
    named |= {"deployment.environment.name": settings.environment} if settings.environment else {}
    named |= {"service.version": settings.release} if settings.release else {}
    # Resource.create lets what it is given win over OTEL_RESOURCE_ATTRIBUTES; here the operator's word comes last.
    resource = Resource.create(named).merge(OTELResourceDetector().detect())
    traces, logs = TracerProvider(resource=resource, id_generator=GivenIds()), LoggerProvider(resource=resource)
    for exporter in spans:
        traces.add_span_processor(BatchSpanProcessor(exporter))
    for exporter in records:
        logs.add_log_record_processor(BatchLogRecordProcessor(exporter))
    return OpenTelemetry(traces, MeterProvider(readers, resource=resource), logs)


def _context(context: TraceContext) -> SpanContext:
    return SpanContext(int(context.trace_id, 16), int(context.span_id, 16), is_remote=True, trace_flags=TraceFlags(1))


def _parent(context: TraceContext, base: Context) -> Context:
    return trace.set_span_in_context(NonRecordingSpan(_context(context)), base)


def _nanos(moment: datetime) -> int:
    return int(moment.timestamp()) * 1_000_000_000 + moment.microsecond * 1_000


def _severity(level: int) -> SeverityNumber:
    steps = (
        (logging.CRITICAL, SeverityNumber.FATAL),
        (logging.ERROR, SeverityNumber.ERROR),
        (logging.WARNING, SeverityNumber.WARN),
        (logging.INFO, SeverityNumber.INFO),
    )
    return next((number for floor, number in steps if level >= floor), SeverityNumber.DEBUG)
