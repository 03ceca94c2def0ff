"""P4: whatever event the engine is killed at, after the next run no row is missing and none is there twice.

Three modes and two kinds of target are killed at once, at the same event, in one process. The next run is in the tests'
own session, which is warm.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from sync_core.app import build
from sync_core.catalog import load_catalog
from sync_core.cli import run_command_line
from sync_core.cli.run import is_done
from sync_core.demo.servers import PostgresServer
from sync_core.domain.run import RunResult
from sync_core.settings import Settings
from tests.support.world import InProcessLauncher

ENGINE = Path(__file__).parents[1] / "support" / "crashing_engine.py"
EVENTS = (
    "run.started",
    "window.fixed",
    "read.planned",
    "write.staged",
    "commit.started",
    "commit.done",
    "result.written",
)
MODES = {"merge": "items", "incremental": "log", "full_refresh": "items"}
PIPELINES = [f"{mode}-{target}" for mode in MODES for target in ("lake", "pg")]

PIPELINE = """  - pipeline_id: {mode}-{target}
    source: {{connection: pg, table: crash.{table}}}
    target: {{connection: {target}, table: {name}}}
    mode: {mode}
    cursor: {{column: changed, type: timestamp, timezone: UTC, settle: 1s}}
"""


class World:
    """Two source tables, six pipelines, and the rows that must be in their targets."""

    def __init__(self, folder: Path, postgres: PostgresServer, spark: SparkSession) -> None:
        self.folder, self.postgres, self.spark = folder, postgres, spark
        self.rounds = 0
        postgres.execute(
            "CREATE SCHEMA crash",
            "CREATE TABLE crash.items (id int PRIMARY KEY, name text, changed timestamp NOT NULL)",
            "CREATE TABLE crash.log (id int PRIMARY KEY, name text, changed timestamp NOT NULL)",
        )
        config = folder / "config"
        config.mkdir()
        (config / "connections.yml").write_text(
            "connections:\n"
            f"  pg: {{type: postgresql, host: 127.0.0.1, port: {postgres.port}, database: {postgres.database},"
            " username: sync, secret_scope: t, secret_key: pg}\n"
            f"  lake: {{type: databricks, path: {folder / 'lake'}}}\n"
        )
        text = "pipelines:\n"
        for mode, table in MODES.items():
            for target in ("lake", "pg"):
                name = mode if target == "lake" else f"crash.{mode}_copy"
                text += PIPELINE.format(mode=mode, target=target, table=table, name=name)
                text += "    merge_keys: [id]\n" if mode == "merge" else ""
        (config / "pipelines.yml").write_text(text)

    def change(self) -> None:
        """New rows in both tables, two of them in a tie with the newest one before; changed rows in one."""
        self.rounds += 1
        first = self.rounds * 10
        moment = f"TIMESTAMP '2024-01-01' + INTERVAL '{self.rounds} minutes'"
        before = f"coalesce((SELECT max(changed) FROM crash.{{}}), {moment})"
        for table in ("items", "log"):
            self.postgres.execute(
                f"INSERT INTO crash.{table} SELECT i, 'tie', {before.format(table)} FROM generate_series({first}, {first + 1}) i",
                f"INSERT INTO crash.{table} SELECT i, 'new', {moment} FROM generate_series({first + 2}, {first + 6}) i",
            )
        self.postgres.execute(
            f"UPDATE crash.items SET name = 'round {self.rounds}', changed = {moment} WHERE id % 3 = 0"
        )

    def run(self) -> int:
        places = ["--config", str(self.folder / "config"), "--state", str(self.folder / "state")]
        return run_command_line(["run", *PIPELINES, *places, "--json"])

    def run_again(self) -> dict[str, RunResult]:
        state = self.folder / "state"
        launcher = InProcessLauncher(state / "runs", self.spark, {"UDS_SECRET_T_PG": self.postgres.password})
        catalog = load_catalog(self.folder / "config", None, {})
        app = replace(build(Settings(state)), launcher=launcher)
        results, refusals = app.run(catalog.select(PIPELINES), catalog.connections, lambda _: None)
        assert not refusals, refusals
        assert len(results) == len(PIPELINES)
        for result in results:
            assert is_done(result), result
        return {result.pipeline_id: result for result in results}

    def rows(self, pipeline: str) -> Counter[tuple[object, ...]]:
        mode, _, target = pipeline.partition("-")
        if target == "pg":
            return Counter(self.postgres.execute(f"SELECT id, name, changed FROM crash.{mode}_copy"))
        frame = self.spark.read.format("delta").load(str(self.folder / "lake" / mode))
        return Counter(tuple(row) for row in frame.select("id", "name", "changed").collect())

    def expected(self, pipeline: str) -> Counter[tuple[object, ...]]:
        table = MODES[pipeline.partition("-")[0]]
        return Counter(self.postgres.execute(f"SELECT id, name, changed FROM crash.{table}"))

    def leftover_staging(self) -> list[tuple[object, ...]]:
        return self.postgres.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'crash' AND tablename LIKE 'uds_stg%'"
        )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer, spark: SparkSession) -> Generator[World]:
    yield World(tmp_path_factory.mktemp("crash"), postgres, spark)
    postgres.execute("DROP SCHEMA crash CASCADE")


@pytest.mark.parametrize(
    ("event", "alone"), [(event, False) for event in EVENTS] + [("commit.started", True), ("commit.done", True)]
)
def test_p04_a_run_killed_at_any_event_loses_and_doubles_nothing(
    event: str, alone: bool, world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UDS_SECRET_T_PG", world.postgres.password)
    world.change()
    with monkeypatch.context() as crashing:
        crashing.setenv("UDS_ENGINE", f"{sys.executable} {ENGINE}")
        crashing.setenv("CRASH_AT", event)
        crashing.setenv("CRASH_PIPELINES", str(len(PIPELINES)))
        crashing.setenv("CRASH_ALONE", "1" if alone else "")
        status = world.run()
    killed = json.loads(capsys.readouterr().out)["runs"]
    if event == "result.written":
        # The results were there: nobody needs to be told of the kill.
        assert status == 0
    else:
        assert status == 1
        assert {run["error"]["code"] for run in killed} == {"engine.died"}
        assert all("killed by SIGKILL" in run["error"]["message"] for run in killed)

    after = world.run_again()
    for pipeline in PIPELINES:
        assert world.rows(pipeline) == world.expected(pipeline), pipeline
        if event == "commit.done" and not pipeline.startswith("full_refresh"):
            assert after[pipeline].rows.inserted == 0, f"{pipeline}: the killed run's commit was done again"
    assert world.leftover_staging() == []
