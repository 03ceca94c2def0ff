"""The releases that an environment has had: their files and their order, in its own storage account."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from tools.delivery.commands import Stopped, ask, run
from tools.delivery.release import MANIFEST, Release, read_release

CONTAINER = "releases"
DEPLOYMENTS = "deployments.json"
"""The record of `Deployments` as JSON."""


@dataclass(frozen=True)
class Deployments:
    """`healthy` are the releases that answered, the latest at the end; `attempted` is the one that was put in last."""

    healthy: tuple[str, ...] = ()
    attempted: str = ""

    def begin(self, name: str) -> Deployments:
        """Before anything is changed, so that a rollback knows what was half done."""
        return replace(self, attempted=name)

    def succeed(self, name: str) -> Deployments:
        """The release answers. The last one again changes nothing."""
        return self if self.healthy[-1:] == (name,) else replace(self, healthy=(*self.healthy, name))

    def before(self) -> str:
        """What a rollback goes back to: the last that answered when another was put in since, else the one before it.

        Raises Stopped when there is none.
        """
        earlier = [name for name in self.healthy if name != self.attempted]
        if not earlier:
            raise Stopped(f"There is no release before {self.attempted or 'the first'} in this environment.")
        return earlier[-1]

    def go_back(self, name: str) -> Deployments:
        """The release answers again. What came after it is forgotten, so that the next rollback goes on from here."""
        if name not in self.healthy:
            return self.succeed(name)
        last = len(self.healthy) - 1 - self.healthy[::-1].index(name)
        return replace(self, healthy=self.healthy[: last + 1])


@dataclass(frozen=True)
class History:
    """Reads and writes the container `releases` of a storage account; the caller signed in with `az login`."""

    account: str

    def keep(self, folder: Path, release: Release) -> None:
        """Store the files of a release, once; its description goes last and says that all are there."""
        run("az", "storage", "container", "create", "--name", CONTAINER, *self._signed_in, "--output", "none")
        if self._exists(f"{release.name}/{MANIFEST}"):
            return
        for name in [*sorted(release.files), MANIFEST]:
            self._upload(f"{release.name}/{name}", folder / name)

    def fetch(self, name: str, folder: Path) -> Release:
        """Bring the files of a release back. Raises Stopped when it is not there, or not what was stored."""
        if not self._exists(f"{name}/{MANIFEST}"):
            raise Stopped(f"Release {name} is not in the container {CONTAINER} of {self.account}.")
        folder.mkdir(parents=True, exist_ok=True)
        self._download(f"{name}/{MANIFEST}", folder / MANIFEST)
        try:
            files = list(json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"])
        except (ValueError, KeyError, TypeError) as error:
            raise Stopped(f"The description of release {name} cannot be read.") from error
        for file in files:
            self._download(f"{name}/{Path(file).name}", folder / Path(file).name)
        return read_release(folder)

    def deployments(self) -> Deployments:
        """What has been put into the environment; nothing yet where there is no record."""
        if not self._exists(DEPLOYMENTS):
            return Deployments()
        with TemporaryDirectory() as folder:
            path = Path(folder) / DEPLOYMENTS
            self._download(DEPLOYMENTS, path)
            found = json.loads(path.read_text(encoding="utf-8"))
        return Deployments(tuple(map(str, found["healthy"])), str(found["attempted"]))

    def record(self, deployments: Deployments) -> None:
        """Store it."""
        with TemporaryDirectory() as folder:
            path = Path(folder) / DEPLOYMENTS
            path.write_text(json.dumps(asdict(deployments), indent=1) + "\n", encoding="utf-8")
            self._upload(DEPLOYMENTS, path)

    @property
    def _signed_in(self) -> tuple[str, ...]:
        return ("--account-name", self.account, "--auth-mode", "login")

    def _exists(self, blob: str) -> bool:
        command = ("az", "storage", "blob", "exists", "--container-name", CONTAINER, "--name", blob, *self._signed_in)
        return ask(*command, "--query", "exists", "--output", "tsv") == "true"

    def _upload(self, blob: str, path: Path) -> None:
        command = ("az", "storage", "blob", "upload", "--container-name", CONTAINER, "--name", blob, *self._signed_in)
        run(*command, "--file", str(path.absolute()), "--overwrite", "--no-progress", "--output", "none")

    def _download(self, blob: str, path: Path) -> None:
        command = ("az", "storage", "blob", "download", "--container-name", CONTAINER, "--name", blob, *self._signed_in)
        run(*command, "--file", str(path.absolute()), "--no-progress", "--output", "none")
