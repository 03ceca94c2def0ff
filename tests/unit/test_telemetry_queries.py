"""The alert queries: every table, column, metric and attribute that they name is one that there is, and is sent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from sync_core.domain.facts import Facts, StepTime
from sync_core.domain.run import Outcome, RunError, RunKind, RunRecord, RunResult, RunState
from sync_core.telemetry import METRICS
from sync_core.telemetry_runs import Change, Site, Step, door_spans, run_spans
from tests.support.control import START
from tests.support.flows import CONNECTIONS, pipeline

INFRA = Path(__file__).parents[2] / "infra/azure"
QUERIES = sorted((INFRA / "queries").glob("*.kql"))
MODULE = (INFRA / "modules/alert-queries.bicep").read_text(encoding="utf-8")

COLUMNS: Mapping[str, frozenset[str]] = {
    "AppDependencies": frozenset(
        ("TimeGenerated", "Name", "Id", "ParentId", "OperationId", "DurationMs", "Success", "Properties")
    ),
    "AppMetrics": frozenset(("TimeGenerated", "Name", "Sum", "Min", "Max", "ItemCount", "Properties")),
}
"""Of each table in Azure Monitor's reference, the columns that queries may use."""

WORDS = frozenset(
    re.findall(
        r"\w+",
        """AppDependencies AppMetrics where summarize by arg_max take_any count sum min max project order asc desc let join
    kind leftouter on in and or tostring toint toscalar coalesce real null iff startswith""",
    )
)


def sent() -> dict[str, frozenset[str]]:
    """Span name to the attributes that it can have, as the code makes them."""
    error = RunError("source.gone", "retryable", "gone")
    result = RunResult(
        "orders", "k", "b", RunKind.INCREMENTAL, 1, Outcome.FAILED, "r", counted_generation=1, error=error,
        started_at=START, finished_at=START,
        facts=Facts((StepTime("write", START, START),), engine_version="1", spark_version="4"),
    )  # fmt: skip
    run = RunRecord(
        "k", "orders", RunKind.INCREMENTAL, 1, RunState.FAILED, "b", START, launch_id="1", request_id="r", slot=START,
        closed_at=START + timedelta(seconds=1), result=replace(result, facts=None),
    )  # fmt: skip
    site = Site({"orders": pipeline()}, CONNECTIONS, "test")
    spans = run_spans(run, result.facts, site)
    spans += door_spans("tick", [Change(Step.BEGUN, run)], START, START, site, None)
    return {span.name: frozenset(span.attributes) for span in spans}


def statements(text: str) -> list[str]:
    """What is asked of one table, without comments."""
    plain = re.sub(r"//.*", "", text)
    return [part for part in re.split(r"(?=\bApp[A-Z]\w+)", plain) if part.startswith("App")]


@pytest.mark.parametrize("path", QUERIES, ids=lambda path: path.stem)
def test_a_query_names_only_what_is_sent(path: Path) -> None:
    spans, parts = sent(), statements(path.read_text(encoding="utf-8"))
    assert parts
    for part in parts:
        table = part.split()[0]
        assert table in COLUMNS
        names = re.findall(r'\bName == "([^"]+)"', part)
        keys = set(re.findall(r'Properties\["([^"]+)"\]', part))
        if table == "AppMetrics":
            assert len(names) == 1
            assert names[0] in METRICS
            assert keys <= set(METRICS[names[0]].attributes), path.name
        else:
            assert all(name in spans for name in names)
            known = frozenset[str]().union(*(spans[name] for name in names or spans))
            assert keys <= known, path.name


@pytest.mark.parametrize("path", QUERIES, ids=lambda path: path.stem)
def test_a_query_uses_only_columns_that_there_are(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    plain = re.sub(r'//.*|"[^"]*"', "", text)
    made = set(re.findall(r"\b(\w+)\s*=(?!=)", plain))
    tables = [part.split()[0] for part in statements(text)]
    known = WORDS | made | frozenset[str]().union(*(COLUMNS[table] for table in tables))
    words = set(re.findall(r"\b[A-Za-z_]\w*", plain))
    assert words - known == set()
    assert text.startswith("// "), "each says what it shows"


def test_the_columns_of_one_table_are_not_asked_of_another() -> None:
    for path in QUERIES:
        for part in statements(path.read_text(encoding="utf-8")):
            table, plain = part.split()[0], re.sub(r'"[^"]*"', "", part.partition("\nRuns\n")[0])
            foreign = frozenset[str]().union(*COLUMNS.values()) - COLUMNS[table]
            assert not {word for word in re.findall(r"\w+", plain) if word in foreign}, path.name


def test_every_rule_loads_a_query_that_is_there_and_measures_what_it_makes() -> None:
    rules = re.findall(
        r"query: loadTextContent\('\.\./queries/([\w-]+\.kql)'\)\s+column: '(\w+)'.*?dimensions: (\w+|\[\])",
        MODULE,
        re.S,
    )
    assert [name for name, _, _ in rules] == ["failed-runs.kql", "lag.kql", "slow-launches.kql"]
    assert "query: '${rule.query}| where ${rule.column} > ${rule.threshold}'" in MODULE, (
        "a series costs, in order or not"
    )
    for name, column, dimensions in rules:
        text = (INFRA / "queries" / name).read_text(encoding="utf-8")
        assert re.search(rf"\b{column} = ", text), name
        assert text.endswith("\n"), "the rule adds a line"
        assert dimensions == "[]" or re.search(r"\bPipeline = ", text), name


def test_the_workbook_shows_every_query_that_needs_no_answer_first() -> None:
    workbook = (INFRA / "modules/workbook.bicep").read_text(encoding="utf-8")
    shown = re.findall(
        r"key: '([\w-]+)'\s+title: '[^']+'\s+query: loadTextContent\('\.\./queries/([\w-]+)\.kql'\)", workbook
    )
    assert all(key == name for key, name in shown)
    assert {f"{name}.kql" for _, name in shown} == {path.name for path in QUERIES} - {"trace-of-run.kql"}
    # The window is the workbook's: a time in the query itself would hold in its place.
    for key, _ in shown:
        assert "ago(" not in (INFRA / f"queries/{key}.kql").read_text(encoding="utf-8"), key


def test_the_module_pins_its_version_and_takes_what_it_is_given() -> None:
    assert re.findall(r"resource \w+ '([^']+)'", MODULE) == ["Microsoft.Insights/scheduledQueryRules@2023-12-01"]
    parameters = re.findall(r"^param (\w+)", MODULE, re.M)
    assert {"location", "tags", "workspaceId", "actionGroupId"} <= set(parameters)
    body = MODULE[MODULE.index("var actionGroups") :]
    assert [name for name in parameters if not re.search(rf"\b{name}\b", body)] == []
    assert MODULE.count("{") == MODULE.count("}")
    assert MODULE.count("[") == MODULE.count("]")


def test_the_page_names_every_span_metric_attribute_and_query() -> None:
    page = (INFRA.parents[1] / "docs/observability.md").read_text(encoding="utf-8")
    spans = sent()
    rows = {line.split("|")[1].strip(" `"): line for line in page.splitlines() if line.startswith("| `uds.")}
    for name, metric in METRICS.items():
        assert all(f"`{one}`" in rows[name] for one in metric.attributes), name
    wanted = [*spans, *frozenset[str]().union(*spans.values()), *(path.name for path in QUERIES)]
    assert [name for name in wanted if f"`{name}`" not in page] == []
