"""`uds compile`: what the compiled file loads is what the YAML loads, and nothing faulty or secret gets into it."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from sync_core import cli
from sync_core.catalog import Catalog, CatalogError, load_catalog
from sync_core.catalog.compiled import COMPILED_VERSION, compile_catalog, load_compiled, read_catalog
from sync_core.catalog.faults import Fault
from sync_core.cli.init import starter
from sync_core.domain.errors import ConfigError

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = sorted(path.stem for path in (ROOT / "config/environments").glob("*.yml"))
CONNECTIONS = """\
connections:
  shop: {type: postgresql, host: "${HOST:-db}", database: shop, username: sync, secret_scope: kv, secret_key: shop}
  lake: {type: databricks, catalog: main, schema: bronze}
"""
PIPELINES = """\
pipelines:
  - pipeline_id: orders
    source: {connection: shop, table: orders}
    target: {connection: lake, table: orders}
    mode: full_refresh
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write(tmp_path / "config", {})


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in {"connections.yml": CONNECTIONS, "pipelines.yml": PIPELINES, **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def compiled(config: Path, *environments: str | None, **variables: str) -> Path:
    path = config.parent / "compiled.json"
    path.write_text(compile_catalog(config, environments or (None,), variables), encoding="utf-8")
    return path


def same(one: Catalog, other: Catalog) -> bool:
    """Equal but for the folder's place on this machine, and the pipelines in the same order."""
    places = {name: place[place.index("config/") :] for name, place in other.places.items()}
    return one == replace(other, places=places) and list(one.pipelines) == list(other.pipelines)


def find(config: Path) -> tuple[Catalog | None, tuple[Fault, ...]]:
    try:
        return load_catalog(config, None, {}), ()
    except CatalogError as error:
        return None, error.faults


def run(*arguments: str) -> int:
    return cli.run_command_line(list(arguments))


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_compiled_file_is_the_configuration_of_the_repository(environment: str, tmp_path: Path) -> None:
    path = tmp_path / "compiled.json"
    path.write_text(compile_catalog(ROOT / "config", ENVIRONMENTS, os.environ), encoding="utf-8")
    read = read_catalog(path, environment, {})
    assert same(read, load_catalog(ROOT / "config", environment, os.environ))
    assert read.pipelines


def test_the_starter_compiles(tmp_path: Path) -> None:
    config = write(tmp_path / "config", starter())
    assert same(load_compiled(compiled(config, "production"), "production"), load_catalog(config, "production", {}))


words = st.text(
    st.characters(codec="utf-8", exclude_characters="${}", exclude_categories=["Cc", "Cs"]), min_size=1
).filter(str.strip)
names = st.from_regex(r"[a-z][a-z0-9_]{0,12}", fullmatch=True)
schedules = st.sampled_from([
    {"cron": "*/5 6-22 * * MON-FRI", "timezone": "Europe/Oslo"}, {"every": "15m", "catch_up": "all"}, {"on_demand": True}, {"cron": "0 3 1 * *"},
])  # fmt: skip
steps = st.one_of(
    st.builds(lambda text: {"type": "filter", "condition": f"a = '{text}'"}, words),
    st.builds(lambda name, text: {"type": "derive", "column": f"d_{name}", "expression": f"'{text}'"}, names, words),
    st.builds(lambda name: {"type": "cast", "columns": {f"c_{name}": "decimal(38, 10)"}}, names),
    st.builds(lambda name: {"type": "rename", "mapping": {f"r_{name}": f"R {name}"}}, names),
)
modes = st.sampled_from([
    {"mode": "full_refresh"},
    {"mode": "merge", "merge_keys": ["id", "Line No"], "cursor": {"column": "at", "type": "timestamp", "initial": "2020-01-01", "settle": "90s", "lookback": "10m", "nulls": "ignore", "timezone": "Asia/Kolkata"}},
    {"mode": "incremental", "cursor": {"column": "n", "type": "number", "initial": "-12345678901234567890123456789012345678", "lookback": 0.5}},
])  # fmt: skip
extras = st.fixed_dictionaries({}, optional={
    "schedule": schedules, "transformations": st.lists(steps, max_size=3), "tags": st.lists(names, min_size=1, max_size=3, unique=True), "owner": words.map(str.strip),
    "types": st.dictionaries(names, st.just("string"), max_size=2), "retry": st.just({"attempts": 5, "delay": "10s"}), "paused": st.booleans(),
    "alerts": st.just({"stale_after": "9h", "zero_rows": False}), "channels": st.just(["ops"]), "read": st.just({"partitions": 8, "fetch_size": 1000}),
    "timeout": st.just("4h"), "compute": names, "schema_changes": st.sampled_from(["evolve", "freeze", "discard"]),
})  # fmt: skip


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(modes, extras), min_size=1, max_size=5), words)
def test_whatever_is_valid_comes_back_the_same(
    written: list[tuple[dict[str, Any], dict[str, Any]]], option: str
) -> None:
    pipelines = [
        {"pipeline_id": f"p{9 - number}", "source": {"connection": "shop", "table": f"t{number}"}, "target": {"connection": "lake", "table": f"t{number}"}, **mode, **extra}
        for number, (mode, extra) in enumerate(written)
    ]  # fmt: skip
    connections = {
        "shop": {"type": "postgresql", "host": "db", "database": "shop", "username": "sync", "port": 6543, "tls": False, "max_concurrent": 3, "options": {"applicationName": option}},
        "lake": {"type": "databricks", "path": "/Volumes/main/bronze/lake"},
    }  # fmt: skip
    channels = {
        "ops": {
            "type": "webhook",
            "url": "https://ops.example.com/alerts",
            "secret_scope": "kv",  # pragma: allowlist secret
            "secret_key": "hook",  # pragma: allowlist secret
            "conditions": ["failed"],
        }
    }
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config"
        config.mkdir()
        for name, document in {
            "connections.yml": {"connections": connections, "channels": channels},
            "pipelines.yml": {"pipelines": pipelines},
        }.items():
            with (config / name).open("w", encoding="utf-8") as file:
                YAML(typ="safe").dump(document, file)
        read, faults = find(config)
        event("valid" if read else "faulty")
        if read is None:
            with pytest.raises(CatalogError) as failure:
                compile_catalog(config, [None], {})
            assert failure.value.faults == faults
            return
        path = compiled(config)
        assert same(load_compiled(path, None), read)
        assert path.read_text(encoding="utf-8") == compile_catalog(config, [None], {})


