"""P20 and P26 where the configuration keeps them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_core.catalog import Catalog, CatalogError, load_catalog
from sync_core.catalog.secrets import holds_credentials, is_secret_key
from sync_core.catalog.transformation_checks import find_changing

Load = Callable[..., Catalog]

CONNECTIONS = """\
connections:
  shop: {type: postgresql, host: db, database: shop, username: sync}
  lake: {type: databricks, path: ./lake}
"""


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def write(steps: str, mode: str = "merge", keys: str = "[ID, Region]") -> Catalog:
        (tmp_path / "connections.yml").write_text(CONNECTIONS)
        (tmp_path / "pipelines.yml").write_text(f"""\
pipelines:
  - pipeline_id: orders
    source: {{connection: shop, table: orders}}
    target: {{connection: lake, table: orders}}
    mode: {mode}
    cursor: {{column: CHANGED, type: timestamp}}
    merge_keys: {keys}
    transformations:
{steps}
""")
        return load_catalog(tmp_path, None, {})

    return write


REFUSED = [
    # steps, line, path, message
    ("- {type: drop, columns: [A, ID]}", 9, "[0].columns[1]", "drops ID, a merge key"),
    ("- {type: drop, columns: [changed]}", 9, "[0].columns[0]", "drops CHANGED, the cursor"),
    ("- {type: select, columns: [ID, REGION]}", 9, "[0].columns", "leaves out CHANGED, the cursor"),
    ("- {type: select, columns: [CHANGED, ID]}", 9, "[0].columns", "leaves out Region, a merge key"),
    ("- {type: cast, columns: {region: string}}", 9, "[0].columns.region", "changes the type of Region"),
    ("- {type: cast, columns: {CHANGED: date}}", 9, "[0].columns.CHANGED", "changes the type of CHANGED, the cursor"),
    ("- {type: derive, column: id, expression: '1'}", 9, "[0].column", "replaces ID, a merge key"),
    ("- {type: derive, column: CHANGED, expression: now()}", 9, "[0].column", "replaces CHANGED, the cursor"),
    ("- {type: rename, mapping: {OTHER: ID}}", 9, "[0].mapping.OTHER", "puts OTHER in the place of ID"),
    ("- {type: rename, mapping: {A: x, B: X}}", 9, "[0].mapping.B", "names two columns X"),
    ("- {type: rename, mapping: {ID: k}}\n- {type: drop, columns: [K]}", 10, "[1].columns[0]", "drops k, which is a merge key ID"),
    ("- {type: rename, mapping: {ID: k}}\n- {type: cast, columns: {k: int}}", 10, "[1].columns.k", "changes the type of k"),
    ("- {type: rename, mapping: {ID: k}}\n- {type: select, columns: [ID, Region, CHANGED]}", 10, "[1].columns", "leaves out k"),
    ("- {type: rename, mapping: {ID: k}}\n- {type: rename, mapping: {K: l}}", 10, "[1].mapping.K", "another spelling of k, which is"),
    ("- {type: rename, mapping: {ID: k}}\n- {type: derive, column: k, expression: '1'}", 10, "[1].column", "replaces k"),
    ("- {type: rename, mapping: {ID: k}}\n- {type: rename, mapping: {k: l}}\n- {type: drop, columns: [l]}", 11, "[2].columns[0]", "drops l"),
]  # fmt: skip


@pytest.mark.parametrize(("steps", "line", "path", "message"), REFUSED)
def test_p20_a_transformation_that_loses_the_cursor_or_a_key_is_refused(
    load: Load, steps: str, line: int, path: str, message: str
) -> None:
    with pytest.raises(CatalogError) as failure:
        load("\n".join("      " + step for step in steps.splitlines()))
    assert len(failure.value.faults) == 1, failure.value.faults
    fault = failure.value.faults[0]
    assert (fault.line, fault.path) == (line, "pipelines[0].transformations" + path)
    assert message in fault.message
    assert fault.remedy


@pytest.mark.parametrize(
    ("steps", "keys", "cursor"),
    [
        ("- {type: rename, mapping: {ID: id, CHANGED: changed_at}}", ("id", "Region"), "changed_at"),
        ("- {type: rename, mapping: {ID: k}}\n- {type: rename, mapping: {k: l}}", ("l", "Region"), "CHANGED"),
        ("- {type: rename, mapping: {ID: Region, Region: ID}}", ("Region", "ID"), "CHANGED"),
        ("- {type: rename, mapping: {ID: k}}\n- {type: derive, column: ID, expression: '1'}\n"
         "- {type: rename, mapping: {ID: l}}", ("k", "Region"), "CHANGED"),
        ("- {type: rename, mapping: {ID: k}}\n- {type: select, columns: [CHANGED, k, Region]}", ("k", "Region"), "CHANGED"),
        ("- {type: select, columns: [changed, id, region]}", ("ID", "Region"), "CHANGED"),
        ("- {type: rename, mapping: {ID: k}}\n- {type: drop, columns: [ID]}", ("k", "Region"), "CHANGED"),
        ("- {type: drop, columns: [NOTE]}\n- {type: cast, columns: {A: int}}\n"
         "- {type: derive, column: B, expression: ID + 1}", ("ID", "Region"), "CHANGED"),
    ],
)  # fmt: skip
def test_p20_a_rename_is_followed(load: Load, steps: str, keys: tuple[str, ...], cursor: str) -> None:
    pipeline = load("\n".join("      " + step for step in steps.splitlines())).pipelines["orders"]
    assert pipeline.target_keys == keys
    assert pipeline.target_cursor == cursor


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("rand()", "rand()"),
        ("1 + RAND (7)", "rand()"),
        ("uuid()", "uuid()"),
        ("A < current_timestamp", "current_timestamp"),
        ("A < Current_Timestamp()", "current_timestamp()"),
        ("datediff(now(), A) > 3", "now()"),
        ("unix_timestamp() - A", "unix_timestamp()"),
        ("monotonically_increasing_id()", "monotonically_increasing_id()"),
        ("concat('--', uuid())", "uuid()"),
        ("unix_timestamp(A)", None),
        ("A = 'rand()'", None),
        ("A = 'it''s now()'", None),
        ('A = "now()"', None),
        ("`now()` = 1", None),
        ("brand(A)", None),
        ("A -- rand()", None),
        ("A /* uuid() */", None),
        ("my_current_timestamp + 1", None),
        ("t.current_date", None),
        ("user_name = 'x'", None),
    ],
)
def test_expressions_that_give_another_value_each_time(expression: str, found: str | None) -> None:
    assert find_changing(expression) == found


def test_append_without_a_key_refuses_them_and_other_modes_do_not(load: Load) -> None:
    steps = "      - {type: derive, column: X, expression: uuid()}\n      - {type: filter, condition: D < now()}"
    with pytest.raises(CatalogError) as failure:
        load(steps, "incremental", "~")
    assert [
        (fault.line, fault.path.rpartition(".")[2]) for fault in failure.value.faults if "another" in fault.message
    ] == [
        (9, "expression"),
        (10, "condition"),
    ]
    load(steps, "incremental")
    load(steps, "merge")


SECRET = "hunter2Xq"  # pragma: allowlist secret

SECRET_LINES = [
    "password: hunter2Xq",
    "pwd: hunter2Xq",
    "token: hunter2Xq",
    "access_key: hunter2Xq",
    "client_secret: hunter2Xq",
    "Password: ${SECRET}",
    "host: sync:hunter2Xq@db",
    "host: sync/hunter2Xq@db",
    'host: "${SECRET_HOST}"',
    "port: hunter2Xq",
    "auth: hunter2Xq",
    "tls: hunter2Xq",
    "timezone: hunter2Xq",
    "secret_key: hunter2Xq/with spaces",
    "type: hunter2Xq",
    "options: hunter2Xq",
    "options: [hunter2Xq]",
    "options: {password: hunter2Xq}",
    "options: {sslpassword: hunter2Xq, accessToken: hunter2Xq}",
    "options: {javax.net.ssl.keyStorePassword: hunter2Xq}",
    "options: {url: 'jdbc:postgresql://sync:hunter2Xq@db/shop'}",  # pragma: allowlist secret
    "options: {url: 'jdbc:postgresql://db/shop?user=sync&password=hunter2Xq'}",
    "options: {url: 'jdbc:sqlserver://db;user=sync;password=hunter2Xq;'}",
    "options: {url: 'jdbc:oracle:thin:sync/hunter2Xq@db:1521/x'}",
    'options: {url: "jdbc:x://db;pwd=${SECRET}"}',
    "options: {url: 'sync:hunter2Xq'}",
    "options: {x: 'a=1 password = hunter2Xq'}",
    "password:hunter2Xq",
    "{password:hunter2Xq}",
    "password: *hunter2Xq",
    "password: !hunter2Xq x",
    "password: !hunter2Xq!x y",
    "password: %hunter2Xq",
    "password: @hunter2Xq",
    "password: [hunter2Xq",
    'password: "hunter2Xq',
    'password: "\\hunter2Xq"',
    "password: &hunter2Xq &hunter2Xq x",
    "password: hunter2Xq: x",
    "password: {hunter2Xq",
    "password:\n      - hunter2Xq",
    "password=hunter2Xq: ${UNSET}",
]


@pytest.mark.parametrize("line", SECRET_LINES)
@pytest.mark.parametrize("file", ["connections.yml", "environments/test.yml"])
def test_p26_no_secret_in_config_faults(tmp_path: Path, line: str, file: str) -> None:
    (tmp_path / "environments").mkdir()
    (tmp_path / "connections.yml").write_text(CONNECTIONS)
    (tmp_path / "environments/test.yml").write_text("connections: {}")
    (tmp_path / "pipelines.yml").write_text("pipelines: []")
    (tmp_path / file).write_text(
        f"connections:\n  shop:\n    {line}\n"
        + (
            "    database: shop\n    username: x\n  lake: {type: databricks, path: x}"
            if file == "connections.yml"
            else ""
        )
    )
    variables = {"SECRET": SECRET, "SECRET_HOST": f"sync:{SECRET}@db"}
    with pytest.raises(CatalogError) as failure:
        load_catalog(tmp_path, "test", variables)
    error = failure.value
    assert SECRET.lower() not in f"{error} {error.message} {error.remedy} {error.faults!r}".lower()
    assert all(fault.message and fault.file for fault in error.faults)


def test_p26_a_password_that_a_variable_fills_is_refused_too(tmp_path: Path) -> None:
    (tmp_path / "connections.yml").write_text(CONNECTIONS.replace("username: sync", 'username: sync, password: "${P}"'))
    (tmp_path / "pipelines.yml").write_text("pipelines: []")
    with pytest.raises(CatalogError) as failure:
        load_catalog(tmp_path, None, {"P": SECRET})
    fault = failure.value.faults[0]
    assert (fault.line, fault.path) == (2, "connections.shop.password")
    assert "never written" in fault.message
    assert "secret_scope" in fault.remedy


def test_p26_what_a_variable_holds_is_never_shown(tmp_path: Path) -> None:
    (tmp_path / "connections.yml").write_text(CONNECTIONS)
    (tmp_path / "pipelines.yml").write_text("""\
