"""What the process is told from outside, read once at the edge."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sync_core.domain.connection import SecretReference
from sync_core.domain.errors import ConfigError
from sync_core.domain.run import AuditPlace
from sync_core.retention import Retention


def engine_command() -> tuple[str, ...]:
    """How the engine is started on this machine."""
    return (sys.executable, "-m", "spark_entry.main")


def warm_engine_command() -> tuple[str, ...]:
    """How the engine that stays is started on this machine."""
    return (sys.executable, "-m", "spark_entry.serve")


@dataclass(frozen=True)
class Settings:
    """One machine: its state folder, the engine's command without its `--manifest PATH`, and that of the warm one."""

    state: Path
    engine: tuple[str, ...] = field(default_factory=engine_command)
    warm_engine: tuple[str, ...] = field(default_factory=warm_engine_command)
    retention: Retention = Retention()


@dataclass(frozen=True)
class AzureSettings:
    """The app settings of the Functions app. Addresses only: sign-in is by identity.

    `tables` and `service_bus` may be connection strings of local servers, `databricks_token` is for them alone.
    `jobs` maps compute groups to Databricks job ids, `vaults` secret scopes to Key Vault addresses; `webhook` is where
    the user name and password (`name:password`) of the Databricks webhook lie.
    """

    config: Path
    environment: str | None
    tables: str
    service_bus: str
    databricks: str
    jobs: Mapping[str, int]
    run_folder: str
    vaults: Mapping[str, str] = field(default_factory=dict[str, str])
    audit: AuditPlace | None = None
    webhook: SecretReference | None = None
    client_id: str | None = None
    databricks_token: str | None = None
    retention: Retention = Retention()


def read_azure_settings(environment: Mapping[str, str]) -> AzureSettings:
    """From environment variables. Raises ConfigError that names every one that is missing or wrong."""
    faults: list[str] = []

    def required(*names: str) -> str:
        found = next((environment[name] for name in names if environment.get(name)), "")
        if not found:
            faults.append(f"{names[0]} is missing")
        return found

    def pairs(name: str, given: str) -> dict[str, str]:
        entries = [entry.partition("=") for entry in given.split(",") if entry.strip()]
        if any(not key.strip() or not value.strip() for key, _, value in entries):
            faults.append(f"{name} is not a list of NAME=VALUE with commas between")
        return {key.strip(): value.strip() for key, _, value in entries}

    jobs = pairs("UDS_DATABRICKS_JOBS", required("UDS_DATABRICKS_JOBS"))
    if not all(job.isdigit() for job in jobs.values()):
        faults.append("UDS_DATABRICKS_JOBS holds a job id that is no number")
        jobs = {}
    catalog, _, schema = environment.get("UDS_AUDIT_SCHEMA", "").partition(".")
    if catalog and not schema:
        faults.append("UDS_AUDIT_SCHEMA is not CATALOG.SCHEMA")
    scope, _, key = environment.get("UDS_WEBHOOK_SECRET", "").partition("/")
    if scope and not key:
        faults.append("UDS_WEBHOOK_SECRET is not SCOPE/KEY")
    settings = AzureSettings(
        config=Path(environment.get("UDS_CONFIG", "config")),
        environment=environment.get("UDS_ENVIRONMENT") or None,
        tables=required("UDS_TABLES"),
        service_bus=required("ServiceBusConnection__fullyQualifiedNamespace", "ServiceBusConnection"),
        databricks=required("UDS_DATABRICKS_HOST"),
        jobs={group: int(job) for group, job in jobs.items()},
        run_folder=required("UDS_RUN_FOLDER"),
        vaults=pairs("UDS_KEY_VAULTS", environment.get("UDS_KEY_VAULTS", "")),
        audit=AuditPlace(catalog, schema) if catalog and schema else None,
        webhook=SecretReference(scope, key) if scope and key else None,
        client_id=environment.get("AZURE_CLIENT_ID") or None,
        databricks_token=environment.get("UDS_DATABRICKS_LOCAL_TOKEN") or None,
    )
    if faults:
        raise ConfigError("settings.wrong", f"The app settings are wrong: {'; '.join(faults)}.", "See docs/azure.md.")
    return settings
