"""Dataclasses to JSON and back, by their type hints: the one place where a manifest or a result takes its shape."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum
from typing import Any


def to_json(value: Any) -> Any:
    """Turn dataclasses, enums, times, mappings and sequences into what `json.dumps` takes; times become UTC text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in typing.cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in typing.cast("list[Any]", value)]
    return value


def from_json[T](kind: type[T], data: Any) -> T:
    """Build `kind` from parsed JSON. Unknown keys are ignored, so that an older reader survives an added field.

    Raises ValueError that names the field when a value is missing or of the wrong shape.
    """
    return typing.cast("T", _decode(kind, data, kind.__name__))


def _decode(kind: Any, data: Any, where: str) -> Any:
    origin = typing.get_origin(kind)
    arguments = typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if data is None and type(None) in arguments:
            return None
        return _decode_union([option for option in arguments if option is not type(None)], data, where)
    if origin is tuple:
        return tuple(_decode(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(data))
    if origin is typing.Literal:
        if data not in arguments:
            raise ValueError(f"{where}: {data!r} is none of {', '.join(map(repr, arguments))}")
        return data
    if origin is not None and issubclass(origin, Mapping):
        return {key: _decode(arguments[1], item, f"{where}.{key}") for key, item in data.items()}
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(typing.cast("type[Any]", kind), data, where)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(data)
    if kind is datetime:
        return datetime.fromisoformat(data)
    if kind is float and isinstance(data, int):
        return float(data)
    if kind is Any or (isinstance(data, kind) and not (kind is int and isinstance(data, bool))):
        return data
    raise ValueError(f"{where}: expected {kind.__name__}, found {type(data).__name__}")


def _decode_union(options: list[Any], data: Any, where: str) -> Any:
    if len(options) == 1:
        return _decode(options[0], data, where)
    tagged = {_tag(option): option for option in options if dataclasses.is_dataclass(option)}
    if tagged and isinstance(data, Mapping):
        tag = typing.cast("Mapping[str, Any]", data).get("type")
        if tag not in tagged:
            raise ValueError(f"{where}: unknown type {tag!r}")
        return _decode(tagged[tag], data, where)
    for option in options:
        if isinstance(data, option):
            return data
    raise ValueError(f"{where}: unexpected {type(data).__name__}")


def _tag(kind: Any) -> Any:
    """The value of the `type` field that tells one dataclass of a union from another."""
    return next((field.default for field in dataclasses.fields(kind) if field.name == "type"), None)


@functools.cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    """Kept, for evaluating a class's annotations takes longer than building an instance."""
    return typing.get_type_hints(kind)


def _decode_dataclass(kind: type[Any], data: Any, where: str) -> Any:
    if not isinstance(data, Mapping):
        raise ValueError(f"{where}: expected an object, found {type(data).__name__}")
    hints = _hints(kind)
    given = typing.cast("Mapping[str, Any]", data)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        if field.name in given:
            values[field.name] = _decode(hints[field.name], given[field.name], f"{where}.{field.name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{where}.{field.name}: missing")
    return kind(**values)
