"""Trace context of runs, as W3C Trace Context writes it: derived from what is traced, so that it needs no clock and no dice.

Every process, and every repetition after a crash, comes to the same ids: nothing has to be handed over to continue a trace.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")


@dataclass(frozen=True)
class TraceContext:
    """A span to be the parent of: 32 and 16 lower-case hex characters, neither all zeros."""

    trace_id: str
    span_id: str

    def __str__(self) -> str:
        """The header `traceparent`, marked as sampled."""
        return f"00-{self.trace_id}-{self.span_id}-01"


def begin_trace(batch_id: str) -> str:
    """The `traceparent` of the runs that are begun in one batch. A retry continues the one of its first attempt."""
    return str(TraceContext(_digest("trace", batch_id, characters=32), span_id("root", batch_id)))


def span_id(*parts: str) -> str:
    """16 hex characters that name one span: the same parts give the same span."""
    return _digest("span", *parts, characters=16)


def read_trace(traceparent: str) -> TraceContext | None:
    """What a `traceparent` says; None when it says nothing that can be understood, which W3C asks to pass over."""
    found = _TRACEPARENT.fullmatch(traceparent.strip())
    if found is None or not found[1].strip("0") or not found[2].strip("0"):
        return None
    return TraceContext(found[1], found[2])


def _digest(*parts: str, characters: int) -> str:
    return hashlib.sha256("\x00".join(parts).encode()).hexdigest()[:characters]
