"""Errors named by the reader's next move."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar, Literal

AGAIN = "Run it again, unless its retry does."
"""The remedy of what may be over by then: true of a run by hand, of one that is retried, and after the last attempt."""


class SyncError(Exception):
    """Something a person or the retry policy must know about.

    `code` is stable and searchable (`ledger.behind`), `message` says what happened and to which object, `remedy`
    says what to do next. Neither ever holds a secret or a whole connection string.
    """

    kind: ClassVar[Literal["config", "retryable", "permanent"]] = "permanent"

    def __init__(self, code: str, message: str, remedy: str = "") -> None:
        super().__init__(f"{message} {remedy}".strip())
        self.code = code
        self.message = message
        self.remedy = remedy


class ConfigError(SyncError):
    """Fix the YAML."""

    kind = "config"


class RetryableError(SyncError):
    """The same run may succeed later: again, with backoff, and not before `retry_after` when the other side said so."""

    kind = "retryable"

    def __init__(self, code: str, message: str, remedy: str = "", retry_after: timedelta | None = None) -> None:
        super().__init__(code, message, remedy)
        self.retry_after = retry_after


class PermanentError(SyncError):
    """A person must act before another run can succeed."""

    kind = "permanent"


class FenceLost(SyncError):
    """Another run of the pipeline committed first (R14); this one wrote nothing."""

    kind = "retryable"

    def __init__(self, message: str) -> None:
        super().__init__("fence.lost", message, "Nothing to do: the other run's rows are in the target.")
