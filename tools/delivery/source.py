"""What is built: the commit, its time, and the version that pyproject.toml names."""

from __future__ import annotations

import os
import subprocess
import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime

from tools.delivery.commands import ROOT, Stopped
from tools.delivery.release import DIRTY


@dataclass(frozen=True)
class Source:
    """`at` is seconds since 1970: the time of the commit, never that of the build."""

    name: str
    version: str
    at: int

    @property
    def built_at(self) -> str:
        return datetime.fromtimestamp(self.at, UTC).isoformat()


def read_source() -> Source:
    """From git, or where there is no repository from UDS_RELEASE and SOURCE_DATE_EPOCH. Raises Stopped."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    name, at = os.environ.get("UDS_RELEASE"), os.environ.get("SOURCE_DATE_EPOCH")
    try:
        if not name:
            name = _git("rev-parse", "HEAD") + (DIRTY if _git("status", "--porcelain") else "")
        return Source(name, version, int(at or _git("log", "-1", "--format=%ct")))
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        message = "There is no git commit here to name the release after. Set UDS_RELEASE and SOURCE_DATE_EPOCH."
        raise Stopped(message, 2) from error


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, text=True, capture_output=True, check=True)
    return done.stdout.strip()
