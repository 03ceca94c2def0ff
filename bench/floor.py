"""The floor: what a careful engineer writes by hand, without any promise."""

from __future__ import annotations

import os
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession

from sync_core.demo.servers import PostgresServer

FETCH_SIZE = "10000"


class Floor:
    """A full copy in as many partitions as there are cores, and a merge of what is newer than the last maximum."""

    def __init__(self, spark: SparkSession, server: PostgresServer, path: Path) -> None:
        self._spark = spark.newSession()
        self._server = server
        self._path = str(path)

    def copy(self) -> None:
        cores = str(os.cpu_count() or 2)
        bounds = self._server.execute("SELECT min(id)::text, max(id)::text FROM orders")[0]
        options = {
            "partitionColumn": "id",
            "lowerBound": str(bounds[0]),
            "upperBound": str(bounds[1]),
            "numPartitions": cores,
        }
        self._read("orders", options).write.format("delta").mode("overwrite").save(self._path)

    def merge(self) -> None:
        target = f"delta.`{self._path}`"
        newest = self._spark.sql(f"SELECT max(updated_at) FROM {target}").head()  # pyright: ignore[reportUnknownMemberType]
        changed = f"(SELECT * FROM orders WHERE updated_at > '{newest[0] if newest else ''}') AS changed"
        self._read(changed, {}).createOrReplaceTempView("changed")
        self._spark.sql(  # pyright: ignore[reportUnknownMemberType]
            f"MERGE INTO {target} t USING changed s ON t.id = s.id WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *"
        )

    def _read(self, table: str, options: dict[str, str]) -> DataFrame:
        reader = self._spark.read.format("jdbc").option("url", self._server.jdbc_url).option("dbtable", table)
        reader = reader.option("user", self._server.username).option("password", self._server.password)
        reader = reader.option("driver", "org.postgresql.Driver").option("fetchsize", FETCH_SIZE)
        return reader.option("preferTimestampNTZ", "true").options(**options).load()
