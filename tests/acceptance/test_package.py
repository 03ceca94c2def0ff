"""What is deployed, built for real: the same bytes each time, and it works alone, without the repository."""

from __future__ import annotations

import email
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import azure.data.tables
import pytest
from pyspark.sql import SparkSession

from sync_core.adapters.service_bus_queue import ServiceBusQueue
from sync_core.catalog.compiled import load_compiled
from sync_core.domain.codec import from_json, to_json
from sync_core.domain.connection import Connection
from sync_core.domain.pipeline import LoadMode, Pipeline, Source, Target
from sync_core.domain.run import Manifest, Outcome, RunKind, RunOrder, RunResult, make_batch_id, make_run_key
from sync_core.messages import QUEUES
from tests.support.azurite import Azurite
from tests.support.databricks_api import FOLDER, DatabricksApi
from tests.support.service_bus import ServiceBusBroker

ROOT = Path(__file__).parents[2]
CONNECTIONS = """connections:
  shop: {type: postgresql, host: db.example.com, database: shop, username: sync, secret_scope: kv, secret_key: shop}
  lake: {type: databricks, catalog: "${UDS_TEST_CATALOG}", schema: bronze}
"""
PIPELINES = """pipelines:
  - pipeline_id: orders
    source: {connection: shop, table: orders}
    target: {connection: lake, table: orders}
    mode: full_refresh
    schedule: {every: 1d}
"""
WORKER = ("azure_functions_runtime", "azurefunctions")
"""Packages of the Functions host, not of the app."""

CONTROL_PLANE_ONLY = (
    "apprise", "azure", "cloudevents", "cronsim", "databricks", "httpx", "pydantic", "requests", "rich", "ruamel", "standardwebhooks", "typer",
)  # fmt: skip


