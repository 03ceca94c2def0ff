"""Work out the table of docs/cost.md from the prices and assumptions that stand in the page, and write it there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs/cost.md"
BEGIN, END = "<!-- computed by tools/compute_costs.py -->", "<!-- end -->"

DAYS = 30.4
HOURS = 730
"""A month."""

SCENARIOS = ("idle", "100 a day", "10,000 a day")


@dataclass(frozen=True)
class Numbers:
    """What the page says: prices in US dollars, assumptions of all scenarios, and what differs between them."""

    prices: Mapping[str, float]
    common: Mapping[str, float]
    scenarios: Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Line:
    """One line of the result: US dollars a month in each scenario."""

    name: str
    dollars: tuple[float, ...]


def read_numbers(page: str) -> Numbers:
    """The tables of the page: the last cells of a row whose first cell is `name` in back ticks are numbers."""
    found: dict[str, list[float]] = {}
    for row in page.splitlines():
        cells = [cell.strip() for cell in row.strip().strip("|").split("|")]
        name = re.fullmatch(r"`([a-z ]+)`", cells[0])
        if name:
            found[name.group(1)] = [
                float(cell.replace(",", "")) for cell in cells[1:] if re.fullmatch(r"[\d.,]+", cell)
            ]
    prices = {name: values[0] for name, values in found.items() if name.startswith("price ")}
    others = {name: values for name, values in found.items() if name not in prices}
    return Numbers(
        prices,
        {name: values[0] for name, values in others.items() if len(values) == 1},
        {name: values for name, values in others.items() if len(values) == len(SCENARIOS)},
    )


def compute(numbers: Numbers) -> list[Line]:
    """A month of each scenario, by what is paid for."""
    months = [_month(numbers, index) for index in range(len(SCENARIOS))]
    return [Line(name, tuple(month[name] for month in months)) for name in months[0]]


def _month(numbers: Numbers, index: int) -> dict[str, float]:
    price, common = numbers.prices, numbers.common
    one = {name: values[index] for name, values in numbers.scenarios.items()}
    pipelines, runs, batches = one["pipelines"], one["runs a day"] * DAYS, one["batches a day"] * DAYS

    # Tick and reconcile walk over all pipelines every minute, watch every five.
    walks = DAYS * 24 * (60 + 60 + 12)
    walk_seconds = max(
        common["shortest billed second"], common["milliseconds of a walk for each pipeline"] * pipelines / 1000
    )
    messages = batches * common["messages a batch"]
    seconds = walks * walk_seconds + messages * common["seconds a message"]
    gigabyte_seconds = max(0.0, seconds * common["gigabytes of an instance"] - common["free gigabyte seconds"])
    executions = max(0.0, walks + messages - common["free executions"])
    functions = gigabyte_seconds * price["price gigabyte second"] + executions / 1e6 * price["price million executions"]

    reads = walks * pipelines + runs * common["table calls a run"]
    storage = reads / 1e4 * price["price ten thousand table calls"]

    logs = (walks + messages) * common["kilobytes of logs an execution"] + runs * common["kilobytes of logs a run"]
    gigabytes = logs / 1e6 + common["gigabytes of metrics a month"]
    telemetry = max(0.0, gigabytes - common["free gigabytes of logs"]) * price["price gigabyte of logs"]

    alarms = (
        common["log alarms of five minutes"] * price["price log alarm of five minutes"]
        + common["log alarms of fifteen minutes"] * price["price log alarm of fifteen minutes"]
        + common["metric series"] * price["price metric series"]
        + one["pipelines in trouble"] * price["price pipeline in trouble"]
    )

    busy_hours = runs * common["cluster seconds a run"] / 3600 / common["runs at once on a cluster"]
    cluster_hours = batches * common["minutes of cluster start"] / 60 + busy_hours
    nodes = common["nodes"]
    databricks = cluster_hours * nodes * price["price job compute unit"] * common["units of a node an hour"]
    machines = cluster_hours * nodes * price["price node hour"]
    control = {
        "Functions": functions,
        "Service Bus Standard": HOURS * price["price service bus hour"],
        "Table storage": storage,
        "Logs and metrics": telemetry,
        "Alarms": alarms,
    }
    clusters = {"Databricks units": databricks, "Virtual machines of the clusters": machines}
    together = sum(control.values())
    return {
        **control,
        "*Control plane together*": together,
        **clusters,
        "**All together**": together + sum(clusters.values()),
    }


def render(lines: Sequence[Line]) -> str:
    """The table in Markdown, in whole dollars."""
    head = f"| US dollars a month | {' | '.join(SCENARIOS)} |\n|---|{'---:|' * len(SCENARIOS)}"
    rows = [f"| {line.name} | {' | '.join(f'{dollars:,.0f}' for dollars in line.dollars)} |" for line in lines]
    return "\n".join([head, *rows])


def with_table(page: str) -> str:
    """The page with the table that follows from its numbers."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{render(compute(read_numbers(page)))}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
