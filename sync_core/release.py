"""Which release runs here: what the build wrote beside the code, never what somebody set."""

from __future__ import annotations

import json
from pathlib import Path

BUILD_FILE = "build.json"


def read_release(application: Path) -> str:
    """The git commit of the package that `application` was unpacked from; empty where the code is not a package."""
    try:
        release = json.loads((application / BUILD_FILE).read_text(encoding="utf-8"))["release"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return release if isinstance(release, str) else ""


RELEASE = read_release(Path(__file__).parents[1])
"""Read once: the code and the file beside it are one package."""
