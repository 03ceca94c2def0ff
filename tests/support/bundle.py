"""The Databricks bundle as the CLI reads it: includes merged, one target's overrides applied, references resolved."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

REFERENCE = re.compile(r"\$\{([^}]+)\}")

GIVEN = {
    "service_principal": "0e5b7f5e-7f5c-4f0e-9b8a-3c1f5d1a2b3c",
    "webhook_destination": "6f1c2d3e-0a1b-4c5d-8e9f-112233445566",
}
"""What differs for each workspace and is given when the bundle is deployed."""

CLI = {"bundle.name", "bundle.target", "workspace.current_user.userName"}
"""References that the CLI fills by itself."""


@dataclass(frozen=True)
class Bundle:
    """The bundle in `folder`."""

    folder: Path

    @cached_property
    def root(self) -> dict[str, Any]:
        return read(self.folder / "databricks.yml")

    @cached_property
    def included(self) -> dict[Path, dict[str, Any]]:
        """Each included file with its content."""
        found = [path for pattern in self.root["include"] for path in sorted(self.folder.glob(pattern))]
        return {path: read(path) for path in found}

    @property
    def variables(self) -> dict[str, dict[str, Any]]:
        return self.root["variables"]

    @property
    def targets(self) -> dict[str, dict[str, Any]]:
        return self.root["targets"]

    def texts(self) -> Iterator[str]:
        """Every text of every file, values only."""
        for document in (self.root, *self.included.values()):
            yield from texts_in(document)

    def value(self, target: str, name: str) -> str | None:
        """A variable's value in a target, as it is written there; None when it must be given."""
        value = self.targets[target].get("variables", {}).get(name, self.variables[name].get("default"))
        return value["default"] if isinstance(value, dict) else value

    def resolved(self, target: str) -> dict[str, Any]:
        """All resources as they are deployed to a target, without its name prefix."""
        merged: dict[str, Any] = {}
        for content in (*self.included.values(), self.targets[target]):
            merge(merged, content.get("resources", {}))
        return self._resolve(merged, merged, target)

    def _resolve(self, node: Any, resources: Mapping[str, Any], target: str) -> Any:
        if isinstance(node, dict):
            return {key: self._resolve(value, resources, target) for key, value in node.items()}
        if isinstance(node, list):
            return [self._resolve(value, resources, target) for value in node]
        if isinstance(node, str):
            return REFERENCE.sub(lambda match: self._look_up(match[1], resources, target), node)
        return node

    def _look_up(self, reference: str, resources: Mapping[str, Any], target: str) -> str:
        if reference in CLI:
            return target if reference == "bundle.target" else reference
        first, *path = reference.split(".")
        if first == "var":
            (name,) = path
            found: Any = self.value(target, name) if self.value(target, name) is not None else GIVEN[name]
        elif first == "resources":
            found = resources
            for part in path:
                found = found[part]
        else:
            raise KeyError(reference)
        return self._resolve(found, resources, target)


def read(path: Path) -> dict[str, Any]:
    """One YAML file; a key that stands twice is an error."""
    return YAML(typ="safe").load(path)


def merge(into: dict[str, Any], other: Mapping[str, Any]) -> None:
    """Merge mappings deeply; of anything else the later wins."""
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = deepcopy(value)


def texts_in(node: Any) -> Iterator[str]:
    """Every text value below a node."""
    if isinstance(node, dict):
        node = list(node.values())
    if isinstance(node, list):
        for value in node:
            yield from texts_in(value)
    elif isinstance(node, str):
        yield node
