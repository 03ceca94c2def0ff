"""The import rules as allow-lists, which refuse what import-linter was not told of; and a page that names every module."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BELOW = ("update", "messages", "alert_delivery", "due")
CLOSING = (*BELOW, "batches", "close", "outbox")
FLOWS = {
    "due": (), "update": (), "messages": (), "alert_delivery": (),
    "batches": BELOW, "close": BELOW, "outbox": BELOW,
    "request": CLOSING, "launch": CLOSING, "complete": CLOSING,
    **dict.fromkeys(("tick", "reconcile", "watch", "operate"), (*CLOSING, "request", "launch", "complete")),
}  # fmt: skip
"""Each flow, and what of the others it is built on."""

CITED = re.compile(r"(?<![\w./-])[RP]\d{1,2}[a-f]?(?![\w-])")
"""How code names a rule or a promise."""

ENGINE = {"spark_entry", "sync_core.domain", "pyspark", "delta", "py4j"}

ALLOWED = {
    "sync_core/domain": {"sync_core.domain"},
    "sync_core/ports.py": {"sync_core.domain"},
    **{
        f"sync_core/{flow}.py": {"sync_core.domain", "sync_core.ports", *(f"sync_core.{one}" for one in below)}
        for flow, below in FLOWS.items()
    },
    "sync_core/due.py": {"sync_core.domain", "cronsim"},
    "spark_entry": ENGINE,
}
"""What each part may import beside the standard library. Parts that do not exist yet are held to it when they come."""

FORBIDDEN = {
    "sync_core/adapters": {f"sync_core.{flow}" for flow in FLOWS},
    "sync_core/cli": {"sync_core.adapters"},
    "sync_core/web": {"sync_core.adapters"},
}
"""What import-linter's layers let through, for they only say who is above whom."""


def modules(part: str) -> Iterator[Path]:
    path = ROOT / part
    yield from path.rglob("*.py") if path.is_dir() else [path] if path.exists() else []


def imports(source: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            module = node.module or ""
            # `from sync_core import launch` imports sync_core.launch.
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "sync_core" else [module]
            yield from ((node.lineno, name) for name in names)


def within(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def outside(source: str, allowed: set[str]) -> list[str]:
    return [
        f"line {line} imports {name}"
        for line, name in imports(source)
        if name.split(".")[0] not in sys.stdlib_module_names and not within(name, allowed)
    ]


@pytest.mark.parametrize("part", ALLOWED)
def test_imports_nothing_but_what_it_may(part: str) -> None:
    faults = {
        str(path.relative_to(ROOT)): outside(path.read_text(encoding="utf-8"), ALLOWED[part]) for path in modules(part)
    }
    assert {path: found for path, found in faults.items() if found} == {}


@pytest.mark.parametrize("part", FORBIDDEN)
def test_leaves_alone_what_it_must(part: str) -> None:
    faults = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in modules(part)
        for line, name in imports(path.read_text(encoding="utf-8"))
        if within(name, FORBIDDEN[part])
    ]
    assert faults == []


@pytest.mark.parametrize("package", ["sync_core", "spark_entry"])
def test_the_architecture_page_names_every_module(package: str) -> None:
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    parts = [path.name for path in (ROOT / package).glob("*.py") if path.name != "__init__.py"]
    parts += [f"{path.parent.name}/" for path in (ROOT / package).glob("*/__init__.py")]
    assert [part for part in parts if f"`{part}" not in page and f"/{part}`" not in page] == []


def test_every_rule_and_promise_that_the_code_names_is_on_its_page() -> None:
    page = (ROOT / "docs/rules.md").read_text(encoding="utf-8")
    known = set(re.findall(r"\*\*(R\d+)\*\*|\*(R\d+[a-f])\*|^\| (P\d+) \|", page, re.MULTILINE))
    names = {name for found in known for name in found if name}
    sources = [path for package in ("sync_core", "spark_entry") for path in modules(package)]
    cited = {name for path in sources for name in CITED.findall(path.read_text(encoding="utf-8"))}
    assert len(cited) > 40
    assert cited - names == set()


def test_the_rule_itself_bites() -> None:
    assert outside("import json\nfrom sync_core.domain.run import RunResult\n", {"sync_core.domain"}) == []
    assert outside("import yaml\n", {"sync_core.domain"}) == ["line 1 imports yaml"]
    assert outside("from sync_core import launch\n", {"sync_core.domain"}) == ["line 1 imports sync_core.launch"]
    assert outside("import sync_core.domainx\n", {"sync_core.domain"}) == ["line 1 imports sync_core.domainx"]
