"""PostgreSQL in SQL text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from spark_entry.dialects.base import Dialect, FaultKind
from spark_entry.dialects.carrier import Carrier, NativeType, as_text, decimal_type, exact_number, refuse
from sync_core.domain.watermark import CursorType, Watermark

_INTEGERS = {
    "int2": "smallint",
    "smallserial": "smallint",
    "int4": "int",
    "serial": "int",
    "int8": "bigint",
    "bigserial": "bigint",
}
_NATIVE = {"float4": "float", "float8": "double", "bool": "boolean", "bytea": "binary"}
_TIMES = {"timestamp": "timestamp_ntz", "timestamptz": "timestamp", "date": "date"}
_CURSORS = {"timestamp": CursorType.TIMESTAMP, "timestamptz": CursorType.TIMESTAMP_TZ, "date": CursorType.DATE}
_LITERALS = {CursorType.DATE: "DATE", CursorType.TIMESTAMP: "TIMESTAMP", CursorType.TIMESTAMP_TZ: "TIMESTAMPTZ"}
_COLUMN_TYPES = {
    "boolean": "boolean",
    "tinyint": "smallint",
    "smallint": "smallint",
    "int": "integer",
    "bigint": "bigint",
    "float": "real",
    "double": "double precision",
    "string": "text",
    "binary": "bytea",
    "date": "date",
    "timestamp": "timestamptz",
    "timestamp_ntz": "timestamp",
}
_AS_TEXT = ("json", "xml", "citext", "point", "polygon", "box", "path", "line", "lseg", "circle")
_STATES: dict[str, FaultKind] = {
    # A primary that became a replica.
    "25006": "unreachable",
    "25P03": "unreachable",
    "3D000": "sign_in",
    "3F000": "missing",
    "42703": "missing",
    "42701": "exists",
    "42P07": "exists",
    "53200": "busy",
    "53300": "unreachable",
    "55P03": "busy",
    "55006": "busy",
    "57014": "busy",
    "57P01": "unreachable",
    "57P02": "unreachable",
    "57P03": "unreachable",
    "57P05": "unreachable",
    "72000": "snapshot",
}


class PostgresqlDialect(Dialect):
    """PostgreSQL."""

    name = "PostgreSQL"
    sized = frozenset({"numeric", "varchar", "bpchar", "bit", "varbit"})
    fractional = frozenset({"timestamp", "timestamptz"})

    def carrier(self, native: NativeType) -> Carrier:
        name = native.name
        if name in _INTEGERS:
            return Carrier(_INTEGERS[name])
        if name in _NATIVE:
            return Carrier(_NATIVE[name])
        if name in _TIMES:
            return as_text(_TIMES[name])
        if name == "numeric":
            return self._numeric(native)
        if name == "oid":
            return Carrier("bigint", "{}::bigint")
        if name == "money":
            return refuse("its text depends on the server's locale", "{}::numeric::text")
        if name.startswith("_") or name.endswith('"_"'):
            return refuse("it is an array", "{}::text")
        # Everything else has an exact text of its own, which PostgreSQL reads back: uuid, json, enums, inet, ranges ...
        plain = name in ("text", "varchar", "bpchar", "name", "uuid")
        return Carrier("string", "{}" if plain else "{}::text")

    def native(self, name: str, precision: int, scale: int) -> NativeType:
        # The driver reads a negative scale, which is 11 bits wide, as unsigned.
        return super().native(name, precision, scale - 2048 if scale > 1000 else scale)

    def _numeric(self, native: NativeType) -> Carrier:
        kind = decimal_type(native.precision, native.scale)
        return Carrier(kind) if kind else exact_number("{}::text")

    def cursor_types(self, native: NativeType) -> tuple[CursorType, ...]:
        if native.name in _INTEGERS or native.name == "numeric":
            return (CursorType.NUMBER,)
        return (_CURSORS[native.name],) if native.name in _CURSORS else ()

    def literal(self, value: Watermark, native: NativeType) -> str:
        if value.type is CursorType.NUMBER:
            return value.value
        if value.type is CursorType.ROWVERSION:
            return f"decode('{value.value[2:]}', 'hex')"
        text = value.value.removesuffix("Z")
        if value.type is not CursorType.DATE:
            whole, _, digits = text.partition(".")
            # Six digits are all the column can hold; PostgreSQL would round more than that, and so move the bound.
            text = f"{whole}.{digits[:6]}" if digits else whole
        return f"{_LITERALS[value.type]} '{text}{'+00' if value.type is CursorType.TIMESTAMP_TZ else ''}'"

    def cursor_text(self, expression: str, kind: CursorType, native: NativeType) -> str:
        if kind is CursorType.DATE:
            return f"to_char({expression}, 'YYYY-MM-DD')"
        if kind is CursorType.TIMESTAMP:
            return f"""to_char({expression}, 'YYYY-MM-DD"T"HH24:MI:SS.US')"""
        if kind is CursorType.TIMESTAMP_TZ:
            return f"""to_char({expression} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""
        return f"({expression})::text"

    def clock(self, kind: CursorType, native: NativeType, offset: int | None) -> str:
        if kind is CursorType.TIMESTAMP_TZ:
            return "statement_timestamp()"
        if offset is None:
            # TimeZone is the client's here, for the driver sets it; log_timezone keeps what the server was set up with.
            return "(statement_timestamp() AT TIME ZONE current_setting('log_timezone'))"
        return f"(statement_timestamp() AT TIME ZONE 'UTC' + interval '{offset} minutes')"

    def minus_seconds(self, moment: str, seconds: float) -> str:
        return f"({moment} - interval '{seconds:.6f} seconds')"

    def clock_text(self) -> str:
        return self.cursor_text("statement_timestamp()", CursorType.TIMESTAMP_TZ, NativeType("timestamptz"))

    def own_zone(self) -> str:
        return "current_setting('log_timezone')"

    def known(self, column: str, native: NativeType) -> str:
        # infinity has no place in a watermark; as a value in the future it waits, and is counted.
        if native.name == "date":
            return f"{column} BETWEEN DATE '0001-01-01' AND DATE '9999-12-31'"
        if native.name in ("timestamp", "timestamptz"):
            kind, zone = ("TIMESTAMPTZ", "+00") if native.name == "timestamptz" else ("TIMESTAMP", "")
            return f"{column} BETWEEN {kind} '0001-01-01 00:00:00{zone}' AND {kind} '9999-12-31 23:59:59.999999{zone}'"
        return f"{column} BETWEEN -1e76 AND 1e76" if native.name == "numeric" else f"{column} IS NOT NULL"

    def beyond(self, column: str, native: NativeType) -> str | None:
        return f"{column} > 1e76" if native.name == "numeric" else None

    long_text = "text"
    session_setup = ("SET lock_timeout = '60s'",)

    def wire_out(self, spark_type: str, native: NativeType) -> str:
        # The driver's own timestamps follow a calendar that lacks ten days of 1582; the server reads text as it is.
        if spark_type == "timestamp":
            return "concat(cast({} AS string), '+00')"
        return "cast({} AS string)" if spark_type in ("timestamp_ntz", "date") else "{}"

    def column_type(self, spark_type: str, origin: NativeType, *, key: bool) -> str:
        if spark_type in _COLUMN_TYPES:
            return _COLUMN_TYPES[spark_type]
        if match := re.fullmatch(r"decimal\((\d+),(\d+)\)", spark_type):
            return f"numeric({match[1]},{match[2]})"
        if re.match(r"(var)?char\(", spark_type):
            return "text"
        raise ValueError(spark_type)

    def kept(self, native: NativeType) -> str:
        return "rtrim({})" if native.name == "bpchar" else "{}"

    def fold(self, name: str) -> str:
        return name.lower()

    def create_staging(self, staging: str, target: str, columns: Sequence[tuple[str, str, NativeType]]) -> str:
        return super().create_staging(staging, target, columns).replace("CREATE TABLE", "CREATE UNLOGGED TABLE", 1)

    def after_staging(self, staging: str) -> tuple[str, ...]:
        return (f"ANALYZE {staging}",)

    def insert(self, target: str, columns: Sequence[str]) -> str:
        return f"{super().insert(target, columns)} OVERRIDING SYSTEM VALUE"

    def differs(self, pairs: Sequence[tuple[str, str, NativeType]]) -> str:
        # Types without an equality of their own, or with one that ignores case, are compared as text.
        tests = [
            f"{there}::text IS DISTINCT FROM {here}::text"
            if native.name in _AS_TEXT
            else f"{there} IS DISTINCT FROM {here}"
            for there, here, native in pairs
        ]
        return f"({' OR '.join(tests)})"

    def update(
        self,
        target: str,
        staging: str,
        values: Sequence[tuple[str, str]],
        keys: Sequence[tuple[str, str]],
        condition: str,
    ) -> str:
        changes = ", ".join(f"{name} = s.{staged}" for name, staged in values)
        same = " AND ".join(f"t.{name} = s.{staged}" for name, staged in keys)
        return f"UPDATE {target} AS t SET {changes} FROM {staging} AS s WHERE {same} AND {condition}"

    def widen_column(self, table: str, column: str, native: str, *, nullable: bool) -> str:
        return f"ALTER TABLE {table} ALTER COLUMN {self.quote(column)} TYPE {native}"

    def object_id(self, schema: str, name: str) -> str:
        return f"SELECT {self.text(self.table(schema, name))}::regclass::oid"

    def fault(self, state: str, vendor_code: int, message: str) -> FaultKind:
        if state.startswith("28") and "certificate" not in message.lower():
            # "no pg_hba.conf entry for ..., SSL encryption": the way is named, and is not at fault.
            return "sign_in"
        if self.is_certificate_fault(message):
            return "certificate"
        if "snapshot" in message and state in ("22023", "42704"):
            return "snapshot"
        return _STATES.get(state) or self.standard_fault(state)
