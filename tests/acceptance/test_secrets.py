"""P26: no secret is in anything that is written, also when the database itself repeats it in its error."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from sync_core.cli import run_command_line
from tests.support.world import World

CONFIG = """connections:
  pg: {{type: postgresql, host: 127.0.0.1, port: {port}, database: {database}, username: {user}, schema: {source},
       secret_scope: tests, secret_key: leak}}
  copy: {{type: postgresql, host: 127.0.0.1, port: {port}, database: {database}, username: {user}, schema: {target},
       secret_scope: tests, secret_key: leak}}
  refused: {{type: postgresql, host: 127.0.0.1, port: {port}, database: {database}, username: nobody-here,
       secret_scope: tests, secret_key: leak}}
  lake: {{type: databricks, path: {lake}}}
pipelines:
"""
PIPELINE = """  - {{pipeline_id: {name}, source: {{connection: {source}, table: {table}}}, target: {{connection: {target}, table: {name}}},
     mode: merge, merge_keys: [id], cursor: {{column: at, type: timestamp, settle: 0s}}}}
"""


def test_p26_no_secret_is_written_anywhere(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # With characters that JSON, Python and addresses write in other ways: neither half may come out in any of them.
    user, halves = f"r{world.source}", (secrets.token_hex(8), secrets.token_hex(8))
    password = '"\\/ &=ü'.join(halves)
    world.orders((1, "a", "2024-01-01"))
    world.sql(
        f"CREATE ROLE {user} LOGIN SUPERUSER PASSWORD '{password}'",
        # The database's own words repeat it: while the table is looked at, and while it is read.
        "CREATE FUNCTION tell(id bigint) RETURNS text LANGUAGE plpgsql VOLATILE AS "
        f"$$ BEGIN RAISE EXCEPTION 'user={user} sent {password} for row %', id; END $$",
        "CREATE VIEW telling AS SELECT id, tell(id) AS name, at FROM orders",
        "CREATE VIEW telling_at AS SELECT id, name, at + tell(id)::interval AS at FROM orders",
    )
    config = tmp_path / "config"
    config.mkdir()
    text = CONFIG.format(
        port=world.postgres.port,
        database=world.postgres.database,
        user=user,
        source=world.source,
        target=world.target,
        lake=world.lake,
    )
    for name, source, table, target in (
        ("good-lake", "pg", "orders", "lake"),
        ("good-copy", "pg", "orders", "copy"),
        ("telling-lake", "pg", "telling", "lake"),
        ("telling-copy", "pg", "telling", "copy"),
        ("telling-at", "pg", "telling_at", "lake"),
        ("sign-in", "refused", "orders", "lake"),
    ):
        text += PIPELINE.format(name=name, source=source, table=table, target=target)
    (config / "sync.yml").write_text(text)
    (config / "sync.yml").rename(config / "pipelines.yml")
    (config / "connections.yml").write_text(text.partition("pipelines:")[0])
    (config / "pipelines.yml").write_text("pipelines:" + text.partition("pipelines:")[2])
    monkeypatch.setenv("UDS_SECRET_TESTS_LEAK", password)
    places = ["--config", str(config), "--state", str(tmp_path / "state")]
    try:
        assert run_command_line(["run", "*", *places]) == 1
        for command in (
            ["status"],
            ["history", "telling-lake"],
            ["status", "--json"],
            ["watermark", "show", "good-copy"],
        ):
            assert run_command_line([*command, *places]) in (0, 1)
    finally:
        world.sql(f"REASSIGN OWNED BY {user} TO {world.postgres.username}", f"DROP ROLE {user}")
    printed = "".join(capfd.readouterr())
    assert "good-lake" in printed
    assert "for row 1" in printed, "the database's own words are told, without the secret"
    assert not [half for half in halves if half in printed]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [str(path) for path in files if any(half.encode() in path.read_bytes() for half in halves)]
    for table in ("uds_ledger", "uds_ledger_runs", '"good-copy"'):
        assert not [half for half in halves if half in str(world.sql(f"SELECT * FROM {world.target}.{table}"))]
