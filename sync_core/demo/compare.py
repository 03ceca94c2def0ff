"""Counts and checksums of the demo's tables on both sides, by plain Spark: none of the engine's adapters takes part.

python -m sync_core.demo.compare < REQUEST         prints one JSON object: name → [count, checksum] of source and target
"""

from __future__ import annotations

import json
import sys
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_entry.local_session import build_session


def measure(frame: DataFrame) -> list[str]:
    """Rows, and the sum of a hash over every value's text, which no order of rows changes."""
    columns = sorted(frame.columns, key=str.lower)
    values = [F.coalesce(frame[name].cast("string"), F.lit("\u2205")) for name in columns]
    digest = F.sum(F.xxhash64(F.concat_ws("\u001f", *values)).cast("decimal(38,0)"))
    row = frame.agg(F.count(F.lit(1)), F.coalesce(digest, F.lit(0))).head()
    return [] if row is None else [str(row[0]), str(row[1])]


def read(spark: SparkSession, place: dict[str, str]) -> DataFrame:
    """A Delta folder, or a table behind JDBC."""
    if "path" in place:
        return spark.read.format("delta").load(place["path"])
    return spark.read.format("jdbc").options(**place, preferTimestampNTZ="true").load()


def main() -> None:
    """Measure every pair of the request."""
    request: dict[str, Any] = json.load(sys.stdin)
    spark = build_session(request["packages"], "uds demo compares")
    pairs: dict[str, dict[str, dict[str, str]]] = request["pairs"]
    result = {
        name: [measure(read(spark, sides[side])) for side in ("source", "target")] for name, sides in pairs.items()
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
