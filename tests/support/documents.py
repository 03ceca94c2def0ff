"""The documentation as tests read it: pages, fenced blocks, commands in shell blocks."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

_FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(?<!`)`(uds [^`]+)`(?!`)", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block. `info` are the words after the fence: the language, then what a test should know."""

    page: str
    line: int
    info: tuple[str, ...]
    text: str

    @property
    def language(self) -> str:
        return self.info[0] if self.info else ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """README.md and every page of docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def read_blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, without the indent of a list that they stand in."""
    text = page.read_text(encoding="utf-8")
    name = str(page.relative_to(ROOT))
    found: list[Block] = []
    for match in _FENCE.finditer(text):
        indent = len(match["indent"])
        body = "".join(line[indent:] if line.strip() else line for line in match["text"].splitlines(keepends=True))
        line = text[: match.start()].count("\n") + 1
        found.append(Block(name, line, tuple(match["info"].split()), body))
    return found


def all_blocks(language: str) -> list[Block]:
    """The blocks of this language on every page."""
    return [block for page in pages() for block in read_blocks(page) if block.language == language]


def shell_commands(block: Block) -> Iterator[list[str]]:
    """The arguments of each `uds` call in a shell block, as the shell would split them."""
    text = block.text.replace("\\\n", " ")
    for line in text.splitlines():
        for part in re.split(r"\s*(?:;|&&|\|\|?|\bdo\b)\s+", line):
            words = shlex.split(part, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words.pop(0)
            if words and Path(words[0]).name == "uds":
                yield words[1:]


def inline_commands(page: Path) -> list[list[str]]:
    """The arguments of each `uds …` that stands in a sentence or table."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    return [shlex.split(" ".join(match[1].split()))[1:] for match in _SPAN.finditer(text)]
