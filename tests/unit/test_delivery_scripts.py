"""tools/deploy, tools/smoke-test and tools/rollback against stand-ins of az, azd and databricks, each step failing too."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.vendor_tools import install
from tools.delivery.commands import Stopped
from tools.delivery.history import Deployments
from tools.delivery.release import write_release
from tools.delivery.target import job_ids, launchable

ROOT = Path(__file__).parents[2]
A, B, C = "a" * 40, "b" * 40, "c" * 40
VARIABLES = {
    "AZURE_RESOURCE_GROUP": "rg-uds",
    "AZURE_FUNCTION_APP_NAME": "func-uds",
    "AZURE_TABLES_URL": "https://studs.table.core.windows.net",
    "DATABRICKS_HOST": "https://adb-1.azuredatabricks.net",
}
STEPS = (
    "az storage container create",
    "az storage blob upload",
    "databricks bundle deploy",
    "databricks bundle summary",
    "az functionapp config appsettings list",
    "az functionapp config appsettings set",
    "az account get-access-token",
)
"""The calls of a deployment, in the order in which each comes for the first time."""


@dataclass
class Cloud:
    """What the stand-ins keep, and the app that answers with the release that was deployed last."""

    folder: Path
    url: str
    programs: tuple[str, ...] = ("az", "azd", "databricks")
    extra: dict[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        (self.folder / "state").mkdir()
        install(self.folder / "bin", *self.programs)

    def release(self, name: str, environments: Sequence[str] = ("dev", "prod")) -> Path:
        folder = self.folder / "releases" / name[:6]
        folder.mkdir(parents=True)
        with zipfile.ZipFile(folder / "function-app.zip", "w") as package:
            package.writestr("build.json", json.dumps({"release": name}))
        with zipfile.ZipFile(folder / "bundle.zip", "w") as bundle:
            bundle.writestr("databricks.yml", "bundle: {name: tests}\n")
        (folder / "universal_data_sync-0.1.0-py3-none-any.whl").write_text(name)
        (folder / "sbom.cdx.json").write_text("{}")
        write_release(folder, name, "0.1.0", "2026-01-01T00:00:00+00:00", tuple(environments))
        return folder

    def run(self, *command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        script, *arguments = map(str, command)
        given = {
            "PATH": f"{self.folder / 'bin'}:/usr/bin:/bin", "PYTHON": sys.executable, "UDS_TESTS_STATE": str(self.folder / "state"),
            "UDS_APP_URL": self.url, "UDS_PUBLISH_URL": self.url, "UDS_HEALTH_SECONDS": "20", **VARIABLES, **self.extra, **environment,
        }  # fmt: skip
        given = {name: value for name, value in given.items() if value}
        return subprocess.run([str(ROOT / "tools" / script), *arguments], text=True, capture_output=True, check=False, env=given, cwd=self.folder)  # fmt: skip

    def succeed(self, *command: str | Path, **environment: str) -> str:
        done = self.run(*command, **environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def fail(
        self, *command: str | Path, status: int = 1, given: Mapping[str, str] | None = None, **environment: str
    ) -> str:
        done = self.run(*command, **{**environment, **(given or {})})
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr

    def given(self, *names: str) -> None:
        """These releases have been deployed, one after the other."""
        state = self.folder / "state"
        for name in names:
            shutil.copytree(self.release(name), state / "blobs/releases" / name)
        record = json.dumps({"healthy": names, "attempted": names[-1]})
        (state / "blobs/releases/deployments.json").write_text(record)
        settings = {
            "UDS_CONFIG": "config/compiled.json",
            "UDS_ENVIRONMENT": "prod",
            "UDS_RELEASE": names[-1],
            "UDS_DATABRICKS_JOBS": "default=11",
        }
        (state / "settings.json").write_text(json.dumps(settings))
        for name in ("running", "engine"):
            (state / name).write_text(names[-1])

    def roll_back(self, *arguments: str) -> str:
        return self.succeed("rollback", *arguments, "--to", str(self.folder / "back"))

    def calls(self) -> list[str]:
        """The calls since the last time, each as the words before its options."""
        path = self.folder / "state/calls"
        found = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [line.split(" --")[0] for line in found]

    def state(self) -> tuple[str, str, str]:
        """The release of the app, of the engine, and of the app setting."""
        settings = json.loads((self.folder / "state/settings.json").read_text())
        return (
            (self.folder / "state/running").read_text(),
            (self.folder / "state/engine").read_text(),
            settings["UDS_RELEASE"],
        )

    def deployments(self) -> Deployments:
        found = json.loads((self.folder / "state/blobs/releases/deployments.json").read_text())
        return Deployments(tuple(found["healthy"]), found["attempted"])


@pytest.fixture
def cloud(tmp_path: Path) -> Generator[Cloud]:
    class App(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            running = tmp_path / "state/running"
            known = self.path == "/api/health" and running.exists()
            body = json.dumps({"status": "ok", "release": running.read_text() if known else ""}).encode()
            self.send_response(200 if known else 503)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            """Takes a package as Azure does; one whose release is `refused` it refuses."""
            body = self.rfile.read(int(self.headers["Content-Length"]))
            asked = (self.path, self.headers["Authorization"], self.headers["Content-Type"])
            assert asked == (
                "/api/publish?RemoteBuild=false&Deployer=uds", "Bearer the token of the tests", "application/zip"
            )  # fmt: skip
            with zipfile.ZipFile(io.BytesIO(body)) as package:
                release = json.loads(package.read("build.json"))["release"]
            refused = (tmp_path / "state/refuse").exists()
            if not refused:
                (tmp_path / "state/running").write_text(release)
            answer = b"A deployment is under way." if refused else b""
            self.send_response(409 if refused else 202)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), App) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Cloud(tmp_path, f"http://127.0.0.1:{server.server_port}")
        server.shutdown()


def first_of_each(calls: list[str]) -> list[str]:
    return list(dict.fromkeys(call for call in calls if call in STEPS))


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


def test_provisioning_comes_first_and_its_outputs_are_used(cloud: Cloud) -> None:
    outputs = [f'{name}="{value}"' for name, value in VARIABLES.items() if name != "DATABRICKS_HOST"]
    (cloud.folder / "state/outputs").write_text("\n".join(outputs))
    folder = cloud.release(A)
    unset: dict[str, str] = dict.fromkeys(("AZURE_RESOURCE_GROUP", "AZURE_FUNCTION_APP_NAME", "AZURE_TABLES_URL"), "")
    said = cloud.fail("deploy", "dev", "--from", folder, "--provision", status=2, given=unset)
    assert "These variables are not set: AZURE_SUBSCRIPTION_ID, AZURE_LOCATION." in said
    place = {"AZURE_SUBSCRIPTION_ID": "s", "AZURE_LOCATION": "northeurope"}
    cloud.succeed("deploy", "dev", "--from", folder, "--provision", **unset, **place)
    calls = cloud.calls()
    assert calls[:2] == ["azd provision", "azd env get-values"]
    assert first_of_each(calls) == list(STEPS)
    said = cloud.fail(
        "deploy", "dev", "--from", folder, "--provision", given={**unset, **place, "UDS_TESTS_FAIL": "azd provision"}
    )
    assert "tools/deploy: azd provision" in said
    assert cloud.calls() == ["azd provision"]


def test_provisioning_takes_no_jobs_from_an_app_that_runs(cloud: Cloud) -> None:
    cloud.given(A)
    place = {"AZURE_SUBSCRIPTION_ID": "s", "AZURE_LOCATION": "northeurope", "UDS_PROVISION": "true"}
    cloud.fail("deploy", "dev", "--from", cloud.release(B), given=place, UDS_TESTS_FAIL="az storage container create")
    assert cloud.calls()[:2] == ["az functionapp config appsettings list", "azd provision"]
    assert json.loads((cloud.folder / "state/settings.json").read_text())["UDS_DATABRICKS_JOBS"] == "default=11"


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


def test_a_rollback_puts_the_release_before_back_the_control_plane_first(cloud: Cloud) -> None:
    cloud.given(A, B)
    said = cloud.roll_back("prod")
    assert f"Release {A} runs in prod again." in said
    calls = cloud.calls()
    assert calls.index("az account get-access-token") < calls.index("databricks bundle deploy")
    assert cloud.state() == (A, A, A)
    assert cloud.deployments() == Deployments((A,), A)
    assert (cloud.folder / "back/release.json").exists()
    assert f"There is no release before {A} in this environment." in cloud.fail("rollback", "prod")


@pytest.mark.parametrize("step", ["databricks bundle deploy", "get-access-token", "appsettings set"])
def test_a_rollback_after_half_a_deployment_goes_to_the_last_that_answered(cloud: Cloud, step: str) -> None:
    cloud.given(A, B)
    cloud.fail("deploy", "prod", "--from", cloud.release(C), UDS_TESTS_FAIL=step)
    cloud.roll_back("prod")
    assert cloud.state() == (B, B, B)
    assert cloud.deployments() == Deployments((A, B), B)


@pytest.mark.parametrize("step", ["blob download", "appsettings set", "get-access-token", "databricks bundle deploy"])
def test_a_rollback_that_fails_can_be_repeated(cloud: Cloud, step: str) -> None:
    cloud.given(A, B)
    assert "tools/rollback: " in cloud.fail("rollback", "prod", A, "--to", cloud.folder / "back", UDS_TESTS_FAIL=step)
    cloud.roll_back("prod", A)
    assert cloud.state() == (A, A, A)
    assert cloud.deployments() == Deployments((A,), A)


def test_a_rollback_to_a_named_release(cloud: Cloud) -> None:
    cloud.given(A, B, C)
    cloud.roll_back("prod", A)
    assert cloud.state() == (A, A, A)
    said = cloud.fail("rollback", "prod", "d" * 40, "--to", cloud.folder / "back")
    assert f"Release {'d' * 40} is not in the container releases of studs." in said


def test_a_stored_release_that_was_changed_is_not_put_back(cloud: Cloud) -> None:
    cloud.given(A, B)
    (cloud.folder / "state/blobs/releases" / A / "function-app.zip").write_bytes(b"other")
    said = cloud.fail("rollback", "prod", "--to", cloud.folder / "back")
    assert "function-app.zip is not the file that was built" in said
    assert cloud.state() == (B, B, B)


def test_the_record_of_deployments() -> None:
    record = Deployments()
    with pytest.raises(Stopped, match="no release before the first"):
        record.before()
    for name in (A, B, A, C):
        record = record.begin(name).succeed(name)
    assert record == Deployments((A, B, A, C), C)
    assert record.succeed(C) == record
    assert record.before() == A
    back = record.begin(A).go_back(A)
    assert back == Deployments((A, B, A), A)
    assert back.before() == B
    assert record.begin("e").before() == C
    assert record.begin("e").go_back("e").healthy == (A, B, A, C, "e")


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
