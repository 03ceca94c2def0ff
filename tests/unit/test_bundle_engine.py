"""The bundle and the wheel fit together: entry points, parameters, drivers, and the engine's own check of its start."""

from __future__ import annotations

import io
import logging
import os
import re
import subprocess
import sys
import tomllib
from configparser import ConfigParser
from contextlib import redirect_stderr
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from zipfile import ZipFile

import pytest
from pyspark.sql import SparkSession

from spark_entry import maintenance, smoke_test
from spark_entry.adapters.registry import known_driver_packages
from spark_entry.local_session import require_utc
from spark_entry.redacted_log import redacted_standard_error
from sync_core.domain.errors import ConfigError, PermanentError
from sync_core.domain.run import AuditPlace
from tests.support.bundle import Bundle

ROOT = Path(__file__).parents[2]
BUNDLE = Bundle(ROOT / "infra/databricks")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WHEEL = f"universal_data_sync-{PROJECT['version']}-py3-none-any.whl"
JOBS: dict[str, dict[str, Any]] = BUNDLE.resolved("prod")["jobs"]
TASKS: list[tuple[str, dict[str, Any]]] = [(name, task) for name, job in JOBS.items() for task in job["tasks"]]
CLUSTERS: list[tuple[str, dict[str, Any]]] = [
    (name, cluster["new_cluster"]) for name, job in JOBS.items() for cluster in job["job_clusters"]
]