pipelines:
  - pipeline_id: ${S}
    source: {connection: "${S}", table: "${S}"}
    target: {connection: lake, table: "${S}"}
    mode: ${S}
    cursor: {column: "${S}", type: timestamp, initial: "${S}", settle: "${S}", lookback: "${S}"}
    merge_keys: ["${S}"]
    types: {A: "${S}"}
    read: {partitions: "${S}", fetch_size: "${S}"}
    tags: ["a ${S}"]
    transformations: [{type: "${S}"}]
""")
    with pytest.raises(CatalogError) as failure:
        load_catalog(tmp_path, None, {"S": SECRET})
    assert len(failure.value.faults) >= 10
    assert SECRET not in repr(failure.value.faults) + str(failure.value)


@pytest.mark.parametrize(
    "key",
    ["password", "PWD", "clientSecret", "client-secret", "sas_token", "accessKey", "api.key", "apikey", "trustStorePassword",
     "oracle.net.wallet_password", "connection_string", "passphrase", "sslpassword", "Secret"],
)  # fmt: skip
def test_keys_that_hold_secrets(key: str) -> None:
    assert is_secret_key(key)


@pytest.mark.parametrize(
    "key",
    ["username", "loginTimeout", "authentication", "oracle.jdbc.tokenAuthentication", "sslkey", "keyStoreLocation", "host",
     "accessTokenCallbackClass", "passwordAuthentication", "ssl", "encrypt", "compass", "oracle.net.tns_admin"],
)  # fmt: skip
def test_keys_that_hold_none(key: str) -> None:
    assert not is_secret_key(key)


@pytest.mark.parametrize(
    "text",
    ["db.example.com", "jdbc:postgresql://h1:5432,h2:5432/db?x=a@b", "jdbc:sqlserver://h:1433;encrypt=true",
     "abfss://container@account.dfs.core.windows.net/x", "jdbc:oracle:thin:@//h:1521/x", "jdbc:oracle:thin:@tcps://h/x",
     "jdbc:h2:tcp://localhost:9092/./x;MODE=Oracle", "user@example.com", "SET search_path = a"],
)  # fmt: skip
def test_addresses_without_credentials(text: str) -> None:
    assert not holds_credentials(text)


@given(
    st.text(
        min_size=1,
        alphabet=st.characters(blacklist_characters="@/ \t\r\n\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0", categories=["L", "P"]),
    )
)
def test_p26_any_password_in_an_address_is_found(password: str) -> None:
    assert holds_credentials(f"jdbc:postgresql://user:{password}@host/db")
    assert holds_credentials(f"jdbc:oracle:thin:user/{password}@host:1521/x")
    assert holds_credentials(f"jdbc:sqlserver://h;user=x;password={password}")
