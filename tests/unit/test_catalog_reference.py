"""What is generated from the model is current, complete, and says what the loader says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from sync_core.catalog import load_catalog, model
from sync_core.catalog.reference import configuration_page, json_schema
from sync_core.cli.init import starter

ROOT = Path(__file__).parents[2]


def read(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)  # pyright: ignore[reportUnknownMemberType]


def faults(document: Any) -> list[str]:
    validator = jsonschema.Draft202012Validator(json_schema())
    return [error.json_path for error in validator.iter_errors(document)]  # pyright: ignore[reportUnknownMemberType]


def test_the_documentation_is_current() -> None:
    assert (ROOT / "docs/configuration.md").read_text(encoding="utf-8") == configuration_page()


def test_the_schema_beside_the_configuration_is_current() -> None:
    """The rest of the folder is whoever's deploys: make test must pass with their pipelines in it."""
    assert (ROOT / "config/schema.json").read_text(encoding="utf-8") == starter()["schema.json"]


@pytest.mark.parametrize("environment", [None, "production"])
def test_the_starter_has_no_fault(environment: str | None, tmp_path: Path) -> None:
    for name, text in starter().items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert load_catalog(tmp_path, environment, {}).pipelines


def test_the_channels_that_the_starter_shows_in_a_comment_have_no_fault(tmp_path: Path) -> None:
    head, mark, tail = starter()["connections.yml"].partition("# channels:\n")
    shown = "".join(line.removeprefix("# ") for line in (mark + tail).splitlines(keepends=True))
    (tmp_path / "connections.yml").write_text(head + shown, encoding="utf-8")
    (tmp_path / "pipelines.yml").write_text(starter()["pipelines.yml"], encoding="utf-8")
    assert list(load_catalog(tmp_path, None, {}).channels) == ["on_call", "chat"]
    assert faults(read(head + shown)) == []


def sections() -> list[type[BaseModel]]:
    return [kind for kind in vars(model).values() if isinstance(kind, type) and issubclass(kind, model.Section)]


def test_every_key_has_a_meaning_and_stands_in_the_documentation() -> None:
    page = configuration_page()
    for section in sections():
        for name, info in section.model_fields.items():
            assert info.description, f"{section.__name__}.{name}"
            if section is not model.ConfigurationFile:
                assert f"| `{info.alias or name}` |" in page


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    assert json.loads(starter()["schema.json"]) == json_schema()


@pytest.mark.parametrize("name", [name for name in starter() if name.endswith(".yml")])
def test_the_schema_accepts_the_starter(name: str) -> None:
    assert faults(read(starter()[name])) == []


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("connections: {a: {type: oracle, hots: x}}", "$.connections.a"),
        ("connections: {a: {port: 70000}}", "$.connections.a.port"),
        ("pipelines: [{mode: mergee}]", "$.pipelines[0].mode"),
        ("pipelines: [{cursor: {typ: date}}]", "$.pipelines[0].cursor"),
        ("pipelines: [{transformations: [{type: filter}]}]", "$.pipelines[0].transformations[0]"),
        ("pipelines: [{tables: [{nam: a}]}]", "$.pipelines[0].tables"),
        ("defaults: {pipeline_id: a}", "$.defaults"),
        ("pipelines: [{schedule: {cronn: x}}]", "$.pipelines[0].schedule"),
        ("pipelines: [{schedule: {catch_up: none}}]", "$.pipelines[0].schedule"),
        ("pipelines: [{retry: {attempts: 11}}]", "$.pipelines[0].retry.attempts"),
        ("channels: {a: {type: mail}}", "$.channels.a.type"),
        ("channels: {a: {conditions: [late]}}", "$.channels.a.conditions"),
        ("pipeline: []", "$"),
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(text: str, where: str) -> None:
    assert faults(read(text)) == [where]


@pytest.mark.parametrize(
    "text",
    [
        "connections: {a: {port: '${PORT}', tls: '${TLS}', auth: '${AUTH}', path: ~}}",
        "defaults: {mode: merge, cursor: {settle: 1m}}",
        "pipelines: [{pipeline_id: '{schema}.{table}', tables: [a.b, {name: c, mode: merge}]}]",
        "pipelines: [{pipeline_id: orders, cursor: ~, tags: ~, schedule: ~, channels: ~}]",
        "defaults: {schedule: {timezone: UTC}, paused: '${P}', retry: {attempts: '${N}'}, alerts: {failed: '${F}'}}",
        "pipelines: [{schedule: {after: [a, b]}, timeout: 2h, compute: large, owner: team, channels: [ops]}]",
        "channels: {a: {type: webhook, url: '${URL}', secret_scope: kv, secret_key: k, conditions: [failed, stale]}}",
    ],
)
def test_the_schema_accepts_what_the_loader_accepts(text: str) -> None:
    assert faults(read(text)) == []
