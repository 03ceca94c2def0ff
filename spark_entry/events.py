"""Structured log events: one JSON object a line on standard output, and to every handler of the logger `uds.events`."""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

EVENTS = logging.getLogger("uds.events")


class JsonLines(logging.StreamHandler[TextIO]):
    """Writes each event as one line and flushes it, so that a reader sees it before the next step begins."""


def write_event(event: str, **fields: Any) -> None:
    """Write one event with the time in UTC. Values that are None are left out."""
    content = {"event": event, "time": datetime.now(UTC).isoformat()}
    content |= {name: value for name, value in fields.items() if value is not None}
    EVENTS.info(json.dumps(content, default=str), extra={"event": event, "fields": fields})


def to_standard_output() -> None:
    """Keep standard output for events alone: what Spark and its tools print there goes to standard error."""
    own = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    EVENTS.setLevel(logging.INFO)
    EVENTS.propagate = False
    EVENTS.addHandler(JsonLines(own))
