"""What is wrong in the configuration: where, what, and what to write instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sync_core.domain.errors import ConfigError


@dataclass(frozen=True, order=True)
class Fault:
    """One fault. `line` 0 means the file as a whole; no text here ever repeats a secret (P26)."""

    file: str
    line: int
    path: str
    message: str
    remedy: str = ""

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file

    def __str__(self) -> str:
        parts = [self.place, self.path, self.message, f"→ {self.remedy}" if self.remedy else ""]
        return "  ".join(part for part in parts if part)


class CatalogError(ConfigError):
    """Every fault of the configuration at once, sorted by file and line."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults: tuple[Fault, ...] = tuple(sorted(set(faults)))
        first = self.faults[0]
        where = f"{first.place} ({first.path})" if first.path else first.place
        if len(self.faults) == 1:
            super().__init__(
                "config.faults", f"The configuration has a fault at {where}: {first.message}.", first.remedy
            )
            return
        message = f"The configuration has {len(self.faults)} faults, the first at {where}: {first.message}."
        super().__init__("config.faults", message, "uds validate lists them all.")


def nearest(name: str, known: Sequence[str]) -> str | None:
    """The known name that the given one was probably meant to be."""
    spelled = {_plain(candidate): candidate for candidate in known}
    close = difflib.get_close_matches(_plain(name), list(spelled), n=1, cutoff=0.6)
    return spelled[close[0]] if close else None


def suggest(name: str, known: Sequence[str], what: str) -> str:
    """A remedy that names the nearest known name, or else all of them."""
    close = nearest(name, known)
    if close:
        return f"write {close}"
    if not known:
        return f"there is no {what} yet"
    shown = ", ".join(known[:12]) + (", …" if len(known) > 12 else "")
    return f"write one of {shown}"


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")
