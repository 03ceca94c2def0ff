"""What the columns of a target make of values, and what a source holds that no watermark can."""

from __future__ import annotations

import secrets
from pathlib import Path

from sync_core.demo import servers
from sync_core.demo.servers import H2Server
from sync_core.domain.connection import Connection, SecretReference
from sync_core.domain.pipeline import Cursor, LoadMode, Pipeline, SchemaChanges, Source, Target
from sync_core.domain.run import Outcome, RunResult
from sync_core.domain.watermark import CursorType
from tests.support.world import World

H2 = SecretReference("tests", "h2")
APPEND, MERGE = LoadMode.INCREMENTAL, LoadMode.MERGE
AT = Cursor("at", CursorType.TIMESTAMP, settle_seconds=0)
DAY = Cursor("day", CursorType.DATE, settle_seconds=0)


def refusals(results: list[RunResult]) -> list[str | None]:
    return [result.error.code if result.error else None for result in results]


def test_p03_rows_are_compared_as_the_target_gives_them_back(world: World, h2: H2Server) -> None:
    """Padding, and Oracle's empty text, would else double the boundary's rows at each run; dates are Oracle dates."""
    url = h2.oracle_url(f"t{secrets.token_hex(5)}")
    h2.execute(url, (Path(servers.__file__).parent / "oracle_mode.sql").read_text())
    options = {"url": url, "driver": "org.h2.Driver"}
    world.secrets[H2.environment_variable] = h2.password
    world.connections["oracle"] = Connection("oracle", "oracle", username=h2.username, secret=H2, options=options)
    world.sql("CREATE TABLE texts (id bigint, name text, at timestamp)")
    world.insert((1, "", "2024-01-01"), (2, "b", "2024-01-01"), table="texts")
    world.sql(f"CREATE TABLE {world.target}.padded (id bigint, name char(5), at timestamp)")
    world.sql("CREATE TABLE days (id bigint PRIMARY KEY, day date)", "INSERT INTO days VALUES (1, '2024-01-01')")
    pipelines = (
        Pipeline("empty", Source("pg", "texts"), Target("oracle", "empty_texts"), APPEND, AT),
        Pipeline("padded", Source("pg", "texts"), Target("postgresql", "padded"), APPEND, AT),
        Pipeline("days", Source("pg", "days"), Target("oracle", "days"), MERGE, DAY, ("id",)),
    )
    assert [result.rows.inserted for result in world.good(*pipelines)] == [2, 2, 1]
    assert [result.state for result in world.good(*pipelines)] == [Outcome.UNCHANGED] * 3


def test_p17_a_target_never_rounds_in_silence(world: World) -> None:
    world.orders((1, "a", "2024-01-01 00:00:00.5"))
    world.sql("CREATE TABLE amounts (id bigint PRIMARY KEY, n numeric(10,2), at timestamp)")
    world.insert((1, "1.25", "2024-01-01"), table="amounts")
    world.sql(f"CREATE TABLE {world.target}.seconds (id bigint, name text, at timestamp(0))")
    seconds = Pipeline("seconds", Source("pg", "orders"), Target("postgresql", "seconds"), APPEND, AT)
    amounts = world.pipeline("delta", table="amounts", schema_changes=SchemaChanges.DISCARD)
    assert refusals(world.run(seconds, amounts)) == ["type.lossy", None]
    world.sql("UPDATE orders SET at = '2024-01-01'")
    world.sql("ALTER TABLE amounts ALTER COLUMN n TYPE numeric(12,4)", "UPDATE amounts SET at = '2024-01-02'")
    world.good(seconds, amounts)
    world.sql("UPDATE amounts SET n = 1.2345, at = '2024-01-03'")
    assert refusals(world.run(seconds, amounts)) == [None, "type.lossy"]
    assert next(row["n"] for row in world.delta(amounts).collect()).as_tuple().digits == (1, 2, 5)


def test_sources_that_no_watermark_can_hold(world: World) -> None:
    """P28: what lies beyond waits and is counted. P11, P12: keys of any spelling, doubled by inheritance, or filtered."""
    world.sql("CREATE TABLE numbers (id bigint PRIMARY KEY, n numeric)")
    world.sql("INSERT INTO numbers VALUES (1, 1), (2, 'Infinity'), (3, 'NaN')")
    world.sql("CREATE TABLE parent (id bigint PRIMARY KEY, at timestamp)", "CREATE TABLE child () INHERITS (parent)")
    world.sql("INSERT INTO parent VALUES (1, '2024-01-01')", "INSERT INTO child VALUES (1, '2024-01-02')")
    world.sql('CREATE TABLE keyless ("ID" bigint, at timestamp)', "INSERT INTO keyless VALUES (NULL, '2024-01-01')")
    world.sql('CREATE TABLE twins ("x" bigint, "X" bigint, at timestamp)')
    far, maps = (f"delta.`{world.lake / name}`" for name in ("far", "maps"))
    world.spark.sql(f"CREATE TABLE {far} (id bigint, at timestamp) USING delta")
    world.spark.sql(f"INSERT INTO {far} VALUES (1, TIMESTAMP'2024-01-01'), (2, timestamp_micros(400000000000000000))")
    world.spark.sql(f"CREATE TABLE {maps} (id bigint, m map<string, string>, at timestamp_ntz) USING delta")
    world.spark.sql(f"INSERT INTO {maps} VALUES (1, map('a', 'b'), TIMESTAMP_NTZ'2024-01-01')")
    number = Cursor("n", CursorType.NUMBER, settle_seconds=0)
    instant = Cursor("at", CursorType.TIMESTAMP_TZ, settle_seconds=0)
    query = f"SELECT * FROM {world.source}.parent -- all of them"
    pipelines = (
        Pipeline("numbers", Source("pg", "numbers"), Target("delta", "numbers"), MERGE, number, ("id",)),
        Pipeline("far", Source("delta", "far"), Target("delta", "far_copy"), APPEND, instant),
        Pipeline("parent", Source("pg", "parent"), Target("delta", "parent"), MERGE, AT, ("id",)),
        Pipeline("query", Source("pg", query=query), Target("delta", "query"), MERGE, AT, ("id",)),
        Pipeline("maps", Source("delta", "maps"), Target("delta", "maps_copy"), APPEND, AT),
        Pipeline("mapped", Source("delta", "maps"), Target("delta", "mapped"), MERGE, AT, ("id",)),
        Pipeline("keyless", Source("pg", "keyless"), Target("delta", "keyless"), MERGE, AT, ("id",)),
        Pipeline("twins", Source("pg", "twins"), Target("delta", "twins"), APPEND, AT),
    )
    results = world.run(*pipelines)
    assert refusals(results) == [None, None, None, None, None, None, "key.null", "source.columns"]
    assert [(result.rows.inserted, result.rows.future) for result in results[:4]] == [(1, 2), (1, 1), (1, 0), (1, 0)]
    assert [result.state for result in world.good(*pipelines[:6])] == [Outcome.UNCHANGED] * 6
