"""YAML files to nodes. What the parser says of a broken file is said again without quoting it (P26)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from sync_core.catalog.document import Node, Written, join, shown_key
from sync_core.catalog.faults import Fault

_TAG = "tag:yaml.org,2002:"
_SCALARS = ("str", "int", "float", "bool", "null", "timestamp", "value")
_LARGEST = 200_000
_DEEPEST = 60


def read_document(path: Path, faults: list[Fault]) -> Node | None:
    """Read one YAML file. None when it cannot be read, with a fault that says why."""
    name = str(path)
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            # Reading a pipe would wait for its writer.
            faults.append(Fault(name, 0, "", "is neither a file nor a folder", "write a file in its place"))
            return None
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        faults.append(Fault(name, 0, "", f"cannot be read: {error.strerror}", "check the file and its permissions"))
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        faults.append(Fault(name, line, "", "is not UTF-8 text", "save the file with the encoding UTF-8"))
    else:
        return _parse(text, name, faults)
    return None


def _parse(text: str, name: str, faults: list[Fault]) -> Node | None:
    parser: Any = YAML(typ="rt", pure=True)
    try:
        root = parser.compose(text)
    except MarkedYAMLError as error:
        faults.append(_syntax_fault(name, text, error))
    except ReaderError as error:
        line = text.count("\n", 0, _position(error)) + 1
        faults.append(
            Fault(name, line, "", "holds a character that YAML does not allow", "remove it, or write it escaped")
        )
    except RecursionError:
        faults.append(Fault(name, 0, "", "is nested too deeply", f"use at most {_DEEPEST} levels"))
    except Exception as error:
        # The parser answers some broken texts with errors of its own making (IndexError, AttributeError, ...).
        faults.append(Fault(name, 0, "", f"is not YAML ({type(error).__name__})", "correct its syntax"))
    else:
        if root is None:
            faults.append(Fault(name, 0, "", "is empty", "write its first section, or remove the file"))
            return None
        return _Builder(name, faults).build(root, int(root.start_mark.line) + 1, "", ())
    return None


_HINTS = (
    (r"\\t", "indent with spaces, not tabs"),
    ("single document", "keep one document in the file: remove the line ---"),
    ("undefined alias|scanning an alias", "put a value that begins with * in quotes"),
    ("undefined tag|tag handle|tag URI", "put a value that begins with ! in quotes"),
    ("mapping values are not allowed", "put a value with a colon in quotes, and check the indentation"),
    ("could not find expected ':'", "write key: value, and check the indentation"),
    ("expected <block end>", "check the indentation and the line before"),
    ("expected ',' or", "close the bracket"),
    ("end of stream|quoted scalar|escape", "close the quotes, and write \\ twice in double quotes"),
    ("cannot start any token", "put a value that begins with this character in quotes"),
)


def _position(error: Any) -> int:
    return int(error.position)


def _syntax_fault(name: str, text: str, error: Any) -> Fault:
    problem = str(error.problem or error.context or "cannot be parsed")
    mark = error.problem_mark or error.context_mark
    whole = f"{error.context} {problem}"
    remedy = next((hint for pattern, hint in _HINTS if re.search(pattern, whole)), "check the syntax of this line")
    line = int(mark.line) if mark else -1
    if "${" in "".join(text.splitlines()[line : line + 1]):
        remedy = 'between { } or [ ] put a variable in quotes: "${NAME}"'
    # What a message quotes from the file may be a password: only single characters and token names stay.
    safe = re.sub(
        r"'[^']*'|\"[^\"]*\"", lambda quoted: quoted[0] if len(quoted[0]) <= 4 or quoted[0][1] == "<" else "…", problem
    ).splitlines()[0]
    return Fault(name, line + 1, "", f"is not YAML: {safe}", remedy)


def _is(node: Any, kind: type) -> bool:
    return isinstance(node, kind)


class _Builder:
    """Turns the parser's nodes into ours."""

    def __init__(self, file: str, faults: list[Fault]) -> None:
        self.file = file
        self.faults = faults
        self.built = 0

    def build(self, node: Any, line: int, path: str, above: tuple[int, ...]) -> Node:
        self.built += 1
        if id(node) in above or self.built > _LARGEST or len(above) > _DEEPEST:
            reason = "holds itself by an alias" if id(node) in above else "is too large or too deeply nested"
            return self._broken(line, path, reason, "write it out without aliases")
        tag = str(node.tag)
        if _is(node, ScalarNode):
            return self._scalar(node, tag, line, path)
        if _is(node, SequenceNode) and tag == _TAG + "seq":
            children = tuple(
                self.build(item, self._line(item), f"{path}[{index}]", (*above, id(node)))
                for index, item in enumerate(node.value)
            )
            return Node(children, self.file, line, path)
        if _is(node, MappingNode) and tag == _TAG + "map":
            return self._mapping(node, line, path, (*above, id(node)))
        return self._broken(line, path, "carries a tag that means nothing here", "remove the tag (!…)")

    def _scalar(self, node: Any, tag: str, line: int, path: str) -> Node:
        kind = tag.removeprefix(_TAG)
        if kind not in _SCALARS:
            return self._broken(line, path, "carries a tag that means nothing here", "put the value in quotes")
        if kind == "null":
            return Node(None, self.file, line, path)
        # No message repeats a value of a connection or a channel: a password may stand in any of them.
        shown = "the value" if path.startswith(("connections", "channels")) else None
        value = Written(str(node.value), kind, shown)
        return Node(value, self.file, line, path)

    def _mapping(self, node: Any, line: int, path: str, above: tuple[int, ...]) -> Node:
        entries: dict[str, Node] = {}
        inherited: dict[str, Node] = {}
        for key_node, value_node in node.value:
            key_line = self._line(key_node)
            if not _is(key_node, ScalarNode) or str(key_node.tag) == _TAG + "null":
                self._broken(key_line, path, "has a key that is not text", "write key: value")
                continue
            key = str(key_node.value)
            if str(key_node.tag) == _TAG + "merge":
                merged = self.build(value_node, key_line, path, above)
                for part in merged.items or (merged,):
                    inherited = {**part.mapping, **inherited}
                continue
            if key in entries:
                message = f"{shown_key(key)} is written twice, first on line {entries[key].line}"
                self.faults.append(Fault(self.file, key_line, join(path, key), message, "keep one of the two"))
            entries[key] = self.build(value_node, key_line, join(path, key), above)
        return Node({**inherited, **entries}, self.file, line, path)

    def _broken(self, line: int, path: str, message: str, remedy: str) -> Node:
        self.faults.append(Fault(self.file, line, path, message, remedy))
        return Node(Written("", broken=True), self.file, line, path)

    def _line(self, node: Any) -> int:
        return int(node.start_mark.line) + 1
