"""The staging table of one execution: created once, filled by Spark in parallel, never created by a load (R14)."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark_entry.adapters.jdbc_connection import DatabaseFailed, HeldConnection, find_fault
from spark_entry.dialects.writing import Load
from spark_entry.transforms import quote

if TYPE_CHECKING:
    from spark_entry.adapters.jdbc import JdbcAdapter

_BATCH = 10_000
_WRITERS = 16
_GONE = "uds_staging_is_gone"


def staging_prefix(pipeline_id: str) -> str:
    """What the names of a pipeline's staging tables begin with."""
    return f"uds_stg_{hashlib.sha256(pipeline_id.encode()).hexdigest()[:8]}_"


class Staging:
    """One staging table and how Spark fills it."""

    def __init__(self, adapter: JdbcAdapter, connection: HeldConnection, load: Load) -> None:
        self._adapter = adapter
        self._connection = connection
        self._load = load

    @staticmethod
    def name_of(pipeline_id: str, execution: str, attempt: int = 1) -> str:
        return f"{staging_prefix(pipeline_id)}{execution}{'' if attempt == 1 else f'_{attempt}'}"

    def create(self) -> None:
        columns = [(column.name, column.staged, column.native) for column in self._load.columns]
        self._connection.execute(self._adapter.dialect.create_staging(self._load.staging, self._load.target, columns))

    def fill(self, frame: DataFrame) -> None:
        """Load every row of the frame. Raises DatabaseFailed, or whatever reading the frame raises."""
        dialect = self._adapter.dialect
        staged = frame.select(
            *[
                F.expr(
                    dialect.wire_out(field.dataType.simpleString(), column.native).replace("{}", quote(field.name))
                ).alias(column.staged)
                for field, column in zip(frame.schema.fields, self._load.columns, strict=True)
            ]
        )
        properties = {
            **self._adapter.read_properties(),
            **self._adapter.write_properties(),
            "url": self._adapter.url,
            "driver": self._adapter.driver_class,
            "dbtable": self._load.staging,
            "batchsize": str(_BATCH),
            # Spark would create a table that is gone and fill it; with this the statement is no SQL, so it fails.
            "createTableOptions": _GONE,
        }
        try:
            # Not the option numPartitions, under which Spark reports 0 for whatever the frame observes.
            staged.coalesce(_WRITERS).write.format("jdbc").options(**properties).mode("append").save()
        except Exception as error:
            fault = find_fault(error)
            if fault is None or fault.reading:
                raise
            if _GONE in fault.message or _GONE in str(error):
                fault = replace(fault, state="42S02", vendor_code=0)
            raise DatabaseFailed(fault) from error
        for statement in self._adapter.dialect.after_staging(self._load.staging):
            self._connection.execute(statement)
