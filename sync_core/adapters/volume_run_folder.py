"""Run folders in a Unity Catalog volume: `/Volumes/<catalog>/<schema>/<volume>/<batch_id>/`, a plain path to the engine."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

from databricks.sdk.errors import BadRequest, NotFound, ResourceConflict
from databricks.sdk.service.files import DirectoryEntry

from sync_core.adapters.databricks_client import DatabricksWorkspace, databricks_errors
from sync_core.domain.codec import from_json, to_json
from sync_core.domain.errors import PermanentError, RetryableError, SyncError
from sync_core.domain.run import Manifest, RunResult

FORGOTTEN_AT_ONCE = 8
"""How many batches `forget` looks at and deletes at a time."""

_NO_VOLUME = re.compile(r"\b(Catalog|Schema|Volume)\b.*\bdoes not exist", re.I)

_VOLUME_PATH = re.compile(r"/Volumes/[^/]+/[^/]+/[^/]+(/[^/]+)*")


class VolumeRunFolder:
    """A RunFolder below `folder`, a path in a volume. `page` entries are listed at a time, at most 1,000."""

    def __init__(self, workspace: DatabricksWorkspace, folder: str, page: int = 1000) -> None:
        if not _VOLUME_PATH.fullmatch(folder):
            raise PermanentError(
                "run_folder.settings",
                f"{folder} is not a folder in a Unity Catalog volume.",
                "Write it as /Volumes/catalog/schema/volume or a folder below.",
            )
        self.workspace = workspace
        self.folder = PurePosixPath(folder)
        self.page = page

    def write_manifest(self, manifest: Manifest) -> str:
        path = self.folder / manifest.batch_id / "manifest.json"
        self._upload_once(path, json.dumps(to_json(manifest), indent=1).encode())
        return str(path)

    def read_manifest(self, batch_id: str) -> Manifest | None:
        return self._read(Manifest, self.folder / batch_id / "manifest.json")

    def read_result(self, batch_id: str, run_key: str) -> RunResult | None:
        return self._read(RunResult, self.folder / batch_id / "results" / f"{run_key}.json")

    def ask_to_stop(self, batch_id: str, run_key: str) -> None:
        # The name is the request. It has content, because an empty upload travels as a chunked stream.
        self._upload_once(self.folder / batch_id / "stop" / run_key, b"stop\n")

    def discard(self, batch_id: str) -> None:
        self._remove(self.folder / batch_id)

    def forget(self, before: datetime, kept: set[str]) -> int:
        limit = before.timestamp() * 1000
        # All pages first: a page's token may count entries, and deleting would shift them.
        old = [path for path in self._batches(limit) if path.name not in kept]
        troubles: list[SyncError] = []

        def forget_one(path: PurePosixPath) -> int:
            if any(isinstance(trouble, RetryableError) for trouble in troubles):
                # The service is away; the next call goes on.
                return 0
            try:
                if not self._is_idle(path, limit):
                    return 0
                self._remove(path)
            except SyncError as error:
                troubles.append(error)
                return 0
            return 1

        # A batch takes about ten requests, and a day brings up to 1,440 batches. Each goes as soon as it is looked at, so
        # that a call that is ended by its host has brought it further all the same.
        with ThreadPoolExecutor(FORGOTTEN_AT_ONCE) as pool:
            forgotten = sum(pool.map(forget_one, old))
        if troubles:
            raise troubles[0]
        return forgotten

    def _batches(self, limit: float) -> Iterator[PurePosixPath]:
        for entry in self._list(self.folder):
            if entry.is_directory and _is_older(entry, limit):
                yield PurePosixPath(entry.path or "")

    def _is_idle(self, path: PurePosixPath, limit: float) -> bool:
        """Whether nothing below was touched since: a folder's own time, where there is one, does not say so."""
        return all(_is_older(file, limit) for file in self._files(path))

    def _upload_once(self, path: PurePosixPath, content: bytes) -> None:
        with self._errors(path, "written", "WRITE VOLUME"):
            try:
                self.workspace.client.files.upload(str(path), io.BytesIO(content), overwrite=False)
            except ResourceConflict:
                # It is there: by another caller, or by a try of this one whose answer was lost.
                return

    def _read[T](self, kind: type[T], path: PurePosixPath) -> T | None:
        with self._errors(path, "read", "READ VOLUME"):
            try:
                found = self.workspace.client.files.download(str(path))
                if found.contents is None:
                    raise RetryableError("run_folder.failed", f"{path} came without content.", "It is read again.")
                with found.contents as stream:
                    # Raises when the connection ends before the length that was announced.
                    content = stream.read()
            except NotFound as error:
                if _NO_VOLUME.search(str(error)):
                    raise
                return None
        try:
            return from_json(kind, json.loads(content))
        except (ValueError, TypeError, AttributeError) as error:
            raise PermanentError(
                "run_folder.unreadable",
                f"{path} cannot be read: {error}.",
                "Run it again: the target's ledger has it all.",
            ) from error

    def _list(self, path: PurePosixPath) -> Iterator[DirectoryEntry]:
        """What is in a folder, page by page; nothing when it is not there, as the root of an empty volume is not."""
        with self._errors(path, "listed", "READ VOLUME"):
            try:
                yield from self.workspace.client.files.list_directory_contents(str(path), page_size=self.page)
            except NotFound as error:
                if _NO_VOLUME.search(str(error)):
                    raise

    def _files(self, path: PurePosixPath) -> Iterator[DirectoryEntry]:
        for entry in self._list(path):
            if entry.is_directory:
                yield from self._files(PurePosixPath(entry.path or ""))
            else:
                yield entry

    def _remove(self, path: PurePosixPath) -> None:
        """Delete a folder with all that is in it: the service deletes empty ones only."""
        files = self.workspace.client.files
        for entry in list(self._list(path)):
            inner = PurePosixPath(entry.path or "")
            if entry.is_directory:
                self._remove(inner)
                continue
            with self._errors(inner, "deleted", "WRITE VOLUME"):
                try:
                    files.delete(str(inner))
                except NotFound as error:
                    if _NO_VOLUME.search(str(error)):
                        raise
        with self._errors(path, "deleted", "WRITE VOLUME"):
            try:
                files.delete_directory(str(path))
            except NotFound as error:
                if _NO_VOLUME.search(str(error)):
                    raise
            except BadRequest as error:
                if "not empty" not in str(error).lower() and error.error_code != "DIRECTORY_NOT_EMPTY":
                    raise
                # The engine wrote into it meanwhile: it is of use again, and a later call deletes it.

    def _errors(self, path: PurePosixPath, done: str, privilege: str) -> Any:
        return databricks_errors(
            f"{path} cannot be {done}",
            f"{privilege} on the volume of {self.folder}, and USE CATALOG and USE SCHEMA on what it is in",
        )


def _is_older(entry: DirectoryEntry, limit: float) -> bool:
    """Whether it was last touched before `limit`, in milliseconds; a folder without a time may be."""
    return entry.last_modified is None or entry.last_modified < limit
