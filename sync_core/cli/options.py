"""The options that every command takes, before or after its name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

ConfigOption = Annotated[
    Path, typer.Option("--config", metavar="FOLDER", envvar="UDS_CONFIG", help="Where the configuration lies.")
]
StateOption = Annotated[
    Path, typer.Option("--state", metavar="FOLDER", envvar="UDS_STATE", help="Where state and run folders are kept.")
]
EnvironmentOption = Annotated[
    str | None,
    typer.Option("--env", metavar="NAME", help="Lay environments/NAME.yml over the configuration."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]

UnusedConfigOption = Annotated[Path | None, typer.Option("--config", hidden=True)]
UnusedStateOption = Annotated[Path | None, typer.Option("--state", hidden=True)]
UnusedEnvironmentOption = Annotated[str | None, typer.Option("--env", hidden=True)]

DEFAULT_CONFIG = Path("config")
DEFAULT_STATE = Path(".uds")


@dataclass(frozen=True)
class Common:
    """The common options of one call."""

    config: ConfigOption = DEFAULT_CONFIG
    state: StateOption = DEFAULT_STATE
    environment: EnvironmentOption = None
    as_json: JsonOption = False


def takes_common(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the common options after its own. It gets them as its first argument, a `Common`."""
    _, *own = inspect.signature(command, eval_str=True).parameters.values()
    common = inspect.signature(Common, eval_str=True).parameters

    @wraps(command)
    def call(**given: Any) -> None:
        command(Common(**{name: given.pop(name) for name in common}), **given)

    # Typer reads a command's options from here.
    vars(call)["__signature__"] = inspect.Signature([*own, *common.values()])
    return call


_WITH_VALUE = ("--config", "--state", "--env", "--environment")


def move_options(arguments: list[str]) -> list[str]:
    """Put common options that stand before the command's name at its end, where every command reads them.

    Without a command they mean nothing, and are left out.
    """
    moved: list[str] = []
    rest = list(arguments)
    while rest and rest[0].startswith("--"):
        name, equals, _ = rest[0].partition("=")
        if name == "--json" and not equals:
            moved.append(rest.pop(0))
        elif name in _WITH_VALUE and (equals or len(rest) > 1):
            moved.append(rest.pop(0))
            if not equals:
                moved.append(rest.pop(0))
        else:
            break
    end = rest.index("--") if "--" in rest else len(rest)
    return [*rest[:end], *moved, *rest[end:]] if rest else []
