"""One held `java.sql.Connection` of the database's own driver, through Spark's JVM gateway."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from py4j.java_gateway import is_instance_of  # pyright: ignore[reportUnknownVariableType]
from py4j.protocol import Py4JJavaError
from pyspark import SparkContext
from pyspark.sql import SparkSession

from spark_entry.compute_faults import JVM_GONE
from sync_core.domain.errors import PermanentError

Row = tuple[str | None, ...]
"""A row of a query: every value as the driver's `getString` gives it, so SQL makes the text of times itself."""

_NO_TABLES = ("INDEX", "SEQUENCE", "TYPE", "PARTITIONED INDEX", "SYSTEM INDEX", "TEMPORARY INDEX", "TEMPORARY SEQUENCE")


@dataclass(frozen=True)
class DatabaseFault:
    """What a driver says when it fails: the standard's state, the vendor's own code, and the words.

    `reading`: it failed while a Spark task read rows, so the fault is the source's even when a target was being written.
    """

    state: str
    vendor_code: int
    message: str
    reading: bool = False


class DatabaseFailed(Exception):
    """A statement or a sign-in failed. The adapter turns it into a SyncError and lets it go no further."""

    def __init__(self, fault: DatabaseFault) -> None:
        super().__init__(f"{fault.state} {fault.vendor_code}: {fault.message}")
        self.fault = fault


@dataclass(frozen=True)
class ResultColumn:
    """A column of a result as the driver describes it."""

    name: str
    type_name: str
    precision: int
    scale: int
    nullable: bool


