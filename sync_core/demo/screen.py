"""What the demo shows: numbered steps, sentences, and tables of what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sync_core.domain.run import Outcome, RunResult

PIPED_WIDTH = 120
STYLES = {Outcome.SUCCEEDED: "green", Outcome.UNCHANGED: "cyan", Outcome.FAILED: "bold red"}


class Screen:
    """Writes to a console; numbers its steps by itself."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._steps = 0
        if not console.is_terminal:
            console.width = PIPED_WIDTH

    def title(self, text: str) -> None:
        self._console.print(text, style="bold")

    def step(self, text: str) -> None:
        self._steps += 1
        self._console.print(f"\n{self._steps}. {text}", style="bold")

    def say(self, text: str) -> None:
        self._console.print(f"   {text}")

    def busy(self, command: str) -> AbstractContextManager[object]:
        """Show a command, and on a terminal that it is running."""
        self._console.print(f"   $ {command}", style="dim")
        return self._console.status(command)

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[str | Text]], numbers: Sequence[str] = ()) -> None:
        """A table; the columns named in `numbers` stand to the right."""
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
        table.add_column(width=1)
        for heading in headings:
            table.add_column(heading, justify="right" if heading in numbers else "left", overflow="fold")
        for row in rows:
            table.add_row("", *row)
        self._console.print(table, soft_wrap=False)

    def runs(self, results: Sequence[RunResult], sizes: Mapping[str, int]) -> None:
        """One line a run, beside the number of rows that its source has."""
        numbers = ("rows in the source", "read", "inserted", "updated", "seconds")
        rows = [
            (result.pipeline_id, state(result), f"{sizes[result.pipeline_id]:,}", *counts(result)) for result in results
        ]
        self.table(("pipeline", "state", *numbers), rows, numbers)

    def all_runs(self, results: Sequence[RunResult]) -> None:
        """One line a run, with the watermark it left."""
        numbers = ("read", "inserted", "updated", "seconds")
        rows = [
            (result.pipeline_id, state(result), *counts(result), result.watermark.value if result.watermark else "—")
            for result in results
        ]
        self.table(("pipeline", "state", *numbers, "watermark"), rows, numbers)


def state(result: RunResult) -> Text:
    """The run's state in its colour."""
    return Text(result.state.value, STYLES.get(result.state, "yellow"))


def counts(result: RunResult) -> list[str]:
    """Rows read, inserted, updated, and seconds; a dash where a killed run could not tell."""
    if result.state is Outcome.FAILED:
        return ["—"] * 4
    rows = result.rows
    return [f"{rows.read:,}", f"{rows.inserted:,}", f"{rows.updated:,}", f"{result.seconds.total:.1f}"]
