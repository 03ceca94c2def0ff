"""One environment's Azure and Databricks: what is asked of `az` and `databricks`, and nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast
from urllib.parse import urlsplit

from tools.delivery.archive import unzip
from tools.delivery.commands import Stopped, ask, require_variables, run, say
from tools.delivery.release import BUNDLE, PACKAGE, Release

NEEDED = ("AZURE_RESOURCE_GROUP", "AZURE_FUNCTION_APP_NAME", "AZURE_TABLES_URL", "DATABRICKS_HOST")
"""What every script needs to know of an environment; the first three are outputs of the Bicep templates."""

HEALTH_SECONDS = 900.0
"""How long a new package may take until it answers; UDS_HEALTH_SECONDS says otherwise."""

HEALTH_PAUSE = 5.0

PUBLISH_SECONDS = 600.0
"""How long the app may take to receive the package."""

MANAGEMENT = "https://management.azure.com"


@dataclass(frozen=True)
class Target:
    """An environment. `bundle_target` is the bundle's target of the same name."""

    environment: str
    resource_group: str
    app: str
    account: str

    @classmethod
    def read(cls, environment: str, variables: Mapping[str, str]) -> Target:
        """From variables. Raises Stopped that names every one that is missing."""
        found = require_variables(variables, NEEDED)
        host = urlsplit(found["AZURE_TABLES_URL"]).hostname or ""
        account, _, rest = host.partition(".")
        if not rest.startswith("table."):
            raise Stopped("AZURE_TABLES_URL is not https://ACCOUNT.table.core.windows.net.", 2)
        return cls(environment, found["AZURE_RESOURCE_GROUP"], found["AZURE_FUNCTION_APP_NAME"], account)

    @property
    def _in_group(self) -> tuple[str, ...]:
        return ("--resource-group", self.resource_group, "--name", self.app)

    def settings(self) -> dict[str, str]:
        """The app settings as they are now."""
        listed = ask("az", "functionapp", "config", "appsettings", "list", *self._in_group, "--output", "json")
        return {one["name"]: str(one["value"]) for one in json.loads(listed)}

    def set_settings(self, wanted: Mapping[str, str]) -> None:
        """Set what differs: each change restarts the app."""
        now = self.settings()
        changed = [f"{name}={value}" for name, value in sorted(wanted.items()) if now.get(name) != value]
        if not changed:
            say("The app settings are as they should be.")
            return
        command = ("az", "functionapp", "config", "appsettings", "set", *self._in_group)
        run(*command, "--output", "none", "--settings", *changed)

    def put_package(self, folder: Path) -> None:
        """Deploy the code. Nothing is built over there: the package is whole.

        `az functionapp deployment source config-zip` would build it anew whatever --build-remote says (Azure CLI 2.91,
        for Python on Flex Consumption), so the package goes to where that command sends it, and with the same sign-in.
        """
        token = ask(
            "az", "account", "get-access-token", "--resource", MANAGEMENT, "--query", "accessToken", "--output", "tsv"
        )
        url = f"{self.publisher()}/api/publish?RemoteBuild=false&Deployer=uds"
        say(f"+ POST {url}", sys.stderr)
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/zip"}
        request = urllib.request.Request(url, (folder / PACKAGE).read_bytes(), headers, method="POST")  # noqa: S310 - ours
        try:
            with urllib.request.urlopen(request, timeout=PUBLISH_SECONDS):  # noqa: S310 - an address of our own app
                pass
        except urllib.error.HTTPError as error:
            said = error.read(500).decode("utf-8", "replace").strip()
            raise Stopped(f"{url} refused the package with status {error.code}: {said or error.reason}.") from error
        except OSError as error:
            raise Stopped(f"{url} did not take the package: {getattr(error, 'reason', None) or error}.") from error

    def url(self) -> str:
        """Where the app answers; UDS_APP_URL where it is not the app's own host name."""
        # Flex Consumption shows its hosts beneath `properties`, other plans above.
        return self._host("UDS_APP_URL", "host name", "defaultHostName || properties.defaultHostName")

    def publisher(self) -> str:
        """Where the app takes its package; UDS_PUBLISH_URL where it is not the app's own deployment host."""
        query = "(hostNameSslStates || properties.hostNameSslStates)[?hostType=='Repository'].name | [0]"
        return self._host("UDS_PUBLISH_URL", "deployment host", query)

    def _host(self, variable: str, kind: str, query: str) -> str:
        given = os.environ.get(variable)
        if given:
            return given.rstrip("/")
        host = ask("az", "functionapp", "show", *self._in_group, "--query", query, "--output", "tsv")
        if not host or host == "None":
            raise Stopped(f"The function app {self.app} has no {kind}.")
        return f"https://{host}"

    def deploy_bundle(self, folder: Path, release: Release) -> dict[str, str]:
        """Deploy the release's bundle with its wheel. Returns the job ids by the bundle's keys."""
        with unpacked_bundle(folder, release) as bundle:
            run("databricks", "bundle", "deploy", "--target", self.environment, folder=bundle)
            summary = ask(
                "databricks", "bundle", "summary", "--target", self.environment, "--output", "json", folder=bundle
            )
        return job_ids(summary)

    def run_job(self, folder: Path, release: Release, job: str) -> None:
        """Run a job of the bundle and wait for its end. Raises Stopped unless it succeeded."""
        with unpacked_bundle(folder, release) as bundle:
            run("databricks", "bundle", "run", job, "--target", self.environment, folder=bundle)

    def wait_for_release(self, name: str) -> None:
        """Ask /api/health until this release answers. Raises Stopped with the last answer when it does not come."""
        url = f"{self.url()}/api/health"
        seconds = float(os.environ.get("UDS_HEALTH_SECONDS") or HEALTH_SECONDS)
        deadline = time.monotonic() + seconds
        say(f"Waiting until {url} answers as release {name}.")
        while True:
            answer = ask_health(url)
            if answer == f"release {name}":
                return
            if time.monotonic() >= deadline:
                raise Stopped(f"After {seconds:g} s {url} does not answer as release {name}: {answer}.")
            time.sleep(min(HEALTH_PAUSE, max(0.0, deadline - time.monotonic())))


