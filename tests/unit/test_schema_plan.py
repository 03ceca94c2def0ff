"""P19: columns that come, go or widen follow `schema_changes` and are reported."""

from __future__ import annotations

import pytest

from spark_entry.adapters.base import Column
from spark_entry.schema import compare, plan_schema
from sync_core.domain.errors import PermanentError
from sync_core.domain.pipeline import LoadMode, Pipeline, SchemaChanges, Source, Target


def columns(**types: str) -> tuple[Column, ...]:
    return tuple(Column(name, kind, kind) for name, kind in types.items())


def pipeline(policy: SchemaChanges) -> Pipeline:
    return Pipeline("p", Source("s", "t"), Target("d", "t"), LoadMode.FULL_REFRESH, schema_changes=policy)


OLD = columns(id="int", name="string")


def test_p19_evolve_adds_widens_and_reports() -> None:
    plan = plan_schema(
        pipeline(SchemaChanges.EVOLVE), columns(id="bigint", name="string", note="date"), OLD, ("id", "name")
    )
    assert [column.name for column in plan.added] == ["note"]
    assert [(column.name, column.type) for column in plan.widened] == [("id", "bigint")]
    assert [column.type for column in plan.written] == ["bigint", "string", "date"]
    assert plan.changes == ("column id widened from int to bigint", "new column note date")


def test_p19_discard_leaves_the_target_as_it_is_and_reports() -> None:
    plan = plan_schema(
        pipeline(SchemaChanges.DISCARD), columns(id="bigint", name="string", note="date"), OLD, ("id", "name")
    )
    assert (plan.added, plan.widened) == ((), ())
    assert [(column.name, column.type) for column in plan.written] == [("id", "int"), ("name", "string")]
    assert all(change.endswith("(discarded)") for change in plan.changes)


def test_p17_a_discarded_widening_is_told_to_the_cast() -> None:
    before, after = columns(id="int", n="decimal(10,2)"), columns(id="int", n="decimal(12,4)")
    assert plan_schema(pipeline(SchemaChanges.DISCARD), after, before, ()).narrower == ("n",)
    assert plan_schema(pipeline(SchemaChanges.EVOLVE), after, before, ()).narrower == ()


@pytest.mark.parametrize(
    "incoming", [columns(id="bigint", name="string"), columns(id="int", name="string", x="int"), columns(id="int")]
)
def test_p19_freeze_refuses_every_change(incoming: tuple[Column, ...]) -> None:
    with pytest.raises(PermanentError, match="freeze") as caught:
        plan_schema(pipeline(SchemaChanges.FREEZE), incoming, OLD, ("id", "name"))
    assert caught.value.code == "schema.frozen"


def test_p19_a_dropped_column_is_reported_and_a_column_of_the_targets_own_is_not() -> None:
    plan = plan_schema(pipeline(SchemaChanges.EVOLVE), columns(id="int"), (*OLD, *columns(own="int")), ("id", "name"))
    assert plan.changes == ("column name is no longer in the source; new rows have NULL there",)
    assert [column.name for column in plan.written] == ["id"]


@pytest.mark.parametrize("policy", list(SchemaChanges))
def test_p17_a_type_that_does_not_fit_is_refused_whatever_the_policy(policy: SchemaChanges) -> None:
    with pytest.raises(PermanentError) as caught:
        plan_schema(pipeline(policy), columns(id="string"), OLD, ())
    assert caught.value.code == "schema.incompatible"
    assert "id" in caught.value.message


def test_names_are_written_in_the_targets_spelling() -> None:
    plan = plan_schema(pipeline(SchemaChanges.FREEZE), columns(ID="int", NAME="string"), OLD, ())
    assert [column.name for column in plan.written] == ["id", "name"]
    assert plan.source_names == ("ID", "NAME")


@pytest.mark.parametrize(
    ("incoming", "existing", "fit"),
    [
        ("int", "int", "same"),
        ("int", "bigint", "fits"),
        ("bigint", "int", "widen"),
        ("float", "double", "fits"),
        ("double", "float", "widen"),
        ("decimal(10,2)", "decimal(12,2)", "fits"),
        ("decimal(10,2)", "decimal(12,4)", "fits"),
        ("decimal(10,2)", "decimal(10,4)", "no"),
        ("decimal(12,2)", "decimal(10,2)", "widen"),
        ("int", "decimal(10,0)", "fits"),
        ("bigint", "decimal(10,0)", "widen"),
        ("decimal(10,0)", "bigint", "fits"),
        ("decimal(20,0)", "bigint", "no"),
        ("decimal(10,2)", "bigint", "no"),
        ("date", "timestamp_ntz", "fits"),
        ("boolean", "decimal(1,0)", "fits"),
        ("timestamp", "timestamp_ntz", "no"),
        ("timestamp_ntz", "timestamp", "no"),
        ("string", "int", "no"),
        ("varchar(10)", "string", "fits"),
    ],
)
def test_p17_only_what_keeps_every_value_fits(incoming: str, existing: str, fit: str) -> None:
    assert compare(incoming, existing) == fit
