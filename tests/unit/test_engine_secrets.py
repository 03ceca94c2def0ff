"""P26: what a secret is made of leaves the engine in no text."""

from __future__ import annotations

import pytest

from spark_entry.adapters.oracle import OracleAdapter
from spark_entry.secrets import Secrets
from sync_core.domain.connection import Connection
from sync_core.domain.errors import ConfigError


@pytest.mark.parametrize("secret", ["hunter2", "hunter2\n", " hunter2 ", "first line of it\nhunter2 is the second\n"])
def test_p26_a_secret_is_redacted_with_or_without_its_line_breaks(secret: str) -> None:
    secrets = Secrets({"UDS_SECRET_KV_PW": secret})
    secrets.get("kv", "pw")
    for line in secret.splitlines():
        assert "hunter2" not in secrets.redact(f"the sign-in with {line.strip()} was refused")


@pytest.mark.parametrize("tls", [None, True])
def test_an_oracle_connection_names_its_database(tls: bool | None) -> None:
    adapter = OracleAdapter(Connection("o", "oracle", "db", tls=tls), None, lambda _scope, _key: "")  # pyright: ignore
    with pytest.raises(ConfigError, match="names no database"):
        adapter.build_jdbc_url()
