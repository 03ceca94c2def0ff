"""Promises about rows and columns: keys, deletions, partitions and changed schemas."""

from __future__ import annotations

from dataclasses import replace

from sync_core.domain.pipeline import LoadMode, Pipeline, ReadOptions, SchemaChanges
from sync_core.domain.run import Outcome, RunKind
from tests.support.world import KINDS, World

MERGE, APPEND, REFRESH = LoadMode.MERGE, LoadMode.INCREMENTAL, LoadMode.FULL_REFRESH
T1, T2 = "2024-01-01", "2024-01-02"


def test_p11_the_newest_of_several_rows_with_one_key_wins(world: World) -> None:
    rows = [(1, "a", T1), (1, "b", T2), (1, "c", T2), (2, "only", T1)]
    more = [(1, "late, but older", T1), (2, "y", "2024-01-03"), (2, "x", "2024-01-03")]
    pipelines: list[Pipeline] = []
    for table, order in (("forwards", 1), ("backwards", -1)):
        world.orders(*rows[::order], table=table, key=False)
        pipelines += world.pipelines(table=table)
    for result in world.good(*pipelines):
        assert result.notes == ("2 rows have the id of a newer row, and were left out",)
    for pipeline in pipelines:
        assert world.target_rows(pipeline) == {("1", "c", f"{T2} 00:00:00"): 1, ("2", "only", f"{T1} 00:00:00"): 1}
    world.insert(*more, table="forwards")
    world.insert(*more[::-1], table="backwards")
    world.good(*pipelines)
    for pipeline in pipelines:
        assert world.target_rows(pipeline) == {("1", "c", f"{T2} 00:00:00"): 1, ("2", "y", "2024-01-03 00:00:00"): 1}


def test_p12_a_null_merge_key_is_an_error_unless_declared(world: World) -> None:
    world.orders((1, "a", T1), key=False)
    pipelines = world.pipelines()
    world.good(*pipelines)
    before = [world.version(pipeline) for pipeline in pipelines]
    world.sql(f"INSERT INTO orders VALUES (NULL, 'x', '{T2}'), (NULL, 'y', '{T2}'), (2, 'b', '{T2}')")
    for result in world.run(*pipelines):
        assert result.error is not None
        assert result.error.code == "key.null"
        assert "2 rows" in result.error.message
        assert "null_keys: ignore" in result.error.remedy
    assert [world.version(pipeline) for pipeline in pipelines] == before
    ignoring = [replace(pipeline, null_keys="ignore") for pipeline in pipelines]
    assert {result.rows.null_keys for result in world.good(*ignoring)} == {2}
    world.assert_equal(*ignoring, where="id IS NOT NULL")


def test_p13_a_merge_deletes_nothing(world: World) -> None:
    world.orders((1, "a", T1), (2, "b", T2))
    pipelines = world.pipelines(MERGE, APPEND)
    world.good(*pipelines)
    everything = world.source_rows()
    world.sql("DELETE FROM orders WHERE id = 1")
    world.insert((3, "c", "2024-01-03"))
    results = world.good(*pipelines) + world.good(*pipelines, kind=RunKind.BACKFILL, since=T1)
    assert {result.rows.deleted for result in results} == {0}
    for pipeline in pipelines:
        assert world.target_rows(pipeline) == everything + world.source_rows(where="id = 3")


def test_p14_every_row_is_read_whatever_its_key_holds(world: World) -> None:
    world.sql(
        "CREATE TABLE orders (id bigint, name text, at timestamp)",
        f"INSERT INTO orders SELECT nullif(i % 10, 3), repeat('x', 200) || i, timestamp '{T1}' FROM generate_series(1, 4000) i",
        f"INSERT INTO orders SELECT NULL, NULL, timestamp '{T2}' FROM generate_series(1, 10) i",
    )
    pipelines = world.pipelines(APPEND, REFRESH, read=ReadOptions(partitions=4))
    for pipeline, result in zip(pipelines, world.good(*pipelines), strict=True):
        assert (result.rows.read, result.rows.inserted) == (4010, 4010)
        assert [fields["partitions"] for fields in world.events.of("read.planned", pipeline.pipeline_id)] == [4]
    world.assert_equal(*pipelines)


def test_p19_changed_columns_follow_the_policy_and_are_reported(world: World) -> None:
    world.sql("CREATE TABLE orders (id bigint PRIMARY KEY, old text, n int, at timestamp)")
    world.insert((1, "o", 7, T1))
    by_policy = {
        policy: [world.pipeline(kind, name=f"{policy.value}_{kind}", schema_changes=policy) for kind in KINDS]
        for policy in SchemaChanges
    }
    evolving, frozen, discarding = (
        by_policy[SchemaChanges.EVOLVE],
        by_policy[SchemaChanges.FREEZE],
        by_policy[SchemaChanges.DISCARD],
    )
    pipelines = [*evolving, *frozen, *discarding]
    world.good(*pipelines)
    world.sql(
        "ALTER TABLE orders DROP COLUMN old",
        "ALTER TABLE orders ALTER COLUMN n TYPE bigint",
        "ALTER TABLE orders ADD COLUMN extra text DEFAULT 'e'",
        f"INSERT INTO orders VALUES (2, 8, '{T2}', 'f')",
    )
    results = world.run(*pipelines)
    for result in (*results[:2], *results[4:]):
        assert result.error is None, result
        told = " ".join(result.schema_changes)
        assert all(text in told for text in ("extra", "old", "n widened from int to bigint")), told
    for result in results[2:4]:
        assert result.error is not None
        assert result.error.code == "schema.frozen"
        assert "extra" in result.error.message
    first = f"{T1} 00:00:00"
    for pipeline in frozen:
        assert world.target_rows(pipeline) == {("1", "o", "7", first): 1}
    for pipeline in discarding:
        assert world.target_rows(pipeline) == {("1", "o", "7", first): 1, ("2", None, "8", f"{T2} 00:00:00"): 1}
    # Wide values fit once the column has grown, and nothing changes on the third run.
    world.sql("INSERT INTO orders VALUES (3, 5000000000, '2024-01-03', NULL)")
    world.good(*evolving)
    for pipeline in evolving:
        assert world.target_rows(pipeline) == {
            # Read again at the boundary, and so it gets the new column.
            ("1", "o", "7", first, "e"): 1,
            ("2", None, "8", f"{T2} 00:00:00", "f"): 1,
            ("3", None, "5000000000", "2024-01-03 00:00:00", None): 1,
        }
    again = world.good(*evolving)
    assert [(result.state, result.schema_changes) for result in again] == [(Outcome.UNCHANGED, ())] * 2
