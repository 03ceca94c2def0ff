"""What the process is told from outside, read once at the edge."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path


def engine_command() -> tuple[str, ...]:
    """How the engine is started on this machine."""
    return (sys.executable, "-m", "spark_entry.main")


@dataclass(frozen=True)
class Settings:
    """Folders, and the engine's command without its `--manifest PATH`."""

    state: Path
    engine: tuple[str, ...] = field(default_factory=engine_command)
    runs_kept_days: int = 90
    folders_kept_days: int = 30
