"""What the models say about a node, as faults with a place."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from sync_core.catalog.document import Node, Written, plain, shown_key, walk
from sync_core.catalog.faults import Fault, nearest
from sync_core.catalog.model import ConnectionEntry, PipelineEntry, Section
from sync_core.catalog.secrets import is_secret_key
from sync_core.catalog.values import kind_of

LATER = ("deletes",)
_OTHER_NAMES = {
    "user": "username",
    "url": "options.url",
    "driver": "options.driver",
    "id": "pipeline_id",
    "name": "pipeline_id",
    "key": "merge_keys",
    "keys": "merge_keys",
    "primary_key": "merge_keys",
    "watermark": "cursor",
    "transforms": "transformations",
    "sql": "query",
    "encrypt": "tls",
    "timezone": "schedule.timezone, or cursor.timezone",
    "cron": "schedule.cron",
    "every": "schedule.every",
    "interval": "schedule.every",
    "after": "schedule.after",
    "depends_on": "schedule.after",
    "on_demand": "schedule.on_demand",
    "catch_up": "schedule.catch_up",
    "attempts": "retry.attempts",
    "retries": "retry.attempts",
    "stale_after": "alerts.stale_after",
    "max_duration": "alerts.max_duration",
    "repeat_every": "alerts.repeat_every",
    "notify": "channels",
    "address": "url",
    "partitions": "read.partitions",
    "fetch_size": "read.fetch_size",
}
STORE_IT = "store it in a secret scope, and name it with secret_scope and secret_key"


def validate[ModelT: Section](
    model: type[ModelT], node: Node, faults: list[Fault], partly: bool = False, missing_at: Node | None = None
) -> ModelT | None:
    """The model of a node, or None and its faults. `partly`: keys may be missing (defaults).

    `missing_at` is where a missing key of the node itself is reported.
    """
    faults.extend(empty_faults(node))
    try:
        return model.model_validate(plain(node))
    except ValidationError as failure:
        for error in failure.errors(include_url=False):
            given = error["input"]
            if isinstance(given, Written) and given.broken:
                continue
            here = find(node, error["loc"])
            if error["type"] == "union_tag_not_found" and not isinstance(here.value, Mapping):
                faults.extend(here.kind_faults("a mapping", "write - {type: …} and its keys"))
                continue
            if error["type"] in ("missing", "union_tag_not_found"):
                key = str(error["loc"][-1]) if error["type"] == "missing" else "type"
                loc = error["loc"][:-1] if error["type"] == "missing" else error["loc"]
                if not partly:
                    place = find(node, loc) if loc else (missing_at or node)
                    faults.append(place.fault("is missing", _example(model, error["loc"], key), key=key))
                continue
            faults.append(_fault(model, node, error))
    return None


def empty_faults(node: Node) -> list[Fault]:
    """A fault for every key without a value."""
    remedy = "write a value, or leave the key out"
    return [part.fault("has no value", remedy) for part in walk(node) if part.value is None]


def find(node: Node, loc: tuple[int | str, ...]) -> Node:
    """The node at a location; parts that name a variant of a union are passed over."""
    for part in loc:
        if isinstance(part, int):
            node = node.items[part] if part < len(node.items) else node
        else:
            node = node.mapping.get(part, node)
    return node


def _fault(model: type[BaseModel], node: Node, error: Any) -> Fault:
    place = find(node, error["loc"])
    kind: str = error["type"]
    if kind == "fault":
        return place.fault(error["ctx"]["message"], error["ctx"]["remedy"])
    if kind == "extra_forbidden":
        return unknown_key(place, str(error["loc"][-1]), model_at(model, error["loc"][:-1]))
    if kind == "union_tag_invalid":
        known = [word.strip("' ") for word in error["ctx"]["expected_tags"].split(",")]
        named = place.get("type") or place
        close = nearest(named.text or "", known)
        shown = named.value.shown if isinstance(named.value, Written) else named.kind
        return named.fault(f"{shown} is no transformation", f"write {close or ' or '.join(known)}")
    found = kind_of(error["input"])
    if kind == "list_type":
        steps = error["loc"][-1] == "transformations"
        remedy = "begin each entry with - {type: …}" if steps else "write a list: [NAME, …]"
        return place.fault(f"must be a list, not {found}", remedy)
    if kind in ("dict_type", "model_type", "model_attributes_type"):
        return place.fault(f"must be a mapping, not {found}", "write key: value beneath it")
    return place.fault("has a value of the wrong kind", "see docs/configuration.md")


def unknown_key(place: Node, key: str, model: type[BaseModel] | None) -> Fault:
    """The fault of a key that means nothing where it stands."""
    head = shown_key(key)
    if is_secret_key(head.rstrip("…")):
        return place.fault("a secret is never written in the configuration", STORE_IT)
    if model is not None and issubclass(model, PipelineEntry) and key in LATER:
        return place.fault(f"{key} is not available in this version", "remove it")
    known = [info.alias or name for name, info in model.model_fields.items()] if model else []
    other = _OTHER_NAMES.get(key.lower())
    if other and (other.split(".")[0] not in known or (key == "timezone" and model is ConnectionEntry)):
        other = None
    close = other or nearest(head, known)
    return place.fault("is not known here", f"write {close}" if close else f"known are {', '.join(known)}")


def model_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> type[BaseModel] | None:
    """The model that describes a location."""
    here: Any = model
    for part in loc:
        if isinstance(here, type) and issubclass(here, BaseModel):
            fields = here.model_fields
            info = fields.get(str(part)) or next((field for field in fields.values() if field.alias == part), None)
            here = _strip(info.annotation) if info else here
            continue
        arguments = typing.get_args(here)
        if typing.get_origin(here) in (typing.Union, types.UnionType):
            here = next(
                (option for option in arguments if option.model_fields["type"].annotation == typing.Literal[part]),
                None,
            )
        elif arguments:
            here = _strip(arguments[-1])
    return here if isinstance(here, type) and issubclass(here, BaseModel) else None


def _strip(annotation: Any) -> Any:
    """An annotation without `| None` and without metadata."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _strip(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        options = [option for option in typing.get_args(annotation) if option is not type(None)]
        return _strip(options[0]) if len(options) == 1 else annotation
    return annotation


def _example(model: type[BaseModel], loc: tuple[int | str, ...], key: str) -> str:
    owner = model_at(model, loc[:-1])
    if key == "type" and owner is None:
        return "write type: filter, select, rename, cast, derive or drop"
    info = owner.model_fields.get(key) if owner else None
    if info is None or not info.examples or isinstance(info.examples[0], list | dict):
        return f"write {key}: …"
    return f"write one, such as {key}: {info.examples[0]}"
