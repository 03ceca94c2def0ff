"""The held connection's statements, as the driver gets them."""

from __future__ import annotations

from unittest.mock import MagicMock

import pytest

from spark_entry.adapters.jdbc_connection import HeldConnection
from spark_entry.adapters.jdbc_ledger import Ledger
from spark_entry.dialects.azure_sql import AzureSqlDialect
from spark_entry.dialects.base import Dialect
from spark_entry.dialects.oracle import OracleDialect
from spark_entry.dialects.writing import LedgerTables
from spark_entry.ledger import LedgerEntry
from sync_core.domain.run import RunKind

ENTRY = LedgerEntry("orders", 0, 1, None, "key", RunKind.INCREMENTAL, "fingerprint")


@pytest.fixture
def java() -> MagicMock:
    """The driver's connection; each statement changes one row."""
    connection = MagicMock()
    for statement in (connection.prepareStatement.return_value, connection.createStatement.return_value):
        statement.executeUpdate.return_value = 1
    return connection


def test_a_statement_without_values_is_none_that_is_prepared(java: MagicMock) -> None:
    """SQL Server undoes a SET at the end of a prepared statement: lock time-out and IDENTITY_INSERT would be lost."""
    HeldConnection(None, java).execute("SET LOCK_TIMEOUT 60000")
    java.createStatement.return_value.executeUpdate.assert_called_once_with("SET LOCK_TIMEOUT 60000")
    java.prepareStatement.assert_not_called()


def test_values_are_bound(java: MagicMock) -> None:
    assert HeldConnection(None, java).execute("UPDATE t SET a = ?, b = ?", "it's", 7) == 1
    java.prepareStatement.assert_called_once_with("UPDATE t SET a = ?, b = ?")
    statement = java.prepareStatement.return_value
    statement.setString.assert_called_once_with(1, "it's")
    statement.setLong.assert_called_once_with(2, 7)
    statement.executeUpdate.assert_called_once_with()


@pytest.mark.parametrize(("dialect", "seconds"), [(OracleDialect(), 60), (AzureSqlDialect(), None)])
def test_a_first_load_does_not_wait_for_ever_for_another_one(
    java: MagicMock, dialect: Dialect, seconds: int | None
) -> None:
    """Oracle's sessions have no lock time-out, and there is no row yet that could be locked with a limit."""
    Ledger(HeldConnection(None, java), LedgerTables(dialect, "SALES")).take(None, ENTRY)
    limit = java.prepareStatement.return_value.setQueryTimeout
    assert [call.args for call in limit.mock_calls] == ([(seconds,)] if seconds else [])


def test_a_statement_that_took_too_long_is_tried_again() -> None:
    assert OracleDialect().fault("72000", 1013, "ORA-01013: user requested cancel of current operation") == "busy"
