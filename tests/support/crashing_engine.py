"""The engine, killed by SIGKILL when every pipeline of its batch has reached an event.

CRASH_AT names the event, CRASH_PIPELINES how many pipelines must stand at it, CRASH_ALONE kills only Python, not its JVM.
The handler waits inside the event, so nothing runs past it.
"""

from __future__ import annotations

import logging
import os
import runpy
import signal
import threading


class Crash(logging.Handler):
    def __init__(self, event: str, pipelines: int, alone: bool) -> None:
        super().__init__()
        self._event = event
        self._missing = pipelines
        self._alone = alone
        self._all_here = threading.Event()
        self._counting = threading.Lock()

    def handle(self, record: logging.LogRecord) -> bool:
        """Without the handler's lock: the pipelines wait in here together."""
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "event", None) != self._event:
            return
        with self._counting:
            self._missing -= 1
        if self._missing == 0:
            if self._alone:
                os.kill(os.getpid(), signal.SIGKILL)
            os.killpg(os.getpgrp(), signal.SIGKILL)
        self._all_here.wait(timeout=240)
        os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    import spark_entry.batch

    pipelines = int(os.environ["CRASH_PIPELINES"])
    spark_entry.batch.THREADS = pipelines
    crash = Crash(os.environ["CRASH_AT"], pipelines, bool(os.environ.get("CRASH_ALONE")))
    logging.getLogger("uds.events").addHandler(crash)
    runpy.run_module("spark_entry.main", run_name="__main__", alter_sys=True)
