"""Tokens of Unity Catalog service credentials: how a cluster signs in to Azure without a secret of its own."""

from __future__ import annotations

from typing import Any, cast

from pyspark.sql import SparkSession

from spark_entry.compute_faults import compute_fault, is_refusal
from sync_core.domain.connection import Connection
from sync_core.domain.errors import AGAIN, ConfigError, PermanentError, RetryableError


def access_token(spark: SparkSession, connection: Connection, scope: str) -> str:
    """A token for `scope`. Needs a Databricks runtime of 16.2 or later."""
    name = connection.service_credential
    if not name:
        raise ConfigError(
            "connection.service_credential",
            f"Connection {connection.name} signs in by a service credential without naming it.",
            "Set service_credential to its name in Unity Catalog.",
        )
    try:
        from pyspark.dbutils import DBUtils  # pyright: ignore  # only a Databricks runtime has it
    except ImportError as error:
        raise PermanentError(
            "database.sign_in",
            f"Connection {connection.name}: service credentials exist only on Databricks.",
            "Run it there, or use another auth.",
        ) from error
    tools = cast("Any", DBUtils)(spark)
    try:
        return str(tools.credentials.getServiceCredentialsProvider(name).get_token(scope).token)
    except Exception as error:
        what = f"Connection {connection.name}: the service credential {name} gave no token"
        if is_refusal(error):
            raise PermanentError(
                "database.sign_in",
                f"{what} ({type(error).__name__}).",
                "Grant ACCESS on it to the principal that runs the job.",
            ) from error
        raise compute_fault(error) or RetryableError(
            "database.unreachable", f"{what} now ({type(error).__name__}).", AGAIN
        ) from error
