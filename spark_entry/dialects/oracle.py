"""Oracle in SQL text. Upper-case standard names (NUMERIC, CHARACTER VARYING) are what H2 says when it stands in."""

from __future__ import annotations

import re
from collections.abc import Sequence

from spark_entry.dialects.base import Dialect, FaultKind
from spark_entry.dialects.carrier import Carrier, NativeType, decimal_type, exact_number, moment, refuse
from sync_core.domain.watermark import CursorType, Watermark

_CHARACTERS = ("VARCHAR2", "NVARCHAR2", "CHAR", "NCHAR")
_PLAIN = {
    **dict.fromkeys((*_CHARACTERS, "CLOB", "NCLOB"), "string"),
    **dict.fromkeys(("CHARACTER VARYING", "CHARACTER", "CHARACTER LARGE OBJECT"), "string"),
    **dict.fromkeys(("BLOB", "RAW", "BINARY LARGE OBJECT", "BINARY VARYING", "BINARY"), "binary"),
    **dict.fromkeys(("BINARY_FLOAT", "REAL"), "float"),
    **dict.fromkeys(("BINARY_DOUBLE", "DOUBLE PRECISION"), "double"),
    "BOOLEAN": "boolean",
    "SMALLINT": "smallint",
    "INTEGER": "int",
    "BIGINT": "bigint",
}
_DECIMALS = ("NUMBER", "NUMERIC", "DECIMAL", "DECFLOAT")
_NUMBERS = (*_DECIMALS, "SMALLINT", "INTEGER", "BIGINT")
_ZONED = ("TIMESTAMP WITH TIME ZONE", "TIMESTAMP WITH LOCAL TIME ZONE")
_LARGE = ("CLOB", "NCLOB", "BLOB", "CHARACTER LARGE OBJECT", "BINARY LARGE OBJECT")
_LARGE_ORIGINS = (*_LARGE, "text", "ntext", "json", "jsonb", "xml", "nvarchar", "varchar")
_WHOLE = {"boolean": 1, "tinyint": 3, "smallint": 5, "int": 10, "bigint": 19}
_COLUMN_TYPES = {
    "float": "BINARY_FLOAT",
    "double": "BINARY_DOUBLE",
    "date": "DATE",
    "timestamp_ntz": "TIMESTAMP(6)",
    "timestamp": "TIMESTAMP(6) WITH TIME ZONE",
}
_SECOND = 'YYYY-MM-DD"T"HH24:MI:SS'
# Without it the decimal sign of TO_CHAR is the session's (P9).
_POINT = "'TM9', 'NLS_NUMERIC_CHARACTERS=''.,'''"
_REFUSED = {
    "ROWID": "it names a place, not a value",
    "UROWID": "it names a place, not a value",
    "BFILE": "the file lies outside of the database",
    "LONG": "Oracle reads LONG columns only outside of subqueries",
    "LONG RAW": "Oracle reads LONG columns only outside of subqueries",
}
_CODES: dict[FaultKind, tuple[int, ...]] = {
    "unreachable": (
        *(18, 20, 28, 1012, 1014, 1033, 1034, 1089, 1090, 1092, 1109, 1219, 2391, 2396, 2399, 3113, 3114, 3135, 3136),
        *(12505, 12514, 12516, 12518, 12519, 12520, 12521, 12525, 12526, 12527, 12528, 12535, 12537, 12541, 12543),
        *(12170, 12545, 12547, 12560, 12570, 12571, 12608, 12609, 17002, 17008, 17410, 17800, 17868, 25408),
    ),
    "sign_in": (1017, 1005, 1045, 28000, 28001),
    "missing": (942, 904, 4043, 17056),
    "denied": (1031, 1950, 41900),
    "full": (1536, 1652, 1653, 1654, 1688, 1691, 1692, 30036, 257),
    "busy": (51, 54, 60, 1013, 4020, 4021, 4030, 4031, 4036, 8177, 12805, 30006),
    "duplicate": (1,),
    "exists": (955, 1430),
    "snapshot": (1555, 8103, 8180, 1466),
    "value": (1400, 1438, 1476, 1722, 1830, 1847, 1858, 1861, 2290, 2291, 2292, 6502, 12899),
    "certificate": (28860, 29024, 29003),
}
_KINDS: dict[int, FaultKind] = {code: kind for kind, codes in _CODES.items() for code in codes}


