"""What the documentation shows is what the product takes: YAML, commands, requests, Python."""

from __future__ import annotations

import ast
import importlib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import typer
from ruamel.yaml import YAML

from sync_core.catalog import load_catalog
from sync_core.catalog.faults import CatalogError
from sync_core.cli import app
from sync_core.cli.options import move_options
from sync_core.cli.reference import cli_page
from sync_core.messages import decode_request
from tests.support.documents import ROOT, Block, all_blocks, inline_commands, pages, read_blocks, shell_commands

CONNECTIONS: Mapping[str, Any] = {
    "shop": {
        "type": "postgresql", "host": "h", "database": "shop", "username": "sync",
        "secret_scope": "kv", "secret_key": "shop",  # pragma: allowlist secret
    },
    "erp": {
        "type": "oracle", "host": "h", "service_name": "ERP", "username": "sync",
        "secret_scope": "kv", "secret_key": "erp",  # pragma: allowlist secret
    },
    "lake": {"type": "databricks", "path": "./lake"},
}  # fmt: skip
"""What fragments may take for granted."""

PIPELINE: Mapping[str, Any] = {
    "pipeline_id": "orders",
    "source": {"connection": "shop", "table": "public.orders"},
    "target": {"connection": "lake", "table": "orders"},
    "mode": "merge",
    "merge_keys": ["id"],
}
SECTIONS = {"connections", "channels", "pipelines", "defaults"}


def parse(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)  # pyright: ignore[reportUnknownMemberType]


def write(folder: Path, name: str, document: Mapping[str, Any]) -> None:
    # JSON is YAML, and says exactly what was read.
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, default=str), encoding="utf-8")


def validate(block: Block, earlier: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
    """Check a block in the whole that the page's blocks before it make. Returns that whole with it."""
    shown = parse(block.text)
    assert isinstance(shown, dict), f"{block}: a configuration is a mapping"
    given = cast("dict[str, Any]", shown)
    if not SECTIONS & set(given):
        given = {"pipelines": [{**PIPELINE, **given}]}
    whole: dict[str, Any] = {
        "connections": {**CONNECTIONS, **earlier.get("connections", {})},
        "channels": dict(earlier.get("channels", {})),
        "defaults": {**earlier.get("defaults", {})},
        "pipelines": earlier.get("pipelines", [PIPELINE]),
    }
    if "environment" in block.info:
        write(folder, "environments/shown.yml", given)
    else:
        for section in ("connections", "channels", "defaults"):
            whole[section] |= given.get(section, {})
        whole["pipelines"] = given.get("pipelines", whole["pipelines"])
    write(folder, "connections.yml", {name: whole[name] for name in ("connections", "channels")})
    write(folder, "pipelines.yml", {name: whole[name] for name in ("defaults", "pipelines")})
    environment = "shown" if "environment" in block.info else None
    try:
        load_catalog(folder, environment, {})
    except CatalogError as error:
        told = "\n".join(f"{fault.path} {fault.message} → {fault.remedy}" for fault in error.faults)
        raise AssertionError(f"{block} is no configuration:\n{told}") from error
    return whole


@pytest.fixture
def cockroach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package that docs/adding-an-adapter.md describes, made of its blocks and installed."""
    code, points = read_blocks(ROOT / "docs/adding-an-adapter.md")[:2]
    place = tmp_path / "site"
    (place / "uds_cockroach-1.dist-info").mkdir(parents=True)
    (place / "uds_cockroach.py").write_text(code.text, encoding="utf-8")
    (place / "uds_cockroach-1.dist-info/METADATA").write_text("Name: uds-cockroach\nVersion: 1\n", encoding="utf-8")
    entry = points.text.replace(
        '[project.entry-points."universal_data_sync.adapters"]', "[universal_data_sync.adapters]"
    )
    (place / "uds_cockroach-1.dist-info/entry_points.txt").write_text(entry.replace('"', ""), encoding="utf-8")
    monkeypatch.syspath_prepend(str(place))
    yield
    sys.modules.pop("uds_cockroach", None)


@pytest.mark.usefixtures("cockroach")
@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_every_yaml_block_is_a_configuration_without_faults(page: Path, tmp_path: Path) -> None:
    whole: Mapping[str, Any] = {}
    for number, block in enumerate(read_blocks(page)):
        # A block that is no configuration of ours says so: ```yaml other
        if block.language in ("yaml", "yml") and "other" not in block.info:
            whole = validate(block, whole, tmp_path / str(number))


def test_a_block_with_a_fault_is_found(tmp_path: Path) -> None:
    block = Block("page.md", 1, ("yaml",), "schedule: {cronn: '* * * * *'}")
    with pytest.raises(AssertionError, match="cron"):
        validate(block, {}, tmp_path)


def parse_command(words: list[str], *, complete: bool) -> None:
    """Let the real parser take a call. Those in sentences may lack what is required, but say no option that is not."""
    command: Any = typer.main.get_command(app)
    rest = move_options(list(words))
    context = command.make_context("uds", [], resilient_parsing=True)
    while hasattr(command, "commands"):
        if rest == ["--version"] or (not rest and not complete):
            return
        assert rest, "which command?"
        assert rest[0] in command.commands, f"there is no command {rest[0]}"
        command = command.commands[rest[0]]
        rest = rest[1:]
    if complete:
        command.make_context("uds", rest, parent=context)
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in rest if word.startswith("--")} <= known, f"No such option: {rest}"


@pytest.mark.parametrize("block", all_blocks("sh"), ids=str)
def test_every_command_in_a_shell_block_is_understood(block: Block) -> None:
    for words in shell_commands(block):
        parse_command(words, complete=True)


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_every_command_in_a_sentence_is_understood(page: Path) -> None:
    for words in inline_commands(page):
        parse_command(words, complete=False)


@pytest.mark.parametrize("words", ["run orders --full-refersh", "cancel orders", "runn orders", "watermark sett a 1"])
def test_a_command_that_is_not_there_is_found(words: str) -> None:
    with pytest.raises(Exception, match=r"No such option|Missing parameter|there is no command"):
        parse_command(words.split(), complete=True)


def test_shell_blocks_are_read_as_the_shell_does() -> None:
    block = Block("page.md", 1, ("sh",), 'A=1 uds run \\\n  "a b" # why\nmake x && .venv/bin/uds up; echo uds\n')
    assert list(shell_commands(block)) == [["run", "a b"], ["up"]]


def test_the_pages_show_commands_and_configuration_at_all() -> None:
    commands = [words for block in all_blocks("sh") for words in shell_commands(block)]
    assert len(commands) > 40
    assert len(all_blocks("yaml")) > 8


def test_every_request_is_understood() -> None:
    requests = [json.loads(block.text) for block in all_blocks("json")]
    named = [one for one in requests if "request_id" in one and "kind" in one]
    assert len(named) >= 3
    for request in requests:
        # Answers and operations have keys of their own; whatever says `pipelines` and `request_id` asks.
        if "request_id" in request and "pipelines" in request:
            decode_request(json.dumps(request))


@pytest.mark.parametrize("block", all_blocks("python"), ids=str)
def test_python_blocks_compile_and_name_what_is_there(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("sync_core", "spark_entry"):
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                assert hasattr(module, alias.name), f"{block}: {node.module} has no {alias.name}"


def test_the_page_of_the_command_line_is_current() -> None:
    assert (ROOT / "docs/cli.md").read_text(encoding="utf-8") == cli_page(app), "run tools/generate_cli_docs.py"
