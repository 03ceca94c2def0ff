"""The rows of one run on their way from source to target: transformed, checked, one row a key, in the target's types.

Everything here is lazy: the source is scanned once, when the target writes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame, Observation, Window
from pyspark.sql import functions as F

from spark_entry.adapters.base import CURSOR_DIGITS, LOST_DIGITS, Column, ReadPlan, Relation
from spark_entry.schema import SchemaPlan, find, narrowed
from spark_entry.transforms import quote, resolve, transform
from sync_core.domain.errors import PermanentError
from sync_core.domain.pipeline import Drop, LoadMode, Pipeline, Select

NULL_KEY_MARK = "uds: a merge key is NULL"
LOST_DIGITS_MARK = "uds: digits below a microsecond would be lost"


@dataclass(frozen=True)
class Incoming:
    """The transformed frame before it meets the target, its columns, and the counts taken as it is read."""

    frame: DataFrame
    columns: tuple[Column, ...]
    counts: Observation


def columns_to_read(pipeline: Pipeline, relation: Relation) -> tuple[Column, ...]:
    """Every column except refused ones that the transformations leave out.

    Raises PermanentError: `type.refused` that names each column whose values would not survive (P17), `source.columns`
    when names differ by case alone, which Spark takes for one name.
    """
    spelled = Counter(column.name.lower() for column in relation.columns)
    twins = [column.name for column in relation.columns if spelled[column.name.lower()] > 1]
    if twins:
        raise PermanentError(
            "source.columns",
            f"Pipeline {pipeline.pipeline_id}: columns of {relation.name} differ by case alone: {', '.join(twins)}.",
            "Read it by a query that gives each a name of its own.",
        )
    left_out = {name.lower() for step in pipeline.transformations if isinstance(step, Drop) for name in step.columns}
    selections = [step for step in pipeline.transformations if isinstance(step, Select)]
    wanted = {name.lower() for name in selections[0].columns} if selections else None
    columns: list[Column] = []
    refused: list[str] = []
    for column in relation.columns:
        name = column.name.lower()
        if column.refused is None:
            columns.append(column)
        elif name not in left_out and (wanted is None or name in wanted):
            refused.append(f"{column.name} ({column.native}): {column.refused}")
    if refused:
        raise PermanentError(
            "type.refused",
            f"Pipeline {pipeline.pipeline_id}: columns of {relation.name} cannot be carried without loss: {'; '.join(refused)}.",
            "Drop them in a transformation, or say under types: which Spark type they may become.",
        )
    return tuple(columns)


def prepare(raw: DataFrame, pipeline: Pipeline, plan: ReadPlan) -> Incoming:
    """Count what is read, transform it, and stop at the first row whose merge key is NULL (P12)."""
    counts = Observation()
    measures = [F.count(F.lit(1)).alias("read")]
    if LOST_DIGITS in raw.columns:
        measures.append(F.coalesce(F.sum(LOST_DIGITS), F.lit(0)).alias("lost_digits"))
    keys = [raw[quote(resolve(raw, key))] for key in pipeline.merge_keys]
    if keys:
        measures.append(F.count_if(reduce(SparkColumn.__or__, [key.isNull() for key in keys])).alias("null_keys"))
    frame = raw.observe(counts, *measures)
    if LOST_DIGITS in raw.columns and pipeline.lossy == "refuse":
        frame = frame.filter(
            F.when(F.col(LOST_DIGITS) > 0, F.raise_error(F.lit(LOST_DIGITS_MARK)).cast("boolean")).otherwise(True)
        )
    frame = transform(frame, pipeline)
    if keys and pipeline.mode is LoadMode.MERGE:
        # After the transformations: a row that they filter out needs no key.
        frame = _guard_keys(frame, pipeline)
    natives = {column.name: column.native for column in plan.columns}
    columns = tuple(
        Column(field.name, field.dataType.simpleString(), natives.get(field.name, "derived"), field.nullable)
        for field in frame.schema.fields
        if field.name not in (CURSOR_DIGITS, LOST_DIGITS)
    )
    return Incoming(frame, columns, counts)


def _guard_keys(frame: DataFrame, pipeline: Pipeline) -> DataFrame:
    missing = reduce(SparkColumn.__or__, [frame[quote(resolve(frame, key))].isNull() for key in pipeline.target_keys])
    if pipeline.null_keys == "ignore":
        return frame.filter(~missing)
    return frame.filter(F.when(missing, F.raise_error(F.lit(NULL_KEY_MARK)).cast("boolean")).otherwise(True))


def newest_of_each_key(frame: DataFrame, keys: Sequence[str], cursor: str | None, counts: Observation) -> DataFrame:
    """One row a key: the newest cursor wins, ties by the other columns' values, so that any order gives the same (P11).

    `counts` gets the rows that are left out, as `doubled`.
    """
    names = [resolve(frame, key) for key in keys]
    leading = [resolve(frame, cursor)] if cursor else []
    leading += [CURSOR_DIGITS] if CURSOR_DIGITS in frame.columns else []
    sortable = [field.name for field in frame.schema.fields if field.dataType.typeName() not in ("map", "variant")]
    order = leading + [name for name in sortable if name not in leading and name not in names and name != LOST_DIGITS]
    window = Window.partitionBy(*[frame[quote(name)] for name in names]).orderBy(
        *[frame[quote(name)].desc_nulls_last() for name in order] or [F.lit(0)]
    )
    ranked = frame.withColumn("__uds_rank", F.row_number().over(window))
    ranked = ranked.observe(counts, F.count_if(F.col("__uds_rank") > 1).alias("doubled"))
    return ranked.filter("__uds_rank = 1").drop("__uds_rank")


def in_target_types(frame: DataFrame, schema: SchemaPlan, kept: Callable[[Column], str]) -> DataFrame:
    """Exactly the written columns, in the target's spelling and types; a value that does not fit fails the run.

    `kept` is what the target makes of a column's values (DatabaseAdapter.kept).
    """
    return frame.select(
        *[
            F.expr(kept(column).replace("{}", _cast(quote(source), column, schema))).alias(column.name)
            for source, column in zip(schema.source_names, schema.written, strict=True)
        ]
    )


def _cast(value: str, column: Column, schema: SchemaPlan) -> str:
    return narrowed(column, value) if column.name in schema.narrower else f"CAST({value} AS {column.type})"


def subtract(
    frame: DataFrame, there: DataFrame, keys: Sequence[str], cursor: str | None, columns: Sequence[str]
) -> DataFrame:
    """The rows that the target does not hold yet (R12). Without `keys` a row is left out as often as it is there.

    `columns` are those that the target had at the last commit: a row is the same row when these agree.
    """
    if keys:
        names = [*keys, cursor] if cursor else list(keys)
        return _without(frame, there, names)
    plain = all(_comparable(frame, name) is None for name in columns)
    if plain and len(columns) == len(frame.columns):
        return frame.exceptAll(there.select(*[there[quote(name)] for name in frame.columns]))
    return _without(_numbered(frame, columns), _numbered(there, columns), [*columns, "__uds_number"]).drop(
        "__uds_number"
    )


def _numbered(frame: DataFrame, columns: Sequence[str]) -> DataFrame:
    """Rows that agree in the columns, numbered from 1."""
    agreeing = Window.partitionBy(*[_value(frame, name) for name in columns]).orderBy(F.lit(0))
    return frame.withColumn("__uds_number", F.row_number().over(agreeing))


def _value(frame: DataFrame, name: str) -> SparkColumn:
    """A column in a form that has an equality."""
    comparable = _comparable(frame, name)
    return frame[quote(resolve(frame, name))] if comparable is None else comparable


def _comparable(frame: DataFrame, name: str) -> SparkColumn | None:
    """The JSON text of a column that has no equality of its own; None for all others."""
    column = quote(resolve(frame, name))
    kind = frame.select(column).schema.fields[0].dataType.simpleString()
    if "map<" not in kind and "variant" not in kind:
        return None
    return F.to_json(frame[column], {"ignoreNullFields": "false"})


def _without(frame: DataFrame, there: DataFrame, names: Sequence[str]) -> DataFrame:
    other = there.select(*[_value(there, name).alias(f"__there_{index}") for index, name in enumerate(names)])
    same = [_value(frame, name).eqNullSafe(other[f"__there_{index}"]) for index, name in enumerate(names)]
    return frame.join(other, reduce(SparkColumn.__and__, same), "left_anti")


def has_unique_key(relation: Relation, keys: Sequence[str]) -> bool:
    """Whether the source itself keeps the merge keys unique."""
    wanted = {key.lower() for key in keys}
    return any({name.lower() for name in unique} <= wanted for unique in relation.unique_keys)


def named(columns: tuple[Column, ...], names: Sequence[str]) -> tuple[str, ...]:
    """The target's own spelling of the names; a name that it lacks stays as it is."""
    return tuple(column.name if (column := find(columns, name)) else name for name in names)
