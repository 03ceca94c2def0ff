"""Faults of a file: not there, not YAML, or of a wrong shape; and the error that carries them all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sync_core.catalog import CatalogError, load_catalog
from tests.support.catalog import CONNECTIONS, PIPELINES, Faults, fault_finder, one


@pytest.fixture
def faults(tmp_path: Path) -> Faults:
    return fault_finder(tmp_path)


@pytest.mark.parametrize(
    ("text", "line", "message", "remedy"),
    [
        ("", 0, "is empty", "first section"),
        ("# nothing\n", 0, "is empty", "first section"),
        ("pipelines: [1", 1, "is not YAML", "close the bracket"),
        ("pipelines:\n\t- a: 1\n", 2, "is not YAML", "spaces, not tabs"),
        ("pipelines: []\n---\npipelines: []\n", 2, "is not YAML", "remove the line ---"),
        ("pipelines:\n  - a: *b\n", 2, "is not YAML", "in quotes"),
        ("pipelines:\n  - schedule:\n      cron: */5 * * * *\n", 3, "is not YAML", "begins with * in quotes"),
        ("pipelines:\n  - schedule:\n      cron: * * * * *\n", 3, "is not YAML", "begins with * in quotes"),
        ("pipelines:\n  - {a: ${B}}\n", 2, "is not YAML", '"${NAME}"'),
        ("a: b: c\n", 1, "is not YAML", "with a colon in quotes"),
        ("a\n", 1, "holds text where a mapping is expected", "begin with pipelines:"),
        ("- a\n", 1, "holds a list where a mapping is expected", "begin with pipelines:"),
        ("pipelines:\n", 1, "must be a list, not nothing", "pipeline_id"),
        ("pipelines: {a: 1}\n", 1, "must be a list, not a mapping", "pipeline_id"),
        ("pipelines:\n  - orders\n", 2, "must be a mapping, not text", "pipeline_id"),
        ("pipelines:\n  -\n", 2, "must be a mapping, not nothing", "pipeline_id"),
        ("pipelines: []\npipeline: []\n", 2, "is not known here", "write pipelines"),
        ("pipelines: []\nconnections: {}\n", 2, "does not belong here", "connections.yml"),
        ("pipelines: []\n1: 2\n", 2, "is not known here", "defaults or pipelines"),
        ("pipelines: []\n? [a]\n: 1\n", 2, "has a key that is not text", "key: value"),
        ("pipelines: []\ndefaults: 3\n", 2, "must be a mapping, not text", "keys of a pipeline"),
        ("pipelines: []\ndefaults: {pipeline_id: a}\n", 2, "cannot be a default", "in the pipeline"),
        ("pipelines: []\ndefaults: {mod: merge}\n", 2, "is not known here", "write mode"),
        ("pipelines: &a [*a]\n", 1, "holds itself", "without aliases"),
        ("a: \x07\n", 1, "does not allow", "remove it"),
        (b"pipelines: []\n# \xff\n", 2, "is not UTF-8", "encoding UTF-8"),
        ("pipelines: []\n".encode("utf-16"), 1, "is not UTF-8", "encoding UTF-8"),
        ("[" * 5000, 0, "nested too deeply", "levels"),
    ],
)
def test_broken_files(faults: Faults, text: str | bytes, line: int, message: str, remedy: str) -> None:
    fault = one(faults({"pipelines.yml": text}))
    assert Path(fault.file).name == "pipelines.yml"
    assert message in fault.message
    assert remedy in fault.remedy
    assert fault.line == line


def test_nesting_has_an_end(faults: Faults) -> None:
    found = faults({"pipelines.yml": "pipelines: [" + "[" * 100 + "]" * 101})
    assert any("too deeply nested" in fault.message for fault in found)


def test_aliases_that_multiply_are_stopped(faults: Faults) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    found = faults({"pipelines.yml": "\n".join(lines)})
    assert any("too large" in fault.message for fault in found)


def test_files_that_are_not_there(faults: Faults, tmp_path: Path) -> None:
    with pytest.raises(CatalogError) as failure:
        load_catalog(tmp_path / "none", None, {})
    fault = one(failure.value.faults)
    assert fault.message == "is not a folder"
    assert "uds init" in fault.remedy
    (tmp_path / "empty").mkdir()
    with pytest.raises(CatalogError) as failure:
        load_catalog(tmp_path / "empty", None, {})
    assert [(Path(fault.file).name, fault.message) for fault in failure.value.faults] == [
        ("connections.yml", "does not exist"),
        ("pipelines.yml", "does not exist"),
    ]
    fault = one(faults({"pipelines/more.yaml": "pipelines: []"}))
    assert fault.remedy == "rename it to more.yml"


def test_a_folder_in_the_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "connections.yml").mkdir()
    (tmp_path / "pipelines.yml").write_text(PIPELINES)
    with pytest.raises(CatalogError) as failure:
        load_catalog(tmp_path, None, {})
    assert one(failure.value.faults).message == "cannot be read: Is a directory"


def test_a_broken_connections_file_makes_no_further_faults(faults: Faults) -> None:
    fault = one(faults({"connections.yml": "connections: ["}))
    assert Path(fault.file).name == "connections.yml"


def test_the_error_itself_names_the_first_fault_and_the_command(tmp_path: Path) -> None:
    (tmp_path / "connections.yml").write_text(CONNECTIONS.replace("host: db", "hots: db"))
    (tmp_path / "pipelines.yml").write_text(PIPELINES.replace("mode: merge", "mode: x"))
    with pytest.raises(CatalogError) as failure:
        load_catalog(tmp_path, None, {})
    assert failure.value.kind == "config"
    assert "3 faults" in failure.value.message
    assert "connections.yml:2" in failure.value.message
    assert "uds validate" in failure.value.remedy


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(faults: Faults, tmp_path: Path) -> None:
    (tmp_path / "pipelines").mkdir()
    os.mkfifo(tmp_path / "pipelines/late.yml")
    (tmp_path / "environments").mkdir()
    os.mkfifo(tmp_path / "environments/e.yml")
    found = faults({}, "e")
    assert [fault.message for fault in found] == ["is neither a file nor a folder"]
