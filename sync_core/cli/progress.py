"""What is happening, while it happens: a live table on a terminal, one line a step when piped, nothing with --json."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from sync_core.cli.output import make_console
from sync_core.formatting import rows_text
from sync_core.ports import EventHandler

STEPS = {
    "run.started": "reading the ledger",
    "window.fixed": "planning",
    "read.planned": "reading",
    "write.staged": "staged",
    "commit.started": "committing",
    "commit.done": "committed",
    "run.finished": "done",
}


@contextmanager
def show_progress(pipelines: list[str], *, silent: bool) -> Generator[EventHandler]:
    """A handler for the engine's events that shows them on standard error."""
    console = make_console(to_error=True)
    if silent:
        yield lambda _: None
    elif sys.stderr.isatty():
        with _Live(console, pipelines) as live:
            yield live.handle
    else:
        yield lambda event: _line(console, event)


def _line(console: Console, event: dict[str, Any]) -> None:
    name, pipeline = event["event"], event.get("pipeline", "")
    if name == "settle.waiting":
        console.print(_settling(event))
    elif name == "window.fixed":
        if "read_bound" not in event:
            return
        console.print(f"{pipeline}: window {event.get('low', 'the beginning')} … {event['read_bound']}")
    elif name in ("read.planned", "commit.done"):
        console.print(f"{pipeline}: {STEPS[name]}")


def _settling(event: dict[str, Any]) -> str:
    names = ", ".join(event.get("pipelines", []))
    return f"first load by a number cursor: waiting {event.get('seconds', 0):g} s until {names} has settled"


class _Live:
    """One line a pipeline, redrawn in place."""

    def __init__(self, console: Console, pipelines: list[str]) -> None:
        columns = (SpinnerColumn(finished_text=" "), TextColumn("{task.description}"), TimeElapsedColumn())
        self._progress = Progress(*columns, TextColumn("{task.fields[step]}"), console=console, transient=True)
        self._tasks = {name: self._progress.add_task(name, total=1, step="starting Spark") for name in pipelines}

    def __enter__(self) -> _Live:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def handle(self, event: dict[str, Any]) -> None:
        name = event["event"]
        for pipeline in event.get("pipelines", [event.get("pipeline")]):
            task = self._tasks.get(pipeline)
            if task is None:
                continue
            if name == "settle.waiting":
                self._progress.update(task, step=f"waiting {event.get('seconds', 0):g} s until its cursor has settled")
            elif name == "run.finished":
                step = f"{event.get('state')}, {rows_text(event.get('rows') or {})}"
                self._progress.update(task, step=step, completed=1)
            elif name in STEPS:
                self._progress.update(task, step=STEPS[name])
