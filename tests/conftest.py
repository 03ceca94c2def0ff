"""Real servers and one Spark session a process, each started when the first test asks for it."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from spark_entry.adapters.registry import known_driver_packages
from spark_entry.local_session import build_session
from sync_core.demo.servers import H2_PACKAGE, H2Server, PostgresServer
from tests.support.service_bus import ServiceBusBroker
from tests.support.world import World, watch_events


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Generator[PostgresServer]:
    with PostgresServer(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture(scope="session")
def h2(tmp_path_factory: pytest.TempPathFactory) -> Generator[H2Server]:
    with H2Server(tmp_path_factory.mktemp("h2")) as server:
        yield server


@pytest.fixture(scope="session")
def service_bus() -> Generator[ServiceBusBroker]:
    """A broker that has the queue `sync-rejected`; a test makes its own queues in it."""
    with ServiceBusBroker() as broker:
        yield broker


@pytest.fixture(scope="session")
def spark() -> Generator[SparkSession]:
    session = build_session([*known_driver_packages(), H2_PACKAGE], "tests")
    yield session
    session.stop()


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    folder = tmp_path / "lake"
    folder.mkdir()
    return folder


@pytest.fixture
def world(spark: SparkSession, postgres: PostgresServer, tmp_path: Path) -> Generator[World]:
    """A source, a target of each kind and a control plane, all empty."""
    with watch_events() as events:
        opened = World(spark, postgres, tmp_path, events)
        yield opened
        opened.sql(f"DROP SCHEMA {opened.source} CASCADE", f"DROP SCHEMA {opened.target} CASCADE")
