"""Zip archives that are the same bytes for the same files."""

from __future__ import annotations

import time
import zipfile
from pathlib import Path

EARLIEST = 315_532_800
"""1980-01-01T00:00:00Z in seconds since 1970: a zip archive knows no earlier time."""


def zip_folder(folder: Path, archive: Path, at: int, prefix: str = "") -> None:
    """Every file beneath `folder`, in the order of their names, dated `at` (seconds since 1970), readable by all."""
    moment = time.gmtime(max(at, EARLIEST))[:6]
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as whole:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(prefix + path.relative_to(folder).as_posix(), moment)
            entry.external_attr = 0o100644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3
            whole.writestr(entry, path.read_bytes())


def unzip(archive: Path, folder: Path) -> None:
    """Unpack an archive that this repository made."""
    with zipfile.ZipFile(archive) as whole:
        whole.extractall(folder)
