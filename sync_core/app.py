"""The composition root: settings in, the application out. Nothing else makes an adapter."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from sync_core.adapters.alert_sink import ChannelSink
from sync_core.adapters.apprise_sink import AppriseSink
from sync_core.adapters.environment_secrets import EnvironmentSecrets
from sync_core.adapters.local_launcher import LocalLauncher
from sync_core.adapters.local_run_folder import LocalRunFolder
from sync_core.adapters.sqlite_queue import SqliteQueue
from sync_core.adapters.sqlite_store import SqliteStore
from sync_core.adapters.warm_launcher import WarmLauncher
from sync_core.adapters.webhook_sink import WebhookSink
from sync_core.by_hand import App
from sync_core.catalog import Catalog
from sync_core.catalog.compiled import read_catalog
from sync_core.control_plane import ControlPlane
from sync_core.domain.connection import SecretReference
from sync_core.domain.errors import ConfigError
from sync_core.domain.run import AuditPlace
from sync_core.ports import Launcher, Queue, RunFolder, Secrets, StateStore
from sync_core.retention import Retention
from sync_core.settings import AzureSettings, Settings, read_azure_settings
from sync_core.telemetry import NoTelemetry, Telemetry
from sync_core.telemetry_doors import observe
from sync_core.telemetry_settings import TelemetrySettings, read_telemetry_settings

APPLICATION = Path(__file__).parents[1]
"""The folder of function_app.py: a Functions app is not always started in it."""

_OPENING = threading.Lock()


def now() -> datetime:
    """The clock, in UTC."""
    return datetime.now(UTC)


def build(settings: Settings) -> App:
    """Runs by hand on this machine: SQLite, local run folders, an engine for each call."""
    folder = settings.state / "runs"
    return App(
        store=SqliteStore(settings.state),
        folder=LocalRunFolder(folder),
        launcher=LocalLauncher(folder, settings.engine),
        retention=settings.retention,
        now=now,
        new_id=lambda: str(uuid.uuid4()),
    )


@dataclass(frozen=True)
class Service:
    """A control plane that runs on, and how it ends: `drain` takes no more batches, `close` ends what is left.

    `webhook_login` is what a Databricks webhook signs in with, None where there is none; True reads it anew.
    """

    plane: ControlPlane
    drain: Callable[[], None]
    close: Callable[[], None]
    webhook_login: Callable[[bool], tuple[str, str] | None]


def build_service(settings: Settings, catalog: Catalog, telemetry: Telemetry | None = None) -> Service:
    """The whole loop on this machine: SQLite store and queue, a warm engine, audit tables in the state folder.

    `telemetry` None: what the environment variables ask for.
    """
    folder = settings.state / "runs"
    launcher = WarmLauncher(folder, settings.warm_engine)
    found = EnvironmentSecrets(os.environ)
    plane = _control_plane(
        catalog,
        found,
        store=SqliteStore(settings.state),
        queue=SqliteQueue(settings.state),
        folder=LocalRunFolder(folder),
        launcher=launcher,
        retention=settings.retention,
        audit=AuditPlace(path=str((settings.state / "audit").absolute())),
    )
    sending = read_telemetry_settings(os.environ, "local")
    telling = telemetry or open_telemetry(sending)

    def close() -> None:
        launcher.stop()
        telling.close()

    return Service(_observed(plane, telling, sending, found), launcher.drain, close, lambda _anew: None)


def build_azure(settings: AzureSettings, secrets: Secrets | None = None) -> Service:
    """The control plane in Azure: Table Storage, Service Bus, Key Vault, Databricks; signed in by identity.

    `secrets` stands in for the Key Vaults where there are none.
    """
    # The Azure SDKs are an extra: one machine does without them.
    from azure.identity import DefaultAzureCredential

    from sync_core.adapters.databricks_client import DatabricksWorkspace
    from sync_core.adapters.databricks_launcher import DatabricksLauncher
    from sync_core.adapters.key_vault_secrets import KeyVaultSecrets
    from sync_core.adapters.service_bus_queue import ServiceBusQueue
    from sync_core.adapters.table_service import open_table_service
    from sync_core.adapters.table_store import TableStore
    from sync_core.adapters.volume_run_folder import VolumeRunFolder

    config = settings.config if settings.config.exists() else APPLICATION / settings.config
    catalog = read_catalog(config, settings.environment, os.environ)
    credential = DefaultAzureCredential(managed_identity_client_id=settings.client_id)
    queue = (
        ServiceBusQueue.for_local_server(settings.service_bus)
        if "=" in settings.service_bus
        else ServiceBusQueue.for_namespace(settings.service_bus, credential)
    )
    workspace = DatabricksWorkspace(
        settings.databricks,
        credential=None if settings.databricks_token else credential,
        token=settings.databricks_token,
    )
    vaults = KeyVaultSecrets(settings.vaults, credential, now)
    found = secrets or vaults
    store = TableStore(open_table_service(settings.tables, credential))
    plane = _control_plane(
        catalog,
        found,
        store=store,
        queue=queue,
        folder=VolumeRunFolder(workspace, settings.run_folder),
        launcher=DatabricksLauncher(workspace, settings.jobs),
        retention=settings.retention,
        audit=settings.audit,
    )
    sending = read_telemetry_settings(os.environ, settings.environment)
    telemetry = open_telemetry(sending)
    plane = _observed(plane, telemetry, sending, found, settings.databricks)

    def close() -> None:
        telemetry.close()
        queue.close()
        store.close()
        vaults.close()
        credential.close()

    return Service(plane, lambda: None, close, lambda anew: _webhook_login(settings.webhook, found, anew))


def _control_plane(
    catalog: Catalog,
    secrets: Secrets,
    *,
    store: StateStore,
    queue: Queue,
    folder: RunFolder,
    launcher: Launcher,
    retention: Retention,
    audit: AuditPlace | None,
) -> ControlPlane:
    """What the configuration says, on whichever ports."""
    webhook = WebhookSink(secrets, "universal-data-sync", now)
    return ControlPlane(
        store=store,
        queue=queue,
        folder=folder,
        launcher=launcher,
        sink=ChannelSink({"webhook": webhook, "apprise": AppriseSink(secrets)}),
        pipelines=catalog.pipelines,
        connections=catalog.connections,
        channels=catalog.channels,
        select=catalog.select,
        now=now,
        retention=retention,
        audit=audit,
    )


def _webhook_login(webhook: SecretReference | None, secrets: Secrets, anew: bool) -> tuple[str, str] | None:
    if webhook is None:
        return None
    read = secrets.renew if anew else secrets.get
    name, _, password = read(webhook).strip().partition(":")
    return name, password


@cache
def _open_azure() -> Service:
    return build_azure(read_azure_settings(os.environ))


def azure_service() -> Service:
    """The one of this process, made by who asks first: a wrong setting is an error of a function, not of the host's start."""
    with _OPENING:
        return _open_azure()


