"""The engine's log without secrets, whoever writes it: this program, Spark's JVM, or a driver within it (P26)."""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TextIO, cast

_END = b"\x00uds: end of log\n"


@contextmanager
def redacted_standard_error(redact: Callable[[str], str]) -> Generator[None]:
    """Pass all that this process and its children print to standard error through `redact`, line by line.

    Begin before the JVM starts, which inherits it. Where Python prints into another object than the descriptor, as in a
    Databricks task, that object is redacted too.
    """
    shown = sys.stderr
    shown.flush()
    if not _has_descriptor(shown):
        sys.stderr = cast("TextIO", _Redacted(shown, redact))
    outside = os.dup(2)
    reading, writing = os.pipe()
    os.dup2(writing, 2)
    os.close(writing)
    # Here and not in the thread, which may get its turn when the block has ended and `outside` is closed.
    copied = os.dup(outside)

    def copy() -> None:
        with os.fdopen(reading, "rb") as lines, os.fdopen(copied, "wb", buffering=0) as log:
            for line in lines:
                if line == _END:
                    return
                log.write(redact(line.decode("utf-8", "replace")).encode())

    thread = threading.Thread(target=copy, name="uds-log", daemon=True)
    thread.start()
    try:
        yield
    finally:
        sys.stderr.flush()
        sys.stderr = shown
        os.write(2, _END)
        os.dup2(outside, 2)
        os.close(outside)
        thread.join(timeout=10)


class _Redacted(io.TextIOBase):
    """Passes text on, redacted. A record of a log comes in one piece."""

    def __init__(self, stream: TextIO, redact: Callable[[str], str]) -> None:
        self._stream = stream
        self._redact = redact

    def write(self, text: str) -> int:
        self._stream.write(self._redact(text))
        return len(text)

    def flush(self) -> None:
        self._stream.flush()


def _has_descriptor(stream: TextIO) -> bool:
    try:
        return stream.fileno() == 2
    except (AttributeError, OSError):
        return False
