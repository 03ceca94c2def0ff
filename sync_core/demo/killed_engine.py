"""The engine, killed as a whole process group by SIGKILL at the event that UDS_DEMO_KILL_AT names.

python -m sync_core.demo.killed_engine --manifest PATH
"""

from __future__ import annotations

import logging
import os
import runpy
import signal


class Kill(logging.Handler):
    """Kills from within the event itself, so that nothing runs past it."""

    def __init__(self, event: str) -> None:
        super().__init__()
        self._event = event

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "event", None) == self._event:
            os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    logging.getLogger("uds.events").addHandler(Kill(os.environ["UDS_DEMO_KILL_AT"]))
    runpy.run_module("spark_entry.main", run_name="__main__", alter_sys=True)
