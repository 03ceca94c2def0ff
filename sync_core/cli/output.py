"""What commands print: plain text, or one JSON document. Nothing here reads `[x]` in a message as markup."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sync_core.catalog.faults import CatalogError, Fault
from sync_core.domain.codec import to_json
from sync_core.domain.errors import ConfigError, SyncError


def make_console(to_error: bool = False) -> Console:
    """A console on standard output (or error) that colours on a terminal and never wraps or interprets a message."""
    return Console(stderr=to_error, markup=False, highlight=False, emoji=False, soft_wrap=True)


def print_json(document: Any) -> None:
    """One JSON document on standard output; dataclasses, enums and times as in the contracts."""
    print(json.dumps(to_json(document), ensure_ascii=False, indent=2))


def print_table(table: Table) -> None:
    """A table as wide as the terminal, folded; unfolded when piped, so that each row is a line."""
    console = make_console()
    if not console.is_terminal:
        console.width = 10_000
    console.print(table, soft_wrap=False)


def print_faults(faults: Sequence[Fault], to_error: bool = False) -> None:
    """One line a fault and their number at the end."""
    console = make_console(to_error)
    for fault in faults:
        line = Text(fault.place, style="bold")
        if fault.path:
            line.append(f"  {fault.path}", style="cyan")
        line.append(f"  {fault.message}", style="default")
        if fault.remedy:
            line.append(f"  → {fault.remedy}", style="green")
        console.print(line)
    console.print(Text(count(len(faults), "fault") + ".", style="bold red"))


def refuse_faults(error: CatalogError, as_json: bool) -> NoReturn:
    """Every fault on standard output, and exit status 2."""
    if as_json:
        print_json({"faults": [dataclasses.asdict(fault) for fault in error.faults]})
    else:
        print_faults(error.faults)
    raise typer.Exit(2) from error


def print_error(error: SyncError, as_json: bool) -> None:
    """A SyncError as one sentence and its remedy on standard error, or as a JSON document on standard output."""
    pipeline = getattr(error, "pipeline_id", None)
    faults = error.faults if isinstance(error, CatalogError) else ()
    if as_json:
        document: dict[str, Any] = {
            "code": error.code,
            "kind": error.kind,
            "message": error.message,
            "remedy": error.remedy,
        }
        if pipeline:
            document["pipeline_id"] = pipeline
        if faults:
            document["faults"] = [dataclasses.asdict(fault) for fault in faults]
        print_json({"error": document})
        return
    if faults:
        print_faults(faults, to_error=True)
        return
    text = f"{pipeline}: {error.message}" if pipeline and str(pipeline) not in error.message else error.message
    console = make_console(to_error=True)
    console.print(Text(text, style="red"))
    if error.remedy:
        console.print(Text(f"→ {error.remedy}"))


def exit_status(error: SyncError) -> int:
    """2 when the configuration or the call is wrong, else 1."""
    return 2 if isinstance(error, ConfigError) else 1


def count(number: int, noun: str) -> str:
    """`1 fault`, `2 faults`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
