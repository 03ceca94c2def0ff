"""`${NAME}`, `${NAME:-default}` and `$${` in the values of the configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from sync_core.catalog.document import Node, Written
from sync_core.catalog.faults import Fault

_PLACE = re.compile(r"\$\$\{|\$\{(?P<body>[^}]*)(?P<end>\}?)")
_BODY = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>.*))?", re.DOTALL)


def fill(node: Node, variables: Mapping[str, str], faults: list[Fault]) -> Node:
    """The tree with every variable filled in. An unset variable without default is a fault."""
    if isinstance(node.value, Mapping):
        return replace(node, value={key: fill(child, variables, faults) for key, child in node.value.items()})
    if isinstance(node.value, tuple):
        return replace(node, value=tuple(fill(child, variables, faults) for child in node.value))
    if node.value is None or "${" not in node.value:
        return node
    wrong: list[Fault] = []
    text = _PLACE.sub(lambda match: _value(match, node, variables, wrong), node.value)
    faults.extend(wrong)
    return replace(node, value=Written(text, shown=node.value.shown, broken=bool(wrong) or node.value.broken))


def _value(match: re.Match[str], node: Node, variables: Mapping[str, str], faults: list[Fault]) -> str:
    if match["body"] is None:
        return "${"
    body = _BODY.fullmatch(match["body"])
    default = body["default"] if body else None
    if body is None or not match["end"] or "${" in (default or ""):
        message = "holds a ${…} that is not a variable"
        faults.append(node.fault(message, "write ${NAME} or ${NAME:-default}; $${ stands for the characters ${"))
        return ""
    value = variables.get(body["name"])
    if default is not None:
        return value or default
    if value is None:
        message = f"the variable {body['name']} is not set"
        faults.append(node.fault(message, f"set it, or write ${{{body['name']}:-default}}"))
        return ""
    return value
