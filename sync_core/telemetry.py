"""What the control plane tells of itself: spans, measurements and events, as plain values, and where they go.

Nothing here knows a vendor: `adapters/telemetry.py` hands these to OpenTelemetry, and nobody does when it is off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Protocol

from sync_core.domain.trace import TraceContext

Attribute = str | int | float | bool
Attributes = Mapping[str, Attribute]

NONE: Attributes = MappingProxyType({})


@dataclass(frozen=True)
class Span:
    """One span with its ids and times fixed: told twice, it is the same span. `error` is why it failed."""

    context: TraceContext
    parent: str | None
    name: str
    started_at: datetime
    finished_at: datetime
    attributes: Attributes = NONE
    error: str | None = None
    links: tuple[TraceContext, ...] = ()


@dataclass(frozen=True)
class Measurement:
    """One value of one of METRICS."""

    name: str
    value: float
    attributes: Attributes = NONE


@dataclass(frozen=True)
class Event:
    """One structured log record of a run."""

    at: datetime
    text: str
    attributes: Attributes
    context: TraceContext
    failed: bool = False


class Instrument(StrEnum):
    """How values of a metric come together."""

    COUNTER = "counter"
    HISTOGRAM = "histogram"
    GAUGE = "gauge"


@dataclass(frozen=True)
class Metric:
    """A metric: how its values come together, its unit (UCUM), what it says, and the attributes it carries."""

    instrument: Instrument
    unit: str
    description: str
    attributes: tuple[str, ...] = ()


_PIPELINE = ("pipeline_id", "mode", "environment")

METRICS: Mapping[str, Metric] = {
    "uds.ticks": Metric(Instrument.COUNTER, "{tick}", "Ticks that came to their end.", ("environment",)),
    "uds.lag": Metric(Instrument.GAUGE, "s", "Now less the watermark, for cursors that are dates or times.", _PIPELINE),
    "uds.rows": Metric(Instrument.COUNTER, "{row}", "Rows of runs, by kind.", (*_PIPELINE, "kind")),
    "uds.run.duration": Metric(Instrument.HISTOGRAM, "s", "From begun to closed, by outcome.", (*_PIPELINE, "outcome")),
    "uds.launch.delay": Metric(Instrument.HISTOGRAM, "s", "From begun (or the end of a pause) to launched.", _PIPELINE),
    "uds.failures": Metric(Instrument.COUNTER, "{run}", "Attempts that failed, by error.", (*_PIPELINE, "error_code")),
    "uds.alerts.open": Metric(Instrument.GAUGE, "{alert}", "Open alerts, by condition.", ("condition", "environment")),
    "uds.dead_letters": Metric(
        Instrument.GAUGE, "{message}", "Messages put aside, at most 100 a queue.", ("queue", "environment")
    ),
}
"""Every metric there is."""


class Telemetry(Protocol):
    """Takes what is told. Never raises, and never waits for a receiver."""

    def current(self) -> TraceContext | None:
        """The span that the caller of this process works under, if there is one (the Functions host's)."""
        ...

    def within(self, context: TraceContext | None, attributes: Attributes) -> AbstractContextManager[None]:
        """While it is open, log records of this thread carry the trace and the attributes."""
        ...

    def emit(
        self, spans: Sequence[Span] = (), measurements: Sequence[Measurement] = (), events: Sequence[Event] = ()
    ) -> None:
        """Take them; sent later, in bundles."""
        ...

    def close(self) -> None:
        """Send what is left, for a few seconds at most."""
        ...


class NoTelemetry:
    """Takes everything and does nothing."""

    def current(self) -> TraceContext | None:
        return None

    def within(self, context: TraceContext | None, attributes: Attributes) -> AbstractContextManager[None]:
        return nullcontext()

    def emit(
        self, spans: Sequence[Span] = (), measurements: Sequence[Measurement] = (), events: Sequence[Event] = ()
    ) -> None:
        return

    def close(self) -> None:
        return
