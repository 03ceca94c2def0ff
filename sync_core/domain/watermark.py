"""Cursor values: text at full precision, with the type that gives the text its order.

| type | text | example |
|---|---|---|
| date | ISO 8601 date | `2024-01-31` |
| timestamp | ISO 8601 without zone, up to 9 decimals | `2024-01-31T23:59:59.1234567` |
| timestamp_tz | the instant in UTC, up to 9 decimals | `2024-01-31T22:59:59.123456789Z` |
| number | decimal digits, any precision up to 38 | `-12.50` is `-12.5` |
| rowversion | 8 bytes as hexadecimal | `0x00000000000007D1` |
| version | a Delta table's version | `42` |
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Context, Decimal, InvalidOperation
from enum import StrEnum

_NANOS = 1_000_000_000
_WIDE = Context(prec=80)
_LAST_MICROSECOND = ((datetime.max - datetime.min).days * 86_400 + 86_399) * _NANOS + 999_999_000
_TIMESTAMP = re.compile(
    r"(?P<date>\d{4}-\d{2}-\d{2})(?:[T ](?P<time>\d{2}:\d{2}(?::\d{2})?)(?:\.(?P<fraction>\d{1,9}))?)?"
    r"\s*(?P<zone>Z|[+-]\d{2}:?\d{2})?"
)


class CursorType(StrEnum):
    """The type of a cursor column; it decides literals, order and safe bound."""

    DATE = "date"
    TIMESTAMP = "timestamp"
    TIMESTAMP_TZ = "timestamp_tz"
    NUMBER = "number"
    ROWVERSION = "rowversion"
    VERSION = "version"

    @property
    def is_temporal(self) -> bool:
        """Whether values are dates or times, whose safe bound comes from the source's clock (R11a)."""
        return self in (CursorType.DATE, CursorType.TIMESTAMP, CursorType.TIMESTAMP_TZ)


