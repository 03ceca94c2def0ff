"""Where telemetry and lineage go, read once at the edge. Nothing is sent where nothing is said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sync_core.domain.connection import SecretReference
from sync_core.domain.errors import ConfigError


@dataclass(frozen=True)
class TelemetrySettings:
    """`otlp`: an OTLP endpoint is set (the SDK reads OTEL_* itself). `azure`: Application Insights' connection string.

    `lineage` is the address of an OpenLineage receiver, `lineage_secret` where its API key lies. `environment` and
    `release` are on everything that is sent.
    """

    otlp: bool = False
    azure: str = ""
    lineage: str = ""
    lineage_secret: SecretReference | None = None
    environment: str = ""
    release: str = ""

    @property
    def sends(self) -> bool:
        """Whether spans, metrics and log records go anywhere."""
        return self.otlp or bool(self.azure)


def read_telemetry_settings(environment: Mapping[str, str], name: str | None) -> TelemetrySettings:
    """From environment variables; `name` is the environment's. Raises ConfigError for what is wrong."""
    lineage = environment.get("UDS_LINEAGE_URL", "").strip()
    if lineage and not lineage.startswith(("http://", "https://")):
        raise ConfigError(
            "settings.wrong", "UDS_LINEAGE_URL is not an http or https address.", "See docs/observability.md."
        )
    scope, _, key = environment.get("UDS_LINEAGE_SECRET", "").partition("/")
    if scope and not key:
        raise ConfigError("settings.wrong", "UDS_LINEAGE_SECRET is not SCOPE/KEY.", "See docs/observability.md.")
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    off = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return TelemetrySettings(
        otlp=not off and any(environment.get(one) for one in endpoints),
        azure="" if off else environment.get("APPLICATIONINSIGHTS_CONNECTION_STRING", "").strip(),
        lineage=lineage,
        lineage_secret=SecretReference(scope, key) if key else None,
        environment=name or "",
        release=environment.get("UDS_RELEASE", ""),
    )
