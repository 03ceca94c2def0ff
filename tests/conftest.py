"""Real servers and one Spark session a process, each started when the first test asks for it."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from spark_entry.adapters.registry import known_driver_packages
from spark_entry.local_session import build_session
from sync_core.demo.servers import H2_PACKAGE, H2Server, PostgresServer
from tests.support.azurite import Azurite
from tests.support.databricks_api import DatabricksApi
from tests.support.receiver import Receiver
from tests.support.service_bus import ServiceBusBroker
from tests.support.world import World, watch_events

FAKE_ENGINE = (sys.executable, str(Path(__file__).parent / "support/fake_engine.py"), "--manifest", "{manifest}")
# Each test runs for seconds: better compiled code would never pay for itself. Engines in processes of their own inherit it.
# With one compiler alone Java reserves 48 MB for its code, which the whole suite fills: it then compiles over and over.
os.environ.setdefault("UDS_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=256m")


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Generator[PostgresServer]:
    with PostgresServer(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture(scope="session")
def h2(tmp_path_factory: pytest.TempPathFactory) -> Generator[H2Server]:
    with H2Server(tmp_path_factory.mktemp("h2")) as server:
        yield server


@pytest.fixture(scope="session")
def azurite() -> Generator[Azurite]:
    """Azure Storage on loopback: tables, blobs and queues. A test makes tables and containers of its own in it."""
    with Azurite() as server:
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


@pytest.fixture
def receiver() -> Generator[Receiver]:
    with Receiver() as running:
        yield running


@pytest.fixture
def databricks(tmp_path: Path) -> Generator[DatabricksApi]:
    """A workspace whose job runs the stand-in of the engine; `tests/support/fake_engine.py` says how it behaves."""
    api = DatabricksApi(tmp_path / "databricks", FAKE_ENGINE)
    yield api
    api.close()
