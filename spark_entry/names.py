"""Names in the configuration, matched to the source's own spelling: exact, else the only one that ignores case."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import replace

from spark_entry.adapters.base import Relation
from sync_core.domain.errors import PermanentError
from sync_core.domain.pipeline import Cast, Drop, Pipeline, Rename, Select, Transformation


def resolve_names(pipeline: Pipeline, relation: Relation) -> Pipeline:
    """The pipeline with cursor, merge keys and transformations spelled as the source spells its columns.

    Raises PermanentError `column.missing` that names the nearest column when a cursor or key is not there.
    """
    cursor = pipeline.cursor
    if cursor is not None and cursor.column:
        cursor = replace(cursor, column=_required(pipeline, relation, cursor.column, "cursor.column"))
    keys = tuple(_required(pipeline, relation, key, "merge_keys") for key in pipeline.merge_keys)
    spelled = {column.name.lower(): column.name for column in relation.columns}
    exact = {column.name for column in relation.columns}

    def spell(name: str) -> str:
        return name if name in exact else spelled.get(name.lower(), name)

    steps: list[Transformation] = []
    renamed = False
    for step in pipeline.transformations:
        steps.append(step if renamed else _spell_step(step, spell))
        renamed = renamed or isinstance(step, Rename)
    types = {spell(name): kind for name, kind in pipeline.types.items()}
    return replace(pipeline, cursor=cursor, merge_keys=keys, transformations=tuple(steps), types=types)


def _spell_step(step: Transformation, spell: Callable[[str], str]) -> Transformation:
    match step:
        case Rename():
            return replace(step, mapping={spell(old): new for old, new in step.mapping.items()})
        case Select() | Drop():
            return replace(step, columns=tuple(spell(name) for name in step.columns))
        case Cast():
            return replace(step, columns={spell(name): kind for name, kind in step.columns.items()})
        case _:
            return step


def _required(pipeline: Pipeline, relation: Relation, name: str, key: str) -> str:
    column = relation.column(name)
    if column is not None:
        return column.name
    raise PermanentError(
        "column.missing",
        f"Pipeline {pipeline.pipeline_id}: {relation.name} has no column {name}, which {key} names.",
        nearest_column(name, [column.name for column in relation.columns]),
    )


def nearest_column(name: str, columns: Sequence[str]) -> str:
    """What to write in place of a name that is none: the nearest one, else all there are."""
    near = difflib.get_close_matches(name.lower(), [column.lower() for column in columns], n=1)
    nearest = next((column for column in columns if near and column.lower() == near[0]), None)
    return f"Did you mean {nearest}?" if nearest else f"There are: {', '.join(columns)}."
