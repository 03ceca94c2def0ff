"""tools/smoke-test: rows move in an environment, and its app is the release that was deployed."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from tools.delivery.commands import ROOT, main, require_programs, say
from tools.delivery.release import read_release
from tools.delivery.target import Target

JOB = "smoke_test"


def work() -> None:
    """The script."""
    parser = argparse.ArgumentParser(prog="tools/smoke-test", description="Try what was deployed.")
    parser.add_argument("environment", help="dev, test or prod")
    parser.add_argument("--from", dest="folder", type=Path, default=ROOT / "dist", help="the release's folder (dist)")
    asked = parser.parse_args()
    release = read_release(asked.folder)
    require_programs("az", "databricks")
    target = Target.read(asked.environment, os.environ)
    target.run_job(asked.folder, release, JOB)
    target.wait_for_release(release.name)
    say(f"Release {release.name} moves rows in {asked.environment}.")


if __name__ == "__main__":
    main("tools/smoke-test", work)
