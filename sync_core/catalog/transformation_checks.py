"""What transformations may not do to the cursor and the merge keys (P20), nor in append mode without a key."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sync_core.catalog.document import Node
from sync_core.catalog.faults import Fault

_CHANGING = (
    "rand", "random", "randn", "randstr", "uniform", "uuid", "shuffle", "monotonically_increasing_id",
    "spark_partition_id", "input_file_name", "current_timestamp", "current_date", "current_time", "current_timezone",
    "localtimestamp", "curdate", "now", "unix_timestamp", "to_unix_timestamp", "current_user", "session_user", "user",
)  # fmt: skip
_BARE = (
    "current_timestamp",
    "current_date",
    "current_time",
    "localtimestamp",
    "current_user",
    "session_user",
)
_LITERAL = re.compile(r"'(?:[^'\\]|\\.|'')*'|\"(?:[^\"\\]|\\.)*\"|`[^`]*`", re.DOTALL)
_CALL = re.compile(r"\b(" + "|".join(_CHANGING) + r")\s*\(\s*(\)?)", re.IGNORECASE)
_WORD = re.compile(r"(?<![\w.])(" + "|".join(_BARE) + r")(?![\w.(])", re.IGNORECASE)
_FIXED_WITH_ARGUMENTS = ("unix_timestamp", "to_unix_timestamp", "user")


@dataclass
class Watched:
    """A column that must reach the target: its source name and the name it has by now."""

    source: str
    role: str
    now: str

    def is_called(self, name: str) -> bool:
        return self.now.lower() == name.lower()


def check_transformations(node: Node) -> list[Fault]:
    """Follow the cursor and the merge keys through every step."""
    watched = _watched(node)
    faults: list[Fault] = []
    steps = node.get("transformations")
    renamed = False
    for step in steps.items if steps else ():
        faults.extend(_check_step(step, watched, renamed))
        renamed = renamed or step.text_of("type") == "rename"
    return faults


def _check_step(step: Node, watched: list[Watched], renamed: bool) -> list[Fault]:
    """One step's faults. A rename gives the watched columns their new names; `renamed` when one came before."""
    match step.text_of("type"):
        case "rename":
            return _check_rename(step, watched, renamed)
        case "select":
            return _check_select(step, watched, renamed)
        case "drop":
            return _touched(_texts(step.get("columns")), watched, "drops", "leave it in")
        case "cast":
            columns = step.get("columns")
            names = list(columns.mapping.items()) if columns else []
            return _touched(names, watched, "changes the type of", "cast a copy: derive a column from it")
        case "derive":
            remedy = "give the derived column another name"
            return _touched(_texts(step.get("column")), watched, "replaces", remedy)
        case _:
            return []


def _watched(node: Node) -> list[Watched]:
    cursor = node.text_of("cursor", "column")
    keys = node.get("merge_keys")
    columns = [Watched(cursor, "the cursor", cursor)] if cursor else []
    return columns + [Watched(name, "a merge key", name) for name, _ in _texts(keys) if name != cursor]


def _texts(node: Node | None) -> list[tuple[str, Node]]:
    """The texts of a list, or a single text, each with its place."""
    parts = node.items or (node,) if node else ()
    return [(part.text, part) for part in parts if part.text]


def _touched(names: list[tuple[str, Node]], watched: list[Watched], verb: str, remedy: str) -> list[Fault]:
    return [
        place.fault(f"{verb} {_say(column)}", remedy)
        for name, place in names
        for column in watched
        if column.is_called(name)
    ]


def _say(column: Watched) -> str:
    if column.now == column.source:
        return f"{column.source}, {column.role}"
    return f"{column.now}, which is {column.role} {column.source} under its new name"


def _check_select(step: Node, watched: list[Watched], renamed: bool) -> list[Fault]:
    names = _texts(step.get("columns"))
    if not names:
        return []
    faults: list[Fault] = []
    for column in watched:
        found = next(((name, place) for name, place in names if column.is_called(name)), None)
        if found is None:
            place = step.get("columns") or step
            faults.append(place.fault(f"leaves out {_say(column)}", f"add {column.now} to the columns"))
        elif renamed and found[0] != column.now:
            faults.append(found[1].fault(f"is another spelling of {_say(column)}", f"write {column.now}"))
    return faults


def _check_rename(step: Node, watched: list[Watched], renamed: bool) -> list[Fault]:
    mapping = step.get("mapping")
    faults: list[Fault] = []
    new_names: dict[str, str] = {}
    moves: list[tuple[Watched, str]] = []
    for old, place in mapping.mapping.items() if mapping else ():
        new = place.text
        if not new:
            continue
        if new.lower() in new_names:
            faults.append(place.fault(f"names two columns {new}", "give each its own name"))
        new_names[new.lower()] = old
        for column in watched:
            if column.is_called(old):
                moves.append((column, new))
                if renamed and old != column.now:
                    faults.append(place.fault(f"is another spelling of {_say(column)}", f"write {column.now}"))
    moved = [column for column, _ in moves]
    for column in watched:
        old = new_names.get(column.now.lower())
        if old is not None and mapping and column not in moved:
            faults.append(
                mapping.mapping[old].fault(f"puts {old} in the place of {_say(column)}", "choose another name")
            )
    for column, new in moves:
        column.now = new
    return faults


def check_repeatable(node: Node) -> list[Fault]:
    """Append mode without a key knows its rows by all their columns: an expression must give the same each time."""
    if node.text_of("mode") != "incremental" or _texts(node.get("merge_keys")):
        return []
    faults: list[Fault] = []
    steps = node.get("transformations")
    for step in steps.items if steps else ():
        key = {"filter": "condition", "derive": "expression"}.get(step.text_of("type") or "")
        place = step.get(key) if key else None
        name = find_changing(place.text or "") if place else None
        if place and name:
            message = f"{name} gives another value at each run, so that rows already loaded would be doubled"
            faults.append(place.fault(message, "remove it, or name merge_keys"))
    return faults


def find_changing(expression: str) -> str | None:
    """The first function in a Spark SQL expression that gives another value at each evaluation."""
    # Literals first: `--` within one begins no comment.
    code = re.sub(r"--[^\n]*|/\*.*?\*/", " ", _LITERAL.sub("''", expression), flags=re.DOTALL)
    for match in _CALL.finditer(code):
        name = match[1].lower()
        if name not in _FIXED_WITH_ARGUMENTS or match[2]:
            return f"{name}()"
    bare = _WORD.search(code)
    return bare[1].lower() if bare else None
