"""An environment for the scripts in tools: stand-ins of az, azd and databricks, and an app that takes packages."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.support.vendor_tools import install
from tools.delivery.history import Deployments
from tools.delivery.release import write_release

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


@contextmanager
def open_cloud(folder: Path) -> Generator[Cloud]:
    """A cloud in an empty folder, its app on loopback."""

    class App(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            running = folder / "state/running"
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
            refused = (folder / "state/refuse").exists()
            if not refused:
                (folder / "state/running").write_text(release)
            answer = b"A deployment is under way." if refused else b""
            self.send_response(409 if refused else 202)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), App) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Cloud(folder, f"http://127.0.0.1:{server.server_port}")
        server.shutdown()


def first_of_each(calls: list[str]) -> list[str]:
    return list(dict.fromkeys(call for call in calls if call in STEPS))
