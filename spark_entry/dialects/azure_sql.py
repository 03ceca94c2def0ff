"""Transact-SQL text. Upper-case standard names (TIMESTAMP, NUMERIC) are what H2 says when it stands in; the server's are lower."""

from __future__ import annotations

import re
from collections.abc import Sequence

from spark_entry.dialects.base import Dialect, FaultKind
from spark_entry.dialects.carrier import Carrier, NativeType, as_text, decimal_type, exact_number, moment, refuse
from sync_core.domain.watermark import CursorType, Watermark

_STRINGS = ("varchar", "nvarchar", "char", "nchar", "text", "ntext", "uniqueidentifier", "sysname")
_H2_STRINGS = ("CHARACTER VARYING", "CHARACTER", "CHARACTER LARGE OBJECT", "UUID")
_BINARIES = ("varbinary", "binary", "image", "BINARY VARYING", "BINARY", "BINARY LARGE OBJECT")
_ROWVERSIONS = ("timestamp", "rowversion")
_PLAIN = {
    **dict.fromkeys((*_STRINGS, *_H2_STRINGS), "string"),
    **dict.fromkeys((*_BINARIES, *_ROWVERSIONS), "binary"),
    **dict.fromkeys(("tinyint", "TINYINT", "smallint", "SMALLINT"), "smallint"),
    **dict.fromkeys(("int", "INTEGER"), "int"),
    **dict.fromkeys(("bigint", "BIGINT"), "bigint"),
    **dict.fromkeys(("bit", "BOOLEAN"), "boolean"),
    **dict.fromkeys(("real", "REAL"), "float"),
    **dict.fromkeys(("float", "DOUBLE PRECISION"), "double"),
    "money": "decimal(19,4)",
    "smallmoney": "decimal(10,4)",
}
_DECIMALS = ("decimal", "numeric", "DECIMAL", "NUMERIC", "DECFLOAT")
_WHOLE = ("tinyint", "TINYINT", "smallint", "SMALLINT", "int", "INTEGER", "bigint", "BIGINT")
_LOCAL = ("datetime", "smalldatetime", "datetime2", "TIMESTAMP")
_ZONED = ("datetimeoffset", "TIMESTAMP WITH TIME ZONE")
_DATES = ("date", "DATE")
_REFUSED = {
    "sql_variant": "every value has a type of its own",
    "geometry": "it is a shape",
    "geography": "it is a shape",
    "hierarchyid": "it is a path in the server's own form",
}
_COLUMN_TYPES = {
    "boolean": "bit",
    "tinyint": "smallint",
    "smallint": "smallint",
    "int": "int",
    "bigint": "bigint",
    "float": "real",
    "double": "float",
    "date": "date",
    "timestamp_ntz": "datetime2(7)",
    "timestamp": "datetimeoffset(7)",
}
_CODES: dict[FaultKind, tuple[int, ...]] = {
    "unreachable": (
        *(64, 233, 926, 4221, 18401, 10053, 10054, 10060, 10928, 10929, 10936),
        *(615, 921, 922, 927, 976, 983, 988, 3906, 6005, 17187, 17197),
        *(40143, 40197, 40501, 40540, 40613, 42108, 42109, 49918, 49919, 49920),
    ),
    "sign_in": (4060, 18452, 18456, 18470, 18487, 18488, 40532),
    "missing": (207, 208, 2812, 3701, 4902),
    "denied": (229, 230, 262, 297, 300, 916, 2760, 15247),
    "full": (1101, 1105, 9002, 40544),
    "busy": (
        *(601, 701, 802, 1204, 1205, 1222, 3960, 3961, 8645, 8651, 10922, 40549, 40550, 40551, 40553),
        *(41301, 41302, 41305, 41325, 41839),
    ),
    "duplicate": (2601, 2627),
    "exists": (2705, 2714),
    "value": (220, 241, 242, 245, 515, 544, 547, 2628, 8115, 8134, 8152),
}
_KINDS: dict[int, FaultKind] = {code: kind for kind, codes in _CODES.items() for code in codes}


