"""`uds explain CODE`: what an error code or an alert means, and what to do, without a network."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated

import typer

from sync_core.cli.options import JsonOption, UnusedConfigOption, UnusedEnvironmentOption, UnusedStateOption
from sync_core.cli.output import print_json
from sync_core.domain.errors import ConfigError
from sync_core.runbook import first_sentence, plain, read_runbook


def explain(
    code: Annotated[
        str | None,
        typer.Argument(metavar="CODE", help="An error code or an alert: ledger.behind, stale; all without it."),
    ] = None,
    config: UnusedConfigOption = None,  # noqa: ARG001
    state: UnusedStateOption = None,  # noqa: ARG001
    environment: UnusedEnvironmentOption = None,  # noqa: ARG001
    as_json: JsonOption = False,
) -> None:
    """Print what an error code or alert means, and what to do."""
    entries = read_runbook()
    if code is None:
        _list(entries, as_json)
        return
    if code not in entries:
        near = difflib.get_close_matches(code, entries, 3, 0.5)
        remedy = f"Did you mean {' or '.join(near)}?" if near else "uds explain lists them all."
        raise ConfigError("call.wrong", f"No error and no alert is called {code[:100]}.", remedy)
    if as_json:
        print_json({"code": code, "entry": entries[code]})
        return
    print(f"{code}\n\n{plain(entries[code])}")


def _list(entries: Mapping[str, str], as_json: bool) -> None:
    """Every code with the first sentence of its entry."""
    if as_json:
        print_json({"entries": entries})
        return
    width = max(map(len, entries))
    for code, entry in sorted(entries.items()):
        print(f"{code:{width}}  {first_sentence(entry)}")