def parameters_of(name: str) -> list[str]:
    (task,) = JOBS[name]["tasks"]
    return task["python_wheel_task"]["parameters"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (built,) = folder.iterdir()
    return built


def test_the_tasks_find_their_entry_points_in_the_wheel(wheel: Path) -> None:
    assert wheel.name == WHEEL
    with ZipFile(wheel) as content:
        information = wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info"
        entries = ConfigParser()
        entries.read_string(content.read(f"{information}/entry_points.txt").decode())
        metadata = content.read(f"{information}/METADATA").decode()
    assert f"Name: {PROJECT['name']}\n" in metadata
    called: set[str] = set()
    for name, task in TASKS:
        asked = task["python_wheel_task"]
        assert asked["package_name"] == re.sub(r"[-_.]+", "_", PROJECT["name"]), name
        module, _, function = entries["console_scripts"][asked["entry_point"]].partition(":")
        assert callable(getattr(import_module(module), function))
        called.add(asked["entry_point"])
    assert called == {entry for entry in PROJECT["scripts"] if entry != "uds"}


def test_jobs_and_artifact_mean_the_wheel_that_is_built() -> None:
    """Paths are relative to the file they stand in."""
    artifact = BUNDLE.root["artifacts"]["engine"]
    named = [BUNDLE.folder / file["source"] for file in artifact["files"]]
    for path, content in BUNDLE.included.items():
        for job in content["resources"].get("jobs", {}).values():
            for task in job["tasks"]:
                (whl,) = [path.parent / library["whl"] for library in task["libraries"] if "whl" in library]
                named.append(whl)
    assert len(named) == 1 + len(TASKS)
    for one in named:
        assert one.parent.resolve() == ROOT / "dist"
        assert Path(WHEEL).match(one.name)
        assert not Path("universal_data_sync_extras-0.1.0-py3-none-any.whl").match(one.name)


@pytest.mark.parametrize("has_tools", [True, False])
def test_the_artifact_is_built_in_a_clone_and_taken_as_it_is_from_a_release(tmp_path: Path, *, has_tools: bool) -> None:
    artifact = BUNDLE.root["artifacts"]["engine"]
    folder = tmp_path / "infra/databricks" / artifact["path"]
    folder.mkdir(parents=True)
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist" / WHEEL).write_text("promoted")
    if has_tools:
        script = tmp_path / "tools/build-wheel"
        script.parent.mkdir()
        script.write_text(f'#!/bin/sh\ncd "$(dirname "$0")/.." && echo built > dist/{WHEEL}\n')
        script.chmod(0o755)
    subprocess.run([artifact["executable"], "-e", "-c", artifact["build"]], cwd=folder, check=True, timeout=60)
    assert (tmp_path / "dist" / WHEEL).read_text().strip() == ("built" if has_tools else "promoted")
    # Before it builds, the CLI deletes `dist` below the artifact's path: that must not be where releases lie.
    assert (folder / "dist").resolve() != (tmp_path / "dist").resolve()


def test_the_drivers_are_those_the_adapters_know() -> None:
    for name, task in TASKS:
        drivers = sorted(library["maven"]["coordinates"] for library in task["libraries"] if "maven" in library)
        assert drivers == ([] if name == "maintenance" else known_driver_packages()), name


@dataclass
class Cluster:
    """What the engine's check sees of a cluster with these Spark confs."""

    settings: dict[str, str]

    @property
    def conf(self) -> Any:
        return SimpleNamespace(get=self.settings.get)

    def sql(self, statement: str) -> Any:
        assert "java.time.ZoneId" in statement
        return SimpleNamespace(collect=lambda: [(self.zone("driver"),)])

    def zone(self, process: str) -> str:
        options = self.settings.get(f"spark.{process}.extraJavaOptions", "")
        found = re.search(r"(?:^| )-Duser\.timezone=(\S+)", options)
        return found[1] if found else "Europe/Oslo"


@pytest.mark.parametrize(("name", "cluster"), CLUSTERS)
def test_the_engines_own_check_lets_it_start_on_every_cluster(name: str, cluster: dict[str, Any]) -> None:
    """On machines in another zone."""
    started = Cluster(cluster["spark_conf"])
    require_utc(cast("SparkSession", started))
    assert started.zone("executor") == "UTC"
    with pytest.raises(PermanentError):
        require_utc(cast("SparkSession", Cluster({})))


@pytest.mark.parametrize(("name", "cluster"), CLUSTERS)
def test_the_clusters_fit_the_engine(name: str, cluster: dict[str, Any]) -> None:
    assert cluster["data_security_mode"] == "DATA_SECURITY_MODE_DEDICATED"
    runtime = re.fullmatch(r"(\d+)\.(\d+)\.x-scala2\.13", cluster["spark_version"])
    assert runtime, cluster["spark_version"]
    assert (int(runtime[1]), int(runtime[2])) >= (17, 3)
    azure = cluster["azure_attributes"]
    assert azure["first_on_demand"] >= 1, "the driver must not be evicted"
    if name in ("sync", "sync_large"):
        assert azure["availability"] == "SPOT_WITH_FALLBACK_AZURE"
        assert 1 <= cluster["autoscale"]["min_workers"] < cluster["autoscale"]["max_workers"]
    else:
        # A cluster without workers that does not say it is a single node waits for them for ever.
        assert cluster["num_workers"] == 0
        assert cluster["spark_conf"]["spark.databricks.cluster.profile"] == "singleNode"
        assert cluster["spark_conf"]["spark.master"].startswith("local[*")
        assert cluster["custom_tags"]["ResourceClass"] == "SingleNode"


def test_the_jobs_pass_what_the_entry_points_accept() -> None:
    asked = maintenance.parse(parameters_of("maintenance"))
    assert (asked.catalog, asked.schema) == ("prod", "data_sync")
    assert asked.archive_after_days == maintenance.ARCHIVE_AFTER_DAYS
    smoke = smoke_test.parse(parameters_of("smoke_test"))
    assert (smoke.catalog, smoke.schema, smoke.secret_scope) == ("prod", "data_sync", "data-sync")
    assert smoke.folder == Path("/Volumes/prod/data_sync/runs")


def test_the_archive_is_ahead_of_the_deletion() -> None:
    kept = AuditPlace().kept_days
    place = ["--catalog", "c", "--schema", "s", "--archive-after-days"]
    assert maintenance.parse([*place, str(kept - 1)]).archive_after_days == kept - 1
    for days in (kept, kept + 1, 0, -1):
        with pytest.raises(ConfigError, match="archive"):
            maintenance.parse([*place, str(days)])


TASK = """
import logging, sys

class Console:
    # What a Databricks task prints into: an object without a descriptor.
    def __init__(self, name): self.name = name
    def write(self, text): open(self.name, "a").write(text); return len(text)
    def flush(self): pass

sys.stdout, sys.stderr = Console("out"), Console("err")
# The runtime has set up the root logger; its stream is not redacted.
logging.basicConfig(level=logging.INFO, stream=Console("unredacted"))
from spark_entry import wheel_tasks
try:
    wheel_tasks.sync()
except RuntimeError as error:
    Console("raised").write(str(error))
"""


@pytest.mark.parametrize("name", ["sync", "sync_large"])
def test_a_sync_task_without_its_manifest_fails_where_databricks_sees_it(tmp_path: Path, name: str) -> None:
    parameters = [one.replace("{{job.parameters.manifest}}", "nowhere/manifest.json") for one in parameters_of(name)]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-c", TASK, *parameters]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=120)
    assert "could not start" in (tmp_path / "raised").read_text()
    assert '"event": "batch.failed"' in (tmp_path / "out").read_text()
    assert '"code": "manifest.unreadable"' in (tmp_path / "out").read_text()
    assert "the batch could not start" in (tmp_path / "err").read_text()
    assert not (tmp_path / "unredacted").exists()


def test_what_a_task_logs_is_redacted_where_it_prints_into_an_object(capfd: pytest.CaptureFixture[str]) -> None:
    with redirect_stderr(io.StringIO()) as shown:
        own = sys.stderr
        with redacted_standard_error(lambda line: line.replace("pa55", "***")):
            logging.StreamHandler(sys.stderr).emit(logging.makeLogRecord({"msg": "pa55 of Python"}))
            os.write(2, b"pa55 of the JVM\n")
        assert sys.stderr is own
    assert shown.getvalue() == "*** of Python\n"
    assert capfd.readouterr().err == "*** of the JVM\n"