def job_ids(summary: str) -> dict[str, str]:
    """The ids of the deployed jobs by key. Raises Stopped when there is no `sync` job among them."""
    try:
        resources = cast("dict[str, Any]", json.loads(summary)["resources"])
        jobs = {key: str(job["id"]) for key, job in resources["jobs"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Stopped("databricks bundle summary names no deployed jobs with their ids.") from error
    if "sync" not in jobs:
        raise Stopped(f"The bundle has no job `sync`, only {', '.join(jobs) or 'none'}.")
    return jobs


def launchable(jobs: Mapping[str, str]) -> str:
    """UDS_DATABRICKS_JOBS: the job `sync` serves the compute group `default`, `sync_NAME` the group NAME."""
    groups = {
        "default" if key == "sync" else key.removeprefix("sync_"): job for key, job in jobs.items() if _syncs(key)
    }
    return ",".join(f"{group}={job}" for group, job in sorted(groups.items()))


def _syncs(key: str) -> bool:
    return key == "sync" or key.startswith("sync_")


@contextlib.contextmanager
def unpacked_bundle(folder: Path, release: Release) -> Generator[Path]:
    """The release's bundle as it lies in the repository: in infra/databricks, the wheel in dist."""
    with TemporaryDirectory() as place:
        root, bundle = Path(place), Path(place) / "infra/databricks"
        bundle.mkdir(parents=True)
        unzip(folder / BUNDLE, bundle)
        (root / "dist").mkdir()
        (root / "dist" / release.wheel).write_bytes((folder / release.wheel).read_bytes())
        yield bundle


def ask_health(url: str) -> str:
    """`release NAME`, or what came instead."""
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - an address of our own app
            return f"release {json.loads(answer.read())['release']}"
    except urllib.error.HTTPError as error:
        return f"HTTP {error.code}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return str(getattr(error, "reason", None) or error) or type(error).__name__
