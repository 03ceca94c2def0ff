"""What Spark says when its memory, an executor or its own process is gone. The texts are Spark's own."""

from __future__ import annotations

import pytest
from py4j.protocol import Py4JNetworkError

from spark_entry.compute_faults import compute_fault
from sync_core.domain.errors import AGAIN

CALLED = "An error occurred while calling o97.save.\n: org.apache.spark.SparkException: "
STAGE = "Job aborted due to stage failure: Task 1 in stage 16.0 failed 4 times, most recent failure: Lost task 1.3 in "
TASK = f"{CALLED}{STAGE}stage 16.0 (TID 23) (node-4 executor 3): "


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (
            Exception(
                f"{TASK}java.lang.OutOfMemoryError: Java heap space\n\tat org.apache.spark.unsafe.types.UTF8String"
            ),
            "engine.out_of_memory",
            "Spark ran out of memory: OutOfMemoryError: Java heap space.",
        ),
        (
            Exception(
                f"{TASK}org.apache.spark.memory.SparkOutOfMemoryError: [UNABLE_TO_ACQUIRE_MEMORY] Unable to acquire"
            ),
            "engine.out_of_memory",
            "Spark ran out of memory: OutOfMemoryError: [UNABLE_TO_ACQUIRE_MEMORY] Unable to acquire.",
        ),
        (
            Exception(f"{CALLED}Not enough memory to build and broadcast the table to all worker nodes."),
            "engine.out_of_memory",
            "Spark ran out of memory: Not enough memory to build and broadcast.",
        ),
        (
            Exception(
                f"{TASK}ExecutorLostFailure (executor 3 exited unrelated to the running tasks) Reason: worker lost\n"
            ),
            "engine.executor_lost",
            f"an executor of the cluster was lost: {STAGE}stage 16.0 (TID 23) (node-4 executor 3): ExecutorLostFailure "
            "(executor 3 exited unrelated to the running tasks) Reason: worker lost",
        ),
        (
            Exception(
                f"{TASK}FetchFailed(null, shuffleId=4, mapIndex=-1, mapId=-1, reduceId=7, message=\nMetadataFetch"
            ),
            "engine.executor_lost",
            f"an executor of the cluster was lost: {STAGE}stage 16.0 (TID 23) (node-4 executor 3): FetchFailed(null, "
            "shuffleId=4, mapIndex=-1, mapId=-1, reduceId=7, message=",
        ),
        (
            Exception(f"{CALLED}Job 4 cancelled because SparkContext was shut down\n\tat org.apache.spark"),
            "engine.spark_gone",
            "Spark's own process ended under the engine.",
        ),
        (Py4JNetworkError("Answer from Java side is empty"), "engine.spark_gone", "Spark's own process ended"),
        (ConnectionRefusedError(111, "Connection refused"), "engine.spark_gone", "Spark's own process ended"),
    ],
)
def test_what_may_be_over_at_the_next_attempt(error: Exception, code: str, said: str) -> None:
    fault = compute_fault(error)
    assert fault is not None
    assert (fault.code, fault.kind) == (code, "retryable")
    assert fault.message.startswith(said)
    assert fault.remedy.startswith(AGAIN)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("the pipeline is named fetchfailed"),
        Exception(f"{TASK}org.apache.spark.SparkArithmeticException: [DIVIDE_BY_ZERO] Division by zero."),
        FileNotFoundError(2, "No such file or directory"),
    ],
)
def test_other_errors_are_left_to_others(error: Exception) -> None:
    assert compute_fault(error) is None