def test_every_fault_is_printed_as_validate_prints_it(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(
        config,
        {"pipelines.yml": PIPELINES.replace("full_refresh", "refresh").replace("connection: shop", "connection: sop")},
    )
    assert run("validate") == 2
    printed = capsys.readouterr()
    assert run("compile", "--output", "out/compiled.json") == 2
    assert capsys.readouterr() == printed
    assert "2 faults." in printed.out
    assert not Path("out").exists()
    assert run("validate", "--json") == 2
    document = json.loads(capsys.readouterr().out)
    assert run("compile", "--output", "out/compiled.json", "--json") == 2
    assert json.loads(capsys.readouterr().out) == document


def test_the_faults_of_all_environments_come_at_once(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(
        config,
        {f"environments/{name}.yml": f"connections: {{lake: {{catalogue: {name}}}}}" for name in ("dev", "test")},
    )
    assert run("compile", "--environment", "dev", "--environment", "test", "--output", "c.json") == 2
    assert re.findall(r"environments/(\w+).yml:1", capsys.readouterr().out) == ["dev", "test"]


def test_the_command_writes_what_the_app_reads(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(
        config,
        {
            "environments/dev.yml": "connections: {lake: {catalog: dev}}",
            "environments/prod.yml": "connections: {lake: {catalog: prod}}",
        },
    )
    assert (
        run(
            "--config",
            "config",
            "compile",
            "--environment",
            "dev",
            "--environment",
            "prod",
            "--environment",
            "dev",
            "--output",
            "out/c.json",
        )
        == 0
    )
    assert capsys.readouterr().out == "out/c.json: 2 environments compiled.\n"
    assert [load_compiled(Path("out/c.json"), name).connections["lake"].catalog for name in ("dev", "prod")] == [
        "dev",
        "prod",
    ]
    assert not list(Path("out").glob("*.part"))
    assert run("compile", "--output", "config/connections.yml/c.json", "--json") == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "call.wrong"


def test_the_same_sources_give_the_same_bytes_wherever_they_lie(config: Path, tmp_path: Path) -> None:
    first = compile_catalog(Path("config"), [None], {"PWD": "postgresql", "PATH": "postgresql"})
    copy = shutil.copytree(config, tmp_path / "elsewhere/config")
    assert compile_catalog(copy, [None], {}) == first
    assert compile_catalog(Path("config"), [None], {}) == first
    (config / "pipelines.yml").write_text(PIPELINES + "# a note\n")
    changed = json.loads(compile_catalog(Path("config"), [None], {}))
    assert changed["sources"] != json.loads(first)["sources"]
    assert changed["content"] == json.loads(first)["content"]


def test_variables_are_filled_when_it_is_compiled(config: Path) -> None:
    path = compiled(config, HOST="db.example.com")
    assert read_catalog(path, None, {"HOST": "another.example.com"}).connections["shop"].host == "db.example.com"
    assert read_catalog(config, None, {"HOST": "another.example.com"}).connections["shop"].host == "another.example.com"


@pytest.mark.parametrize("cut", [0, 1, 100, -2, -40])
def test_a_truncated_file_is_refused(config: Path, cut: int) -> None:
    path = compiled(config)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ConfigError, match="is not a whole compiled configuration") as failure:
        load_compiled(path, None)
    assert failure.value.code == "config.compiled"


@pytest.mark.parametrize("text", ["[]", "3", "null", "{}", '{"version": 1}', "[" * 100_000])
def test_another_document_is_refused(config: Path, text: str) -> None:
    path = config.parent / "compiled.json"
    path.write_text(text)
    with pytest.raises(ConfigError) as failure:
        load_compiled(path, None)
    assert failure.value.code == "config.compiled"


def test_a_file_changed_by_hand_is_refused(config: Path) -> None:
    path = compiled(config)
    path.write_text(path.read_text().replace('"full_refresh"', '"merge"'))
    with pytest.raises(ConfigError, match="was changed after it had been compiled") as failure:
        load_compiled(path, None)
    assert failure.value.code == "config.compiled"


@pytest.mark.parametrize("version", [COMPILED_VERSION + 1, COMPILED_VERSION - 1, "1", None])
def test_another_version_is_refused(config: Path, version: object) -> None:
    path = compiled(config)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": version}))
    with pytest.raises(ConfigError, match="this release reads version 1") as failure:
        load_compiled(path, None)
    assert failure.value.code == "config.version"


def test_an_environment_that_was_not_compiled_is_refused(config: Path) -> None:
    write(config, {"environments/dev.yml": "connections: {}", "environments/prod.yml": "connections: {}"})
    path = compiled(config, "dev", "prod")
    for name, said in (("test", "not for test"), (None, "not for no environment")):
        with pytest.raises(ConfigError, match=f"was compiled for dev, prod, and {said}") as failure:
            load_compiled(path, name)
        assert failure.value.code == "config.environment"


def test_p26_a_variable_named_like_a_secret_is_a_fault(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(
        config, {"pipelines.yml": PIPELINES.replace("table: orders}\n    mode", "table: '${SHOP_PASSWORD}'}\n    mode")}
    )
    monkeypatch.setenv("SHOP_PASSWORD", "hunter2Xq")
    assert run("compile", "--output", "c.json") == 2
    printed = capsys.readouterr().out
    assert "config/pipelines.yml:4  fills in SHOP_PASSWORD, which is named like a secret" in printed
    assert "hunter2Xq" not in printed
    with pytest.raises(CatalogError, match="UDS_SECRET_KV_SHOP"):
        compiled(
            write(
                config,
                {"pipelines.yml": PIPELINES.replace("table: orders", "table: '${UDS_SECRET_KV_SHOP:-orders}'", 1)},
            )
        )


@pytest.mark.parametrize("value", ["hunter2Xq", 'a "quoted" ö secret'])
def test_p26_a_secret_under_another_name_is_refused(config: Path, value: str) -> None:
    write(
        config,
        {"pipelines.yml": PIPELINES + "    transformations: [{type: filter, condition: \"a = '${HARMLESS}'\"}]\n"},
    )
    variables = {"HARMLESS": value, "UDS_SECRET_KV_SHOP": value}
    with pytest.raises(ConfigError, match="the value of UDS_SECRET_KV_SHOP") as failure:
        compile_catalog(config, [None], variables)
    assert value not in str(failure.value)
    assert value in json.dumps(
        json.loads(compile_catalog(config, [None], {"HARMLESS": value})), ensure_ascii=False
    ).replace('\\"', '"')


@pytest.mark.parametrize("path", ["./lake", "lake", "~/lake", "${FOLDER}"])
def test_a_folder_of_the_compiling_machine_is_a_fault(config: Path, path: str) -> None:
    write(config, {"connections.yml": CONNECTIONS.replace("catalog: main, schema: bronze", f'path: "{path}"')})
    with pytest.raises(CatalogError, match="a folder of the machine that compiles") as failure:
        compile_catalog(config, [None], {"FOLDER": "lake"})
    assert [fault.path for fault in failure.value.faults] == ["connections.lake.path"]
    for other in ("/Volumes/main/bronze/lake", "abfss://lake@account.dfs.core.windows.net/x"):
        write(config, {"connections.yml": CONNECTIONS.replace("catalog: main, schema: bronze", f'path: "{other}"')})
        assert load_compiled(compiled(config), None).connections["lake"].path == other
