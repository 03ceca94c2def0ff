"""Secrets on one machine: environment variables `UDS_SECRET_<SCOPE>_<KEY>`."""

from __future__ import annotations

from collections.abc import Mapping

from sync_core.domain.connection import SecretReference
from sync_core.domain.errors import PermanentError


class EnvironmentSecrets:
    """Secrets in `environment`, read anew each time."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def get(self, reference: SecretReference) -> str:
        value = self._environment.get(reference.environment_variable)
        if not value:
            raise PermanentError(
                "secrets.missing",
                f"Secret {reference.scope}/{reference.key} is not there: the environment variable "
                f"{reference.environment_variable} is {'empty' if value == '' else 'not set'}.",
                f"Set {reference.environment_variable}.",
            )
        return value

    def renew(self, reference: SecretReference) -> str:
        return self.get(reference)
