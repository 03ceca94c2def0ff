"""Databases for the JDBC tests."""

from __future__ import annotations

from collections.abc import Generator

import pytest
from pyspark.sql import SparkSession

from sync_core.demo.servers import H2Server, PostgresServer
from tests.spark.jdbc_databases import KINDS, Database, open_database


@pytest.fixture(params=KINDS)
def database(
    request: pytest.FixtureRequest, spark: SparkSession, postgres: PostgresServer, h2: H2Server
) -> Generator[Database]:
    """Each of the three databases in turn."""
    opened = open_database(request.param, spark, postgres, h2)
    yield opened
    opened.close()


@pytest.fixture
def postgresql(spark: SparkSession, postgres: PostgresServer, h2: H2Server) -> Generator[Database]:
    opened = open_database("postgresql", spark, postgres, h2)
    yield opened
    opened.close()


@pytest.fixture
def oracle(spark: SparkSession, postgres: PostgresServer, h2: H2Server) -> Generator[Database]:
    opened = open_database("oracle", spark, postgres, h2)
    yield opened
    opened.close()


@pytest.fixture
def azure_sql(spark: SparkSession, postgres: PostgresServer, h2: H2Server) -> Generator[Database]:
    opened = open_database("azure_sql", spark, postgres, h2)
    yield opened
    opened.close()
