"""What is written, validated, to the domain's words."""

from __future__ import annotations

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
from sync_core.domain.connection import Connection, SecretReference
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
from sync_core.domain.watermark import CursorType, Watermark


def to_connection(name: str, entry: ConnectionEntry) -> Connection:
    """The domain's connection; a relative folder becomes absolute."""
    secret = None
    if entry.secret_scope and entry.secret_key:
        secret = SecretReference(entry.secret_scope, entry.secret_key)
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
        secret=secret,
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
        options=entry.options,
    )


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
    )


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
