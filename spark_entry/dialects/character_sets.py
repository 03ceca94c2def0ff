"""Character sets that hold less than Unicode: a database puts `?` in place of what lies outside, without a word."""

from __future__ import annotations

from functools import cache

CODECS = {
    **{str(page): f"cp{page}" for page in (437, 850, 874, *range(1250, 1259))},
    "US7ASCII": "ascii",
    "WE8ISO8859P1": "latin_1",
    **{
        f"{area}8ISO8859P{part}": f"iso8859_{part}"
        for area, part in (("EE", 2), ("CL", 5), ("EL", 7), ("WE", 9), ("WE", 15))
    },
    **{
        f"{area}8MSWIN{page}": f"cp{page}"
        for area, page in (("EE", 1250), ("CL", 1251), ("WE", 1252), ("EL", 1253), ("TR", 1254), ("BLT", 1257))
    },
}
"""Python's name by SQL Server's code page or Oracle's NLS_CHARACTERSET, of those with one byte a character."""


@cache
def outside(character_set: str) -> str | None:
    """A pattern, for Java and Python, of one character that the set does not hold.

    None where it holds all of Unicode, or is not one of CODECS.
    """
    codec = CODECS.get(character_set)
    if codec is None:
        return None
    held = sorted(ord(one) for byte in range(256) for one in bytes([byte]).decode(codec, "ignore"))
    ranges: list[tuple[int, int]] = []
    for code in held:
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1] = (ranges[-1][0], code)
        else:
            ranges.append((code, code))
    return "[^" + "".join(f"\\u{low:04x}-\\u{high:04x}" for low, high in ranges) + "]"
