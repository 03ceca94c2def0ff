"""What goes wrong outside is one clear sentence, and harms no neighbour in the batch."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from spark_entry.batch import Batch
from spark_entry.secrets import Secrets
from sync_core.domain.connection import SecretReference
from sync_core.domain.pipeline import Pipeline, Source, Target
from sync_core.domain.run import Action, Manifest, Outcome, RunKind, RunOrder, RunResult
from tests.support.world import World

EXPECTED = {
    "wrong_host": ("database.unreachable", "retryable"),
    "wrong_name": ("database.unreachable", "retryable"),
    "wrong_password": ("database.sign_in", "permanent"),
    "no_secret": ("secret.missing", "permanent"),
    "no_database": ("database.sign_in", "permanent"),
    "no_table": ("source.missing", "permanent"),
    "no_column": ("column.missing", "permanent"),
    "may_not_read": ("database.denied", "permanent"),
    "may_not_write": ("database.denied", "permanent"),
    "wrong_target_host": ("database.unreachable", "retryable"),
    "wrong_target_password": ("database.sign_in", "permanent"),
    "lake_is_a_file": ("target.unwritable", "permanent"),
}


@pytest.fixture
def stranger(world: World) -> Generator[str]:
    """A role that may sign in, and nothing more."""
    name = f"r{world.source}"
    world.sql(f"CREATE ROLE {name} LOGIN PASSWORD 'stranger'", f"GRANT USAGE ON SCHEMA {world.source} TO {name}")
    yield name
    world.sql(f"DROP OWNED BY {name}", f"DROP ROLE {name}")


def test_each_fault_is_one_sentence_and_neighbours_are_unharmed(
    world: World, stranger: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.orders((1, "a", "2024-01-01"))
    (world.folder / "file").write_text("not a folder")
    source, target = world.connections["pg"], world.connections["postgresql"]
    signed_in = {"username": stranger, "secret": SecretReference("tests", "stranger")}
    environment = world.environment | {
        "UDS_SECRET_TESTS_STRANGER": "stranger",  # pragma: allowlist secret
        "UDS_SECRET_TESTS_WRONG": "wrong-pa55",  # pragma: allowlist secret
    }
    monkeypatch.setattr(World, "environment", property(lambda _world: environment))
    wrong = SecretReference("tests", "wrong")
    for name, connection in {
        "wrong_host": replace(source, port=1),
        "wrong_name": replace(source, host="no-such-host.invalid"),
        "wrong_password": replace(source, secret=wrong),
        "no_secret": replace(source, secret=SecretReference("tests", "nowhere")),
        "no_database": replace(source, database="nowhere"),
        "may_not_read": replace(source, **signed_in),
        "may_not_write": replace(target, **signed_in),
        "wrong_target_host": replace(target, port=1),
        "wrong_target_password": replace(target, secret=wrong),
        "lake_is_a_file": replace(world.connections["delta"], path=str(world.folder / "file")),
    }.items():
        world.connections[name] = replace(connection, name=name)

    def broken(name: str) -> Pipeline:
        pipeline = world.pipeline("delta", name=name)
        match name:
            case "no_table":
                return replace(pipeline, source=Source("pg", "ordres"))
            case "no_column":
                return replace(pipeline, merge_keys=("idd",))
            case "may_not_write" | "wrong_target_host" | "wrong_target_password" | "lake_is_a_file":
                return replace(pipeline, target=Target(name, name))
            case _:
                return replace(pipeline, source=Source(name, "orders"))

    good = world.pipelines()
    failing = [broken(name) for name in EXPECTED]
    results = world.run(good[0], *failing, good[1])
    assert {result.state for result in (results[0], results[-1])} == {Outcome.SUCCEEDED}
    world.assert_equal(*good)
    faults: list[str] = []
    for result in results[1:-1]:
        code, kind = EXPECTED[result.pipeline_id]
        error = result.error
        assert error is not None, result
        shown = f"{result.pipeline_id}: {error.code} {error.kind}: {error.message} | {error.remedy}"
        fine = (code == error.code) and error.kind == kind and "\n" not in error.message and error.remedy
        if not fine or len(error.message) > 600 or "Exception" in error.message or "wrong-pa55" in shown:
            faults.append(shown)
        assert world.record(world.pipeline("delta", name=result.pipeline_id)).open_run is None
    assert not faults, "\n".join(faults)
    assert not list((world.folder / "lake").glob("wrong_*"))
    assert world.staging_tables() == []


def test_a_file_that_was_vacuumed_under_the_run_is_told_and_tried_again(world: World) -> None:
    source = world.folder / "lake" / "shelf"
    rows = "SELECT id, CAST(id AS STRING) AS name, TIMESTAMP_NTZ'2024-01-01' AS at FROM RANGE(5)"
    world.spark.sql(rows).coalesce(1).write.format("delta").save(str(source))
    pipelines = [replace(one, source=Source("delta", "shelf")) for one in world.pipelines()]

    moved = take_away(source)
    check_file_gone(world.run(*pipelines), "shelf")
    for file, place in moved.items():
        file.rename(place)
    world.good(*pipelines)

    # A merge reads its target. To load in full mends it, as the remedy says.
    into_delta = pipelines[0]
    world.spark.sql(f"UPDATE delta.`{source}` SET name = 'b', at = TIMESTAMP_NTZ'2024-01-02' WHERE id = 3")
    take_away(Path(world.delta_path(into_delta)))
    check_file_gone(world.run(into_delta), into_delta.target.table)
    world.good(into_delta, kind=RunKind.FULL_REFRESH)
    world.good(pipelines[1])
    expected = Counter((str(n), "b" if n == 3 else str(n), f"2024-01-0{2 if n == 3 else 1} 00:00:00") for n in range(5))
    assert [world.target_rows(one) for one in pipelines] == [expected, expected]


def take_away(table: Path) -> dict[Path, Path]:
    """Take a Delta table's data files away; where they are by where they were."""
    places = {file.with_suffix(".away"): file for file in table.glob("*.parquet")}
    for file, place in places.items():
        place.rename(file)
    return places


