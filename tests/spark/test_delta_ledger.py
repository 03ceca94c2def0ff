"""The ledger in a real Delta table's history, whatever else happens to the table."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from sync_core.domain.errors import PermanentError
from sync_core.domain.run import RunKind
from tests.spark.delta_tables import Loader, adapter


@pytest.fixture(scope="module")
def loaded(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Loader:
    """A target after its first load, for tests that only look or repair what they do."""
    loader = Loader(adapter(spark, tmp_path_factory.mktemp("lake")))
    first = loader.rows((1, "a", None), (2, "b", None))
    loader.create(first)
    loader.load(first)
    return loader


def test_others_in_between_do_not_hide_it(loaded: Loader) -> None:
    other = Loader(loaded.adapter, pipeline="other")
    other.load(loaded.rows((3, "c", None)))
    for statement in (
        "OPTIMIZE TABLE_NAME",
        "DELETE FROM TABLE_NAME WHERE id = 3",
        "UPDATE TABLE_NAME SET name = 'z' WHERE id = 2",
    ):
        loaded.sql(statement)
    # A session that keeps a load's metadata gives it to every statement, DDL included.
    session = loaded.spark.newSession()
    state = loaded.state()
    assert state.ledger is not None
    session.conf.set("spark.databricks.delta.commitInfo.userMetadata", state.ledger.to_text().replace(":1,", ":77,"))
    session.sql(f"ALTER TABLE {loaded.table} ADD COLUMNS (later int)")
    for number in range(18):
        session.sql(f"ALTER TABLE {loaded.table} SET TBLPROPERTIES ('note' = '{number}')")
    after = loaded.state()
    assert after.ledger is not None
    assert after.ledger == state.ledger
    assert after.disturbed is None
    assert (after.version or 0) - (after.ledger.commit_version or 0) > 20
    assert loaded.adapter.read_ledger(loaded.target, "orders") == (state.ledger,)


@pytest.mark.parametrize(
    ("statement", "operation"),
    [
        ("TRUNCATE TABLE TABLE_NAME", "TRUNCATE"),
        ("DELETE FROM TABLE_NAME", "DELETE"),
        ("INSERT OVERWRITE TABLE_NAME SELECT * FROM TABLE_NAME WHERE id = 1", "WRITE"),
        ("RESTORE TABLE TABLE_NAME TO VERSION AS OF 0", "RESTORE"),
    ],
)
def test_what_a_person_did_is_seen_and_a_full_refresh_mends_it(loaded: Loader, statement: str, operation: str) -> None:
    loaded.load(loaded.rows((1, "a", None)), kind=RunKind.FULL_REFRESH)
    assert loaded.state().disturbed is None
    loaded.sql(statement)
    state = loaded.state()
    assert (state.disturbed or "").startswith(f"{operation} at version ")
    assert state.ledger is not None
    assert state.ledger.holds_rows
    loaded.load(loaded.rows((1, "a", None)), kind=RunKind.FULL_REFRESH)
    assert loaded.state().disturbed is None


def test_a_named_table_replaced_or_dropped(spark: SparkSession, lake: Path) -> None:
    base = adapter(spark, lake)
    base.tables.connection = base.connection = type(base.connection)("lake", "databricks", schema="uds_ledger_test")
    loader = Loader(base)
    base.spark.sql(f"CREATE SCHEMA uds_ledger_test LOCATION '{lake}'")
    try:
        frame = loader.rows((1, "a", None))
        loader.create(frame)
        loader.load(frame)
        before = loader.state()
        loader.sql("CREATE OR REPLACE TABLE TABLE_NAME (id int, name string, at timestamp_ntz) USING DELTA")
        replaced = loader.state()
        assert (replaced.disturbed or "").startswith("CREATE OR REPLACE TABLE at version ")
        assert not replaced.has_rows
        late = loader.request(frame)
        loader.sql("DROP TABLE TABLE_NAME")
        assert not loader.state().exists
        loader.create(frame)
        created = loader.state()
        assert (created.exists, created.ledger, created.has_rows) == (True, None, False)
        assert created.object_id != before.object_id
        with pytest.raises(Exception, match="another run committed first"):
            loader.adapter.write_data(late)
    finally:
        base.spark.sql("DROP SCHEMA uds_ledger_test CASCADE")


def test_a_target_that_forgets_its_writers_is_refused(spark: SparkSession, lake: Path) -> None:
    loader = Loader(adapter(spark, lake))
    loader.create(loader.rows((1, "a", None)))
    loader.sql("ALTER TABLE TABLE_NAME SET TBLPROPERTIES ('delta.setTransactionRetentionDuration' = '7 days')")
    with pytest.raises(PermanentError) as raised:
        loader.state()
    assert raised.value.code == "target.retention"
