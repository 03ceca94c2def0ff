"""A release: the folder of files that is built once and put into one environment after the other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from tools.delivery.commands import Stopped

MANIFEST = "release.json"
PACKAGE = "function-app.zip"
BUNDLE = "bundle.zip"
SBOM = "sbom.cdx.json"

DIRTY = "-dirty"
"""How the name of a release ends that was built from files that are not committed."""


@dataclass(frozen=True)
class Release:
    """`name` is the git commit, `built_at` its time, `files` the sha256 of every file by name.

    `environments` are those that the package holds a configuration for.
    """

    name: str
    version: str
    built_at: str
    environments: tuple[str, ...]
    files: Mapping[str, str]

    @property
    def wheel(self) -> str:
        return next(name for name in self.files if name.endswith(".whl"))


def write_release(folder: Path, name: str, version: str, built_at: str, environments: tuple[str, ...]) -> Release:
    """Describe the files of a folder, in the folder."""
    files = {path.name: digest(path) for path in sorted(folder.iterdir()) if path.is_file() and path.name != MANIFEST}
    release = Release(name, version, built_at, environments, files)
    (folder / MANIFEST).write_text(json.dumps(asdict(release), indent=1) + "\n", encoding="utf-8")
    return release


def read_release(folder: Path) -> Release:
    """The release in a folder. Raises Stopped when a file is missing, or is not the one that was built."""
    try:
        data = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        environments = tuple(str(one) for one in data["environments"])
        release = Release(data["name"], data["version"], data["built_at"], environments, dict(data["files"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"{folder} holds no release: {MANIFEST} cannot be read. Build one with tools/build-package."
        raise Stopped(message, 2) from error
    for name, expected in release.files.items():
        path = folder / name
        if not path.is_file():
            raise Stopped(f"{path} is missing from release {release.name}.")
        if digest(path) != expected:
            raise Stopped(f"{path} is not the file that was built for release {release.name}: its digest differs.")
    if (
        PACKAGE not in release.files
        or BUNDLE not in release.files
        or not any(n.endswith(".whl") for n in release.files)
    ):
        raise Stopped(f"{folder} is not a whole release: it needs {PACKAGE}, {BUNDLE} and a wheel.")
    return release


def digest(path: Path) -> str:
    """sha256 of a file, as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