class OracleDialect(Dialect):
    """Oracle."""

    name = "Oracle"
    dual = " FROM DUAL"
    sized = frozenset({"RAW", "CHARACTER VARYING", "CHARACTER", "BINARY VARYING", *_DECIMALS, *_CHARACTERS}) - {
        "DECFLOAT"
    }
    fractional = frozenset({"TIMESTAMP", *_ZONED})
    unordered = ("BLOB",)
    short_text = "VARCHAR2(200)"
    long_text = "CLOB"
    big_integer = "NUMBER(19)"
    lock_fence = "FOR UPDATE WAIT 60"
    fence_seconds = 60

    def native(self, name: str, precision: int, scale: int) -> NativeType:
        # The driver says NUMBER(126,-127) for a FLOAT and NUMBER(0,-127) for a NUMBER without precision.
        return NativeType(name) if name == "NUMBER" and scale == -127 else super().native(name, precision, scale)

    def carrier(self, native: NativeType) -> Carrier:
        name = native.name
        if name in _PLAIN:
            return Carrier(_PLAIN[name])
        if name in _DECIMALS:
            kind = decimal_type(native.precision, native.scale)
            return Carrier(kind) if kind else exact_number(f"TO_CHAR({{}}, {_POINT})")
        if name == "DATE":
            return moment("timestamp_ntz", self._anno_domini(f"TO_CHAR({{}}, '{_SECOND}')"), 0)
        if name == "TIMESTAMP":
            return moment("timestamp_ntz", self._anno_domini(f"TO_CHAR({{}}, '{_SECOND}.FF9')"), native.precision)
        if name in _ZONED:
            text = f"TO_CHAR({{}} AT TIME ZONE 'UTC', '{_SECOND}.FF9')"
            return moment("timestamp", self._anno_domini(text), native.precision)
        if name.startswith("INTERVAL"):
            return Carrier("string", "TO_CHAR({})")
        if name == "JSON":
            return Carrier("string", "JSON_SERIALIZE({} RETURNING CLOB)")
        if name.endswith("XMLTYPE"):
            return refuse("it is XML, whose text may be written in many ways", "XMLSERIALIZE(CONTENT {} AS CLOB)")
        return refuse(_REFUSED.get(name, "its type has no plain value"), "CAST({} AS VARCHAR2(4000))")

    def _anno_domini(self, text: str) -> str:
        # The format YYYY has no sign: a year before Christ would come out as one after.
        return f"CASE WHEN {{}} >= DATE '0001-01-01' THEN {text} WHEN {{}} IS NOT NULL THEN 'before the year 1' END"

    def cursor_types(self, native: NativeType) -> tuple[CursorType, ...]:
        if native.name in _NUMBERS:
            return (CursorType.NUMBER,)
        if native.name in _ZONED:
            return (CursorType.TIMESTAMP_TZ,)
        return (CursorType.TIMESTAMP,) if native.name in ("DATE", "TIMESTAMP") else ()

    def literal(self, value: Watermark, native: NativeType) -> str:
        if value.type is CursorType.NUMBER:
            return value.value
        if value.type is CursorType.ROWVERSION:
            return f"HEXTORAW('{value.value[2:]}')"
        whole, _, digits = value.value.removesuffix("Z").partition(".")
        whole = whole if "T" in whole else f"{whole}T00:00:00"
        if native.name == "DATE":
            return f"TO_DATE('{whole}', '{_SECOND}')"
        # More digits than the column has would be compared, not cut: they do no harm, and no bound moves.
        exact = f"{whole}.{digits:0<9}"
        if native.name in _ZONED:
            return f"TO_TIMESTAMP_TZ('{exact} +00:00', '{_SECOND}.FF9 TZH:TZM')"
        return f"TO_TIMESTAMP('{exact}', '{_SECOND}.FF9')"

    def cursor_text(self, expression: str, kind: CursorType, native: NativeType) -> str:
        if kind is CursorType.NUMBER:
            return f"TO_CHAR({expression}, {_POINT})"
        if native.name == "DATE":
            return f"TO_CHAR({expression}, '{_SECOND}')"
        if kind is CursorType.TIMESTAMP_TZ:
            return f"""TO_CHAR({expression} AT TIME ZONE 'UTC', '{_SECOND}.FF9"Z"')"""
        return f"TO_CHAR({expression}, '{_SECOND}.FF9')"

    def clock(self, kind: CursorType, native: NativeType, offset: int | None) -> str:
        if kind is CursorType.TIMESTAMP_TZ:
            return "SYSTIMESTAMP"
        if offset is None:
            now = "CAST(SYSTIMESTAMP AS TIMESTAMP)"
        else:
            now = self.minus_seconds("CAST(SYSTIMESTAMP AT TIME ZONE 'UTC' AS TIMESTAMP)", -60 * offset)
        # A bound of the column's own type, or an index on a DATE is not used.
        return f"CAST({now} AS DATE)" if native.name == "DATE" else now

    def minus_seconds(self, moment: str, seconds: float) -> str:
        size = abs(seconds)
        days, rest = divmod(size, 86_400)
        text = f"{int(days)} {int(rest // 3600):02}:{int(rest % 3600 // 60):02}:{rest % 60:09.6f}"
        return f"({moment} {'-' if seconds >= 0 else '+'} INTERVAL '{text}' DAY(9) TO SECOND(6))"

    def clock_text(self) -> str:
        return self.cursor_text("SYSTIMESTAMP", CursorType.TIMESTAMP_TZ, NativeType(_ZONED[0]))

    def own_zone(self) -> str:
        return "TO_CHAR(EXTRACT(TIMEZONE_HOUR FROM SYSTIMESTAMP) * 60 + EXTRACT(TIMEZONE_MINUTE FROM SYSTIMESTAMP))"

    def known(self, column: str, native: NativeType) -> str:
        dated = native.name in ("DATE", "TIMESTAMP", *_ZONED)
        return f"{column} >= DATE '0001-01-01'" if dated else f"{column} IS NOT NULL"

    def fold(self, name: str) -> str:
        return name.upper()

    def kept(self, native: NativeType) -> str:
        # Empty is NULL; only blanks in a column that is padded with them is not.
        if native.name in ("CHAR", "NCHAR", "CHARACTER"):
            return "CASE WHEN {} <> '' THEN coalesce(nullif(rtrim({}), ''), ' ') END"
        if _PLAIN.get(native.name) == "string":
            return "nullif({}, '')"
        return "CASE WHEN octet_length({}) > 0 THEN {} END" if native.name == "RAW" else "{}"

    def unfit(self, native: NativeType) -> str | None:
        return "[.]" if native.name == "DATE" else super().unfit(native)

    def column_type(self, spark_type: str, origin: NativeType, *, key: bool) -> str:
        if spark_type in _WHOLE:
            return f"NUMBER({_WHOLE[spark_type]})"
        if match := re.fullmatch(r"decimal\((\d+),(\d+)\)", spark_type):
            return f"NUMBER({match[1]},{match[2]})"
        if spark_type == "string" or "char(" in spark_type:
            return self._text_type(origin, key=key)
        if spark_type == "binary":
            return self._bytes_type(origin, key=key)
        if spark_type in _COLUMN_TYPES:
            return _COLUMN_TYPES[spark_type]
        raise ValueError(spark_type)

    def _text_type(self, origin: NativeType, *, key: bool) -> str:
        if 0 < origin.precision <= 1000 and "char" in origin.name.lower():
            return f"VARCHAR2({origin.precision} CHAR)"
        if key:
            return "VARCHAR2(400 CHAR)"
        return "CLOB" if origin.name in _LARGE_ORIGINS else "VARCHAR2(4000)"

    def _bytes_type(self, origin: NativeType, *, key: bool) -> str:
        # A short one is a RAW, which has an order: a rowversion is compared as a cursor.
        if origin.name in ("rowversion", "timestamp"):
            return "RAW(8)"
        if 0 < origin.precision <= 2000:
            return f"RAW({origin.precision})"
        return "RAW(1000)" if key else "BLOB"

    def character_sets(self, schema: str, name: str) -> str | None:
        return (
            'SELECT c.COLUMN_NAME, p."VALUE" FROM ALL_TAB_COLUMNS c, NLS_DATABASE_PARAMETERS p '
            f"WHERE c.OWNER = {self.text(schema)} AND c.TABLE_NAME = {self.text(name)} "
            "AND c.DATA_TYPE IN ('CHAR', 'VARCHAR2', 'CLOB') AND p.PARAMETER = 'NLS_CHARACTERSET'"
        )

    def differs(self, pairs: Sequence[tuple[str, str, NativeType]]) -> str:
        tests = [
            f"({there} IS NULL AND {here} IS NOT NULL) OR ({there} IS NOT NULL AND {here} IS NULL) "
            f"OR DBMS_LOB.COMPARE({there}, {here}) <> 0"
            if native.name in _LARGE
            else f"DECODE({there}, {here}, 0, 1) = 1"
            for there, here, native in pairs
        ]
        return f"({' OR '.join(tests)})"

    def widen_column(self, table: str, column: str, native: str, *, nullable: bool) -> str:
        return f"ALTER TABLE {table} MODIFY {self.quote(column)} {native}"

    def object_id(self, schema: str, name: str) -> str:
        return (
            f"SELECT MAX(OBJECT_ID) FROM ALL_OBJECTS WHERE OWNER = {self.text(schema)} AND OBJECT_NAME = {self.text(name)} "
            "AND OBJECT_TYPE = 'TABLE'"
        )

    def fault(self, state: str, vendor_code: int, message: str) -> FaultKind:
        if "PKIX" in message or "certificate" in message.lower():
            return "certificate"
        # Class 66 is the network layer's.
        return _KINDS.get(vendor_code) or ("unreachable" if state.startswith("66") else self.standard_fault(state))
