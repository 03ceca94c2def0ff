"""Run folders on this machine's disk: `<state>/runs/<batch_id>/`."""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

from sync_core.domain.codec import from_json, to_json
from sync_core.domain.errors import PermanentError
from sync_core.domain.run import Manifest, RunResult


class LocalRunFolder:
    """A RunFolder below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    def batch(self, batch_id: str) -> Path:
        """The folder of one batch."""
        return self.folder / batch_id

    def write_manifest(self, manifest: Manifest) -> str:
        path = self.batch(manifest.batch_id) / "manifest.json"
        if not path.exists():
            _write_once(path, to_json(manifest))
        return str(path)

    def read_manifest(self, batch_id: str) -> Manifest | None:
        return _read(Manifest, self.batch(batch_id) / "manifest.json")

    def read_result(self, batch_id: str, run_key: str) -> RunResult | None:
        return _read(RunResult, self.batch(batch_id) / "results" / f"{run_key}.json")

    def discard(self, batch_id: str) -> None:
        shutil.rmtree(self.batch(batch_id), ignore_errors=True)

    def ask_to_stop(self, batch_id: str, run_key: str) -> None:
        _write_once(self.batch(batch_id) / "stop" / run_key, {})

    def forget(self, before: datetime, kept: set[str]) -> int:
        if not self.folder.exists():
            return 0
        limit = before.timestamp()
        old = [path for path in self.folder.iterdir() if path.name not in kept and _touched(path) < limit]
        for path in old:
            shutil.rmtree(path, ignore_errors=True)
        return len(old)


def _touched(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        # Another process discarded it meanwhile: there is nothing to forget.
        return math.inf


def _read[T](kind: type[T], path: Path) -> T | None:
    try:
        return from_json(kind, json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise PermanentError(
            "run_folder.unreadable", f"{path} cannot be read: {error}.", "Run it again: the target's ledger has it all."
        ) from error


def _write_once(path: Path, content: Any) -> None:
    """Write under a temporary name, then link: all of it or nothing, the first one wins, also after a power cut."""
    temporary = path.with_suffix(f".{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("w", encoding="utf-8") as file:
                json.dump(content, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            path.hardlink_to(temporary)
        except FileExistsError:
            return
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(path.parent, error) from error


def _unwritable(folder: Path, error: OSError) -> PermanentError:
    return PermanentError(
        "run_folder.failed", f"{folder} cannot be written: {error.strerror}.", "Check the disk, or use another --state."
    )
