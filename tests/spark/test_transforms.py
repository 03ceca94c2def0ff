"""Transformations on real rows: what each does, and that a name which is not there is never passed over."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pyspark.sql import DataFrame, SparkSession

from spark_entry.transforms import transform
from sync_core.domain.errors import PermanentError
from sync_core.domain.pipeline import (
    Cast,
    Derive,
    Drop,
    Filter,
    LoadMode,
    Pipeline,
    Rename,
    Select,
    Source,
    Target,
    Transformation,
)

PIPELINE = Pipeline("orders", Source("pg", "orders"), Target("lake", "orders"), LoadMode.FULL_REFRESH)


@pytest.fixture(scope="module")
def frame(spark: SparkSession) -> DataFrame:
    return spark.sql("SELECT * FROM VALUES (1, 'a', '10'), (2, 'b', '20') AS t(id, `Odd name`, amount)")


def transformed(frame: DataFrame, *steps: Transformation) -> DataFrame:
    return transform(frame, replace(PIPELINE, transformations=steps))


def test_steps_apply_in_their_order(frame: DataFrame) -> None:
    done = transformed(
        frame,
        Filter("id > 1"),
        Rename({"Odd name": "name", "ID": "order_id"}),
        Cast({"amount": "int"}),
        Derive("double", "amount * 2"),
        Drop(("Amount",)),
        Select(("double", "order_id", "name")),
    )
    assert done.columns == ["double", "order_id", "name"]
    assert [tuple(row) for row in done.collect()] == [(40, 2, "b")]


@pytest.mark.parametrize(
    "step", [Drop(("amuont",)), Rename({"amuont": "x"}), Cast({"amuont": "int"}), Select(("id", "amuont"))]
)
def test_a_name_that_is_not_there_is_a_fault_with_the_nearest(frame: DataFrame, step: Transformation) -> None:
    with pytest.raises(PermanentError, match=r"transformations\[1\].*amuont.*Did you mean amount\?") as caught:
        transformed(frame, Filter("id > 1"), step)
    assert caught.value.code == "column.missing"


@pytest.mark.parametrize("step", [Filter("nowhere = 1"), Derive("x", "nope(id)")])
def test_an_expression_that_does_not_fit_names_its_step(frame: DataFrame, step: Transformation) -> None:
    with pytest.raises(PermanentError, match=r"transformations\[0\] \((filter|derive)\) does not fit the source"):
        transformed(frame, step)
