"""R10: lost state, targets that were dropped, restored, emptied or filled by somebody else."""

from __future__ import annotations

import shutil

from sync_core.domain.pipeline import LoadMode, Pipeline
from sync_core.domain.run import Outcome, RunKind, RunResult
from tests.support.world import World

MERGE, APPEND = LoadMode.MERGE, LoadMode.INCREMENTAL


def loaded(world: World, *modes: LoadMode) -> list[Pipeline]:
    """Pipelines that have loaded twice."""
    world.orders((1, "a", "2024-01-01"))
    pipelines = world.pipelines(*modes)
    world.good(*pipelines)
    world.insert((2, "b", "2024-01-02"))
    world.good(*pipelines)
    return pipelines


def require_refusal(results: list[RunResult], *codes: str) -> None:
    """Each says which command mends it."""
    for result in results:
        assert result.error is not None, result
        assert result.error.code in codes
        assert result.error.kind == "permanent"
        assert f"uds run {result.pipeline_id} --full-refresh" in result.error.remedy


def require_mended(world: World, pipelines: list[Pipeline]) -> None:
    world.good(*pipelines, kind=RunKind.FULL_REFRESH)
    world.assert_equal(*pipelines)
    world.insert((9, "after", "2024-01-09"))
    for result in world.good(*pipelines):
        assert result.rows.inserted == 1
    world.assert_equal(*pipelines)


def test_lost_state_adopts_the_ledger(world: World) -> None:
    pipelines = loaded(world, MERGE, APPEND)
    for pipeline, result in zip(pipelines, world.good(*pipelines, state="new"), strict=True):
        assert result.state is Outcome.UNCHANGED
        assert world.record(pipeline, "new").watermark == world.record(pipeline).watermark
        assert world.record(pipeline, "new").generation == 2
    world.insert((3, "c", "2024-01-03"))
    world.good(*pipelines, state="new")
    world.assert_equal(*pipelines)
    # The old state folder, found again, goes on from the ledger as well.
    world.insert((4, "d", "2024-01-04"))
    world.good(*pipelines)
    world.assert_equal(*pipelines)


def test_a_dropped_target_is_refused_until_it_is_loaded_again(world: World) -> None:
    pipelines = loaded(world, MERGE, APPEND)
    for pipeline in pipelines:
        if pipeline.target.connection == "delta":
            shutil.rmtree(world.delta_path(pipeline))
        else:
            world.sql(f"DROP TABLE {world.target}.{pipeline.target.table}")
    require_refusal(world.run(*pipelines), "target.missing")
    require_mended(world, pipelines)


def test_a_target_that_was_made_anew_is_refused(world: World) -> None:
    pipelines = loaded(world, MERGE)
    delta, postgresql = pipelines
    # With equal columns and without rows of its own it would leave the table as it is.
    rows = "SELECT 1L AS id, 'a' AS name, TIMESTAMP_NTZ '2024-01-01' AS at"
    world.spark.sql(f"CREATE OR REPLACE TABLE delta.`{world.delta_path(delta)}` USING delta AS {rows}")
    table = f"{world.target}.{postgresql.target.table}"
    world.sql(f"CREATE TABLE {world.target}.other AS SELECT * FROM {table}", f"DROP TABLE {table}")
    world.sql(f"ALTER TABLE {world.target}.other RENAME TO {postgresql.target.table}")
    require_refusal(world.run(*pipelines), "target.disturbed", "target.replaced", "ledger.behind")
    require_mended(world, pipelines)


def test_a_restored_or_emptied_target_is_refused(world: World) -> None:
    pipelines = loaded(world, MERGE, APPEND)
    restored, emptied = pipelines[0], pipelines[2]
    world.spark.sql(f"RESTORE TABLE delta.`{world.delta_path(restored)}` TO VERSION AS OF 1")
    world.spark.sql(f"DELETE FROM delta.`{world.delta_path(emptied)}`")
    for pipeline in (pipelines[1], pipelines[3]):
        world.sql(f"TRUNCATE {world.target}.{pipeline.target.table}")
    require_refusal(world.run(*pipelines), "target.disturbed", "target.emptied")
    # Also where the state was lost, so that only the target itself can tell.
    require_refusal(world.run(*pipelines, state="new"), "target.disturbed", "target.emptied")
    require_mended(world, pipelines)


def test_rows_of_somebody_else_are_not_overwritten(world: World) -> None:
    world.orders((1, "a", "2024-01-01"))
    pipelines = world.pipelines(MERGE, LoadMode.FULL_REFRESH)
    for pipeline in pipelines:
        if pipeline.target.connection == "delta":
            frame = world.spark.sql("SELECT 7L AS id, 'foreign' AS name, TIMESTAMP_NTZ '2020-01-01' AS at")
            frame.write.format("delta").save(world.delta_path(pipeline))
        else:
            table = f"{world.target}.{pipeline.target.table}"
            world.sql(
                f"CREATE TABLE {table} (id bigint PRIMARY KEY, name text, at timestamp)",
                f"INSERT INTO {table} VALUES (7, 'foreign', '2020-01-01')",
            )
    require_refusal(world.run(*pipelines), "target.not_empty")
    for pipeline in pipelines:
        assert world.target_rows(pipeline) == {("7", "foreign", "2020-01-01 00:00:00"): 1}
    require_mended(world, pipelines[:2])
