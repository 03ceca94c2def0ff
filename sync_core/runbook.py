"""The runbook entries of docs/errors.md and docs/alerts.md, for who has no browser. Pure but for reading the two files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

PAGES = ("errors.md", "alerts.md")

_ENTRY = re.compile(r"^### `([a-z_.]+)`\n(.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[([^\]]+)\]\([^)]*\)")


def read_runbook() -> dict[str, str]:
    """Every entry by its code or condition, from the installed package or the repository that it runs from."""
    root = Path(__file__).parent.parent
    # A wheel carries the pages beside the package; in the package, an editable installation would shadow it in part.
    packed = root / "uds_runbook"
    folder = packed if packed.is_dir() else root / "docs"
    entries: dict[str, str] = {}
    for page in PAGES:
        entries |= entries_of((folder / page).read_text(encoding="utf-8"))
    return entries


def entries_of(page: str) -> Mapping[str, str]:
    """The entries of one page, as Markdown."""
    return {match[1]: match[2].strip() for match in _ENTRY.finditer(page)}


def plain(entry: str) -> str:
    """An entry as it is read on a terminal: words in place of links and marks."""
    text = _LINK.sub(r"\1", entry)
    return re.sub(r"\*{1,2}([^*\n]+)\*{1,2}", r"\1", text).replace("`", "")


def first_sentence(entry: str) -> str:
    """What an entry says first, without the word in front that tells what happens next."""
    text = " ".join(plain(re.sub(r"\A\*[^*]+\*\s*", "", entry)).split())
    return re.split(r"(?<=\.)\s", text, maxsplit=1)[0]