class HeldConnection:
    """Statements on one connection, each its own transaction unless inside `transaction()`."""

    def __init__(self, gateway: Any, connection: Any) -> None:
        self._gateway = gateway
        self._connection = connection
        self._changing = threading.Lock()
        self._in_progress: Any = None
        self._cancelled: Any = None

    def query(self, statement: str, *values: str | int | None) -> list[Row]:
        """All rows of a small result."""
        with self._statement(statement, values) as run:
            result = run(True)
            width = range(1, result.getMetaData().getColumnCount() + 1)
            rows: list[Row] = []
            while result.next():
                rows.append(tuple(_text(result.getString(index)) for index in width))
            return rows

    def execute(self, statement: str, *values: str | int | None, seconds: int = 0) -> int:
        """Run a statement; the number of rows it changed. It fails after `seconds`, 0: it may take as long as it needs."""
        with self._statement(statement, values, seconds) as run:
            return int(run(False))

    def describe(self, statement: str) -> tuple[ResultColumn, ...]:
        """The columns of a query, without fetching a row; the statement must be cheap to execute."""
        with self._statement(statement, ()) as run:
            found = run(True).getMetaData()
            return tuple(
                ResultColumn(
                    str(found.getColumnLabel(index)),
                    str(found.getColumnTypeName(index)),
                    int(found.getPrecision(index)),
                    int(found.getScale(index)),
                    int(found.isNullable(index)) != 0,
                )
                for index in range(1, found.getColumnCount() + 1)
            )

    def tables(self, schema: str, names: tuple[str, ...]) -> list[tuple[str, str]]:
        """(schema, name) of tables and views of a schema that are called one of `names`, or of all when () is asked."""
        with _faults(self._gateway):
            data = self._connection.getMetaData()
            escape = str(data.getSearchStringEscape() or "")
            patterns = [_literally(name, escape) for name in names] or ["%"]
            found: list[tuple[str, str]] = []
            for pattern in patterns:
                rows = data.getTables(self._connection.getCatalog(), _literally(schema, escape), pattern, None)
                while rows.next():
                    if str(rows.getString("TABLE_TYPE")).upper() not in _NO_TABLES:
                        found.append((str(rows.getString("TABLE_SCHEM")), str(rows.getString("TABLE_NAME"))))
                rows.close()
            return found

    def tables_like(self, schema: str, prefix: str) -> list[str]:
        """Names of a schema's tables that begin with `prefix`."""
        with _faults(self._gateway):
            data = self._connection.getMetaData()
            escape = str(data.getSearchStringEscape() or "")
            pattern = _literally(prefix, escape) + "%"
            rows = data.getTables(self._connection.getCatalog(), _literally(schema, escape), pattern, None)
            found: list[str] = []
            while rows.next():
                if str(rows.getString("TABLE_TYPE")).upper() not in _NO_TABLES:
                    found.append(str(rows.getString("TABLE_NAME")))
            rows.close()
            return found

    def current_schema(self) -> str | None:
        """The schema that a bare table name means."""
        with _faults(self._gateway):
            return _text(self._connection.getSchema())

    def schemas(self) -> list[str]:
        """The names of all schemas."""
        with _faults(self._gateway):
            rows = self._connection.getMetaData().getSchemas()
            names: list[str] = []
            while rows.next():
                names.append(str(rows.getString("TABLE_SCHEM")))
            rows.close()
            return names

    def primary_key(self, schema: str, table: str) -> tuple[str, ...]:
        """The columns of the table's primary key, in its order."""
        with _faults(self._gateway):
            rows = self._connection.getMetaData().getPrimaryKeys(self._connection.getCatalog(), schema, table)
            columns: list[tuple[int, str]] = []
            while rows.next():
                columns.append((int(rows.getShort("KEY_SEQ")), str(rows.getString("COLUMN_NAME"))))
            rows.close()
            return tuple(name for _, name in sorted(columns))

    def unique_indexes(self, schema: str, table: str) -> tuple[tuple[str, ...], ...]:
        """The column sets of unique indexes over the whole table."""
        with _faults(self._gateway):
            # approximate=True: with False Oracle's driver runs ANALYZE TABLE.
            rows = self._connection.getMetaData().getIndexInfo(self._connection.getCatalog(), schema, table, True, True)
            indexes: dict[str, list[str]] = {}
            partial: set[str] = set()
            while rows.next():
                index, column = _text(rows.getString("INDEX_NAME")), _text(rows.getString("COLUMN_NAME"))
                if index is None or column is None:
                    continue
                indexes.setdefault(index, []).append(column)
                if rows.getString("FILTER_CONDITION"):
                    partial.add(index)
            rows.close()
            return tuple(tuple(columns) for name, columns in indexes.items() if name not in partial)

    @contextmanager
    def transaction(self) -> Generator[None]:
        """Commit when the block ends well, roll back when it raises."""
        self.begin()
        try:
            yield
        except BaseException:
            self._roll_back()
            raise
        with _faults(self._gateway):
            self._connection.commit()
            self._connection.setAutoCommit(True)

    def begin(self) -> None:
        """Start a transaction."""
        with _faults(self._gateway):
            self._connection.setAutoCommit(False)

    def interrupt(self) -> None:
        """Make a statement in progress fail: cancel it, or break the connection when it goes on in spite of that.

        Called by another thread. A commit is not interrupted: it is short, and only its end tells what it came to.
        """
        with self._changing:
            statement, again = self._in_progress, self._in_progress is self._cancelled
            self._cancelled = statement
            if statement is None:
                return
            with suppress(*JVM_GONE):
                if again:
                    self._connection.abort(self._gateway.jvm.java.util.concurrent.ForkJoinPool.commonPool())
                else:
                    statement.cancel()

    def close(self) -> None:
        """Give the connection up. A server that has gone already does not matter any more."""
        with suppress(*JVM_GONE):
            self._connection.close()

    def _roll_back(self) -> None:
        try:
            self._connection.rollback()
            self._connection.setAutoCommit(True)
        except JVM_GONE:
            # The connection is broken, so the server rolls back by itself; what broke it is being raised already.
            self.close()

    @contextmanager
    def _statement(
        self, text: str, values: tuple[str | int | None, ...], seconds: int = 0
    ) -> Generator[Callable[[bool], Any]]:
        with _faults(self._gateway):
            # SQL Server's driver runs a prepared statement in sp_executesql, at whose end every SET is undone.
            statement = self._connection.prepareStatement(text) if values else self._connection.createStatement()
            given = () if values else (text,)
            try:
                if seconds:
                    statement.setQueryTimeout(seconds)
                for index, value in enumerate(values, start=1):
                    if isinstance(value, int):
                        statement.setLong(index, value)
                    else:
                        statement.setString(index, value)
                self._enter(statement)
                yield lambda rows: statement.executeQuery(*given) if rows else statement.executeUpdate(*given)
            finally:
                # Waits for a cancellation that is on its way, lest it hit the next statement.
                self._enter(None)
                with suppress(*JVM_GONE):
                    statement.close()

    def _enter(self, statement: Any) -> None:
        with self._changing:
            self._in_progress = statement


