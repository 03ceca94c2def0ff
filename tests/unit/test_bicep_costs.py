"""docs/cost.md: its table is what its own numbers come to."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from tree_sitter import Node

from sync_core.batches import LARGEST
from tests.support.bicep import at, read, text
from tools.compute_costs import Numbers, compute, read_numbers, with_table

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/cost.md").read_text(encoding="utf-8")
MODULES = ROOT / "infra/azure/modules"


def test_the_table_is_up_to_date() -> None:
    assert with_table(PAGE) == PAGE, "run tools/compute_costs.py"


@pytest.mark.parametrize("name", ["price node hour", "pipelines", "seconds a message", "batches a day"])
def test_every_number_of_the_page_counts(name: str) -> None:
    changed = re.sub(rf"(\| `{name}` \|)(.*)", lambda found: found.group(1) + found.group(2).replace("0", "9"), PAGE)
    changed = changed.replace(f"`{name}` | 3 |", f"`{name}` | 30 |")
    assert changed != PAGE
    assert compute(read_numbers(changed)) != compute(read_numbers(PAGE))


def test_no_number_of_the_page_is_idle() -> None:
    """Each one changes something when it is doubled, where there is enough to use up what is free."""
    page = read_numbers(PAGE)
    numbers = replace(
        page, scenarios={name: [value * 100 for value in values] for name, values in page.scenarios.items()}
    )
    plain = compute(numbers)
    for name, value in numbers.prices.items():
        assert compute(replace(numbers, prices={**numbers.prices, name: value * 2})) != plain, name
    for name, value in numbers.common.items():
        assert compute(replace(numbers, common={**numbers.common, name: value * 2})) != plain, name
    for name, values in numbers.scenarios.items():
        doubled = {**numbers.scenarios, name: [value * 2 for value in values]}
        assert compute(replace(numbers, scenarios=doubled)) != plain, name


def test_a_price_counts_in_proportion() -> None:
    def units(numbers: Numbers) -> float:
        return next(line.dollars[2] for line in compute(numbers) if line.name == "Databricks units")

    page = read_numbers(PAGE)
    price = page.prices["price job compute unit"]
    dearer = replace(page, prices={**page.prices, "price job compute unit": price * 3})
    assert units(dearer) == pytest.approx(units(page) * 3)


def test_the_page_tells_the_codes_own_limits() -> None:
    assert f"up to {LARGEST} pipelines" in PAGE.replace("\n  ", " ")
    assert "by tools/compute_costs.py" in PAGE
    assert "Nobody looked them up" in PAGE


def test_the_page_counts_the_instances_of_a_plan_over_zones() -> None:
    """Two for each function that scales by itself, and two for HTTP; the price of one stands in the row before."""
    app = (ROOT / "function_app.py").read_text(encoding="utf-8")
    groups = len(re.findall(r"^@app\.(?:timer|service_bus_queue)_trigger", app, re.MULTILINE)) + 1
    (one,) = re.findall(r"`alwaysReady`, one instance of 2 GB \| about (\d+) dollars", PAGE)
    assert f"{2 * groups} instances of 2 GB, about {2 * groups * int(one)} dollars" in PAGE


def value(body: Node, path: str) -> str:
    found = at(body, path)
    assert found is not None, path
    return text(found)


def test_the_page_counts_every_alarm_rule() -> None:
    """Rules on logs cost by how often they ask, rules on metrics by the series that they watch."""
    numbers = read_numbers(PAGE).common
    rules = read(MODULES / "alerts.bicep").resources.values()
    logs = [one.body for one in rules if one.type.endswith("/scheduledQueryRules")]
    metrics = [one.body for one in rules if one.type.endswith("/metricAlerts")]
    over_pipelines = (MODULES / "alert-queries.bicep").read_text(encoding="utf-8")
    every = [value(body, "properties.evaluationFrequency").strip("'") for body in logs]
    every += re.findall(r"^    frequency: '(\w+)'$", over_pipelines, re.MULTILINE)
    assert len(every) == numbers["log alarms of five minutes"] + numbers["log alarms of fifteen minutes"]
    assert every.count("PT5M") == numbers["log alarms of five minutes"]
    assert every.count("PT15M") == numbers["log alarms of fifteen minutes"]
    queues = re.findall(r"^    name: '(sync-\w+)'$", (MODULES / "service-bus.bicep").read_text(encoding="utf-8"), re.M)
    watched = [re.findall(r"values: \[([^]]*)\]", value(body, "properties.criteria")) for body in metrics]
    named = [re.findall(r"'([^']+)'", values) for (values,) in watched]
    assert sum(len(queues) if one == ["*"] else len(one) for one in named) == numbers["metric series"]
    # Its parts: one rule every five minutes, two every fifteen.
    assert re.findall(r"^    dimensions: (\w+)$", over_pipelines, re.MULTILINE) == ["byPipeline"] * 3