class AzureSqlDialect(Dialect):
    """Azure SQL and SQL Server."""

    name = "Azure SQL"
    sized = frozenset({*_DECIMALS, *_STRINGS, *_BINARIES, "CHARACTER VARYING", "CHARACTER"}) - {
        "text",
        "ntext",
        "image",
    }
    fractional = frozenset({"datetime2", "datetimeoffset", "time", "TIMESTAMP", "TIME", *_ZONED})
    short_text = "varchar(200)"
    long_text = "nvarchar(max)"
    session_setup = ("SET LOCK_TIMEOUT 60000",)

    def native(self, name: str, precision: int, scale: int) -> NativeType:
        return super().native(name.removesuffix(" identity").removesuffix("() identity"), precision, scale)

    def carrier(self, native: NativeType) -> Carrier:
        name = native.name
        if name in _PLAIN:
            return Carrier(_PLAIN[name])
        if name in _DECIMALS:
            kind = decimal_type(native.precision, native.scale)
            return Carrier(kind) if kind else exact_number("CAST({} AS varchar(60))")
        if name in _LOCAL:
            return moment("timestamp_ntz", f"CAST({self._to_datetime2(native)} AS varchar(40))", native.precision)
        if name in _ZONED:
            return moment("timestamp", f"CAST({self._in_utc('{}')} AS varchar(40))", native.precision)
        if name in _DATES:
            return as_text("date", "CAST({} AS varchar(40))")
        if name.lower() == "time":
            return Carrier("string", "CAST({} AS varchar(40))")
        if name in ("xml", "json"):
            return Carrier("string", "CAST({} AS nvarchar(max))")
        return refuse(_REFUSED.get(name, "its type has no plain value"), "CAST({} AS nvarchar(4000))")

    def _to_datetime2(self, native: NativeType) -> str:
        # Text of a datetime2 is ISO whatever the language; text of the old types is not. Milliseconds name a tick exactly.
        return "CAST({} AS datetime2(3))" if native.name in ("datetime", "smalldatetime") else "{}"

    def _in_utc(self, expression: str) -> str:
        return f"CAST({expression} AT TIME ZONE 'UTC' AS datetime2(7))"

    def cursor_types(self, native: NativeType) -> tuple[CursorType, ...]:
        name = native.name
        if name in _ROWVERSIONS or (name in ("binary", "BINARY") and native.precision == 8):
            return (CursorType.ROWVERSION,)
        if name in _DATES:
            return (CursorType.DATE,)
        if name in _ZONED:
            return (CursorType.TIMESTAMP_TZ,)
        if name in _LOCAL:
            return (CursorType.TIMESTAMP,)
        return (CursorType.NUMBER,) if name in (*_WHOLE, *_DECIMALS, "money", "smallmoney") else ()

    def literal(self, value: Watermark, native: NativeType) -> str:
        if value.type is CursorType.NUMBER:
            return value.value
        if value.type is CursorType.ROWVERSION:
            return value.value
        if value.type is CursorType.DATE:
            return f"CONVERT(date, '{value.value}')"
        whole, _, digits = value.value.removesuffix("Z").partition(".")
        if native.name == "smalldatetime":
            return f"CONVERT(smalldatetime, '{whole[:16]}:00')"
        if native.name == "datetime":
            return f"CONVERT(datetime, '{whole}.{digits[:3]:0<3}')"
        exact = f"{whole}.{digits[:7]:0<7}"
        if value.type is CursorType.TIMESTAMP_TZ:
            return f"CONVERT(datetimeoffset(7), '{exact}+00:00')"
        return f"CONVERT(datetime2(7), '{exact}')"

    def cursor_text(self, expression: str, kind: CursorType, native: NativeType) -> str:
        if kind is CursorType.ROWVERSION:
            return f"CAST(CAST({expression} AS bigint) AS varchar(40))"
        if kind is CursorType.TIMESTAMP_TZ:
            return f"CAST({self._in_utc(expression)} AS varchar(40)) + 'Z'"
        if kind is CursorType.TIMESTAMP:
            return f"CAST({self._to_datetime2(native).replace('{}', expression)} AS varchar(40))"
        return f"CAST({expression} AS varchar(60))"

    def clock(self, kind: CursorType, native: NativeType, offset: int | None) -> str:
        if kind is CursorType.TIMESTAMP_TZ:
            return "CAST(SYSUTCDATETIME() AS datetimeoffset(7))"
        return "SYSDATETIME()" if offset is None else f"DATEADD(minute, {offset}, SYSUTCDATETIME())"

    def minus_seconds(self, moment: str, seconds: float) -> str:
        whole, rest = divmod(round(seconds * 1000), 1000)
        return f"DATEADD(millisecond, {-rest}, DATEADD(second, {-whole}, {moment}))"

    def clock_text(self) -> str:
        return "CAST(CAST(SYSUTCDATETIME() AS datetime2(7)) AS varchar(40)) + 'Z'"

    def own_zone(self) -> str:
        return "CAST(DATEDIFF(minute, SYSUTCDATETIME(), SYSDATETIME()) AS varchar(10))"

    def safe_rowversion(self) -> str:
        """The greatest rowversion below every transaction that is still open (R11c)."""
        return "CAST(CAST(MIN_ACTIVE_ROWVERSION() AS bigint) - 1 AS varchar(40))"

    def column_type(self, spark_type: str, origin: NativeType, *, key: bool) -> str:
        if spark_type in _COLUMN_TYPES:
            return _COLUMN_TYPES[spark_type]
        if match := re.fullmatch(r"decimal\((\d+),(\d+)\)", spark_type):
            return f"decimal({match[1]},{match[2]})"
        if spark_type == "string" or "char(" in spark_type:
            # Others count characters, this one counts halves of UTF-16: some characters have two.
            units = origin.precision * (1 if origin.name in ("nvarchar", "nchar", "sysname") else 2)
            if "char" in origin.name.lower() and 0 < units <= (450 if key else 4000):
                return f"nvarchar({units})"
            return "nvarchar(450)" if key else "nvarchar(max)"
        if spark_type == "binary":
            return "varbinary(900)" if key else "varbinary(max)"
        raise ValueError(spark_type)

    def kept(self, native: NativeType) -> str:
        return "rtrim({})" if native.name in ("char", "nchar", "CHARACTER") else "{}"

    def character_sets(self, schema: str, name: str) -> str | None:
        # nvarchar and the like have a collation too, but hold all of Unicode.
        return (
            "SELECT c.name, COLLATIONPROPERTY(c.collation_name, 'CodePage') FROM sys.columns c "
            f"WHERE c.object_id = OBJECT_ID({self.text(self.table(schema, name))}) AND c.collation_name IS NOT NULL "
            "AND TYPE_NAME(c.system_type_id) IN ('char', 'varchar', 'text')"
        )

    def unfit(self, native: NativeType) -> str | None:
        if native.name == "smalldatetime":
            return ":(?!00$)[^:]*$"
        # Its ticks end in 0, 3 and 7 milliseconds.
        return "[.][0-9]{4}|[.][0-9]{2}[124-689]" if native.name == "datetime" else super().unfit(native)

    def wire_out(self, spark_type: str, native: NativeType) -> str:
        # ISO 8601 text with T reads the same in every language; the driver's timestamps follow another calendar before 1582.
        if native.name == "smalldatetime":
            return "date_format({}, \"yyyy-MM-dd'T'HH:mm:ss\")"
        if native.name == "datetime":
            return "date_format({}, \"yyyy-MM-dd'T'HH:mm:ss.SSS\")"
        if spark_type == "timestamp":
            return "concat(replace(cast({} AS string), ' ', 'T'), '+00:00')"
        if spark_type == "timestamp_ntz":
            return "replace(cast({} AS string), ' ', 'T')"
        return "cast({} AS string)" if spark_type == "date" else "{}"

    def create_staging(self, staging: str, target: str, columns: Sequence[tuple[str, str, NativeType]]) -> str:
        # Not SELECT INTO, which would take over the identity property.
        declared = ", ".join(f"{self.quote(staged)} {self._declare(native)} NULL" for _, staged, native in columns)
        return f"CREATE TABLE {staging} ({declared})"

    def _declare(self, native: NativeType) -> str:
        if native.name in _ROWVERSIONS:
            return "binary(8)"
        if native.name in ("varchar", "nvarchar", "varbinary") and not native.precision:
            return f"{native.name}(max)"
        if native.name == "TIMESTAMP WITH TIME ZONE":
            return f"datetimeoffset({native.precision})"
        return str(native)

    def differs(self, pairs: Sequence[tuple[str, str, NativeType]]) -> str:
        # As bytes, for a collation may hold 'a' equal to 'A', and EXCEPT is the comparison that knows NULL.
        there = ", ".join(self._comparable(name, native) for name, _, native in pairs)
        here = ", ".join(self._comparable(name, native) for _, name, native in pairs)
        return f"EXISTS (SELECT {there} EXCEPT SELECT {here})"

    def _comparable(self, expression: str, native: NativeType) -> str:
        if native.name in ("text", "ntext", "xml", "json"):
            return f"CAST(CAST({expression} AS nvarchar(max)) AS varbinary(max))"
        text = native.name in (*_STRINGS, *_H2_STRINGS, "image") and native.name != "uniqueidentifier"
        return f"CAST({expression} AS varbinary(max))" if text else expression

    def update(
        self,
        target: str,
        staging: str,
        values: Sequence[tuple[str, str]],
        keys: Sequence[tuple[str, str]],
        condition: str,
    ) -> str:
        return f"{super().update(target, staging, values, keys, condition)};"

    def widen_column(self, table: str, column: str, native: str, *, nullable: bool) -> str:
        return f"ALTER TABLE {table} ALTER COLUMN {self.quote(column)} {native} {'NULL' if nullable else 'NOT NULL'}"

    def object_id(self, schema: str, name: str) -> str:
        return f"SELECT OBJECT_ID({self.text(self.table(schema, name))})"

    def fault(self, state: str, vendor_code: int, message: str) -> FaultKind:
        if vendor_code not in _KINDS and self.is_certificate_fault(message):
            return "certificate"
        return _KINDS.get(vendor_code) or self.standard_fault(state)
