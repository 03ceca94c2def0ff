"""Every error code and alert of the source has its entry in the runbooks, and no entry stands for nothing."""

from __future__ import annotations

import ast
import functools
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from sync_core.cli import run_command_line
from sync_core.domain.alert import Condition
from sync_core.runbook import PAGES, entries_of, read_runbook
from tests.support.documents import ROOT

SOURCES = ("sync_core", "spark_entry")
CODE = re.compile(r"[a-z][a-z_]*(\.[a-z_]+)?")
BASES = {
    "SyncError": "permanent",
    "ConfigError": "config",
    "RetryableError": "retryable",
    "PermanentError": "permanent",
}

PASSED_ON = ("error.code", "fault.code", "refused.code", "refusal.error.code", "code")
"""What stands where a code is handed on: it was made elsewhere."""

HTTP = ("_Refused", "_error")
"""Errors of a call over HTTP: status, code, sentence."""


def modules() -> Iterator[tuple[Path, ast.Module]]:
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path, ast.parse(path.read_text(encoding="utf-8"))


def error_kinds(trees: list[tuple[Path, ast.Module]]) -> Mapping[str, str]:
    """Every class of errors by its name, with its kind."""
    kinds = dict(BASES)
    while True:
        before = len(kinds)
        for _, tree in trees:
            for node in ast.walk(tree):
                if not isinstance(node, ast.ClassDef):
                    continue
                base = next((name.id for name in node.bases if isinstance(name, ast.Name) and name.id in kinds), None)
                if base is not None and node.name not in kinds:
                    kinds[node.name] = _own_kind(node) or kinds[base]
        if len(kinds) == before:
            return kinds


def _own_kind(node: ast.ClassDef) -> str | None:
    for line in node.body:
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name) and line.targets[0].id == "kind":
            return ast.literal_eval(line.value)
    return None


def codes_of(value: ast.expr) -> set[str] | None:
    """The codes that an argument can be; None when that cannot be told."""
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return {value.value} if CODE.fullmatch(value.value) else None
    if isinstance(value, ast.JoinedStr) and ast.unparse(value) == "f'{role}.missing'":
        return {"source.missing", "target.missing"}
    return set() if ast.unparse(value) in PASSED_ON else None


@functools.cache
def raised() -> tuple[dict[str, set[str]], list[str]]:
    """Every code with the kinds that it is raised as, and the places where no code can be read."""
    trees = list(modules())
    kinds = error_kinds(trees)
    # The classes whose constructor takes no code: it is in their own `super().__init__`.
    closed = {"FenceLost", "Conflict", "CatalogError", "RunStopped", "EngineStopped", "RunTimeout"}
    found: dict[str, set[str]] = defaultdict(set)
    unclear: list[str] = []

    def note(path: Path, node: ast.Call, argument: ast.expr, kind: str) -> None:
        codes = codes_of(argument)
        if codes is None:
            unclear.append(f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(argument)}")
        for code in codes or ():
            found[code].add(kind)

    for path, tree in trees:
        owners = {id(call): name for name, call in _own_calls(tree, kinds)}
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else ""
            if name in kinds and name not in closed:
                note(path, node, node.args[0], kinds[name])
            elif id(node) in owners and owners[id(node)] not in BASES:
                note(path, node, node.args[0], kinds[owners[id(node)]])
            elif name == "RunError":
                kind = node.args[1]
                note(path, node, node.args[0], str(kind.value) if isinstance(kind, ast.Constant) else "")
            elif (name in HTTP and len(node.args) > 2) or (name == "_object" and len(node.args) == 2):
                note(path, node, node.args[1], "config")
    return found, unclear


def _own_calls(tree: ast.Module, kinds: Mapping[str, str]) -> Iterator[tuple[str, ast.Call]]:
    for owner in ast.walk(tree):
        if isinstance(owner, ast.ClassDef) and owner.name in kinds:
            for node in ast.walk(owner):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "super().__init__":
                    yield owner.name, node


def page(name: str) -> Mapping[str, str]:
    return entries_of((ROOT / "docs" / name).read_text(encoding="utf-8"))


def test_every_error_says_its_code_where_a_reader_of_the_source_can_see_it() -> None:
    _, unclear = raised()
    assert unclear == []


def test_every_code_has_an_entry_and_every_entry_a_code() -> None:
    found, _ = raised()
    entries = page("errors.md")
    assert sorted(set(found) - set(entries)) == [], "codes without an entry in docs/errors.md"
    assert sorted(set(entries) - set(found)) == [], "entries in docs/errors.md that nothing raises"
    assert len(found) > 150


def test_every_entry_names_the_kind_that_the_source_raises() -> None:
    found, _ = raised()
    wrong: list[str] = []
    for code, entry in page("errors.md").items():
        match = re.match(r"\*([^*]+)\.\* ", entry)
        told = set(re.findall(r"[a-z]+", match[1].lower())) - {"or"} if match else set[str]()
        if told != found[code] - {""}:
            wrong.append(f"{code}: says {sorted(told)}, is {sorted(found[code])}")
    assert wrong == []


@pytest.mark.parametrize("name", ["errors.md", "alerts.md"])
def test_every_entry_has_symptom_check_and_remedy(name: str) -> None:
    for code, entry in page(name).items():
        symptom, check, rest = entry.partition("\n- **Check**: ")
        remedy = rest.partition("\n- **Remedy**: ")[2]
        assert len(symptom) > 30, f"{code} has no symptom"
        assert check, f"{code} has no check"
        assert rest.partition("\n- **Remedy**: ")[0].strip(), f"{code} has no check"
        assert remedy.strip(), f"{code} has no remedy"


def test_no_code_has_two_entries() -> None:
    for name in ("errors.md", "alerts.md"):
        headings = re.findall(r"^### `([a-z_.]+)`$", (ROOT / "docs" / name).read_text(encoding="utf-8"), re.MULTILINE)
        assert sorted(headings) == sorted(set(headings))


def test_every_alert_has_an_entry_and_every_entry_is_an_alert() -> None:
    assert set(page("alerts.md")) == {condition.value for condition in Condition}


def test_explain_prints_an_entry(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["explain", "ledger.behind"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("ledger.behind\n\nPermanent. ")
    assert "- Remedy: " in shown
    assert not re.search(r"\*\*|\]\(|`", shown)


def test_explain_knows_every_entry(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(read_runbook()) == {*page("errors.md"), *page("alerts.md")}
    assert run_command_line(["explain", "stale", "--json"]) == 0
    assert '"code": "stale"' in capsys.readouterr().out


def test_explain_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["explain", "ledger.behnd"]) == 2
    assert "ledger.behind" in capsys.readouterr().err


def test_the_wheel_carries_what_explain_reads() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packed = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert packed == {f"docs/{page}": f"uds_runbook/{page}" for page in PAGES}