def connect(spark: SparkSession, driver: str, url: str, properties: Mapping[str, str]) -> HeldConnection:
    """Sign in with the driver's own class. Raises DatabaseFailed, or PermanentError without gateway or driver."""
    gateway, jvm = _gateway(spark)
    loader = jvm.java.lang.Thread.currentThread().getContextClassLoader()
    try:
        loaded = loader.loadClass(driver)
    except Py4JJavaError as error:
        if "ClassNotFoundException" not in str(error):
            raise
        raise PermanentError(
            "database.no_driver",
            f"The JDBC driver {driver} is not on Spark's class path.",
            "Add its package to the compute's libraries, or name it as driver_package of the connection.",
        ) from error
    given = jvm.java.util.Properties()
    for name, value in properties.items():
        given.setProperty(name, value)
    with _faults(gateway):
        connection = loaded.newInstance().connect(url, given)
    if connection is None:
        raise PermanentError(
            "database.address",
            f"The driver {driver} does not understand the address of the connection.",
            "Check options.url.",
        )
    return HeldConnection(gateway, connection)


def find_fault(error: BaseException) -> DatabaseFault | None:
    """The driver's fault behind an error of a Spark job or of the gateway; None when there is none."""
    gateway = _active_gateway()
    seen: BaseException | None = error
    # Bounded: pyspark raises errors that it does not know from themselves.
    for _ in range(20):
        if seen is None:
            break
        if isinstance(seen, DatabaseFailed):
            return seen.fault
        thrown = getattr(seen, "java_exception", None) or getattr(seen, "_origin", None)
        if thrown is not None and gateway is not None:
            fault = _fault_in(gateway, thrown)
            if fault is not None:
                return fault
        seen = seen.__cause__ or seen.__context__
    return None


def _gateway(spark: SparkSession) -> tuple[Any, Any]:
    try:
        context: Any = spark.sparkContext
        return context._gateway, context._jvm
    except Exception as error:
        raise PermanentError(
            "engine.no_gateway",
            "This compute has no JVM gateway (Spark Connect, serverless or shared access mode).",
            "Run on classic compute in dedicated access mode.",
        ) from error


def _active_gateway() -> Any:
    return getattr(SparkContext, "_gateway", None)


@contextmanager
def _faults(gateway: Any) -> Generator[None]:
    try:
        yield
    except Py4JJavaError as error:
        fault = _fault_in(gateway, error.java_exception)
        if fault is None:
            raise
        raise DatabaseFailed(fault) from error


def _fault_in(gateway: Any, thrown: Any) -> DatabaseFault | None:
    """The deepest SQLException: a batch's own exception says only that the batch failed."""
    found: DatabaseFault | None = None
    steps = 0
    while thrown is not None and steps < 20:
        if is_instance_of(gateway, thrown, "java.sql.SQLException"):
            state, code, message = thrown.getSQLState(), thrown.getErrorCode(), thrown.getMessage()
            reading = any("JDBCRDD" in str(frame.getClassName()) for frame in thrown.getStackTrace())
            fault = DatabaseFault(str(state or ""), int(code), str(message or ""), reading)
            found = fault if found is None or fault.state else found
            thrown = thrown.getNextException() or thrown.getCause()
        else:
            thrown = thrown.getCause()
        steps += 1
    return found


def _literally(name: str, escape: str) -> str:
    """A search pattern that matches only this name."""
    return "".join(escape + character if character in ("_", "%", escape) else character for character in name)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
