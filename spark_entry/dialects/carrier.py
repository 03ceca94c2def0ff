"""How values travel from a database to Spark without loss: native types, and the way each is read."""

from __future__ import annotations

import re
from dataclasses import dataclass

MICROSECOND = 6
"""Decimals of a second that Spark holds."""

NUMBER_WIRE = "decimal(38,10)"
"""What a number without declared precision is carried as; a value that does not fit it exactly stops the run."""


@dataclass(frozen=True)
class NativeType:
    """A type as the driver names it, with its precision (or length) and scale."""

    name: str
    precision: int = 0
    scale: int = 0

    @staticmethod
    def parse(text: str) -> NativeType:
        """Read what `__str__` wrote."""
        match = re.fullmatch(r"(.*)\((\d+)(?:,(-?\d+))?\)", text)
        return NativeType(match[1], int(match[2]), int(match[3] or 0)) if match else NativeType(text)

    def __str__(self) -> str:
        if not self.precision:
            return self.name
        return f"{self.name}({self.precision},{self.scale})" if self.scale else f"{self.name}({self.precision})"


@dataclass(frozen=True)
class Carrier:
    """How the values of a native type travel to Spark.

    `select` is SQL that reads the column `{}`, `wire` the Spark type it arrives as, `decode` Spark SQL from there to
    `type`: NULL for a value that does not fit, which stops the run. `cuts_digits`: what arrives is the text of a moment
    that may have more than six decimals. `refused` says why values would not survive; `select` then reads them as text
    for an override.
    """

    type: str
    select: str = "{}"
    wire: str = ""
    decode: str = ""
    cuts_digits: bool = False
    refused: str | None = None

    @property
    def wire_type(self) -> str:
        return self.wire or self.type


def as_text(kind: str, select: str = "{}") -> Carrier:
    """Travel as text and be cast in Spark, which is exact where java.sql.Timestamp's calendar is not (before 1582-10-15)."""
    return Carrier(kind, select, "string", f"try_cast({{}} AS {kind})")


def moment(kind: str, select: str, decimals: int) -> Carrier:
    """A date with time as text `2024-01-31 23:59:59.123456789`, or with T; an instant is written in UTC."""
    text = "left({}, 26)" if decimals > MICROSECOND else "{}"
    text = f"concat({text}, 'Z')" if kind == "timestamp" else text
    return Carrier(kind, select, "string", f"try_cast({text} AS {kind})", cuts_digits=decimals > MICROSECOND)


LOST_NANOSECONDS = "coalesce(cast(rpad(substring({}, 27, 3), 3, '0') AS int), 0)"
"""Spark SQL for the digits below a microsecond, 0 to 999, of a moment's text."""


def exact_number(select: str) -> Carrier:
    """A number of any precision: as text, and NULL (which stops the run) where digits would be rounded away."""
    fits = "NOT {} RLIKE '[.][0-9]{10}[0-9]*[1-9]|[Ee]-'"
    return Carrier(NUMBER_WIRE, select, "string", f"CASE WHEN {fits} THEN try_cast({{}} AS {NUMBER_WIRE}) END")


def refuse(reason: str, select: str) -> Carrier:
    """Not carried unless `types:` says what the text may become."""
    return Carrier("string", select, refused=reason)


def decimal_type(precision: int, scale: int) -> str | None:
    """The Spark type of a declared NUMBER(p,s); None when it has more than 38 digits."""
    digits = precision - scale if scale < 0 else max(precision, scale)
    return f"decimal({digits},{max(scale, 0)})" if 0 < digits <= 38 else None
