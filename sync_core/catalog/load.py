"""The catalog: connections and pipelines, read, checked and turned into the domain's words."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sync_core.catalog.channel_checks import check_channel
from sync_core.catalog.connection_checks import check_connection
from sync_core.catalog.control_model import ChannelEntry
from sync_core.catalog.convert import to_channel, to_connection, to_pipeline
from sync_core.catalog.document import Node
from sync_core.catalog.faults import CatalogError, Fault, suggest
from sync_core.catalog.layers import Layers, Reader
from sync_core.catalog.model import ConnectionEntry, Defaults, PipelineEntry
from sync_core.catalog.pipeline_checks import check_pipeline
from sync_core.catalog.schedule_checks import check_order, check_schedule
from sync_core.catalog.target_checks import check_targets, folder_faults
from sync_core.catalog.validation import validate
from sync_core.domain.connection import Channel, Connection
from sync_core.domain.errors import ConfigError
from sync_core.domain.pipeline import Pipeline


@dataclass(frozen=True)
class Catalog:
    """The connections and channels by name and the pipelines by id, in the order of the files, without a fault.

    `places` says where each pipeline stands: `config/pipelines.yml:14`.
    """

    connections: Mapping[str, Connection]
    pipelines: Mapping[str, Pipeline]
    places: Mapping[str, str] = field(default_factory=dict[str, str])
    channels: Mapping[str, Channel] = field(default_factory=dict[str, Channel])

    def select(self, names: Iterable[str] = ()) -> list[Pipeline]:
        """The pipelines that ids, globs (`sales.*`) and tags (`tag:nightly`) name, each once; all for no name.

        Raises ConfigError `pipeline.unknown` with the nearest name when one of them finds nothing.
        """
        wanted = list(names)
        chosen = {pipeline_id for name in wanted for pipeline_id in self._matches(name)}
        return [pipeline for key, pipeline in self.pipelines.items() if not wanted or key in chosen]

    def the_one(self, name: str) -> Pipeline:
        """The only pipeline of this name. Raises ConfigError when it names none (`pipeline.unknown`) or several."""
        found = self.select([name])
        if len(found) > 1:
            names = ", ".join(pipeline.pipeline_id for pipeline in found[:12]) + (", …" if len(found) > 12 else "")
            raise ConfigError(
                "pipeline.several",
                f"{name} names {len(found)} pipelines, and this is for one.",
                f"Write one of {names}.",
            )
        return found[0]

    def _matches(self, name: str) -> list[str]:
        if name in self.pipelines:
            return [name]
        if name.startswith("tag:"):
            tag = name.removeprefix("tag:")
            found = [key for key, pipeline in self.pipelines.items() if tag in pipeline.tags]
            tags = sorted({tag for pipeline in self.pipelines.values() for tag in pipeline.tags})
            remedy = suggest(tag, tags, "tag")
            remedy = remedy.replace("write ", "write tag:", 1) if "one of" not in remedy else remedy
        else:
            found = fnmatch.filter(self.pipelines, name) if re.search(r"[*?\[]", name) else []
            remedy = suggest(name, list(self.pipelines), "pipeline")
        if not found:
            raise ConfigError(
                "pipeline.unknown",
                f"No pipeline is named by {name or repr(name)}.",
                remedy[:1].upper() + remedy[1:] + ".",
            )
        return found


def load_catalog(config: Path, environment: str | None, variables: Mapping[str, str]) -> Catalog:
    """Read a configuration folder. Raises CatalogError with every fault that is in it."""
    faults: list[Fault] = []
    layers = Reader(Path(config), environment, variables, faults).read()
    connections, channels = _load_connections(layers, faults), _load_channels(layers, faults)
    for node in layers.defaults:
        validate(Defaults, node.without("pipeline_id", "tables"), faults, partly=True)
        faults.extend(check_schedule(node, layers.channels if layers.knows_channels else None, is_default=True))
    pipelines, places = _load_pipelines(layers, faults)
    if faults:
        raise CatalogError(faults)
    return Catalog(connections, pipelines, places, channels)


def _load_connections(layers: Layers, faults: list[Fault]) -> dict[str, Connection]:
    connections: dict[str, Connection] = {}
    for name, node in layers.connections.items():
        entry = validate(ConnectionEntry, node, faults)
        wrong = check_connection(name, node)
        faults.extend(wrong)
        if entry is not None and not wrong:
            connections[name] = to_connection(name, entry)
    return connections


def _load_channels(layers: Layers, faults: list[Fault]) -> dict[str, Channel]:
    channels: dict[str, Channel] = {}
    for name, node in layers.channels.items():
        entry = validate(ChannelEntry, node, faults)
        faults.extend(check_channel(name, node))
        if entry is not None:
            channels[name] = to_channel(name, entry)
    return channels


def _load_pipelines(layers: Layers, faults: list[Fault]) -> tuple[dict[str, Pipeline], dict[str, str]]:
    known = layers.connections if layers.knows_connections else None
    channels = layers.channels if layers.knows_channels else None
    entries: list[tuple[PipelineEntry, Node]] = []
    for draft in layers.pipelines:
        entry = validate(PipelineEntry, draft.node, faults, missing_at=draft.entry)
        faults.extend(check_pipeline(draft.node, known))
        faults.extend(check_schedule(draft.node, channels))
        target = draft.node.get("target")
        if target:
            faults.extend(folder_faults(target, layers.connections))
        if entry is not None:
            entries.append((entry, draft.node))
    nodes = [draft.node for draft in layers.pipelines]
    faults.extend(check_targets(nodes, layers.connections))
    faults.extend(check_order(nodes, layers.complete))
    if faults:
        return {}, {}
    pipelines = {entry.pipeline_id: to_pipeline(entry) for entry, _ in entries}
    return pipelines, {entry.pipeline_id: f"{node.file}:{node.line}" for entry, node in entries}
