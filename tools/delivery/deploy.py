"""tools/deploy: put a release into an environment. Every step can be repeated."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from tools.delivery.commands import ROOT, Stopped, main, require_programs, say
from tools.delivery.history import History
from tools.delivery.provision import provision
from tools.delivery.release import DIRTY, Release, read_release
from tools.delivery.target import Target, launchable

CONFIG = "config/compiled.json"


def deploy(target: Target, folder: Path, release: Release) -> None:
    """The engine first: an engine older than its manifest refuses, a newer one reads the manifests of an older app."""
    history = History(target.account)
    history.keep(folder, release)
    deployments = history.deployments().begin(release.name)
    history.record(deployments)
    jobs = target.deploy_bundle(folder, release)
    target.set_settings(app_settings(target.environment, release) | {"UDS_DATABRICKS_JOBS": launchable(jobs)})
    target.put_package(folder)
    target.wait_for_release(release.name)
    history.record(deployments.succeed(release.name))


def app_settings(environment: str, release: Release) -> dict[str, str]:
    """What the package decides; everything else is the infrastructure's."""
    return {"UDS_CONFIG": CONFIG, "UDS_ENVIRONMENT": environment, "UDS_RELEASE": release.name}


def check(environment: str, release: Release) -> None:
    """Raises Stopped, before anything is changed, when the release cannot go into the environment."""
    if environment not in release.environments:
        known = ", ".join(release.environments)
        message = f"Release {release.name} has no configuration for {environment}; it has {known}."
        raise Stopped(f"{message} Write config/environments/{environment}.yml and build again.", 2)
    if release.name.endswith(DIRTY) and environment != "dev":
        raise Stopped(f"Release {release.name} was built from files that are not committed: it goes to dev alone.", 2)


def work() -> None:
    """The script."""
    parser = argparse.ArgumentParser(prog="tools/deploy", description="Put a release into an environment.")
    parser.add_argument("environment", help="dev, test or prod")
    parser.add_argument("--from", dest="folder", type=Path, default=ROOT / "dist", help="the release's folder (dist)")
    parser.add_argument(
        "--provision",
        action="store_true",
        default=os.environ.get("UDS_PROVISION") == "true",
        help="first make or change the Azure resources with azd",
    )
    asked = parser.parse_args()
    release = read_release(asked.folder)
    check(asked.environment, release)
    require_programs("az", "databricks")
    variables = provision(asked.environment, os.environ) if asked.provision else os.environ
    deploy(Target.read(asked.environment, variables), asked.folder, release)
    say(f"Release {release.name} runs in {asked.environment}.")


if __name__ == "__main__":
    main("tools/deploy", work)
