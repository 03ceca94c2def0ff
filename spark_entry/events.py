"""Structured log events: one JSON object a line on standard output, and to every handler of the logger `uds.events`."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

EVENTS = logging.getLogger("uds.events")


class JsonLines(logging.StreamHandler[TextIO]):
    """Writes each event as one line and flushes it, so that a reader sees it before the next step begins."""


def write_event(event: str, **fields: Any) -> None:
    """Write one event with the time in UTC. Values that are None are left out."""
    content = {"event": event, "time": datetime.now(UTC).isoformat()}
    content |= {name: value for name, value in fields.items() if value is not None}
    EVENTS.info(json.dumps(content, default=str), extra={"event": event, "fields": fields})


class BatchFiles(logging.Handler):
    """Writes each event into the file of the batch that it names, as if the batch had a process of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._files: dict[str, TextIO] = {}

    @contextmanager
    def writing(self, batch_id: str, path: Path) -> Generator[None]:
        """Append this batch's events to `path` while the block lasts."""
        with path.open("a", encoding="utf-8") as file:
            self._files[batch_id] = file
            try:
                yield
            finally:
                with self.lock or nullcontext():
                    del self._files[batch_id]

    def emit(self, record: logging.LogRecord) -> None:
        file = self._files.get(record.__dict__["fields"].get("batch_id", ""))
        if file is not None:
            file.write(self.format(record) + "\n")
            file.flush()


def take_standard_output() -> TextIO:
    """Standard output for this program alone: what Spark and its tools print there goes to standard error.

    A Databricks task prints into an object of the runtime's, which has no descriptor; that is returned as it is.
    """
    try:
        standard_output, standard_error = sys.stdout.fileno(), sys.stderr.fileno()
    except (AttributeError, OSError):
        return sys.stdout
    own = os.fdopen(os.dup(standard_output), "w", encoding="utf-8")
    os.dup2(standard_error, standard_output)
    return own


def send_to(handler: logging.Handler) -> None:
    """Give every event to this handler, and to no log."""
    EVENTS.setLevel(logging.INFO)
    EVENTS.propagate = False
    EVENTS.addHandler(handler)
