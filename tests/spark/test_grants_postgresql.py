"""infra/grants/postgresql.sql on a real server: enough for every kind of run, and each single grant is needed."""

from __future__ import annotations

import secrets
from collections.abc import Generator
from dataclasses import dataclass, field, replace

import psycopg
import pytest

from spark_entry.adapters.postgresql import PostgresqlAdapter
from sync_core.domain.connection import Connection
from sync_core.domain.pipeline import LoadMode, Pipeline
from sync_core.domain.run import Action, Outcome, RunKind, RunResult
from tests.support.grants import read_grants
from tests.support.world import SECRET, World

PASSWORD = "a password of the tests"  # pragma: allowlist secret


@dataclass
class Shop:
    """A database of its own, whose PUBLIC may do nothing, with the tables that the script names."""

    world: World
    name: str = field(default_factory=lambda: f"d{secrets.token_hex(5)}")
    roles: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        self.world.sql(f"CREATE DATABASE {self.name}", f"REVOKE ALL ON DATABASE {self.name} FROM PUBLIC")
        self.sql(
            "REVOKE ALL ON SCHEMA public FROM PUBLIC",
            "CREATE SCHEMA sales",
            "CREATE SCHEMA reporting",
            "CREATE TABLE sales.orders (id bigint PRIMARY KEY, name text, at timestamp)",
            "CREATE TABLE reporting.orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text, at timestamp)",
            "INSERT INTO sales.orders SELECT i, 'n' || i, TIMESTAMP '2024-01-01' + i * INTERVAL '1 hour' FROM generate_series(1, 500) i",
        )

    def sql(self, *statements: str) -> list[tuple[object, ...]]:
        server = self.world.postgres
        rows: list[tuple[object, ...]] = []
        with psycopg.connect(server.conninfo, dbname=self.name, autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement.encode())
                rows = cursor.fetchall() if cursor.description else []
        return rows

    def role(self, without: str | None = None) -> str:
        """A new role with every grant of the script but one."""
        role = f"r{secrets.token_hex(5)}"
        self.roles.append(role)
        for statement in read_grants("postgresql"):
            if statement != without:
                self.sql(statement.replace("uds_sync", role).replace("DATABASE shop", f"DATABASE {self.name}"))
        self.sql(f"ALTER ROLE {role} PASSWORD '{PASSWORD}'")
        return role

    def connect(self, role: str) -> tuple[str, str]:
        """Names of a source's and a target's connection as this role."""
        server = self.world.postgres
        for kind, schema in (("from", "sales"), ("to", "reporting")):
            self.world.connections[f"{kind}_{role}"] = Connection(
                f"{kind}_{role}", "postgresql", "127.0.0.1", server.port, self.name,
                username=role, schema=schema, secret=replace(SECRET, key="least"),
            )  # fmt: skip
        return f"from_{role}", f"to_{role}"

    def pipeline(self, role: str, table: str = "orders", mode: LoadMode = LoadMode.MERGE) -> Pipeline:
        source, target = self.connect(role)
        made = self.world.pipeline("postgresql", mode, "orders", f"{table}_{mode.value}_{role}")
        return replace(made, source=replace(made.source, connection=source), target=replace(made.target, connection=target, table=table))  # fmt: skip

    def same(self, table: str = "orders") -> bool:
        columns = "id, name, at"
        found = self.sql(
            f"(SELECT {columns} FROM sales.orders EXCEPT SELECT {columns} FROM reporting.{table}) "
            f"UNION ALL (SELECT {columns} FROM reporting.{table} EXCEPT SELECT {columns} FROM sales.orders)"
        )
        return not found

    def drop(self) -> None:
        self.world.sql(f"DROP DATABASE {self.name} WITH (FORCE)", *(f"DROP ROLE {role}" for role in self.roles))


@pytest.fixture
def shop(world: World) -> Generator[Shop]:
    world.secrets[replace(SECRET, key="least").environment_variable] = PASSWORD
    made = Shop(world)
    yield made
    made.drop()


def test_the_grants_of_the_script_are_enough_for_every_kind_of_run(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Into a table that is there and one that it creates; in parts under one snapshot, appended, merged, replaced."""
    monkeypatch.setattr(PostgresqlAdapter, "_parts", lambda *_: 2)
    role, world = shop.role(), shop.world
    merge, created = shop.pipeline(role), shop.pipeline(role, "fresh")
    appended = shop.pipeline(role, "appended", LoadMode.INCREMENTAL)
    for result in ask(world, merge, created, appended):
        assert (result.problems, result.error) == ((), None), result
    world.good(merge, created, appended)
    assert shop.same()
    assert shop.same("fresh")
    shop.sql(
        "UPDATE sales.orders SET name = 'changed', at = TIMESTAMP '2024-03-01' WHERE id <= 10",
        "INSERT INTO sales.orders VALUES (9001, 'new', TIMESTAMP '2024-03-02')",
    )
    assert [result.rows.updated for result in world.good(merge, created)] == [10, 10]
    assert shop.same()
    shop.sql("DELETE FROM sales.orders WHERE id > 9000")
    world.good(merge, created, kind=RunKind.FULL_REFRESH)
    assert shop.same()
    assert shop.same("fresh")
    assert not shop.sql("SELECT 1 FROM pg_tables WHERE tablename LIKE 'uds_stg_%'")


def test_a_role_without_any_one_of_the_grants_is_told_which(shop: Shop) -> None:
    grants = [statement for statement in read_grants("postgresql") if statement.startswith("GRANT")]
    pipelines = {grant: shop.pipeline(shop.role(without=grant)) for grant in grants}
    results = dict(zip(grants, ask(shop.world, *pipelines.values()), strict=True))
    assert len(grants) == 9
    for grant, result in results.items():
        told = [result.error] if result.error else list(result.problems)
        text = " ".join(f"{one.message} {one.remedy}" for one in told)
        words = grant.split()
        privilege, place = words[1], words[-3].replace("shop", shop.name)
        assert result.state is Outcome.FAILED or result.problems, grant
        assert place.split(".")[-1] in text, (grant, text)
        # PostgreSQL itself says only "permission denied for schema": the remedy says what of it.
        assert privilege in text or "use of its schema" in text, (grant, text)


def ask(world: World, *pipelines: Pipeline) -> list[RunResult]:
    """`uds validate --live`."""
    return world.app().ask_engine(pipelines, world.connections, Action.CHECK, lambda _event: None)
