"""What an error says of the compute under the engine rather than of a table: memory, lost executors, a Spark that is gone.

All of it may be over at the next attempt, and none of it is a fault to report.
"""

from __future__ import annotations

import re

from py4j.protocol import Py4JNetworkError

from sync_core.domain.errors import AGAIN, RetryableError

_NO_MEMORY = re.compile(
    r"OutOfMemoryError(?:: [^\n]{1,80})?|UNABLE_TO_ACQUIRE_MEMORY|Not enough memory to build and broadcast"
    r"|exceeding (?:physical |virtual )?memory limits"
)
_EXECUTOR_LOST = re.compile(
    r"ExecutorLostFailure|FetchFailed(?:Exception)?\b|Executor heartbeat timed out|[Ww]orker (?:lost|decommissioned)"
)
_SPARK_GONE = re.compile(r"SparkContext was shut ?down|stopped SparkContext|SparkContext has been shutdown")


def compute_fault(error: BaseException) -> RetryableError | None:
    """What a person can do about it; None when it is something else."""
    text = str(error)
    if found := _NO_MEMORY.search(text):
        return RetryableError(
            "engine.out_of_memory",
            f"Spark ran out of memory: {found[0]}.",
            f"{AGAIN} If it fails each time, read in more partitions (read: partitions), or give Spark "
            "more memory: a larger node type of the job's cluster, UDS_DRIVER_MEMORY on one machine.",
        )
    if _EXECUTOR_LOST.search(text):
        return RetryableError(
            "engine.executor_lost",
            f"an executor of the cluster was lost: {_sentence(text)}",
            f"{AGAIN} If it comes often, use fewer spot nodes or a node type with more memory.",
        )
    # Every other connection belongs to an adapter, which tells of it: what is plain comes from the way to the JVM.
    if isinstance(error, Py4JNetworkError | ConnectionError) or _SPARK_GONE.search(text):
        return RetryableError(
            "engine.spark_gone",
            "Spark's own process ended under the engine.",
            f"{AGAIN} If it fails each time, the log says why it ended; mostly it is memory: a larger "
            "node type of the job's cluster, UDS_DRIVER_MEMORY on one machine.",
        )
    return None


def _sentence(text: str) -> str:
    """The line that names the loss, without the Java class before it."""
    line = next(line for line in text.splitlines() if _EXECUTOR_LOST.search(line))
    return line[line.rfind("Exception: ") + len("Exception: ") if "Exception: " in line else 0 :].strip()[:300]
