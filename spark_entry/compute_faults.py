"""What an error says of the compute under the engine rather than of a table: memory, lost executors, a Spark that is gone.

All of it may be over at the next attempt, and none of it is a fault to report. And whether a service of the workspace has
refused, or had no answer.
"""

from __future__ import annotations

import re
import traceback

from py4j.protocol import Py4JError, Py4JNetworkError

from sync_core.domain.errors import AGAIN, RetryableError

JVM_GONE = (Py4JError, ConnectionError)
"""What a call of the JVM raises once it is gone: its gateway lets the socket's own error through."""

_NO_MEMORY = re.compile(
    r"OutOfMemoryError|UNABLE_TO_ACQUIRE_MEMORY|Not enough memory to build and broadcast"
    r"|exceeding (?:physical |virtual )?memory limits"
)
_EXECUTOR_LOST = re.compile(
    r"ExecutorLostFailure|FetchFailed(?:Exception)?\b|Executor heartbeat timed out|[Ww]orker (?:lost|decommissioned)"
)
_SPARK_STOPPED = re.compile(r"SparkContext was shut ?down|stopped SparkContext|SparkContext has been shutdown")
_REFUSED = re.compile(
    r"does not exist|DOES_NOT_EXIST|NOT_FOUND|PERMISSION_DENIED|permission to|Forbidden|Unauthorized"
    r"|IllegalArgumentException|ClientAuthenticationError|\b40[134]\b"
)
_CALL_WITHOUT_ANSWER = re.compile(r"An error occurred while calling \S+\Z")


def compute_fault(error: BaseException) -> RetryableError | None:
    """What a person can do about it; None when it is something else."""
    try:
        text = str(error)
    except JVM_GONE:
        # A Java exception's text is asked of the JVM.
        return _spark_gone()
    if _NO_MEMORY.search(text):
        return RetryableError(
            "engine.out_of_memory",
            f"Spark ran out of memory: {_sentence(text, _NO_MEMORY)}.",
            f"{AGAIN} If it fails each time, read a database's table in more partitions (read: partitions), or give Spark "
            "more memory: a larger node type of the job's cluster, UDS_DRIVER_MEMORY on one machine.",
        )
    if _EXECUTOR_LOST.search(text):
        return RetryableError(
            "engine.executor_lost",
            f"an executor of Spark was lost: {_sentence(text, _EXECUTOR_LOST)}.",
            f"{AGAIN} If it comes often, use fewer spot nodes or a node type with more memory.",
        )
    if _SPARK_STOPPED.search(text) or _is_unanswered(error, text):
        return _spark_gone()
    return None


def is_refusal(error: BaseException) -> bool:
    """Whether a service of the workspace has said no, which stays so until a person acts. What is unknown may pass."""
    try:
        return _REFUSED.search(f"{type(error).__name__}: {error}") is not None
    except JVM_GONE:
        return False


def _spark_gone() -> RetryableError:
    return RetryableError(
        "engine.spark_gone",
        "Spark ended while the engine was at work.",
        f"{AGAIN} If it fails each time, the log says why it ended; mostly it is memory: a larger node type of the job's "
        "cluster, UDS_DRIVER_MEMORY on one machine.",
    )


def _is_unanswered(error: BaseException, text: str) -> bool:
    """Whether the JVM did not answer a call. A lost connection to something else has no frame of the gateway."""
    if isinstance(error, Py4JNetworkError):
        return True
    if isinstance(error, ConnectionError):
        frames = traceback.walk_tb(error.__traceback__)
        return any(frame.f_globals.get("__name__", "").startswith("py4j.") for frame, _ in frames)
    return type(error) is Py4JError and _CALL_WITHOUT_ANSWER.match(text) is not None


def _sentence(text: str, pattern: re.Pattern[str]) -> str:
    """The line that says it, without the Java class before it."""
    line = next(line for line in text.splitlines() if pattern.search(line))
    start = line.find("Exception: ")
    return line[start + len("Exception: ") if start >= 0 else 0 :].removesuffix(", message=").strip(" .")[:300]