def build(output: Path, config: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """tools/build-package with a bundle of one file: what it makes of the real one is all the same."""
    bundle = output.parent / "bundle"
    bundle.mkdir(exist_ok=True)
    (bundle / "databricks.yml").write_text("bundle: {name: tests}\n")
    command = [ROOT / "tools/build-package", "--output", output, "--config", config, "--bundle", bundle]
    return subprocess.run(
        list(map(str, command)), text=True, capture_output=True, check=False, cwd=output.parent,
        env={**os.environ, "PYTHON": sys.executable, "UDS_TEST_CATALOG": "uds", **environment},
    )  # fmt: skip


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package") / "config"
    (folder / "environments").mkdir(parents=True)
    (folder / "connections.yml").write_text(CONNECTIONS)
    (folder / "pipelines.yml").write_text(PIPELINES)
    for name in ("dev", "prod"):
        (folder / f"environments/{name}.yml").write_text(f"connections: {{lake: {{schema: {name}}}}}\n")
    return folder


@pytest.fixture(scope="module")
def release(config: Path) -> Path:
    done = build(config.parent / "dist", config)
    assert done.returncode == 0, done.stderr
    return config.parent / "dist"


def test_a_release_is_the_same_bytes_each_time(release: Path, config: Path, tmp_path: Path) -> None:
    done = build(tmp_path / "again", config, TZ="Asia/Kolkata", PYTHONHASHSEED="7")
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((folder / "release.json").read_text()) for folder in (release, tmp_path / "again"))
    assert first == second
    assert {*first["files"]} == {
        "bundle.zip",
        "function-app.zip",
        "sbom.cdx.json",
        f"universal_data_sync-{first['version']}-py3-none-any.whl",
    }
    for name in first["files"]:
        assert (release / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_the_package_holds_what_runs_and_nothing_else(release: Path) -> None:
    with zipfile.ZipFile(release / "function-app.zip") as package:
        names = package.namelist()
        build_file = json.loads(package.read("build.json"))
        native = [name for name in names if name.endswith(".so")]
        sizes = sum(entry.file_size for entry in package.infolist())
    ours = {name.split("/")[0] for name in names}
    assert ours == {"function_app.py", "host.json", "sync_core", "config", "build.json", ".python_packages"}
    packages = {name.split("/")[3] for name in names if name.startswith(".python_packages/")}
    assert {"azure", "databricks", "pydantic", "cronsim"} <= packages
    assert not packages & {
        "pyspark",
        "delta",
        "pytest",
        "hypothesis",
        "universal_data_sync",
        "spark_entry",
        "tests",
        "pip",
        "bin",
    }
    assert not [name for name in names if "__pycache__" in name or name.startswith(("sync_core/cli", "sync_core/demo"))]
    assert native
    assert all("x86_64-linux-gnu" in name or "abi3" in name for name in native)
    assert all("cpython-313" in name or "abi3" in name for name in native)
    assert build_file.keys() == {"release", "version", "built_at"}
    assert len(build_file["release"].removesuffix("-dirty")) == 40
    assert sizes < 250_000_000


def test_the_package_holds_the_configuration_of_every_environment(release: Path, tmp_path: Path) -> None:
    shutil.unpack_archive(release / "function-app.zip", tmp_path)
    for name in ("dev", "prod"):
        lake = load_compiled(tmp_path / "config/compiled.json", name).connections["lake"]
        assert (lake.catalog, lake.schema) == ("uds", name)
    assert json.loads((release / "release.json").read_text())["environments"] == ["dev", "prod"]


def test_the_list_of_components_is_that_of_the_package(release: Path) -> None:
    listed = json.loads((release / "sbom.cdx.json").read_text())
    assert (listed["bomFormat"], listed["metadata"]["component"]["name"]) == ("CycloneDX", "universal-data-sync")
    components = {(plain(one["name"]), one["version"]) for one in listed["components"]}
    with zipfile.ZipFile(release / "function-app.zip") as package:
        facts = [
            email.message_from_bytes(package.read(name))
            for name in package.namelist()
            if name.endswith(".dist-info/METADATA")
        ]
    assert {(plain(one["Name"]), one["Version"]) for one in facts} == components


def plain(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize(("change", "said"), [
    ("connections.yml", "there is no such type of connection"),
    ("variable", "the variable UDS_TEST_CATALOG is not set"),
    ("environments", "holds no NAME.yml"),
])  # fmt: skip
def test_a_faulty_configuration_is_not_built(
    config: Path, tmp_path: Path, change: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(config, tmp_path / "config")
    if change == "variable":
        (copy / "connections.yml").write_text(
            CONNECTIONS.replace("UDS_TEST_CATALOG", "UDS_TEST_UNSET").replace("UNSET", "CATALOG_NOT")
        )
        said = "the variable UDS_TEST_CATALOG_NOT is not set"
    elif change == "environments":
        shutil.rmtree(copy / "environments")
    else:
        (copy / change).write_text(CONNECTIONS.replace("postgresql", "postgres_sql"))
    done = build(tmp_path / "dist", copy)
    assert done.returncode == 2
    assert said in done.stdout + done.stderr
    assert not list((tmp_path / "dist").glob("*.zip")) if (tmp_path / "dist").exists() else True


@pytest.fixture
def servers(tmp_path: Path) -> Generator[dict[str, str]]:
    """Servers of its own: other tests begin runs too."""
    with Azurite() as azurite, ServiceBusBroker() as broker:
        for queue in QUEUES:
            broker.create(queue, lock=60, duplicate_window=600)
        api = DatabricksApi(tmp_path / "databricks")
        yield {
            "UDS_TABLES": azurite.connection_string,
            "ServiceBusConnection": broker.connection_string,
            "UDS_DATABRICKS_HOST": api.url,
            "UDS_DATABRICKS_JOBS": f"default={api.job_id}",
            "UDS_RUN_FOLDER": FOLDER,
            "UDS_DATABRICKS_LOCAL_TOKEN": api.token,
        }
        api.close()


def start_package(release: Path, folder: Path, settings: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """The real Functions worker on the unpacked package, with nothing else on its path, started somewhere else."""
    package, worker, elsewhere = folder / "package", folder / "worker", folder / "elsewhere"
    shutil.unpack_archive(release / "function-app.zip", package)
    elsewhere.mkdir()
    installed = Path(azure.data.tables.__file__).parents[3]
    for name in WORKER:
        shutil.copytree(installed / name, worker / name)
    for name in ("functions_worker.py", "package_worker.py"):
        shutil.copy(ROOT / "tests/support" / name, worker / name)
    return subprocess.run(
        [sys.executable, "-I", "-S", str(worker / "package_worker.py"), str(package), str(worker)],
        text=True, capture_output=True, check=False, cwd=elsewhere,
        env={"PATH": os.environ["PATH"], "HOME": str(elsewhere), "UDS_CONFIG": "config/compiled.json", "UDS_ENVIRONMENT": "prod", **settings},
    )  # fmt: skip


def test_the_function_app_runs_from_its_package_alone(release: Path, tmp_path: Path, servers: dict[str, str]) -> None:
    done = start_package(release, tmp_path, servers)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert found["strangers"] == {}
    assert {"function_app", "sync_core.app", "pydantic", "databricks.sdk", "azure.functions", "azure.data.tables"} <= {
        *found["packaged"]
    }
    assert {
        "tick",
        "reconcile",
        "watch",
        "forget",
        "launch",
        "complete",
        "deliver",
        "take_request",
        "http",
        "health",
        "webhook",
    } <= {*found["functions"]}
    expected = json.loads((release / "release.json").read_text())["name"]
    assert found["health"] == [200, {"status": "ok", "release": expected, "pipelines": 1}]
    assert [one["pipeline_id"] for one in found["pipelines"][1]["pipelines"]] == ["orders"]
    # The timer began the one pipeline that is due, and sent it to be launched.
    queue = ServiceBusQueue.for_local_server(servers["ServiceBusConnection"])
    try:
        message = queue.receive("sync-runs")
        assert message is not None
        assert "orders" in message.body
    finally:
        queue.close()


@pytest.mark.parametrize(("setting", "value", "said"), [
    ("UDS_ENVIRONMENT", "test", "was compiled for dev, prod, and not for test"),
    ("UDS_CONFIG", "config/nothing.json", "is not a folder"),
])  # fmt: skip
def test_a_package_with_a_wrong_setting_says_which(
    release: Path, tmp_path: Path, servers: dict[str, str], setting: str, value: str, said: str
) -> None:
    done = start_package(release, tmp_path, {**servers, setting: value})
    assert done.returncode == 1
    assert said in done.stderr


@pytest.fixture
def bare(release: Path, tmp_path: Path) -> Path:
    """The Python of an environment that holds the wheel, pyspark and delta, and nothing else."""
    environment, spark_only = tmp_path / "bare", tmp_path / "spark"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin/python"
    [wheel] = release.glob("*.whl")
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-index",
        str(wheel),
    ]
    subprocess.run(install, check=True, env={**os.environ, "PIP_FIND_LINKS": ""})
    # pyspark and delta as they are installed here: a copy would take a minute and 400 MB.
    spark_only.mkdir()
    installed = Path(azure.data.tables.__file__).parents[3]
    for name in ("pyspark", "py4j", "delta"):
        (spark_only / name).symlink_to(installed / name)
    [packages] = environment.glob("lib/python*/site-packages")
    (packages / "spark.pth").write_text(f"{spark_only}\n")
    return python


def test_the_wheel_runs_a_manifest_where_only_pyspark_is(bare: Path, spark: SparkSession, tmp_path: Path) -> None:
    probe = f"import importlib.util as u, sys; print([n for n in {CONTROL_PLANE_ONLY} if u.find_spec(n)], u.find_spec('spark_entry').origin)"
    isolated = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    found = subprocess.run([bare, "-I", "-c", probe], text=True, capture_output=True, check=True, env=isolated).stdout
    assert found.startswith("[] ")
    assert str(bare.parents[1]) in found
    lake = tmp_path / "lake"
    spark.sql("SELECT id, 'name ' || id AS name FROM range(3)").write.format("delta").save(str(lake / "orders"))
    key = make_run_key("copy", "by hand", 1)
    batch = make_batch_id([key])
    pipeline = Pipeline("copy", Source("lake", table="orders"), Target("lake", "copied"), LoadMode.FULL_REFRESH)
    manifest = Manifest(
        batch,
        {"lake": Connection("lake", "databricks", path=str(lake))},
        (RunOrder(key, pipeline, RunKind.FULL_REFRESH),),
    )
    path = tmp_path / "runs" / batch / "manifest.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(to_json(manifest)))
    # As the Databricks task calls it: the function, not a file.
    call = f"import sys; from spark_entry.main import main; sys.exit(main(['--manifest', {str(path)!r}]))"
    done = subprocess.run(
        [bare, "-I", "-c", call], text=True, capture_output=True, check=False, cwd=tmp_path, env=isolated
    )
    assert done.returncode == 0, done.stderr
    result = from_json(RunResult, json.loads((path.parent / f"results/{key}.json").read_text()))
    assert (result.state, result.rows.read) == (Outcome.SUCCEEDED, 3), result.error
    copied = spark.read.format("delta").load(str(lake / "copied"))
    assert [tuple(row) for row in copied.orderBy("id").collect()] == [(0, "name 0"), (1, "name 1"), (2, "name 2")]
