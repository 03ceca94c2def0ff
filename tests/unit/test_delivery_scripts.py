"""tools/deploy and tools/smoke-test against stand-ins of az and databricks, each step failing too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from tests.support.delivery_cloud import ROOT, STEPS, A, B, Cloud, first_of_each, open_cloud
from tools.delivery.commands import Stopped
from tools.delivery.history import Deployments
from tools.delivery.target import job_ids, launchable


@pytest.fixture
def cloud(tmp_path: Path) -> Generator[Cloud]:
    with open_cloud(tmp_path) as opened:
        yield opened


def test_a_deployment_takes_its_steps_in_order(cloud: Cloud) -> None:
    said = cloud.succeed("deploy", "dev", "--from", cloud.release(A))
    assert f"Release {A} runs in dev." in said
    assert first_of_each(cloud.calls()) == list(STEPS)
    assert cloud.state() == (A, A, A)
    assert cloud.deployments() == Deployments((A,), A)
    settings = json.loads((cloud.folder / "state/settings.json").read_text())
    assert settings == {
        "UDS_CONFIG": "config/compiled.json",
        "UDS_ENVIRONMENT": "dev",
        "UDS_RELEASE": A,
        "UDS_DATABRICKS_JOBS": "default=11",
    }
    kept = {path.name for path in (cloud.folder / "state/blobs/releases" / A).iterdir()}
    assert kept == {path.name for path in (cloud.folder / "releases" / A[:6]).iterdir()}


def test_a_deployment_can_be_repeated(cloud: Cloud) -> None:
    folder = cloud.release(A)
    cloud.succeed("deploy", "dev", "--from", folder)
    cloud.calls()
    cloud.succeed("deploy", "dev", "--from", folder)
    calls = cloud.calls()
    assert "az functionapp config appsettings set" not in calls
    assert calls.count("az storage blob upload") == 2  # the record alone, not the files
    assert cloud.state() == (A, A, A)
    assert cloud.deployments() == Deployments((A,), A)


@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_fails_stops_the_deployment(cloud: Cloud, step: str) -> None:
    folder = cloud.release(A)
    said = cloud.fail("deploy", "dev", "--from", folder, UDS_TESTS_FAIL=step)
    assert f"ERROR: ({step})" in said
    assert said.splitlines()[-1].startswith(f"tools/deploy: {' '.join(step.split()[:4])}")
    assert "ended with exit status 1; what it said is above." in said
    assert first_of_each(cloud.calls()) == list(STEPS[: STEPS.index(step) + 1])
    cloud.succeed("deploy", "dev", "--from", folder)
    assert cloud.state() == (A, A, A)


def test_a_release_that_does_not_answer_is_not_recorded_as_healthy(cloud: Cloud) -> None:
    cloud.given(A)
    lost = f"{cloud.url}/lost"
    said = cloud.fail("deploy", "dev", "--from", cloud.release(B), UDS_APP_URL=lost, UDS_HEALTH_SECONDS="0.1")
    assert f"After 0.1 s {lost}/api/health does not answer as release {B}: HTTP 503." in said
    assert cloud.deployments() == Deployments((A,), B)


def test_another_release_that_answers_is_not_enough(cloud: Cloud) -> None:
    cloud.given(A)
    said = cloud.fail("smoke-test", "dev", "--from", cloud.release(B), UDS_HEALTH_SECONDS="0.1")
    assert f"does not answer as release {B}: release {A}." in said


@pytest.mark.parametrize("script", ["deploy", "smoke-test", "rollback"])
def test_missing_variables_are_all_named(cloud: Cloud, script: str) -> None:
    arguments = () if script == "rollback" else ("--from", cloud.release(A))
    said = cloud.fail(
        script, "dev", *arguments, status=2, AZURE_RESOURCE_GROUP="", AZURE_TABLES_URL="", DATABRICKS_HOST=""
    )
    assert "These variables are not set: AZURE_RESOURCE_GROUP, AZURE_TABLES_URL, DATABRICKS_HOST." in said
    assert cloud.calls() == []


@pytest.mark.parametrize("script", ["deploy", "smoke-test", "rollback"])
def test_missing_programs_are_all_named(cloud: Cloud, script: str) -> None:
    arguments = () if script == "rollback" else ("--from", cloud.release(A))
    for name in ("az", "databricks"):
        (cloud.folder / "bin" / name).unlink()
    assert "Not on the PATH: az, databricks." in cloud.fail(script, "dev", *arguments, status=2)


def test_a_wrong_address_of_the_tables_is_said(cloud: Cloud) -> None:
    said = cloud.fail("deploy", "dev", "--from", cloud.release(A), status=2, AZURE_TABLES_URL="studs")
    assert "AZURE_TABLES_URL is not https://ACCOUNT.table.core.windows.net." in said


def _damage(folder: Path) -> None:
    (folder / "bundle.zip").write_bytes((folder / "bundle.zip").read_bytes() + b"x")


def _lose(folder: Path) -> None:
    (folder / "function-app.zip").unlink()


def _truncate(folder: Path) -> None:
    (folder / "release.json").write_text((folder / "release.json").read_text()[:90])


@pytest.mark.parametrize(("harm", "said", "status"), [
    (_damage, "bundle.zip is not the file that was built", 1),
    (_lose, "function-app.zip is missing from release", 1),
    (_truncate, "holds no release", 2),
])  # fmt: skip
def test_only_what_was_built_is_deployed(cloud: Cloud, harm: Callable[[Path], None], said: str, status: int) -> None:
    folder = cloud.release(A)
    harm(folder)
    assert said in cloud.fail("deploy", "dev", "--from", folder, status=status)
    assert cloud.calls() == []


def test_a_release_without_the_environments_configuration_is_refused(cloud: Cloud) -> None:
    said = cloud.fail("deploy", "test", "--from", cloud.release(A), status=2)
    assert f"Release {A} has no configuration for test; it has dev, prod. Write config/environments/test.yml" in said
    assert cloud.calls() == []


def test_what_is_not_committed_goes_to_dev_alone(cloud: Cloud) -> None:
    folder = cloud.release(f"{A}-dirty")
    assert "it goes to dev alone" in cloud.fail("deploy", "prod", "--from", folder, status=2)
    cloud.succeed("deploy", "dev", "--from", folder)


def test_the_smoke_test_moves_rows_and_asks_the_app(cloud: Cloud) -> None:
    cloud.given(A)
    folder = cloud.folder / "releases" / A[:6]
    assert f"Release {A} moves rows in dev." in cloud.succeed("smoke-test", "dev", "--from", folder)
    assert cloud.calls() == ["databricks bundle run smoke_test"]
    said = cloud.fail("smoke-test", "dev", "--from", folder, UDS_TESTS_FAIL="bundle run")
    assert "tools/smoke-test: databricks bundle run smoke_test … ended with exit status 1" in said


def test_a_package_that_is_refused_stops_the_deployment_and_shows_no_token(cloud: Cloud) -> None:
    (cloud.folder / "state/refuse").touch()
    said = cloud.fail("deploy", "dev", "--from", cloud.release(A))
    assert "refused the package with status 409: A deployment is under way." in said
    assert "the token of the tests" not in said
    gone = cloud.fail(
        "deploy", "dev", "--from", cloud.folder / "releases" / A[:6], UDS_PUBLISH_URL="http://127.0.0.1:9"
    )
    assert "http://127.0.0.1:9/api/publish?RemoteBuild=false&Deployer=uds did not take the package" in gone


def test_job_ids_become_compute_groups() -> None:
    jobs = job_ids(
        json.dumps({"resources": {"jobs": {"sync": {"id": 1}, "sync_large": {"id": "2"}, "maintenance": {"id": 3}}}})
    )
    assert launchable(jobs) == "default=1,large=2"
    for summary, said in (
        ("{}", "names no deployed jobs"),
        ('{"resources": {"jobs": {"sync": {}}}}', "names no deployed jobs"),
        ("", "names no"),
        ('{"resources": {"jobs": {"x": {"id": 1}}}}', "no job `sync`, only x"),
    ):
        with pytest.raises(Stopped, match=said):
            job_ids(summary)


def test_the_scripts_start_from_any_folder_and_say_how_they_are_called() -> None:
    for script in ("build-wheel", "build-package", "deploy", "smoke-test", "rollback"):
        done = subprocess.run(
            [ROOT / "tools" / script, "--help"],
            text=True,
            capture_output=True,
            check=True,
            cwd="/",
            env={**os.environ, "PYTHON": sys.executable},
        )
        assert done.stdout.startswith(f"usage: tools/{script}")
