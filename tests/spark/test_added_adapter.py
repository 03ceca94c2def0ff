"""The documentation's example of an added adapter is complete: installed as a package, it moves rows."""

from __future__ import annotations

import re
import uuid
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from spark_entry.adapters.registry import adapter_for
from spark_entry.batch import Batch
from spark_entry.secrets import Secrets
from sync_core.catalog import load_catalog
from sync_core.demo.servers import PostgresServer
from sync_core.domain.run import Manifest, Outcome, RunKind, RunOrder

PAGE = Path(__file__).parents[2] / "docs" / "adding-an-adapter.md"


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


def test_the_example_of_an_added_adapter_moves_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spark: SparkSession, postgres: PostgresServer
) -> None:
    code = block("python")
    assert len(code.splitlines()) < 60
    (tmp_path / "uds_cockroach.py").write_text(code, encoding="utf-8")
    published = re.search(r"cockroachdb = \"(.*)\"", block("toml"))
    assert published is not None
    metadata = tmp_path / "uds_cockroach-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: uds-cockroach\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[universal_data_sync.adapters]\ncockroachdb = {published[1]}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    config = tmp_path / "config"
    config.mkdir()
    (config / "connections.yml").write_text(
        "connections:\n"
        f"  bank: {{type: cockroachdb, host: 127.0.0.1, port: {postgres.port}, database: {postgres.database},"
        " username: sync, secret_scope: kv, secret_key: bank}\n"
        f"  lake: {{type: databricks, path: {tmp_path / 'lake'}}}\n"
    )
    (config / "pipelines.yml").write_text(
        "pipelines:\n"
        "  - {pipeline_id: accounts, source: {connection: bank, table: accounts}, target: {connection: lake, table: accounts},\n"
        "     mode: merge, cursor: {column: changed, type: timestamp, timezone: UTC}, merge_keys: [id]}\n"
    )
    postgres.execute(
        "DROP TABLE IF EXISTS accounts",
        "CREATE TABLE accounts (id int PRIMARY KEY, changed timestamp NOT NULL)",
        "INSERT INTO accounts SELECT i, TIMESTAMP '2024-01-01' + i * INTERVAL '1 day' FROM generate_series(1, 100) i",
    )

    catalog = load_catalog(config, None, {})
    order = RunOrder(uuid.uuid4().hex, catalog.pipelines["accounts"], RunKind.INCREMENTAL)
    secrets = Secrets({"UDS_SECRET_KV_BANK": postgres.password})
    result = Batch(spark, Manifest("b", catalog.connections, (order,)), secrets, lambda _: None).run()[0]

    assert adapter_for("cockroachdb").__name__ == "CockroachAdapter"
    assert (result.state, result.error) == (Outcome.SUCCEEDED, None)
    assert result.rows.inserted == 100
    assert spark.read.format("delta").load(str(tmp_path / "lake" / "accounts")).count() == 100
