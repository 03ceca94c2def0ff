"""Which source columns a target column comes from, where the transformations let it be known. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sync_core.domain.facts import Facts
from sync_core.domain.pipeline import Cast, Derive, Drop, Pipeline, Rename, Select


@dataclass(frozen=True)
class Origin:
    """The source column, and whether its values arrive as they are or in another type."""

    column: str
    same: bool = True


def origins(pipeline: Pipeline, facts: Facts) -> dict[str, Origin]:
    """Target column to its source column. One that an expression made is left out: what it reads is Spark's to know."""
    found: dict[str, Origin | None] = {column.name: Origin(column.name) for column in facts.source_columns}
    for step in pipeline.transformations:
        match step:
            case Select():
                found = {name: _get(found, name) for name in step.columns}
            case Drop():
                gone = {name.lower() for name in step.columns}
                found = {name: origin for name, origin in found.items() if name.lower() not in gone}
            case Rename():
                new = {old.lower(): name for old, name in step.mapping.items()}
                found = {new.get(name.lower(), name): origin for name, origin in found.items()}
            case Cast():
                cast = {name.lower() for name in step.columns}
                found = {
                    name: Origin(origin.column, same=False) if origin and name.lower() in cast else origin
                    for name, origin in found.items()
                }
            case Derive():
                found = {name: origin for name, origin in found.items() if name.lower() != step.column.lower()}
                found[step.column] = None
            case _:
                pass
    types = {column.name: column.type for column in facts.source_columns}
    known: dict[str, Origin] = {}
    for column in facts.target_columns:
        origin = _get(found, column.name)
        if origin is not None:
            same = origin.same and types.get(origin.column) == column.type
            known[column.name] = Origin(origin.column, same)
    return known


def _get(found: Mapping[str, Origin | None], name: str) -> Origin | None:
    """By the exact name, else the only one that matches when case is ignored, as Spark resolves it."""
    if name in found:
        return found[name]
    similar = [origin for one, origin in found.items() if one.lower() == name.lower()]
    return similar[0] if len(similar) == 1 else None
