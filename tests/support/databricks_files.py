"""The Files API's part of the Databricks stand-in: volumes as folders on this machine."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

Answer = tuple[int, dict[str, Any] | bytes]
"""A status with a JSON document, or with the bytes of a file."""


def failure(status: int, code: str, message: str) -> Answer:
    return status, {"error_code": code, "message": message}


NO_FILE = failure(404, "NOT_FOUND", "The file being accessed is not found.")
NO_DIRECTORY = failure(404, "NOT_FOUND", "The directory being accessed is not found.")


class VolumeFiles:
    """Volumes below `root`: `/Volumes/main/uds/runs/x` is `<root>/main/uds/runs/x`.

    As the service does: PUT makes the folders above, writes all or nothing, and with `overwrite=false` only one of many
    writers wins; only empty folders are deleted; folders have no time of their own; the root of an empty volume is not
    found; listings come in pages.
    """

    def __init__(self, root: Path) -> None:
        self.root = root / "Volumes"
        self._uploads = root / "uploads"
        self._uploads.mkdir(parents=True)

    def create_volume(self, path: str) -> None:
        self.local(path).mkdir(parents=True)

    def local(self, path: str) -> Path:
        """Where a path of a volume is on this machine."""
        return self.root / path.removeprefix("/Volumes/")

    def answer(self, method: str, kind: str, path: str, query: dict[str, str], body: bytes) -> Answer:
        """One request to `/api/2.0/fs/<kind><path>`."""
        parts = path.strip("/").split("/")
        if parts[0] != "Volumes" or len(parts) < 4 or ".." in parts:
            return failure(400, "INVALID_PARAMETER_VALUE", f"Invalid path: {path}")
        if not self.root.joinpath(*parts[1:4]).is_dir():
            return failure(404, "NOT_FOUND", f"Volume '{'.'.join(parts[1:4])}' does not exist.")
        local = self.local(path)
        handler = {
            ("PUT", "files"): lambda: self._put(local, query.get("overwrite") == "false", body),
            ("GET", "files"): lambda: (200, local.read_bytes()) if local.is_file() else NO_FILE,
            ("DELETE", "files"): lambda: self._delete(local),
            ("PUT", "directories"): lambda: self._make(local),
            ("GET", "directories"): lambda: self._list(local, path, query),
            ("DELETE", "directories"): lambda: self._delete_directory(local),
        }.get((method, kind))
        return handler() if handler else failure(404, "ENDPOINT_NOT_FOUND", f"No API found for {method} {path}")

    def _put(self, local: Path, only_new: bool, body: bytes) -> Answer:
        upload = self._uploads / secrets.token_hex(8)
        upload.write_bytes(body)
        local.parent.mkdir(parents=True, exist_ok=True)
        try:
            if only_new:
                local.hardlink_to(upload)
            else:
                upload.replace(local)
        except FileExistsError:
            return failure(409, "ALREADY_EXISTS", "The file being created already exists.")
        finally:
            upload.unlink(missing_ok=True)
        return 204, b""

    def _make(self, local: Path) -> Answer:
        local.mkdir(parents=True, exist_ok=True)
        return 204, b""

    def _delete(self, local: Path) -> Answer:
        if not local.is_file():
            return NO_FILE
        local.unlink(missing_ok=True)
        return 204, b""

    def _delete_directory(self, local: Path) -> Answer:
        if not local.is_dir():
            return NO_DIRECTORY
        try:
            local.rmdir()
        except OSError:
            return failure(400, "DIRECTORY_NOT_EMPTY", "The directory is not empty.")
        return 204, b""

    def _list(self, local: Path, path: str, query: dict[str, str]) -> Answer:
        if not local.is_dir() or (path.strip("/").count("/") == 3 and not any(local.iterdir())):
            return NO_DIRECTORY
        size, after = min(int(query.get("page_size", 1000)), 1000), query.get("page_token", "")
        rest = sorted(entry for entry in local.iterdir() if entry.name > after)
        page: dict[str, Any] = {"contents": [_describe(entry, path) for entry in rest[:size]]}
        if len(rest) > size:
            page["next_page_token"] = rest[size - 1].name
        return 200, page


def _describe(entry: Path, path: str) -> dict[str, Any]:
    described: dict[str, Any] = {"path": f"{path.rstrip('/')}/{entry.name}", "name": entry.name}
    if entry.is_dir():
        return {**described, "is_directory": True}
    about = entry.stat()
    return {
        **described,
        "is_directory": False,
        "file_size": about.st_size,
        "last_modified": int(about.st_mtime * 1000),
    }
