"""Rules within one pipeline: mode, source, cursor, keys."""

from __future__ import annotations

import re
from collections.abc import Mapping

from sync_core.catalog.document import Node, Written
from sync_core.catalog.faults import Fault, suggest
from sync_core.catalog.transformation_checks import check_repeatable, check_transformations
from sync_core.catalog.values import parse_duration
from sync_core.domain.pipeline import LoadMode
from sync_core.domain.watermark import CursorType, Watermark

_NUMBER = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,9})?")
_OWN_TYPES = {"rowversion": "azure_sql", "version": "databricks"}
_BUILT_IN = ("oracle", "azure_sql", "postgresql", "databricks")


def check_pipeline(node: Node, connections: Mapping[str, Node] | None) -> list[Fault]:
    """The faults of one pipeline that its model cannot see. `connections` is None when they could not be read."""
    faults = [*_mode_faults(node), *_source_faults(node)]
    for side in ("source", "target"):
        name = node.get(side, "connection")
        if connections is not None and name and name.text is not None and name.text not in connections:
            message = f"there is no connection {name.value.shown if isinstance(name.value, Written) else ''}"
            faults.append(name.fault(message, suggest(name.text, list(connections), "connection")))
    cursor = node.get("cursor")
    if cursor and cursor.mapping:
        source = (connections or {}).get(node.text_of("source", "connection") or "")
        faults.extend(_cursor_faults(cursor, node, source.text_of("type") if source else None))
    return [*faults, *check_transformations(node), *check_repeatable(node)]


def _mode_faults(node: Node) -> list[Fault]:
    mode = node.get("mode")
    if not mode:
        return []
    if mode.text == LoadMode.MERGE and not node.get("merge_keys"):
        return [node.fault("is missing: mode merge needs merge_keys", "write merge_keys: [COLUMN]", key="merge_keys")]
    if mode.text == LoadMode.INCREMENTAL and not node.get("cursor"):
        remedy = "write cursor: {column: …, type: …}"
        return [node.fault("is missing: mode incremental needs a cursor", remedy, key="cursor")]
    return []


def _source_faults(node: Node) -> list[Fault]:
    source = node.get("source")
    if source is None or not isinstance(source.value, Mapping):
        return []
    table, query = source.get("table"), source.get("query")
    if table and query:
        return [query.fault("stands beside table", "keep one of the two")]
    if not table and not query:
        return [source.fault("is missing", "write table: SCHEMA.TABLE, or query: SELECT …", key="table")]
    if query and query.text and query.text.rstrip().endswith(";"):
        return [query.fault("ends with ;", "remove the ; at its end")]
    return []


def _cursor_faults(cursor: Node, node: Node, source_type: str | None) -> list[Fault]:
    kind_text = cursor.text_of("type")
    if kind_text not in tuple(CursorType):
        return []
    kind = CursorType(kind_text)
    type_node = cursor.get("type") or cursor
    faults: list[Fault] = []
    own = _OWN_TYPES.get(kind.value)
    if own and source_type in _BUILT_IN and source_type != own:
        message = f"{kind.value} is for sources of type {own}, not {source_type}"
        faults.append(type_node.fault(message, "write date, timestamp, timestamp_tz or number"))
    faults.extend(_column_faults(cursor, node, kind))
    initial = cursor.get("initial")
    if initial and isinstance(initial.value, Written) and initial.text:
        try:
            Watermark.parse(kind, initial.text)
        except ValueError as error:
            what, _, remedy = str(error).replace(repr(initial.text), initial.value.shown).rpartition("; ")
            faults.append(initial.fault(what or remedy, remedy if what else ""))
    faults.extend(_lookback_faults(cursor, kind))
    meaningless: list[str] = []
    if kind in (CursorType.ROWVERSION, CursorType.VERSION):
        meaningless = ["settle", "lookback", "timezone"]
    elif kind not in (CursorType.DATE, CursorType.TIMESTAMP):
        meaningless = ["timezone"]
    if kind is CursorType.VERSION:
        meaningless.append("nulls")
    for key in meaningless:
        written = cursor.get(key)
        if written and not written.is_default:
            faults.append(written.fault(f"means nothing for a cursor of type {kind.value}", "remove it"))
    return faults


def _column_faults(cursor: Node, node: Node, kind: CursorType) -> list[Fault]:
    column = cursor.get("column")
    if kind is not CursorType.VERSION:
        return [] if column else [cursor.fault("is missing", "write column: UPDATED_AT, say", key="column")]
    faults = [column.fault("means nothing for a cursor of type version", "remove it")] if column else []
    query = node.get("source", "query")
    if query:
        faults.append(query.fault("has no versions: a version cursor needs a table", "write source.table"))
    return faults


def _lookback_faults(cursor: Node, kind: CursorType) -> list[Fault]:
    lookback = cursor.get("lookback")
    if not lookback or not isinstance(lookback.value, Written) or not lookback.text:
        return []
    shown = lookback.value.shown
    if kind.is_temporal and parse_duration(lookback.text) is None:
        return [lookback.fault(f"{shown} is not a duration", "write a number with its unit: 500ms, 30s, 10m, 2h or 1d")]
    if kind is CursorType.NUMBER and not _NUMBER.fullmatch(lookback.text) and not lookback.is_default:
        return [lookback.fault(f"{shown} is not a number", "write how far to look back, such as 1000")]
    return []
