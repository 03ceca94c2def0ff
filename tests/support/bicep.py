"""Bicep files as a syntax tree, by the grammar `tree-sitter-bicep`: declarations, what they hold, and what they refer to.

There is no Bicep compiler on PyPI; the rules in `bicep_rules` stand in for the checks of its that matter here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import tree_sitter_bicep
from tree_sitter import Language, Node, Parser

_PARSER = Parser(Language(tree_sitter_bicep.language()))


@dataclass(frozen=True)
class Parameter:
    name: str
    type: str
    default: Node | None
    decorators: dict[str, str]


@dataclass(frozen=True)
class Resource:
    """`body` is the object of properties, under whatever condition or loop."""

    symbol: str
    type: str
    version: str
    existing: bool
    body: Node


@dataclass(frozen=True)
class Module:
    symbol: str
    path: str
    inputs: dict[str, Node]


@dataclass(frozen=True)
class Template:
    """One .bicep file; `roots` are the values of all declarations, in which names are used."""

    path: Path
    tree: Node
    parameters: dict[str, Parameter] = field(default_factory=dict)
    variables: dict[str, Node] = field(default_factory=dict)
    resources: dict[str, Resource] = field(default_factory=dict)
    modules: dict[str, Module] = field(default_factory=dict)
    outputs: dict[str, Node] = field(default_factory=dict)

    @property
    def symbols(self) -> set[str]:
        return {*self.parameters, *self.variables, *self.resources, *self.modules}


def text(node: Node) -> str:
    return (node.text or b"").decode()


def walk(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from walk(child)


def parse(source: str) -> Node:
    return _PARSER.parse(source.encode()).root_node


def syntax_faults(source: str) -> list[str]:
    """Every place that the grammar cannot read, as `line: text`."""
    return [
        f"{node.start_point[0] + 1}: {node.type} {text(node)[:60]!r}"
        for node in walk(parse(source))
        if node.type == "ERROR" or node.is_missing
    ]


def string(node: Node) -> str:
    """A string's content, with escapes resolved and interpolations left as they are written."""
    assert node.type == "string", f"{text(node)} is not a string"
    return text(node)[1:-1].replace("\\'", "'")


def properties(body: Node) -> dict[str, Node]:
    """An object's own properties."""
    found: dict[str, Node] = {}
    for pair in body.named_children:
        if pair.type == "object_property":
            key = pair.named_children[0]
            found[string(key) if key.type == "string" else text(key)] = pair.named_children[-1]
    return found


def at(body: Node, path: str) -> Node | None:
    """The value at `properties.siteConfig.minTlsVersion`, None where there is none."""
    node: Node | None = body
    for name in path.split("."):
        if node is None or node.type != "object":
            return None
        node = properties(node).get(name)
    return node


def read(path: Path) -> Template:
    """A .bicep file. It is expected to have no syntax faults."""
    return read_text(path.read_text(encoding="utf-8"), path)


def read_text(source: str, path: Path = Path("main.bicep")) -> Template:
    template = Template(path, parse(source))
    decorators: dict[str, str] = {}
    for node in template.tree.named_children:
        if node.type == "decorators":
            decorators = dict(_decorator(one) for one in node.named_children if one.type == "decorator")
            continue
        if node.type == "parameter_declaration":
            name, kind, *rest = [child for child in node.named_children if child.type != "comment"]
            template.parameters[text(name)] = Parameter(text(name), text(kind), rest[0] if rest else None, decorators)
        elif node.type == "variable_declaration":
            template.variables[text(node.named_children[0])] = node.named_children[-1]
        elif node.type == "resource_declaration":
            symbol = text(node.named_children[0])
            kind, _, version = string(node.named_children[1]).partition("@")
            existing = any(text(child) == "existing" for child in node.children)
            body = _body(node.named_children[-1])
            template.resources[symbol] = Resource(symbol, kind, version, existing, body)
        elif node.type == "module_declaration":
            name, where = text(node.named_children[0]), string(node.named_children[1])
            given = at(_body(node.named_children[-1]), "params")
            template.modules[name] = Module(name, where, properties(given) if given else {})
        elif node.type == "output_declaration":
            template.outputs[text(node.named_children[0])] = node.named_children[-1]
        if node.type != "comment":
            decorators = {}
    return template


def _decorator(node: Node) -> tuple[str, str]:
    call = node.named_children[0]
    return text(call.named_children[0]), text(call.named_children[-1])[1:-1]


def _body(value: Node) -> Node:
    """The object within a condition or a loop."""
    while value.type in ("if_statement", "for_statement"):
        value = value.named_children[-1]
    return value


@dataclass(frozen=True)
class ParameterFile:
    """A .bicepparam file: the template that it is for, its values, and the variables that they are made of."""

    path: Path
    using: str
    values: dict[str, Node]
    variables: dict[str, Node] = field(default_factory=dict)


_ASSIGNMENT = "param_"
"""The grammar knows no .bicepparam: an assignment is read as a variable of this name, which has the same form."""


def parameter_source(path: Path) -> str:
    """A .bicepparam file as text that the grammar knows."""
    return re.sub(r"(?m)^param (\w+ =)", rf"var {_ASSIGNMENT}\1", path.read_text(encoding="utf-8"))


def read_parameters(path: Path) -> ParameterFile:
    """A .bicepparam file. It is expected to have no syntax faults."""
    root = parse(parameter_source(path))
    using = next(string(node.named_children[0]) for node in root.named_children if node.type == "using_statement")
    declared = {
        text(node.named_children[0]): node.named_children[-1]
        for node in root.named_children
        if node.type == "variable_declaration"
    }
    values = {name.removeprefix(_ASSIGNMENT): one for name, one in declared.items() if name.startswith(_ASSIGNMENT)}
    return ParameterFile(path, using, values, {name: one for name, one in declared.items() if name not in values})
