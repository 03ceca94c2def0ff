"""Secrets are resolved here, in the engine, and leave it only towards a driver."""

from __future__ import annotations

import json
import os
import threading
import urllib.parse
from collections.abc import Mapping
from typing import Any

from spark_entry.compute_faults import compute_fault, is_refusal
from sync_core.domain.connection import SecretReference
from sync_core.domain.errors import AGAIN, PermanentError, RetryableError

_SHORT = 8
"""A line of a secret this short tells nothing, and would redact words."""

_KEPT = 2_000
"""Values that are remembered. An engine that stays for weeks fetches many tokens, of which the old ones have expired."""


class Secrets:
    """Resolves references and remembers what it gave out, so that `redact` can take it out of any text."""

    def __init__(self, environment: Mapping[str, str], databricks: Any = None) -> None:
        self._environment = environment
        self._databricks = databricks
        self._given: dict[str, None] = {}
        self._hiding = threading.Lock()

    def get(self, scope: str, key: str) -> str:
        """The secret's value. Raises PermanentError that names the reference, RetryableError when it cannot be read now."""
        reference = SecretReference(scope, key)
        value = self._from_databricks(reference) if self._databricks else self._from_environment(reference)
        self.hide(value)
        return value

    def hide(self, value: str) -> None:
        """Take this value, which signs in somewhere, out of any text from now on, however it is written there."""
        # A log is redacted line by line, and what signs in may leave out the line break that ends a pasted secret.
        plain = {value, value.strip(), *(line.strip() for line in value.splitlines() if len(line) > _SHORT)} - {""}
        with self._hiding:
            given = self._given | dict.fromkeys(form for one in plain for form in _forms(one))
            # A new one each time: `redact` may be going through it in another thread.
            self._given = dict(list(given.items())[-_KEPT:])

    def redact(self, text: str) -> str:
        """The text without any secret that was given out."""
        for value in sorted(self._given, key=len, reverse=True):
            text = text.replace(value, "***")
        return text

    def _from_environment(self, reference: SecretReference) -> str:
        value = self._environment.get(reference.environment_variable)
        if value is None:
            raise PermanentError(
                "secret.missing",
                f"The secret {reference.scope}/{reference.key} is not there.",
                f"Set the environment variable {reference.environment_variable}.",
            )
        return value

    def _from_databricks(self, reference: SecretReference) -> str:
        try:
            return str(self._databricks.get(scope=reference.scope, key=reference.key))
        except Exception as error:
            what = f"The secret {reference.scope}/{reference.key}"
            if is_refusal(error):
                raise PermanentError(
                    "secret.missing",
                    f"{what} cannot be read.",
                    "Create it in that secret scope, or grant the run's principal READ on the scope.",
                ) from error
            raise compute_fault(error) or RetryableError(
                "secret.unavailable", f"{what} cannot be read now ({type(error).__name__}).", AGAIN
            ) from error


def _forms(value: str) -> tuple[str, ...]:
    """How a value looks in a text: as it is, as JSON and Python write it, in an address, in a form."""
    written = (json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1])
    return (
        value,
        *written,
        urllib.parse.quote(value, safe=""),
        urllib.parse.quote(value),
        urllib.parse.quote_plus(value),
    )


def find_secrets() -> Secrets:
    """Databricks secret scopes on a cluster, environment variables elsewhere."""
    if "DATABRICKS_RUNTIME_VERSION" not in os.environ:
        return Secrets(os.environ)
    return Secrets(os.environ, _databricks_secrets())


def secret_keys(scope: str) -> list[str]:
    """The names of the secrets in a Databricks scope. Raises what the cluster raises when it may not be read."""
    return [str(found.key) for found in _databricks_secrets().list(scope)]


def _databricks_secrets() -> Any:
    from pyspark.dbutils import DBUtils  # pyright: ignore  # only a Databricks runtime has it
    from pyspark.sql import SparkSession

    return DBUtils(SparkSession.getActiveSession()).secrets  # pyright: ignore
