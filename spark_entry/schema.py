"""How the target's columns follow the source's (P19). Pure: column lists in, a plan or an error out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from spark_entry.adapters.base import Column
from sync_core.domain.errors import PermanentError
from sync_core.domain.facts import ColumnFact
from sync_core.domain.pipeline import Pipeline, SchemaChanges

Fit = Literal["same", "fits", "widen", "no"]

UNFIT_MARK = "uds: in the target"
_INTEGERS = ("tinyint", "smallint", "int", "bigint")
_INTEGER_DIGITS = {"tinyint": 3, "smallint": 5, "int": 10, "bigint": 19}


@dataclass(frozen=True)
class SchemaPlan:
    """The columns to write, with the target's types, the DDL that is due, and what to report.

    `written` is in the target's spelling; `source_names` gives the frame's name for each. `narrower` are target names
    of columns that cannot hold every value of the source's type.
    """

    written: tuple[Column, ...]
    source_names: tuple[str, ...]
    added: tuple[Column, ...] = ()
    widened: tuple[Column, ...] = ()
    changes: tuple[str, ...] = ()
    narrower: tuple[str, ...] = ()


def plan_schema(
    pipeline: Pipeline,
    incoming: tuple[Column, ...],
    existing: tuple[Column, ...],
    written_before: Iterable[str],
) -> SchemaPlan:
    """Match the incoming columns to an existing target by `schema_changes`.

    Raises PermanentError: `schema.frozen`, `schema.incompatible`.
    """
    policy = pipeline.schema_changes
    written: list[Column] = []
    names: list[str] = []
    added: list[Column] = []
    widened: list[Column] = []
    narrower: list[str] = []
    changes: list[str] = []
    for column in incoming:
        there = find(existing, column.name)
        if there is None:
            changes.append(f"new column {column.name} {column.type}")
            if policy is SchemaChanges.EVOLVE:
                added.append(column)
                written.append(column)
                names.append(column.name)
            continue
        fit = compare(column.type, there.type)
        if fit == "no":
            raise PermanentError(
                "schema.incompatible",
                f"Pipeline {pipeline.pipeline_id}: {column.name} is {column.type} at the source and {there.type} "
                f"({there.native}) in the target.",
                "Cast it in a transformation, or load the target again after changing its column.",
            )
        if fit == "widen":
            changes.append(f"column {there.name} widened from {there.type} to {column.type}")
            if policy is SchemaChanges.EVOLVE:
                there = Column(there.name, column.type, there.native, there.nullable)
                widened.append(there)
            else:
                narrower.append(there.name)
        written.append(there)
        names.append(column.name)
    gone = [name for name in written_before if find(incoming, name) is None and find(existing, name) is not None]
    changes += [f"column {name} is no longer in the source; new rows have NULL there" for name in gone]
    if changes and policy is SchemaChanges.FREEZE:
        raise PermanentError(
            "schema.frozen",
            f"Pipeline {pipeline.pipeline_id}: the source's columns changed and schema_changes is freeze: "
            f"{'; '.join(changes)}.",
            "Accept the change with schema_changes: evolve or discard, or select the columns you want.",
        )
    if policy is SchemaChanges.DISCARD:
        changes = [f"{change} (discarded)" for change in changes]
    return SchemaPlan(tuple(written), tuple(names), tuple(added), tuple(widened), tuple(changes), tuple(narrower))


def find(columns: Iterable[Column], name: str) -> Column | None:
    """The column of this exact name, else the only one that matches when case is ignored."""
    candidates = [column for column in columns if column.name.lower() == name.lower()]
    exact = [column for column in candidates if column.name == name]
    return exact[0] if exact else candidates[0] if len(candidates) == 1 else None


def facts_of(columns: Iterable[Column]) -> tuple[ColumnFact, ...]:
    """The columns as the result tells of them."""
    return tuple(ColumnFact(column.name, column.type, column.native) for column in columns)


def compare(incoming: str, existing: str) -> Fit:
    """Whether a value of Spark SQL type `incoming` fits a column of type `existing`, or the column must widen."""
    if incoming == existing:
        return "same"
    if existing == "string" and re.match(r"(var)?char\(", incoming):
        return "fits"
    if incoming == "string" and re.match(r"(var)?char\(", existing):
        return "fits"
    if incoming in _INTEGERS and existing in _INTEGERS:
        return "fits" if _INTEGERS.index(incoming) < _INTEGERS.index(existing) else "widen"
    if {incoming, existing} == {"float", "double"}:
        return "fits" if existing == "double" else "widen"
    if incoming == "boolean" and _decimal(existing) is not None:
        return "fits"
    if incoming == "date" and existing == "timestamp_ntz":
        return "fits"
    return _compare_decimals(incoming, existing)


def narrowed(column: Column, value: str) -> str:
    """Spark SQL for a value in a narrower column's type; one that it would round or cut stops the run."""
    fitting = f"try_cast({value} AS {column.type})"
    return f"CASE WHEN {fitting} <=> {value} THEN {fitting} ELSE {unfit(column, value)} END"


def unfit(column: Column, value: str) -> str:
    """Spark SQL that stops the run because the target's column cannot hold the value."""
    label = column.name.replace("\\", "\\\\").replace("'", "\\'").replace("{}", "{ }")
    native = column.native.replace("'", "")
    text = f"concat('{UNFIT_MARK} {label} is {native}, which cannot hold ', left(cast({value} AS string), 40))"
    return f"cast(raise_error({text}) AS {column.type})"


def _compare_decimals(incoming: str, existing: str) -> Fit:
    new, old = _decimal(incoming), _decimal(existing)
    if new is None or old is None:
        return "no"
    if new[0] - new[1] <= old[0] - old[1] and new[1] <= old[1]:
        return "fits"
    if existing in _INTEGERS:
        return "no"
    if new[0] - new[1] >= old[0] - old[1] and new[1] >= old[1]:
        return "widen"
    return "no"


def _decimal(kind: str) -> tuple[int, int] | None:
    """Precision and scale, also of an integer type; None for what is neither."""
    if kind in _INTEGER_DIGITS:
        return _INTEGER_DIGITS[kind], 0
    match = re.fullmatch(r"decimal\((\d+),\s*(\d+)\)", kind)
    return (int(match[1]), int(match[2])) if match else None
