"""tools/deploy: put a release into an environment. Every step can be repeated."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path

from tools.delivery.commands import ROOT, Stopped, ask, main, require_programs, require_variables, run, say
from tools.delivery.history import History
from tools.delivery.release import DIRTY, Release, read_release
from tools.delivery.target import NEEDED, Target, launchable

CONFIG = "config/compiled.json"
TO_PROVISION = ("AZURE_SUBSCRIPTION_ID", "AZURE_LOCATION", "DATABRICKS_HOST")


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


def provision(environment: str, variables: Mapping[str, str]) -> dict[str, str]:
    """Make or change the resources with azd. Returns the variables, those that the templates put out among them."""
    require_programs("azd")
    require_variables(variables, TO_PROVISION)
    kept = settings_to_keep(environment, variables)
    given = {**kept, "AZURE_ENV_NAME": environment}
    run("azd", "provision", "--environment", environment, "--no-prompt", environment=given)
    values = ask("azd", "env", "get-values", "--environment", environment)
    pairs = [line.partition("=") for line in values.splitlines() if "=" in line]
    found = {name.strip(): value.strip().strip('"') for name, _, value in pairs}
    return found | {name: value for name, value in variables.items() if value}


def settings_to_keep(environment: str, variables: Mapping[str, str]) -> dict[str, str]:
    """The settings of a running app that are a deployment's: the templates write all of them, and take these as they are."""
    if not all(variables.get(name) for name in NEEDED):
        return {}
    settings = Target.read(environment, variables).settings()
    return {name: settings[name] for name in ("UDS_DATABRICKS_JOBS", "UDS_RELEASE") if settings.get(name)}


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
