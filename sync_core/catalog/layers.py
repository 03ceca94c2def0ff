"""Files to resolved sections: variables, environments and defaults are brought together here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sync_core.catalog.document import Node, merge, shown_key
from sync_core.catalog.expand import Draft, Expander
from sync_core.catalog.faults import Fault, nearest, suggest
from sync_core.catalog.parse import read_document
from sync_core.catalog.secrets import is_secret_key
from sync_core.catalog.variables import fill


@dataclass
class Layers:
    """The whole configuration as resolved nodes. `complete` is False when a file could not be read."""

    connections: dict[str, Node] = field(default_factory=dict[str, Node])
    channels: dict[str, Node] = field(default_factory=dict[str, Node])
    defaults: list[Node] = field(default_factory=list[Node])
    pipelines: list[Draft] = field(default_factory=list[Draft])
    knows_connections: bool = True
    knows_channels: bool = True
    complete: bool = True


class Reader:
    """Reads the files of a configuration folder and gathers their faults."""

    def __init__(
        self, config: Path, environment: str | None, variables: Mapping[str, str], faults: list[Fault]
    ) -> None:
        self.config = config
        self.environment = environment
        self.variables = variables
        self.faults = faults
        self.layers = Layers()

    def read(self) -> Layers:
        if not self.config.is_dir():
            remedy = f"name the folder with --config, or write a starter: uds init {self.config}"
            self.faults.append(Fault(str(self.config), 0, "", "is not a folder", remedy))
            return self.layers
        overlay = self._overlay()
        self._read_connections(overlay)
        overlays = self._overlay_pipelines(overlay.get("pipelines"))
        files = {path: self._sections(path, ("defaults", "pipelines")) for path in self._pipeline_files()}
        defaults = {path: self._defaults(sections) for path, sections in files.items()}
        main = self.config / "pipelines.yml"
        environment = self._defaults(overlay)
        for path, sections in files.items():
            layers = (defaults.get(main), defaults[path] if path != main else None, environment)
            expander = Expander([layer for layer in layers if layer], overlays, self.faults)
            for entry in self._list(sections.get("pipelines")):
                self.layers.pipelines.extend(expander.expand(entry))
        self._check_overlays(overlays)
        return self.layers

    def _pipeline_files(self) -> list[Path]:
        single, folder = self.config / "pipelines.yml", self.config / "pipelines"
        files = [single] if single.exists() else []
        for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
            if any(part.startswith(".") for part in path.relative_to(folder).parts) or not path.is_file():
                continue
            if path.suffix == ".yml":
                files.append(path)
            elif path.suffix in (".yaml", ".YML", ".YAML"):
                self._refuse_suffix(path)
        if not files:
            self._missing(single)
        return files

    def _missing(self, path: Path) -> None:
        self.layers.complete = False
        other = path.with_suffix(".yaml")
        if other.exists():
            self._refuse_suffix(other)
            return
        # A starter is written into an empty place only.
        alone = not any(self.config.iterdir())
        place = self.config if alone else self.config.with_name(f"{self.config.name}-starter")
        remedy = f"write it, or {'begin with' if alone else 'copy it from a starter'}: uds init {place}"
        self.faults.append(Fault(str(path), 0, "", "does not exist", remedy))

    def _refuse_suffix(self, path: Path) -> None:
        self.layers.complete = False
        remedy = f"rename it to {path.with_suffix('.yml').name}"
        self.faults.append(Fault(str(path), 0, "", "is not read: configuration files end in .yml", remedy))

    def _sections(self, path: Path, allowed: tuple[str, ...]) -> dict[str, Node]:
        """The known top-level sections of a file, variables filled in."""
        root = read_document(path, self.faults)
        if root is None:
            self.layers.complete = False
            return {}
        if not isinstance(root.value, Mapping):
            if not root.is_broken:
                remedy = f"begin with {allowed[-1]}:"
                self.faults.append(root.fault(f"holds {root.kind} where a mapping is expected", remedy))
            self.layers.complete = False
            return {}
        sections: dict[str, Node] = {}
        for key, node in root.value.items():
            if key in allowed:
                sections[key] = fill(node, self.variables, self.faults)
            else:
                self.faults.append(node.fault(*_unknown_section(key, allowed)))
        return sections

    def _overlay(self) -> dict[str, Node]:
        if self.environment is None:
            return {}
        folder = self.config / "environments"
        path = folder / f"{self.environment}.yml"
        known = sorted(file.stem for file in folder.glob("*.yml"))
        if self.environment not in known:
            self.faults.append(
                Fault(str(path), 0, "", "does not exist", suggest(self.environment, known, "environment"))
            )
            return {}
        return self._sections(path, ("connections", "channels", "defaults", "pipelines"))

    def _read_connections(self, overlay: Mapping[str, Node]) -> None:
        path = self.config / "connections.yml"
        sections: dict[str, Node] = {}
        if path.exists():
            sections = self._sections(path, ("connections", "channels"))
        else:
            self._missing(path)
        section = sections.get("connections")
        self.layers.knows_connections = section is not None
        self.layers.knows_channels = bool(sections)
        if path.exists() and section is None and self.layers.complete:
            self.faults.append(Fault(str(path), 1, "connections", "is missing", "begin with connections:"))
        self.layers.connections = self._lay_names(
            section, overlay.get("connections"), "connection", section is not None
        )
        self.layers.channels = self._lay_names(
            sections.get("channels"), overlay.get("channels"), "channel", self.layers.knows_channels
        )

    def _lay_names(self, section: Node | None, overlay: Node | None, what: str, is_known: bool) -> dict[str, Node]:
        """What connections.yml has by name, the environment's changes laid over it."""
        base = self._mapping(section)
        for name, node in self._mapping(overlay).items():
            if name in base:
                base[name] = merge(base[name], node)
            elif is_known:
                message = f"connections.yml has no {what} {shown_key(name)}; an environment only changes what is there"
                remedy = suggest(name, list(base), what) if base else f"write it beneath {what}s: in connections.yml"
                self.faults.append(node.fault(message, remedy))
        return base

    def _overlay_pipelines(self, section: Node | None) -> dict[str, Node]:
        overlays: dict[str, Node] = {}
        for entry in self._list(section):
            name = entry.text_of("pipeline_id")
            if not isinstance(entry.value, Mapping):
                self.faults.extend(entry.kind_faults("a mapping", "write - pipeline_id: …"))
            elif name is None:
                if entry.get("pipeline_id") is None:
                    self.faults.append(entry.fault("is missing", "name the pipeline to change", key="pipeline_id"))
            elif name in overlays:
                message = f"{name} is changed twice, first on line {overlays[name].line}"
                self.faults.append(entry.fault(message, "put both changes into one entry"))
            else:
                overlays[name] = entry.without("tables")
            tables = entry.get("tables")
            if tables:
                self.faults.append(
                    tables.fault("an environment cannot change the list of tables", "change it in the base")
                )
        return overlays

    def _check_overlays(self, overlays: Mapping[str, Node]) -> None:
        drafts = self.layers.pipelines
        ids = [draft.node.text_of("pipeline_id") or "" for draft in drafts]
        known = {*ids, *(draft.entry.text_of("pipeline_id") or "" for draft in drafts)}
        for name, node in overlays.items():
            if name not in known and self.layers.complete:
                message = f"there is no pipeline {shown_key(name)}; an environment only changes what is there"
                self.faults.append((node.get("pipeline_id") or node).fault(message, suggest(name, ids, "pipeline")))

    def _defaults(self, sections: dict[str, Node]) -> Node | None:
        node = sections.get("defaults")
        if node is None:
            return None
        if not isinstance(node.value, Mapping):
            self.faults.extend(node.kind_faults("a mapping", "write keys of a pipeline beneath it"))
            return None
        self.layers.defaults.append(node)
        for key in ("pipeline_id", "tables"):
            if key in node.value:
                self.faults.append(node.value[key].fault("cannot be a default", "write it in the pipeline"))
        return node.without("pipeline_id", "tables")

    def _mapping(self, node: Node | None) -> dict[str, Node]:
        if node is not None and not isinstance(node.value, Mapping):
            self.faults.extend(node.kind_faults("a mapping", "write NAME: beneath it, and its keys beneath that"))
        return dict(node.mapping) if node else {}

    def _list(self, node: Node | None) -> tuple[Node, ...]:
        if node is not None and not isinstance(node.value, tuple):
            self.layers.complete = False
            self.faults.extend(node.kind_faults("a list", "begin each entry with - pipeline_id: …"))
        return node.items if node else ()


def _unknown_section(key: str, allowed: tuple[str, ...]) -> tuple[str, str]:
    if key in ("connections", "channels"):
        return "does not belong here", "move it to connections.yml"
    if key in ("defaults", "pipelines"):
        return "does not belong here", "move it to pipelines.yml"
    if is_secret_key(key):
        return "a secret is never written in the configuration", "name it with secret_scope and secret_key"
    close = nearest(key, allowed)
    return "is not known here", f"write {close}" if close else f"write {' or '.join(allowed)}"
