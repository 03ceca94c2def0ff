"""Dataclasses to JSON and back, by their type hints: the one place where a manifest or a result takes its shape."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Mapping
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
    return typing.cast("T", _decoder(kind)(data, kind.__name__))


type _Decoder = Callable[[Any, str], Any]
"""Takes parsed JSON and where it stands, for the error that names it."""


@functools.cache
def _decoder(kind: Any) -> _Decoder:
    """Made once a type: to look at annotations takes longer than to read the data by them."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _union(arguments)
    if origin is tuple:
        return _tuple(_decoder(arguments[0]))
    if origin is typing.Literal:
        return _literal(arguments)
    if origin is not None and issubclass(origin, Mapping):
        return _mapping(_decoder(arguments[1]))
    if dataclasses.is_dataclass(kind):
        return _dataclass(typing.cast("type[Any]", kind))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return lambda data, _: kind(data)
    if kind is datetime:
        return lambda data, _: datetime.fromisoformat(data)
    return _plain(kind)


def _plain(kind: Any) -> _Decoder:
    def decode(data: Any, where: str) -> Any:
        if kind is float and isinstance(data, int):
            return float(data)
        if kind is Any or (isinstance(data, kind) and not (kind is int and isinstance(data, bool))):
            return data
        raise ValueError(f"{where}: expected {kind.__name__}, found {type(data).__name__}")

    return decode


def _tuple(decoder: _Decoder) -> _Decoder:
    return lambda data, where: tuple(decoder(item, f"{where}[{index}]") for index, item in enumerate(data))


def _mapping(decoder: _Decoder) -> _Decoder:
    return lambda data, where: {key: decoder(item, f"{where}.{key}") for key, item in data.items()}


def _literal(options: tuple[Any, ...]) -> _Decoder:
    def decode(data: Any, where: str) -> Any:
        if data not in options:
            raise ValueError(f"{where}: {data!r} is none of {', '.join(map(repr, options))}")
        return data

    return decode


def _union(arguments: tuple[Any, ...]) -> _Decoder:
    options = [option for option in arguments if option is not type(None)]
    some = _decoder(options[0]) if len(options) == 1 else _one_of(options)
    if len(options) == len(arguments):
        return some
    return lambda data, where: None if data is None else some(data, where)


def _one_of(options: list[Any]) -> _Decoder:
    """Of several dataclasses their `type` tells which, of plain types the value."""
    tagged = {_tag(option): _decoder(option) for option in options if dataclasses.is_dataclass(option)}

    def decode(data: Any, where: str) -> Any:
        if tagged and isinstance(data, Mapping):
            tag = typing.cast("Mapping[str, Any]", data).get("type")
            if tag not in tagged:
                raise ValueError(f"{where}: unknown type {tag!r}")
            return tagged[tag](data, where)
        for option in options:
            if isinstance(data, option):
                return data
        raise ValueError(f"{where}: unexpected {type(data).__name__}")

    return decode


def _tag(kind: Any) -> Any:
    """The value of the `type` field that tells one dataclass of a union from another."""
    return next((field.default for field in dataclasses.fields(kind) if field.name == "type"), None)


def _dataclass(kind: type[Any]) -> _Decoder:
    hints = typing.get_type_hints(kind)
    fields = [(field.name, _decoder(hints[field.name]), _is_required(field)) for field in dataclasses.fields(kind)]

    def decode(data: Any, where: str) -> Any:
        if not isinstance(data, Mapping):
            raise ValueError(f"{where}: expected an object, found {type(data).__name__}")
        given = typing.cast("Mapping[str, Any]", data)
        values: dict[str, Any] = {}
        for name, decoder, required in fields:
            if name in given:
                values[name] = decoder(given[name], f"{where}.{name}")
            elif required:
                raise ValueError(f"{where}.{name}: missing")
        return kind(**values)

    return decode


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
