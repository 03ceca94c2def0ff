"""One entry of `pipelines:` to pipelines: defaults, `tables:` and environments laid over each other."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from sync_core.catalog.document import SCHEDULES, Node, Written, join, merge
from sync_core.catalog.faults import Fault
from sync_core.catalog.values import split_name

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class Draft:
    """One pipeline after all layers: `entry` is what stands in the file, `node` what came of it."""

    node: Node
    entry: Node


@dataclass(frozen=True)
class Expander:
    """Expands the entries of one file. `defaults` and `overlays` (by pipeline_id) are what applies to it."""

    defaults: list[Node]
    overlays: Mapping[str, Node]
    faults: list[Fault]

    def expand(self, entry: Node) -> list[Draft]:
        """The pipelines of one entry: itself, or one for each of its `tables:`."""
        if not isinstance(entry.value, Mapping):
            self.faults.extend(entry.kind_faults("a mapping", "write pipeline_id, source, target and mode"))
            return []
        name = entry.text_of("pipeline_id")
        overlay = self.overlays.get(name or "")
        above = [overlay] if overlay else []
        tables = entry.get("tables")
        if tables is None:
            return [Draft(self._lay([entry, *above]), entry)]
        if not isinstance(tables.value, tuple):
            self.faults.extend(tables.kind_faults("a list", "write a list: [SCHEMA.TABLE, …]"))
            return []
        if not tables.value:
            self.faults.append(tables.fault("names no table", "write a list: [SCHEMA.TABLE, …]"))
            return []
        for key in ("table", "query"):
            written = entry.get("source", key)
            if written:
                self.faults.append(written.fault("stands beside tables:", "remove it; tables: names the source tables"))
        layers = [entry.without("tables"), *above]
        drafts = (self._expand_table(item, layers) for item in tables.items)
        return [Draft(node, entry) for node in drafts if node]

    def _expand_table(self, item: Node, layers: list[Node]) -> Node | None:
        name = item.get("name") if item.mapping else item
        if name is None or not isinstance(name.value, Written):
            self.faults.append((name or item).fault("must name a source table", "write SCHEMA.TABLE"))
            return None
        if name.text is None:
            return None
        own = item.without("name") if item.mapping else replace(item, value={})
        node = self._lay([*layers, own])
        parts = split_name(name.text)
        words = {"table": parts[-1].lower(), "schema": parts[-2].lower() if len(parts) > 1 else ""}
        usual = "{schema}.{table}" if words["schema"] else "{table}"
        identity = self._template(node.get("pipeline_id"), usual, words, item, "pipeline_id")
        table = self._template(node.get("target", "table"), "{table}", words, item, "target.table")
        values = {
            **node.mapping,
            "pipeline_id": identity,
            "source": _with(node.get("source"), "table", name, item),
            "target": _with(node.get("target"), "table", table, item),
        }
        node = replace(item, value=values)
        late = self.overlays.get(identity.text or "")
        return replace(merge(node, late), file=item.file, line=item.line, path=item.path) if late else node

    def _template(self, node: Node | None, usual: str, words: Mapping[str, str], item: Node, key: str) -> Node:
        if node is not None and node.text is None:
            return node
        place = node or replace(item, path=join(item.path, key))
        written = node.text if node and node.text else usual
        unknown = [word for word in _PLACEHOLDER.findall(written) if not words.get(word)]
        if unknown:
            if unknown[0] in words:
                message = f"{{{unknown[0]}}} stands for nothing: the table {words['table']} is written without a schema"
                remedy = "write SCHEMA.TABLE in tables:, or leave {schema} out"
            else:
                message = f"{{{unknown[0]}}} stands for nothing here"
                remedy = "write " + " or ".join(f"{{{word}}}" for word in words)
            self.faults.append(place.fault(message, remedy))
            return replace(place, value=Written("", broken=True))
        return replace(place, value=Written(_PLACEHOLDER.sub(lambda match: words[match[1]], written)))

    def _lay(self, layers: list[Node]) -> Node:
        """Defaults beneath, then the layers, each over the one before; the place is that of the entry."""
        merged = layers[0]
        under: Node | None = None
        for layer in [*self.defaults, *layers]:
            under = merged = merge(under, layer)
        # A cursor or a schedule of which the defaults only say how (settle, timezone) is for pipelines that have one.
        for key, kinds in (("cursor", ("type",)), ("schedule", SCHEDULES)):
            section = merged.get(key)
            parts = section.mapping if section else None
            if parts and parts.keys().isdisjoint(kinds) and all(part.is_default for part in parts.values()):
                merged = merged.without(key)
        return replace(merged, file=layers[0].file, line=layers[0].line, path=layers[0].path)


def _with(section: Node | None, key: str, value: Node, place: Node) -> Node:
    """A section with one more key; a section that is no mapping stays as it is, for the model to refuse."""
    if section is None:
        return replace(place, value={key: value}, path=place.path)
    return section if not isinstance(section.value, Mapping) else replace(section, value={**section.value, key: value})
