"""tools/rollback: put an earlier release back, as it was built and from where it was kept."""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from tools.delivery.commands import ROOT, main, require_programs, say
from tools.delivery.deploy import app_settings, check
from tools.delivery.history import History
from tools.delivery.release import Release
from tools.delivery.target import Target, launchable


def roll_back(target: Target, folder: Path, release: Release) -> None:
    """The control plane first: an engine older than its manifest refuses, so the newer engine stays until the end.

    A run that the newer control plane launched and that is still queued is refused by the older engine; it is retried
    with a manifest that the older engine reads.
    """
    history = History(target.account)
    deployments = history.deployments().begin(release.name)
    history.record(deployments)
    target.set_settings(app_settings(target.environment, release))
    target.put_package(folder)
    target.wait_for_release(release.name)
    jobs = target.deploy_bundle(folder, release)
    target.set_settings({"UDS_DATABRICKS_JOBS": launchable(jobs)})
    history.record(deployments.go_back(release.name))


def work() -> None:
    """The script."""
    parser = argparse.ArgumentParser(prog="tools/rollback", description="Put an earlier release back.")
    parser.add_argument("environment", help="dev, test or prod")
    parser.add_argument("release", nargs="?", help="the release's name; without it the one before")
    parser.add_argument(
        "--to", dest="folder", type=Path, default=ROOT / "dist/rollback", help="where its files are put"
    )
    asked = parser.parse_args()
    require_programs("az", "databricks")
    target = Target.read(asked.environment, os.environ)
    history = History(target.account)
    name = asked.release or history.deployments().before()
    say(f"Going back to release {name}.")
    shutil.rmtree(asked.folder, ignore_errors=True)
    release = history.fetch(name, asked.folder)
    check(asked.environment, release)
    roll_back(target, asked.folder, release)
    say(f"Release {release.name} runs in {asked.environment} again.")


if __name__ == "__main__":
    main("tools/rollback", work)
