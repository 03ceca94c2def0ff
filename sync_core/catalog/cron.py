"""Cron expressions: five fields, read by the library; what is wrong is said by field."""

from __future__ import annotations

from datetime import datetime

from cronsim import CronSim, CronSimError

_FIELDS = {
    "minute": "write 0 to 59, a list 0,30, a range 10-20, a step */15, or *",
    "hour": "write 0 to 23, a list 6,18, a range 8-17, a step */2, or *",
    "day of the month": "write 1 to 31, a list, a range, a step, L for the last day, or *",
    "month": "write 1 to 12 or JAN to DEC, a list, a range, a step, or *",
    "weekday": "write 0 to 7 (0 and 7 are Sunday) or SUN to SAT, a list, a range such as MON-FRI, 5L, MON#1, or *",
}
_SHORT = {
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}  # fmt: skip
_LONGEST = 200


def cron_fault(expression: str) -> tuple[str, str] | None:
    """What is wrong with the text of a cron expression, and its remedy; None when the library can read it.

    A day that no month of the expression has (30 February) is none of it: such an expression can be read.
    """
    fields = expression.split()
    short = _SHORT.get(expression.strip().lower())
    if short:
        return "is a short form of cron", f'write "{short}"'
    if len(fields) == 6:
        return "has 6 fields where cron has 5", "leave out the seconds (or the year): minute hour day month weekday"
    if len(fields) != 5 or len(expression) > _LONGEST:
        count = "1 field" if len(fields) == 1 else f"{len(fields)} fields"
        return f"has {count} where cron has 5", 'write minute hour day month weekday, such as "*/15 * * * *"'
    if "?" in expression:
        return "holds a ?, which cron does not know", "write * in its place"
    for name, remedy in _FIELDS.items():
        # One field at a time: the library names the first that it cannot read, and days that a month lacks.
        alone = [part if field == name else "*" for field, part in zip(_FIELDS, fields, strict=True)]
        try:
            CronSim(" ".join(alone), datetime(2026, 1, 1))
        except CronSimError:
            return f"is not a cron expression: its {name} is wrong", remedy
    return None
