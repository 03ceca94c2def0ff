"""What Spark says when its memory, an executor or its own process is gone. The texts are Spark's own."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from py4j.clientserver import ClientServer, JavaParameters, PythonParameters
from py4j.protocol import Py4JError, Py4JNetworkError

from spark_entry.compute_faults import JVM_GONE, compute_fault, is_refusal
from sync_core.domain.errors import AGAIN

CALLED = "An error occurred while calling o97.save.\n: org.apache.spark.SparkException: "
STAGE = "Job aborted due to stage failure: Task 1 in stage 16.0 failed 4 times, most recent failure: Lost task 1.3 in "
TASK = f"{CALLED}{STAGE}stage 16.0 (TID 23) (node-4 executor 3): "
LOST = f"an executor of Spark was lost: {STAGE}stage 16.0 (TID 23) (node-4 executor 3): "
NO_MEMORY = f"Spark ran out of memory: {STAGE}stage 16.0 (TID 23) (node-4 executor 3): "


class Unanswered(Exception):
    """As Py4JJavaError, whose text is asked of the JVM."""

    def __str__(self) -> str:
        raise ConnectionRefusedError(111, "Connection refused")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (
            Exception(
                f"{TASK}java.lang.OutOfMemoryError: Java heap space\n\tat org.apache.spark.unsafe.types.UTF8String"
            ),
            "engine.out_of_memory",
            f"{NO_MEMORY}java.lang.OutOfMemoryError: Java heap space.",
        ),
        (
            Exception(
                f"{TASK}org.apache.spark.memory.SparkOutOfMemoryError: [UNABLE_TO_ACQUIRE_MEMORY] Unable to acquire"
            ),
            "engine.out_of_memory",
            f"{NO_MEMORY}org.apache.spark.memory.SparkOutOfMemoryError: [UNABLE_TO_ACQUIRE_MEMORY] Unable to acquire.",
        ),
        (
            Exception(f"{CALLED}Not enough memory to build and broadcast the table to all worker nodes.\n"),
            "engine.out_of_memory",
            "Spark ran out of memory: Not enough memory to build and broadcast the table to all worker nodes.",
        ),
        (
            Exception(
                f"{TASK}ExecutorLostFailure (executor 3 exited unrelated to the running tasks) Reason: worker lost\n"
            ),
            "engine.executor_lost",
            f"{LOST}ExecutorLostFailure (executor 3 exited unrelated to the running tasks) Reason: worker lost.",
        ),
        (
            Exception(
                f"{TASK}FetchFailed(null, shuffleId=4, mapIndex=-1, mapId=-1, reduceId=7, message=\nMetadataFetch"
            ),
            "engine.executor_lost",
            f"{LOST}FetchFailed(null, shuffleId=4, mapIndex=-1, mapId=-1, reduceId=7.",
        ),
        *[
            (error, "engine.spark_gone", "Spark ended while the engine was at work.")
            for error in (
                Exception(f"{CALLED}Job 4 cancelled because SparkContext was shut down\n\tat org.apache.spark"),
                Py4JNetworkError("Answer from Java side is empty"),
                Py4JError("An error occurred while calling o97.save"),
                Unanswered(),
            )
        ],
    ],
)
def test_what_may_be_over_at_the_next_attempt(error: Exception, code: str, message: str) -> None:
    fault = compute_fault(error)
    assert fault is not None
    assert (fault.code, fault.kind, fault.message) == (code, "retryable", message)
    assert fault.remedy.startswith(AGAIN)


def test_a_jvm_that_does_not_listen_is_gone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    gateway: Any = ClientServer(JavaParameters(port=port, auto_convert=True), PythonParameters(port=0))
    try:
        with pytest.raises(JVM_GONE) as raised:
            gateway.jvm.java.lang.System.currentTimeMillis()
    finally:
        gateway.shutdown_callback_server()
    fault = compute_fault(raised.value)
    assert fault is not None
    assert fault.code == "engine.spark_gone"


@pytest.mark.parametrize(
    "error",
    [
        ValueError("the pipeline is named fetchfailed"),
        Exception(f"{TASK}org.apache.spark.SparkArithmeticException: [DIVIDE_BY_ZERO] Division by zero."),
        FileNotFoundError(2, "No such file or directory"),
        ConnectionResetError(104, "of a connection that an adapter opened itself"),
        Py4JError("An error occurred while calling o97.save. Trace:\npy4j.Py4JException: Method save does not exist"),
    ],
)
def test_other_errors_are_left_to_others(error: Exception) -> None:
    assert compute_fault(error) is None


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (Exception("java.lang.IllegalArgumentException: Secret does not exist with scope: kv and key: shop"), True),
        (
            Exception("DatabricksServiceHttpClientException: PERMISSION_DENIED: User does not have READ permission"),
            True,
        ),
        (Exception("DatabricksServiceHttpClientException: 429: REQUEST_LIMIT_EXCEEDED"), False),
        (Exception("DatabricksServiceHttpClientException: 503: TEMPORARILY_UNAVAILABLE"), False),
        (TimeoutError("the read operation timed out"), False),
        (Unanswered(), False),
    ],
)
def test_a_service_that_said_no_and_one_that_said_nothing(error: Exception, refused: bool) -> None:
    assert is_refusal(error) is refused
