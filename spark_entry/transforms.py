"""Transformations of a pipeline, applied in the order they are written."""

from __future__ import annotations

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark_entry.adapters.base import CURSOR_DIGITS, LOST_DIGITS
from spark_entry.names import nearest_column
from sync_core.domain.errors import PermanentError
from sync_core.domain.pipeline import Cast, Derive, Drop, Filter, Pipeline, Rename, Select, Transformation

CARRIED = (CURSOR_DIGITS, LOST_DIGITS)


def transform(frame: DataFrame, pipeline: Pipeline) -> DataFrame:
    """The frame after every transformation. The engine's own `__uds_` columns pass through.

    Raises PermanentError `column.missing` that names the nearest column, or `transformation.failed` that names the
    step when Spark cannot resolve it.
    """
    for number, step in enumerate(pipeline.transformations):
        _require_columns(frame, step, f"Pipeline {pipeline.pipeline_id}: transformations[{number}] ({step.type})")
        try:
            frame = _apply(frame, step)
        except AnalysisException as error:
            raise PermanentError(
                "transformation.failed",
                f"Pipeline {pipeline.pipeline_id}: transformations[{number}] ({step.type}) does not fit the source: "
                f"{error.getMessage()}",
                "Correct the transformation; uds plan shows the columns it is given.",
            ) from error
    return frame


def _require_columns(frame: DataFrame, step: Transformation, where: str) -> None:
    """Spark would pass over a name that it does not know in drop and rename: a column meant to stay away would move."""
    match step:
        case Select() | Drop():
            names = step.columns
        case Rename():
            names = tuple(step.mapping)
        case Cast():
            names = tuple(step.columns)
        case _:
            return
    columns = [column for column in frame.columns if column not in CARRIED]
    for name in names:
        if resolve(frame, name) not in columns:
            raise PermanentError(
                "column.missing", f"{where} names the column {name}, which is not there.", nearest_column(name, columns)
            )


def _apply(frame: DataFrame, step: Transformation) -> DataFrame:
    match step:
        case Filter():
            return frame.filter(F.expr(step.condition))
        case Select():
            carried = [name for name in CARRIED if name in frame.columns]
            return frame.select(*[frame[quote(resolve(frame, name))].alias(name) for name in step.columns], *carried)
        case Rename():
            return frame.withColumnsRenamed({resolve(frame, old): new for old, new in step.mapping.items()})
        case Cast():
            return frame.withColumns(
                {
                    resolve(frame, name): frame[quote(resolve(frame, name))].cast(kind)
                    for name, kind in step.columns.items()
                }
            )
        case Derive():
            return frame.withColumn(step.column, F.expr(step.expression))
        case Drop():
            return frame.drop(*[resolve(frame, name) for name in step.columns])


def quote(name: str) -> str:
    """A column name that Spark reads as one name whatever it holds."""
    return "`" + name.replace("`", "``") + "`"


def resolve(frame: DataFrame, name: str) -> str:
    """The frame's own spelling: an exact match, else the only one that ignores case, else the name as it is."""
    if name in frame.columns:
        return name
    similar = [column for column in frame.columns if column.lower() == name.lower()]
    return similar[0] if len(similar) == 1 else name
