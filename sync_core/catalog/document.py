"""The configuration as a tree in which every value knows its file, its line and its path."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sync_core.catalog.faults import Fault

SCHEDULES: Mapping[str, tuple[str, ...]] = {
    "cron": ("timezone", "catch_up"),
    "every": ("catch_up",),
    "after": (),
    "on_demand": (),
}
"""The kinds of schedule, each with the keys that mean something beside it."""


class Written(str):
    """A scalar as it stands in the file: `012`, `2020-01-01` and `1e3` are kept as they are written.

    `shown` may stand in a message; it never holds what a variable was filled with, nor a value of a connection.
    `broken` values have a fault already, so that nothing more is said about them.
    """

    kind: str
    shown: str
    broken: bool

    def __new__(cls, text: str, kind: str = "str", shown: str | None = None, broken: bool = False) -> Written:
        written = super().__new__(cls, text)
        written.kind = kind
        written.shown = repr(str(written)) if shown is None else shown
        if len(written.shown) > 60:
            written.shown = written.shown[:57] + "…"
        written.broken = broken
        return written


@dataclass(frozen=True)
class Node:
    """A value and its place. `line` is the key's line for values of mappings; None stands for YAML's null."""

    value: Written | tuple[Node, ...] | Mapping[str, Node] | None
    file: str
    line: int
    path: str

    @property
    def mapping(self) -> Mapping[str, Node]:
        """The entries of a mapping; none for anything else."""
        return self.value if isinstance(self.value, Mapping) else {}

    @property
    def items(self) -> tuple[Node, ...]:
        """The items of a list; none for anything else."""
        return self.value if isinstance(self.value, tuple) else ()

    @property
    def text(self) -> str | None:
        """The text of a scalar that is fit for checks."""
        return str(self.value) if isinstance(self.value, Written) and not self.value.broken else None

    @property
    def is_broken(self) -> bool:
        """Whether a fault has been stated about the value already."""
        return isinstance(self.value, Written) and self.value.broken

    @property
    def kind(self) -> str:
        """What the value is, as a message says it."""
        if self.value is None:
            return "nothing"
        return "text" if isinstance(self.value, Written) else "a list" if isinstance(self.value, tuple) else "a mapping"

    @property
    def is_default(self) -> bool:
        return self.path.startswith("defaults.")

    def get(self, *keys: str) -> Node | None:
        """The node under these keys, None where one of them is missing."""
        node: Node | None = self
        for key in keys:
            node = node.mapping.get(key) if node else None
        return node

    def text_of(self, *keys: str) -> str | None:
        """The text under these keys; None when it is missing, broken or no text."""
        node = self.get(*keys)
        return node.text if node else None

    def without(self, *keys: str) -> Node:
        return replace(self, value={key: node for key, node in self.mapping.items() if key not in keys})

    def fault(self, message: str, remedy: str = "", key: str = "") -> Fault:
        """A fault at this place, or at a key that is missing here."""
        path = join(self.path, key) if key else self.path
        return Fault(self.file, self.line, path, message, remedy)

    def kind_faults(self, wanted: str, remedy: str) -> list[Fault]:
        """The fault of a value that is of another kind than it must be; none where one is stated already."""
        return [] if self.is_broken else [self.fault(f"must be {wanted}, not {self.kind}", remedy)]


def join(path: str, key: str) -> str:
    """A path one key longer. The key is cut where it may run into a value (`{password:x}`, P26)."""
    return f"{path}.{shown_key(key)}" if path else shown_key(key)


def shown_key(key: str) -> str:
    """A key as messages show it."""
    head = re.split(r"[:=\s]", key.strip(), maxsplit=1)[0]
    head = "".join(character if character.isprintable() else "?" for character in head)[:60]
    return head if head == key else head + "…"


def merge(base: Node | None, over: Node) -> Node:
    """`over` laid onto `base`: mappings deeply, everything else replaced; null takes an inherited key away."""
    if base is None or not isinstance(base.value, Mapping) or not isinstance(over.value, Mapping):
        return over
    merged = dict(base.value)
    for key, node in over.value.items():
        if node.value is None and key in merged:
            del merged[key]
        else:
            lay = _lay_schedule if key == "schedule" else merge
            merged[key] = lay(merged.get(key), node)
    return replace(over, value=merged)


def _lay_schedule(base: Node | None, over: Node) -> Node:
    """A schedule of another kind replaces the one beneath it; from one without a kind it takes what fits."""
    kinds = [kind for kind in SCHEDULES if (node := over.get(kind)) and node.value is not None]
    below = [kind for kind in SCHEDULES if base and base.get(kind)]
    if base is None or not kinds or kinds == below:
        return merge(base, over)
    fitting = () if below else SCHEDULES[kinds[0]]
    kept = {key: node for key, node in base.mapping.items() if key in fitting}
    own = {key: node for key, node in over.mapping.items() if node.value is not None or key not in base.mapping}
    taken = {key for key in over.mapping if key not in own}
    return replace(over, value={**{key: node for key, node in kept.items() if key not in taken}, **own})


def plain(node: Node) -> Any:
    """The tree as dicts, lists and `Written` texts, for the models."""
    if isinstance(node.value, Mapping):
        return {key: plain(child) for key, child in node.value.items()}
    if isinstance(node.value, tuple):
        return [plain(child) for child in node.value]
    return Written("", broken=True) if node.value is None else node.value


def walk(node: Node) -> Iterator[Node]:
    """The node and all beneath it."""
    yield node
    for child in [*node.mapping.values(), *node.items]:
        yield from walk(child)
