"""`uds explain CODE`: what an error code or an alert means, and what to do, without a network."""

from __future__ import annotations

import difflib
from typing import Annotated

import typer

from sync_core.cli.options import JsonOption, UnusedConfigOption, UnusedEnvironmentOption, UnusedStateOption
from sync_core.cli.output import print_json
from sync_core.domain.errors import ConfigError
from sync_core.runbook import plain, read_runbook


def explain(
    code: Annotated[str, typer.Argument(metavar="CODE", help="An error code or an alert: ledger.behind, stale, ...")],
    config: UnusedConfigOption = None,  # noqa: ARG001
    state: UnusedStateOption = None,  # noqa: ARG001
    environment: UnusedEnvironmentOption = None,  # noqa: ARG001
    as_json: JsonOption = False,
) -> None:
    """Print what an error code or an alert means, what to check and what to do."""
    entries = read_runbook()
    if code not in entries:
        near = difflib.get_close_matches(code, entries, 3, 0.5)
        remedy = f"Did you mean {' or '.join(near)}?" if near else "The code stands in `uds history --json`."
        raise ConfigError("call.wrong", f"No error and no alert is called {code[:100]}.", remedy)
    if as_json:
        print_json({"code": code, "entry": entries[code]})
        return
    print(f"{code}\n\n{plain(entries[code])}")
