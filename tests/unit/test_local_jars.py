"""Jars are fetched once; without a network the message says what is needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from spark_entry import local_jars, local_session
from spark_entry.local_jars import find_jars
from sync_core.domain.errors import PermanentError

SETTINGS = local_jars.IVY_SETTINGS.replace("m2compatible", 'root="http://127.0.0.1:9/" m2compatible')


def test_without_a_network_the_first_run_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_jars, "IVY_SETTINGS", SETTINGS)
    for _ in range(2):
        with pytest.raises(PermanentError) as raised:
            find_jars(["com.example:nothing:1.0"], tmp_path)
        assert raised.value.code == "engine.jars"
        assert "com.example:nothing:1.0" in raised.value.message
        assert "Maven Central" in raised.value.message


def test_without_java_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(PermanentError) as raised:
        find_jars(["com.example:nothing:1.0"], tmp_path)
    assert "Java 17" in raised.value.remedy


def test_what_is_there_is_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def fetch(packages: list[str], folder: Path) -> None:
        asked.append(packages)
        folder.mkdir()
        (folder / "b.jar").touch()

    monkeypatch.setattr(local_jars, "_fetch", fetch)
    first = find_jars(["x:b:1", "x:a:1"], tmp_path)
    assert find_jars(["x:a:1", "x:b:1", "x:a:1"], tmp_path) == first
    assert asked == [["x:a:1", "x:b:1"]]


def test_memory_is_a_quarter_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2 * 2**20}
    monkeypatch.setattr("os.sysconf", sizes.__getitem__)
    monkeypatch.delenv("UDS_DRIVER_MEMORY", raising=False)
    assert local_session.driver_memory() == "2048m"
    sizes["SC_PHYS_PAGES"] = 2**17
    assert local_session.driver_memory() == "1024m"
    sizes["SC_PHYS_PAGES"] = 2**26
    assert local_session.driver_memory() == "8192m"
    monkeypatch.setenv("UDS_DRIVER_MEMORY", "3g")
    assert local_session.driver_memory() == "3g"