@dataclass(frozen=True)
class Watermark:
    """A cursor value: no row at or below it is missing in the target. `value` is canonical text."""

    type: CursorType
    value: str

    @staticmethod
    def parse(kind: CursorType, text: str) -> Watermark:
        """Read a value as a person or a driver writes it. Raises ValueError that says what is expected."""
        return Watermark(kind, _PARSERS[kind](text.strip()))

    @property
    def order(self) -> int | Decimal:
        """A number that sorts as the database sorts the values: days, nanoseconds, or the number itself."""
        return _order(self.type, self.value)

    def __lt__(self, other: Watermark) -> bool:
        self._same_type(other)
        return self.order < other.order

    def __le__(self, other: Watermark) -> bool:
        self._same_type(other)
        return self.order <= other.order

    def back(self, distance: float) -> Watermark:
        """The value `distance` earlier: seconds for dates and times (dates by whole days, rounded up), else a number.

        Never before the type's first value. Rowversions and versions have no look-back.
        """
        if distance <= 0 or self.type in (CursorType.ROWVERSION, CursorType.VERSION):
            return self
        if self.type is CursorType.NUMBER:
            return Watermark(self.type, _number(str(_WIDE.subtract(Decimal(self.value), Decimal(str(distance))))))
        if self.type is CursorType.DATE:
            days = -int(-distance // 86_400)
            ordinal = max(1, date.fromisoformat(self.value).toordinal() - days)
            return Watermark(self.type, date.fromordinal(ordinal).isoformat())
        nanos = max(0, int(self.order) - round(distance * _NANOS))
        return Watermark(self.type, _from_nanos(nanos) + ("Z" if self.type is CursorType.TIMESTAMP_TZ else ""))

    def to_microsecond(self, *, upwards: bool) -> Watermark:
        """The value without digits below a microsecond, rounded up or down; other types as they are."""
        if self.type not in (CursorType.TIMESTAMP, CursorType.TIMESTAMP_TZ):
            return self
        nanos = int(self.order)
        rounded = nanos - nanos % 1000
        if upwards and rounded < nanos and rounded < _LAST_MICROSECOND:
            rounded += 1000
        return Watermark(self.type, _from_nanos(rounded) + ("Z" if self.type is CursorType.TIMESTAMP_TZ else ""))

    def _same_type(self, other: Watermark) -> None:
        if self.type is not other.type:
            raise ValueError(f"a {self.type.value} cursor cannot be compared with a {other.type.value} cursor")


def latest(*values: Watermark | None) -> Watermark | None:
    """The greatest of the values that are there."""
    best: Watermark | None = None
    for value in values:
        if value is not None and (best is None or best < value):
            best = value
    return best


def _order(kind: CursorType, value: str) -> int | Decimal:
    if kind is CursorType.NUMBER:
        return Decimal(value)
    if kind is CursorType.ROWVERSION:
        return int(value, 16)
    if kind is CursorType.VERSION:
        return int(value)
    if kind is CursorType.DATE:
        return date.fromisoformat(value).toordinal()
    return _to_nanos(value.rstrip("Z"))


def _to_nanos(text: str) -> int:
    """Nanoseconds since 0001-01-01T00:00:00 of canonical text without zone."""
    whole, _, fraction = text.partition(".")
    delta = datetime.fromisoformat(whole) - datetime.min
    return (delta.days * 86_400 + delta.seconds) * _NANOS + int(fraction.ljust(9, "0") or "0")


def _from_nanos(nanos: int) -> str:
    seconds, fraction = divmod(nanos, _NANOS)
    moment = datetime.min + timedelta(days=seconds // 86_400, seconds=seconds % 86_400)
    digits = f"{fraction:09d}".rstrip("0")
    return moment.isoformat() + (f".{digits}" if digits else "")


def _date(text: str) -> str:
    match = _TIMESTAMP.fullmatch(text)
    try:
        if match and (match["time"] is None or set(match["time"] + (match["fraction"] or "")) <= set("0:")):
            return date.fromisoformat(match["date"]).isoformat()
    except ValueError:
        pass
    raise ValueError(f"{text!r} is not a date; write it as 2024-01-31")


def _timestamp(text: str) -> str:
    match = _TIMESTAMP.fullmatch(text)
    try:
        if match and match["zone"] is None:
            return _from_nanos(_match_nanos(match))
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"{text!r} is not a timestamp without zone; write it as 2024-01-31T23:59:59.123456")


def _timestamp_tz(text: str) -> str:
    match = _TIMESTAMP.fullmatch(text)
    try:
        if match:
            offset = timedelta()
            if match["zone"] not in (None, "Z"):
                moment = datetime.fromisoformat(f"2000-01-01T00:00:00{match['zone']}")
                offset = moment.replace(tzinfo=UTC) - moment.astimezone(UTC)
            nanos = _match_nanos(match) - int(offset.total_seconds()) * _NANOS
            return _from_nanos(nanos) + "Z"
    except (ValueError, OverflowError):
        pass
    raise ValueError(
        f"{text!r} is not a timestamp; write it as 2024-01-31T22:59:59.123456Z (UTC when no zone is given)"
    )


def _match_nanos(match: re.Match[str]) -> int:
    seconds = datetime.fromisoformat(f"{match['date']}T{match['time'] or '00:00:00'}")
    return _to_nanos(f"{seconds.isoformat()}.{match['fraction'] or '0'}")


def _number(text: str) -> str:
    try:
        value = Decimal(text)
        if value.is_finite() and len(value.as_tuple().digits) <= 76 and abs(value.adjusted()) <= 130:
            plain = f"{value:f}"
            plain = plain.rstrip("0").rstrip(".") if "." in plain else plain
            return "0" if plain in ("-0", "") else plain
    except InvalidOperation:
        pass
    raise ValueError(f"{text!r} is not a number; write it as 42 or -12.5")


def _rowversion(text: str) -> str:
    digits = text.removeprefix("0x").removeprefix("0X")
    if re.fullmatch(r"[0-9A-Fa-f]{1,16}", digits):
        return f"0x{int(digits, 16):016X}"
    raise ValueError(f"{text!r} is not a rowversion; write it as 0x00000000000007D1")


def _version(text: str) -> str:
    if re.fullmatch(r"\d{1,18}", text):
        return str(int(text))
    raise ValueError(f"{text!r} is not a table version; write it as 42")


_PARSERS = {
    CursorType.DATE: _date,
    CursorType.TIMESTAMP: _timestamp,
    CursorType.TIMESTAMP_TZ: _timestamp_tz,
    CursorType.NUMBER: _number,
    CursorType.ROWVERSION: _rowversion,
    CursorType.VERSION: _version,
}
