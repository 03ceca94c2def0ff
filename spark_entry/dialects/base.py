"""The SQL texts that differ from database to database. No Spark, no connection."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

from spark_entry.dialects.carrier import MICROSECOND, Carrier, NativeType
from sync_core.domain.watermark import CursorType, Watermark

FaultKind = Literal[
    "unreachable",
    "sign_in",
    "missing",
    "denied",
    "full",
    "busy",
    "duplicate",
    "exists",
    "certificate",
    "snapshot",
    "value",
    "other",
]
"""What a database fault means to the run. `busy` passes by itself; `exists` is a table or column that is to be created;
`value` is a value that does not fit its column."""

_BROKEN = re.compile(
    r"\breset\b|timed out|terminated the handshake|did not return a response|(?:connection|socket|channel)[^.]{0,20} closed"
    r"|broken pipe",
    re.IGNORECASE,
)
"""A secure connection breaks like any other: that says nothing of certificates."""

STANDARD_STATES: dict[str, FaultKind] = {
    "23505": "duplicate",
    "42S02": "missing",
    "42S22": "missing",
    "42S04": "missing",
    "42S01": "exists",
    "42S21": "exists",
    "42P01": "missing",
    "42501": "denied",
    "HYT00": "busy",
    "90067": "unreachable",  # H2, which stands in for the others in tests and in the demo
    "90079": "missing",
    "90096": "denied",
}
STANDARD_CLASSES: dict[str, FaultKind] = {
    "08": "unreachable",
    "28": "sign_in",
    "40": "busy",
    "22": "value",
    "23": "value",
    "53": "full",
}


class Dialect(ABC):
    """SQL text of one kind of database. Identifiers are always quoted, values always escaped (P18)."""

    name: ClassVar[str]
    dual: ClassVar[str] = ""
    """What a SELECT without table needs after its list."""

    sized: ClassVar[frozenset[str]] = frozenset()
    """Types that are declared with a precision or length."""
    fractional: ClassVar[frozenset[str]] = frozenset()
    """Types that are declared with a number of decimals of a second."""

    unordered: ClassVar[tuple[str, ...]] = ()
    """Types of bytes that cannot be compared."""

    def native(self, name: str, precision: int, scale: int) -> NativeType:
        """The type from the driver's description, which gives every type some precision and scale."""
        if name in self.fractional:
            return NativeType(name, scale)
        # The longest lengths stand for "no limit".
        sized = name in self.sized and 0 < precision < 1_000_000
        return NativeType(name, precision, scale) if sized else NativeType(name)

    def quote(self, name: str) -> str:
        """A name as one identifier, whatever it holds."""
        return '"' + name.replace('"', '""') + '"'

    def table(self, schema: str, name: str) -> str:
        return f"{self.quote(schema)}.{self.quote(name)}"

    def text(self, value: str) -> str:
        """A string literal."""
        return "'" + value.replace("'", "''") + "'"

    @abstractmethod
    def carrier(self, native: NativeType) -> Carrier:
        """How values of this type travel."""

    @abstractmethod
    def cursor_types(self, native: NativeType) -> tuple[CursorType, ...]:
        """The cursor types a column of this type can serve; () for none."""

    @abstractmethod
    def literal(self, value: Watermark, native: NativeType) -> str:
        """The value as a literal of the column's own type, at full precision, whatever the session's settings (P8, P9)."""

    @abstractmethod
    def cursor_text(self, expression: str, kind: CursorType, native: NativeType) -> str:
        """SQL for the canonical text of a cursor value, at full precision."""

    @abstractmethod
    def clock(self, kind: CursorType, native: NativeType, offset: int | None) -> str:
        """The source's clock, comparable with the column; `offset` minutes east of UTC for values without zone, None: its own."""

    @abstractmethod
    def minus_seconds(self, moment: str, seconds: float) -> str:
        """A moment some seconds earlier."""

    @abstractmethod
    def clock_text(self) -> str:
        """SQL for the clock in UTC as ISO 8601 text."""

    @abstractmethod
    def own_zone(self) -> str:
        """SQL for the zone of values without zone: its name, or its offset from UTC in minutes, as text."""

    def probe(
        self,
        relation: str,
        column: str,
        kind: CursorType,
        native: NativeType,
        settle: float,
        offset: int | None,
        *,
        nullable: bool,
    ) -> str:
        """One statement: safe, highest, nulls, future, clock, own zone (R11a)."""
        name = self.quote(column)
        now = self.clock(kind, native, offset)
        bound = self.minus_seconds(now, settle)
        if kind is CursorType.DATE:
            now, bound = self.as_date(now), self.as_date(bound)
        known = self.known(name, native)
        highest = self.cursor_text(f"MAX({name})", kind, native)
        top = f"SELECT {highest} FROM {relation} WHERE {known}"
        beyond = f"{name} > {now}" if kind.is_temporal else self.beyond(name, native)
        parts = [
            f"({top} AND {name} <= {bound})" if kind.is_temporal else "NULL",
            f"({top})",
            f"(SELECT COUNT(*) FROM {relation} WHERE {name} IS NULL)" if nullable else "0",
            f"(SELECT COUNT(*) FROM {relation} WHERE {beyond})" if beyond else "0",
            self.clock_text(),
            self.own_zone(),
        ]
        return "SELECT " + ", ".join(f"{part} AS p{index}" for index, part in enumerate(parts)) + self.dual

    def as_date(self, moment: str) -> str:
        return f"CAST({moment} AS DATE)"

    def known(self, column: str, native: NativeType) -> str:
        """The condition under which a cursor value is one that the engine can hold."""
        return f"{column} IS NOT NULL"

    def beyond(self, column: str, native: NativeType) -> str | None:
        """The condition under which a number lies above all that the engine can hold; None when none does."""
        return None

    def between(
        self, column: str, native: NativeType, low: Watermark | None, high: Watermark | None, with_nulls: bool
    ) -> str | None:
        """low <= column <= high, both inclusive; NULLs pass only when asked for. None: every row."""
        name = self.quote(column)
        if low is None and high is None:
            return None if with_nulls else f"{name} IS NOT NULL"
        ends = [f"{name} >= {self.literal(low, native)}"] if low is not None else []
        ends += [f"{name} <= {self.literal(high, native)}"] if high is not None else []
        inside = " AND ".join(ends)
        return f"({inside} OR {name} IS NULL)" if with_nulls else inside

    # ---- as a target

    short_text: ClassVar[str] = "varchar(200)"
    long_text: ClassVar[str]
    big_integer: ClassVar[str] = "bigint"
    session_setup: ClassVar[tuple[str, ...]] = ()
    """What a connection that writes runs first, so that nothing waits for a lock for ever."""

    def wire_out(self, spark_type: str, native: NativeType) -> str:
        """Spark SQL that turns a value `{}` into what the driver writes exactly into a column of this type."""
        return "{}"

    def kept(self, native: NativeType) -> str:
        """Spark SQL for the text or bytes that a column of this type gives back for `{}`, its padding left out."""
        return "{}"

    def character_sets(self, schema: str, name: str) -> str | None:
        """SELECT of a table's columns and the character set of each; None where the database refuses what is outside."""
        return None

    def unfit(self, native: NativeType) -> str | None:
        """A pattern of the texts of moments that a column of this type would round; None when it holds every one."""
        decimals = native.precision if native.name in self.fractional else MICROSECOND
        return f"[.][0-9]{{{decimals + 1}}}" if decimals < MICROSECOND else None

    @abstractmethod
    def column_type(self, spark_type: str, origin: NativeType, *, key: bool) -> str:
        """The native type for a carried type that is `origin` where it comes from. ValueError when there is none."""

    lock_fence: ClassVar[str] = ""
    """What makes a SELECT of the fence lock it with a time limit, where the session cannot set one."""
    fence_seconds: ClassVar[int] = 0
    """How long a first load may wait for another one's fence, where the session cannot set it; 0: as the session says."""

    def fold(self, name: str) -> str:
        """What the database makes of a bare name of a new table."""
        return name

    def create_staging(self, staging: str, target: str, columns: Sequence[tuple[str, str, NativeType]]) -> str:
        """An empty table with the target's types; `columns` are (target name, staging name, target type)."""
        selected = ", ".join(f"{self.quote(name)} AS {self.quote(staged)}" for name, staged, _ in columns)
        return f"CREATE TABLE {staging} AS SELECT {selected} FROM {target} WHERE 1 = 0"

    def after_staging(self, staging: str) -> tuple[str, ...]:
        """Statements once staging is loaded."""
        return ()

    def insert(self, target: str, columns: Sequence[str]) -> str:
        """The beginning of an INSERT ... SELECT."""
        return f"INSERT INTO {target} ({self.names(columns)})"

    @abstractmethod
    def differs(self, pairs: Sequence[tuple[str, str, NativeType]]) -> str:
        """The condition under which any pair of values differs, NULL being a value, byte by byte."""

    def update(
        self,
        target: str,
        staging: str,
        values: Sequence[tuple[str, str]],
        keys: Sequence[tuple[str, str]],
        condition: str,
    ) -> str:
        """Update target t from staging s where keys agree and the condition holds; pairs are quoted (target, staging)."""
        wanted = ", ".join(f"s.{staged}" for _, staged in [*keys, *values])
        same = " AND ".join(f"t.{name} = s.{staged}" for name, staged in keys)
        match = " AND ".join(f"t.{name} = q.{staged}" for name, staged in keys)
        changes = ", ".join(f"t.{name} = q.{staged}" for name, staged in values)
        return (
            f"MERGE INTO {target} t USING (SELECT {wanted} FROM {staging} s INNER JOIN {target} t ON {same} "
            f"WHERE {condition}) q ON ({match}) WHEN MATCHED THEN UPDATE SET {changes}"
        )

    def add_column(self, table: str, column: str, native: str) -> str:
        return f"ALTER TABLE {table} ADD {self.quote(column)} {native}"

    @abstractmethod
    def widen_column(self, table: str, column: str, native: str, *, nullable: bool) -> str:
        """Give a column a wider type."""

    @abstractmethod
    def object_id(self, schema: str, name: str) -> str:
        """A query for what stays the same as long as the table is the same object."""

    def standard_fault(self, state: str) -> FaultKind:
        """What the standard says about a state."""
        return STANDARD_STATES.get(state) or STANDARD_CLASSES.get(state[:2]) or "other"

    def is_certificate_fault(self, message: str) -> bool:
        """Whether no secure connection can be agreed upon, rather than that one broke."""
        named = "PKIX" in message or "certificate" in message.lower() or "SSL" in message
        return named and not _BROKEN.search(message)

    @abstractmethod
    def fault(self, state: str, vendor_code: int, message: str) -> FaultKind:
        """What a driver's error means."""

    def names(self, columns: Sequence[str], alias: str = "") -> str:
        prefix = f"{alias}." if alias else ""
        return ", ".join(prefix + self.quote(column) for column in columns)