def check_file_gone(results: Sequence[RunResult], table: str) -> None:
    for result in results:
        assert (result.state, result.rows.inserted, result.rows.updated) == (Outcome.FAILED, 0, 0)
        assert result.error is not None
        assert (result.error.code, result.error.kind) == ("delta.file_gone", "retryable"), result.error
        assert f"/{table}/part-" in result.error.message
        assert "REFRESH TABLE" not in result.error.message
        assert f"uds run {result.pipeline_id} --full-refresh" in result.error.remedy


def test_the_live_check_names_missing_privileges(world: World) -> None:
    """The source is read by another user than the target is written by, who may do nothing there."""
    world.orders((1, "a", "2024-01-01"))
    user = f"u{secrets.token_hex(4)}"
    world.sql(
        f"CREATE ROLE {user} LOGIN PASSWORD 'weak-&-able'",
        f"GRANT USAGE ON SCHEMA {world.target} TO {user}",
        f"CREATE TABLE {world.target}.orders (id bigint PRIMARY KEY, name text, at timestamp)",
        f"GRANT SELECT ON {world.target}.orders TO {user}",
    )
    world.secrets["UDS_SECRET_TESTS_USER"] = "weak-&-able"  # pragma: allowlist secret
    weak = replace(world.connections["postgresql"], username=user, secret=SecretReference("tests", "user"))
    pipeline = replace(world.pipeline("postgresql"), target=Target("postgresql", "orders"))
    order = RunOrder(secrets.token_hex(32), pipeline, RunKind.INCREMENTAL)
    manifest = Manifest("batch", {**world.connections, "postgresql": weak}, (order,), Action.CHECK)
    result = Batch(world.spark, manifest, Secrets(world.environment), lambda _result: None).run()[0]
    world.sql(f"DROP OWNED BY {user}", f"DROP ROLE {user}")
    assert result.error is None
    lacking = [problem.message for problem in result.problems]
    assert lacking[0] == f"{user} lacks CREATE on the schema {world.target}, for staging tables and the ledger"
    assert lacking[1:] == [f"{user} lacks {name} on {world.target}.orders" for name in ("INSERT", "UPDATE", "DELETE")]
