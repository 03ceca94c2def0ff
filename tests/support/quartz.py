"""Is this a cron expression that Quartz, and so a Databricks job, understands? Six or seven fields, seconds first."""

from __future__ import annotations

import re

_MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
_DAYS = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]

_FIELDS: tuple[tuple[str, int, int, list[str]], ...] = (
    ("second", 0, 59, []),
    ("minute", 0, 59, []),
    ("hour", 0, 23, []),
    ("day of month", 1, 31, []),
    ("month", 1, 12, _MONTHS),
    ("day of week", 1, 7, _DAYS),
    ("year", 1970, 2099, []),
)

_OF_MONTH = re.compile(r"L|LW|L-\d{1,2}|([1-9]|[12]\d|3[01])W")

_OF_WEEK = re.compile(rf"L|([1-7]|{'|'.join(_DAYS)})(L|#[1-5])")


def quartz_fault(expression: str) -> str | None:
    """What is wrong with an expression; None when nothing is."""
    fields = expression.split()
    if len(fields) not in (6, 7):
        return f"{len(fields)} fields instead of 6 or 7"
    for (name, low, high, names), text in zip(_FIELDS, fields, strict=False):
        special = {"day of month": _OF_MONTH, "day of week": _OF_WEEK}.get(name)
        if special and (text == "?" or special.fullmatch(text)):
            continue
        for part in text.split(","):
            if not _is_part(part, low, high, names):
                return f"{part!r} is no {name}"
    if (fields[3] == "?") == (fields[5] == "?"):
        return "exactly one of day of month and day of week must be ?"
    return None


def _is_part(part: str, low: int, high: int, names: list[str]) -> bool:
    body, slash, step = part.partition("/")
    if slash and not (step.isdigit() and 0 < int(step) <= high):
        return False
    if body == "*":
        return True
    ends = [_number(end, low, names) for end in body.split("-")]
    return len(ends) <= 2 and all(end is not None and low <= end <= high for end in ends)


def _number(text: str, low: int, names: list[str]) -> int | None:
    if text.upper() in names:
        return names.index(text.upper()) + low
    return int(text) if text.isdigit() else None
