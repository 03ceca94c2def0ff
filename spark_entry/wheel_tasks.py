"""What the Databricks jobs of `infra/databricks` run: the wheel's entry points.

A wheel task calls the function without arguments, leaves the parameters in `sys.argv`, and takes the task as failed only
when the function raises: it ignores what is returned, and `sys.exit(0)` may count as a failure too.
"""

from __future__ import annotations

import logging

from spark_entry import main, maintenance, smoke_test


def sync() -> None:
    """Run the batch of `--manifest PATH`. Raises RuntimeError when it could not start."""
    quieten()
    if main.main() != 0:
        raise RuntimeError("The batch could not start. The log above says why, and what to do.")


def maintain() -> None:
    """Archive and tidy the audit tables. Raises SyncError that says what could not be done."""
    quieten()
    maintenance.main()


def smoke() -> None:
    """Move generated rows. Raises SyncError that says what came out wrong."""
    quieten()
    smoke_test.main()


def quieten() -> None:
    """Keep the gateway's own log lines, two for each call, out of the task's log."""
    logging.getLogger("py4j").setLevel(logging.WARNING)
