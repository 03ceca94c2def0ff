"""How single values are written: names, whole numbers, durations, choices. Each says what to write instead."""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError
from pydantic_core.core_schema import no_info_before_validator_function

from sync_core.catalog.cron import cron_fault
from sync_core.catalog.document import Written
from sync_core.catalog.faults import nearest, suggest

VARIABLE = {"type": "string", "pattern": r"\$\{"}
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(r"(?P<number>[0-9]{1,9}(?:\.[0-9]{1,6})?)\s*(?P<unit>ms|s|m|h|d)")
_LONGEST = 36_525 * 86_400.0
SHORTEST = 60.0
"""Seconds of the shortest interval that schedules and alerts can have: the control plane looks once a minute."""
_SPARK_TYPES = (
    "string", "varchar", "char", "boolean", "tinyint", "byte", "smallint", "short", "int", "integer", "bigint", "long",
    "float", "real", "double", "decimal", "numeric", "dec", "date", "timestamp", "timestamp_ntz", "timestamp_ltz",
    "binary", "variant", "array", "map", "struct",
)  # fmt: skip


@dataclass(frozen=True)
class Check:
    """A parser for a value as it is written, and the JSON schema that editors check it by."""

    parse: Callable[[object], object]
    schema: dict[str, Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_before_validator_function(self.parse, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return dict(self.schema)


def refuse(message: str, remedy: str) -> PydanticCustomError:
    """The error by which a validator states a fault and its remedy."""
    return PydanticCustomError("fault", "{message}", {"message": message, "remedy": remedy})


def parse_duration(text: str) -> float | None:
    """Seconds of `500ms`, `30s`, `10m`, `2h` or `1d`; None when it is no duration."""
    match = _DURATION.fullmatch(text.strip())
    seconds = float(match["number"]) * _SECONDS[match["unit"]] if match else None
    return seconds if seconds is not None and seconds <= _LONGEST else None


@cache
def time_zones() -> frozenset[str]:
    """The IANA zones that this machine knows."""
    return frozenset(zoneinfo.available_timezones())


def _written(value: object) -> Written:
    if isinstance(value, Written):
        if not value.strip():
            raise refuse("is empty", "write a value, or leave the key out")
        return value
    raise refuse(f"must be text, not {kind_of(value)}", "write one value")


def kind_of(value: object) -> str:
    """What a value is, as a message says it."""
    return "a mapping" if isinstance(value, dict) else "a list" if isinstance(value, list) else "text"


def _text(value: object) -> str:
    written = _written(value)
    if written.kind == "bool":
        raise refuse(f"{written.shown} is a truth value here, not text", "put it in quotes")
    return str(written)


def _name(value: object) -> str:
    text = _text(value)
    if not text.isprintable() or text != text.strip():
        raise refuse("must be one line without spaces around it", "write the name alone")
    return text


def _free(value: object) -> str:
    return str(_written(value)) if not isinstance(value, Written) or value else ""


def _truth(value: object) -> bool:
    written = _written(value)
    if written.lower() not in ("true", "false"):
        raise refuse(f"{written.shown} is neither true nor false", "write true or false")
    return written.lower() == "true"


def _duration(value: object) -> str:
    written = _written(value)
    if parse_duration(written) is None:
        raise refuse(f"{written.shown} is not a duration", "write a number with its unit: 500ms, 30s, 10m, 2h or 1d")
    return str(written)


def _interval(value: object) -> str:
    written = _duration(value)
    if (parse_duration(written) or 0.0) < SHORTEST:
        raise refuse(f"{_written(value).shown} is shorter than 1m", "write 1m or more")
    return written


def _cron(value: object) -> str:
    written = _written(value)
    fault = cron_fault(written)
    if fault:
        raise refuse(f"{written.shown} {fault[0]}", fault[1])
    return " ".join(written.split())


def is_pattern(name: str) -> bool:
    """Whether a name is written to find several pipelines: a tag, a glob or a template."""
    return name.startswith("tag:") or re.search(r"[*?\[\]{}]", name) is not None


def _one_name(value: object) -> str:
    name = _name(value)
    if is_pattern(name):
        raise refuse("is a pattern, and only single pipelines can be named here", "write each pipeline_id by itself")
    return name


def _zone(value: object) -> str:
    written = _written(value)
    if written not in time_zones():
        close = nearest(written, sorted(time_zones()))
        raise refuse(f"{written.shown} is not an IANA time zone", f"write {close or 'one like Europe/Oslo or UTC'}")
    return str(written)


def _spark_type(value: object) -> str:
    written = _written(value)
    base = re.split(r"[(<\s]", written.strip().lower(), maxsplit=1)[0]
    if base not in _SPARK_TYPES:
        raise refuse(f"{written.shown} is not a Spark SQL type", suggest(base, _SPARK_TYPES, "type"))
    if base in ("decimal", "dec", "numeric"):
        size = re.fullmatch(r"\w+(?:\(\s*(\d{1,4})\s*(?:,\s*(\d{1,4})\s*)?\))?", written.strip())
        if not size or not 1 <= int(size[1] or 10) <= 38 or int(size[2] or 0) > int(size[1] or 10):
            raise refuse(
                f"{written.shown} is not a decimal type that Spark has",
                "write decimal(38,10), with at most 38 digits",
            )
    return str(written).strip()


def whole(least: int, most: int) -> Check:
    """A whole number in plain digits."""

    def parse(value: object) -> int:
        written = _written(value)
        if not re.fullmatch(r"0|[1-9][0-9]{0,17}", written) or not least <= int(written) <= most:
            message = f"{written.shown} is not a whole number from {least} to {most}"
            raise refuse(message, "write it in plain digits, such as " + str(max(least, min(most, 1000))))
        return int(written)

    number = {"type": "integer", "minimum": least, "maximum": most}
    return Check(parse, {"anyOf": [number, {"type": "string", "pattern": r"^[0-9]+$|\$\{"}]})


def one_of(choices: type[StrEnum] | tuple[str, ...]) -> Check:
    """One of a few words."""
    words = choices if isinstance(choices, tuple) else tuple(choice.value for choice in choices)

    def parse(value: object) -> str:
        written = _written(value)
        if written not in words:
            raise refuse(f"{written.shown} is not known here", f"write {_either(words, written)}")
        return str(written) if isinstance(choices, tuple) else choices(written)

    return Check(parse, {"anyOf": [{"enum": list(words)}, VARIABLE]})


def _either(words: tuple[str, ...], written: str) -> str:
    close = nearest(written, words)
    rest = [word for word in words if word != close]
    return f"{close} (or {', '.join(rest)})" if close and rest else " or ".join(words)


def matching(pattern: str, what: str, example: str) -> Check:
    """Text of a pattern."""

    def parse(value: object) -> str:
        written = _written(value)
        if not re.fullmatch(pattern, written):
            raise refuse(f"{written.shown} is not {what}", f"write one like {example}")
        return str(written)

    return Check(parse, {"anyOf": [{"type": "string", "pattern": f"^(?:{pattern})$"}, VARIABLE]})


def _partitions(value: object) -> str:
    written = _written(value)
    if written != "auto" and not re.fullmatch(r"[1-9][0-9]{0,3}", written):
        raise refuse(f"{written.shown} is neither auto nor a number from 1 to 9999", "write auto")
    return str(written)


def _table(value: object) -> str:
    name = _name(value)
    if any(not part.strip() for part in split_name(name)):
        raise refuse("is not a table's name: a part between the dots is empty", "write TABLE or SCHEMA.TABLE")
    return name


def split_name(name: str) -> list[str]:
    """The parts of a dotted name; quoted parts (`"a.b"`, `[a.b]`, `` `a.b` ``) stay whole and lose their quotes."""
    parts = re.findall(r'"(?:[^"]|"")*"|\[[^\]]*\]|`[^`]*`|\.|[^."\[`]+|.', name)
    names = [""]
    for part in parts:
        if part == ".":
            names.append("")
        else:
            names[-1] += part[1:-1] if len(part) > 2 and part[0] + part[-1] in ('""', "[]", "``") else part
    return names


Text = Annotated[str, Check(_text, {"type": "string", "minLength": 1})]
Name = Annotated[str, Check(_name, {"type": "string", "minLength": 1})]
Table = Annotated[str, Check(_table, {"type": "string", "minLength": 1})]
Free = Annotated[str, Check(_free, {"type": ["string", "number", "boolean"]})]
Scalar = Annotated[str, Check(_text, {"type": ["string", "number"]})]
Truth = Annotated[bool, Check(_truth, {"anyOf": [{"type": "boolean"}, VARIABLE]})]
Duration = Annotated[str, Check(_duration, {"type": "string"})]
Interval = Annotated[str, Check(_interval, {"type": "string"})]
CronExpression = Annotated[str, Check(_cron, {"type": "string"})]
OneName = Annotated[str, Check(_one_name, {"type": "string", "minLength": 1})]
Address = Annotated[str, Check(_name, {"type": "string", "pattern": r"^https?://|\$\{"})]
TimeZone = Annotated[str, Check(_zone, {"type": "string"})]
SparkType = Annotated[str, Check(_spark_type, {"type": "string"})]
Partitions = Annotated[str, Check(_partitions, {"type": ["string", "integer"]})]
