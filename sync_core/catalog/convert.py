"""What is written, validated, to the domain's words."""

from __future__ import annotations

from sync_core.catalog.control_model import AlertsEntry, ChannelEntry, RetryEntry, ScheduleEntry
from sync_core.catalog.model import (
    CastEntry,
    ConnectionEntry,
    CursorEntry,
    DeriveEntry,
    DropEntry,
    FilterEntry,
    PipelineEntry,
    RenameEntry,
    SelectEntry,
    TransformationEntry,
)
from sync_core.catalog.target_checks import resolve_folder
from sync_core.catalog.values import parse_duration
from sync_core.domain.alert import AlertRules
from sync_core.domain.connection import Channel, Connection, SecretReference
from sync_core.domain.pipeline import (
    Cast,
    Cursor,
    Derive,
    Drop,
    Filter,
    Pipeline,
    ReadOptions,
    Rename,
    Select,
    Source,
    Target,
    Transformation,
)
from sync_core.domain.schedule import After, Cron, Every, OnDemand, Retry, Schedule
from sync_core.domain.watermark import CursorType, Watermark


def to_connection(name: str, entry: ConnectionEntry) -> Connection:
    """The domain's connection; a relative folder becomes absolute."""
    return Connection(
        name=name,
        type=entry.type,
        host=entry.host,
        port=entry.port,
        database=entry.database,
        service_name=entry.service_name,
        sid=entry.sid,
        username=entry.username,
        auth=entry.auth,
        secret=_to_secret(entry),
        tenant_id=entry.tenant_id,
        client_id=entry.client_id,
        service_credential=entry.service_credential,
        tls=entry.tls,
        trust_server_certificate=entry.trust_server_certificate,
        catalog=entry.catalog,
        schema=entry.schema_,
        path=resolve_folder(entry.path) if entry.path else None,
        timezone=entry.timezone,
        driver_package=entry.driver_package,
        max_concurrent=entry.max_concurrent,
        options=entry.options,
    )


def to_channel(name: str, entry: ChannelEntry) -> Channel:
    """The domain's channel."""
    conditions = tuple(condition.value for condition in entry.conditions or ())
    return Channel(name, entry.type, entry.url, _to_secret(entry), conditions)


def _to_secret(entry: ConnectionEntry | ChannelEntry) -> SecretReference | None:
    if entry.secret_scope and entry.secret_key:
        return SecretReference(entry.secret_scope, entry.secret_key)
    return None


def to_pipeline(entry: PipelineEntry) -> Pipeline:
    """The domain's pipeline."""
    partitions = entry.read.partitions
    return Pipeline(
        pipeline_id=entry.pipeline_id,
        source=Source(entry.source.connection, entry.source.table, entry.source.query),
        target=Target(entry.target.connection, entry.target.table),
        mode=entry.mode,
        cursor=_to_cursor(entry.cursor) if entry.cursor else None,
        merge_keys=tuple(entry.merge_keys or ()),
        null_keys=entry.null_keys,
        schema_changes=entry.schema_changes,
        lossy=entry.lossy,
        types=entry.types or {},
        read=ReadOptions(None if partitions == "auto" else int(partitions), entry.read.fetch_size),
        transformations=tuple(_to_transformation(step) for step in entry.transformations),
        tags=tuple(entry.tags or ()),
        schedule=_to_schedule(entry.schedule),
        paused=entry.paused,
        compute=entry.compute,
        retry=_to_retry(entry.retry),
        timeout_seconds=_seconds(entry.timeout),
        alerts=_to_alerts(entry.alerts),
        owner=entry.owner,
        channels=tuple(entry.channels or ()),
    )


def _to_schedule(entry: ScheduleEntry | None) -> Schedule:
    catch_up = (entry and entry.catch_up) or "latest"
    if entry and entry.cron:
        return Cron(entry.cron, entry.timezone or "UTC", catch_up)
    if entry and entry.every:
        return Every(parse_duration(entry.every) or 0.0, catch_up)
    if entry and entry.after:
        return After(tuple(entry.after))
    return OnDemand()


def _to_retry(entry: RetryEntry) -> Retry:
    delay = parse_duration(entry.delay) or 0.0
    longest = _seconds(entry.max_delay)
    return Retry(entry.attempts, delay, max(Retry().max_delay_seconds, delay) if longest is None else longest)


def _to_alerts(entry: AlertsEntry) -> AlertRules:
    return AlertRules(
        failed=entry.failed,
        stale_after=_seconds(entry.stale_after),
        max_duration=_seconds(entry.max_duration),
        zero_rows=entry.zero_rows,
        schema_changes=entry.schema_changes,
        repeat_every=parse_duration(entry.repeat_every) or 0.0,
    )


def _seconds(text: str | None) -> float | None:
    return parse_duration(text) if text else None


def _to_cursor(entry: CursorEntry) -> Cursor:
    kind = entry.type
    lookback = 0.0
    if entry.lookback and kind.is_temporal:
        lookback = parse_duration(entry.lookback) or 0.0
    elif entry.lookback and kind is CursorType.NUMBER and entry.lookback.replace(".", "", 1).isdigit():
        lookback = float(entry.lookback)
    return Cursor(
        column=entry.column or "",
        type=kind,
        initial=Watermark.parse(kind, entry.initial).value if entry.initial else None,
        settle_seconds=parse_duration(entry.settle) or 0.0,
        lookback=lookback,
        nulls=entry.nulls,
        timezone=entry.timezone if kind in (CursorType.DATE, CursorType.TIMESTAMP) else None,
    )


def _to_transformation(entry: TransformationEntry) -> Transformation:
    match entry:
        case FilterEntry():
            return Filter(entry.condition)
        case SelectEntry():
            return Select(tuple(entry.columns))
        case RenameEntry():
            return Rename(entry.mapping)
        case CastEntry():
            return Cast(entry.columns)
        case DeriveEntry():
            return Derive(entry.column, entry.expression)
        case DropEntry():
            return Drop(tuple(entry.columns))