def open_telemetry(sending: TelemetrySettings) -> Telemetry:
    """What the settings ask for; its packages are imported when there is something to send, and not before."""
    if not sending.sends:
        return NoTelemetry()
    try:
        from sync_core.adapters.telemetry import open_telemetry as opened

        return opened(sending)
    except ImportError as error:
        raise _not_installed("Telemetry is", error) from error


def _observed(
    plane: ControlPlane, telemetry: Telemetry, sending: TelemetrySettings, secrets: Secrets, workspace: str = ""
) -> ControlPlane:
    if not sending.lineage:
        return observe(plane, telemetry, sending.environment)
    try:
        from sync_core.adapters.lineage import EventBuilder, LineageClient
    except ImportError as error:
        raise _not_installed("Lineage is", error) from error
    secret = sending.lineage_secret
    api_key = (lambda: secrets.get(secret)) if secret else None
    client = LineageClient(sending.lineage, EventBuilder(sending.environment, workspace), now, api_key)
    return observe(plane, telemetry, sending.environment, client)


def _not_installed(what: str, error: ImportError) -> ConfigError:
    return ConfigError(
        "telemetry.package",
        f"{what} asked for, but the package {error.name} is not installed.",
        "Install universal-data-sync[telemetry], or take the setting away.",
    )
