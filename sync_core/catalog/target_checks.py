"""One target, one pipeline: targets are compared by address and table, whatever the names of their connections."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from sync_core.catalog.document import Node
from sync_core.catalog.faults import Fault
from sync_core.catalog.values import split_name

_PORTS = {"oracle": "1521", "azure_sql": "1433", "postgresql": "5432"}
_TEMPLATE = "write {table} or {schema}"
_SCHEMAS = {"azure_sql": "dbo", "postgresql": "public"}

Address = tuple[str, ...]


def check_targets(pipelines: Sequence[Node], connections: Mapping[str, Node]) -> list[Fault]:
    """Duplicate pipeline ids, two pipelines that write one table, and pipelines that read what they write."""
    faults: list[Fault] = []
    ids: dict[str, Node] = {}
    targets: dict[Address, Node] = {}
    for pipeline in pipelines:
        identity = pipeline.get("pipeline_id")
        if identity and identity.text:
            first = ids.setdefault(identity.text, identity)
            if first is not identity:
                where = f"{first.path.removesuffix('.pipeline_id')} ({_at(first)})"
                message = f"{identity.text} is the pipeline_id of {where} too"
                remedy = "give each pipeline its own"
                if _is_same_place(first, identity):
                    message, remedy = f"all tables: get the pipeline_id {identity.text}", f"{_TEMPLATE} in it"
                faults.append(identity.fault(message, remedy))
        target = pipeline.get("target")
        address = table_address(target, connections) if target else None
        if target is None or address is None:
            continue
        place = target.get("table") or target
        if address in targets:
            other = targets[address]
            name = other.text_of("pipeline_id") or other.path
            written = other.get("target", "table") or other
            message, remedy = (
                f"writes the same table as pipeline {name} ({_at(written)})",
                "give each pipeline its own target",
            )
            if _is_same_place(written, place):
                message, remedy = "all tables: write this one table", f"{_TEMPLATE} in it"
            faults.append(place.fault(message, remedy))
        targets.setdefault(address, pipeline)
        source = pipeline.get("source")
        if source and table_address(source, connections) == address:
            faults.append(place.fault("is the source table too", "write to another table"))
    return faults


def folder_faults(target: Node, connections: Mapping[str, Node]) -> list[Fault]:
    """Table names that would leave the folder of a Delta connection."""
    connection = connections.get(target.text_of("connection") or "")
    table = target.get("table")
    if connection is None or not connection.text_of("path") or not table or not table.text:
        return []
    if any(part in (".", "..") or re.search(r"[/\\]", part) for part in split_name(table.text)):
        return [table.fault("is not a table's name in a folder", "write name or folder.name, with a dot between")]
    return []


def table_address(section: Node, connections: Mapping[str, Node]) -> Address | None:
    """What tells one table from another; None when it cannot be known here."""
    connection = connections.get(section.text_of("connection") or "")
    table = section.text_of("table")
    if connection is None or not table:
        return None
    parts = [part.strip().casefold() for part in split_name(table)]
    kind = connection.text_of("type") or ""
    path = connection.text_of("path")
    if kind == "databricks" and path:
        try:
            return ("folder", "/".join([resolve_folder(path), *parts]).casefold())
        except ValueError:
            return None
    if kind == "databricks":
        above = [(connection.text_of(key) or "").casefold() for key in ("catalog", "schema")]
        return ("databricks", *[*above[: max(0, 3 - len(parts))], *parts])
    user = connection.text_of("username") if kind == "oracle" else None
    schema = (connection.text_of("schema") or user or _SCHEMAS.get(kind, "")).casefold()
    return (kind, *_server(kind, connection), *([schema] if len(parts) == 1 else []), *parts)


def resolve_folder(path: str) -> str:
    """An absolute folder; addresses such as abfss://… and dbfs:/… stay as they are.

    Raises ValueError when it cannot be a folder's name, or begins with `~` and a user whom this machine does not know.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", path):
        return path.rstrip("/")
    try:
        return str(Path(path).expanduser().resolve())
    except RuntimeError as error:
        raise ValueError(str(error)) from error


def _server(kind: str, connection: Node) -> Address:
    url = connection.text_of("options", "url")
    if url:
        return (re.split(r"[;?]", url, maxsplit=1)[0].casefold(),)
    host = (connection.text_of("host") or "").casefold().rstrip(".")
    host = "localhost" if host in ("127.0.0.1", "::1") else host
    port = connection.text_of("port") or _PORTS.get(kind, "")
    names = [connection.text_of(key) or "" for key in ("database", "service_name", "sid")]
    return (host, port, *[name.casefold() for name in names])


def _is_same_place(one: Node, other: Node) -> bool:
    """Whether both came of one text, by `tables:`."""
    return (one.file, one.line, one.path) == (other.file, other.line, other.path)


def _at(node: Node) -> str:
    return f"{node.file}:{node.line}"
