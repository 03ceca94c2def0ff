"""docs/cli.md, made from the commands themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

COMMON = {
    "--config": ("FOLDER", "Where the configuration lies: a folder. Without it `UDS_CONFIG`, else `config`."),
    "--state": ("FOLDER", "Where state and run folders are kept. Without it `UDS_STATE`, else `.uds`."),
    "--env": ("NAME", "Lay `environments/NAME.yml` over the configuration."),
    "--json": ("", "Print one JSON document on standard output, errors too."),
}
"""Options that most commands take, before or after their name. They are described once."""

_INTRODUCTION = """\
# Command line

<!-- Made from the commands by `python tools/generate_cli_docs.py`; a test compares. -->

`uds` works on a configuration folder and, for what it remembers, on a state folder. These options may stand before or
after a command's name; each command lists which of them it takes:

"""

_STATUS = """\

| exit status | means |
|---|---|
| 0 | done |
| 1 | something failed: a run, a check, a connection |
| 2 | the configuration or the call is wrong |
| 130 | Ctrl-C or SIGTERM: what ran was stopped and is cancelled |

An error is a sentence and its remedy on standard error; with `--json` it is
`{"error": {"code", "kind", "message", "remedy"}}` on standard output. `uds explain CODE` says more.
"""


def cli_page(app: typer.Typer) -> str:
    """The page: every command with its arguments and options."""
    lines = [_INTRODUCTION, "| option | meaning |\n|---|---|\n"]
    lines += [f"| {_code(option, value)} | {meaning} |\n" for option, (value, meaning) in COMMON.items()]
    lines.append(_STATUS)
    for path, command in sorted(_leaves(typer.main.get_command(app), "uds")):
        lines.append(_section(path, command))
    return "".join(lines)


def _leaves(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    for name, child in getattr(command, "commands", {}).items():
        if hasattr(child, "commands"):
            yield from _leaves(child, f"{path} {name}")
        elif not child.hidden:
            yield f"{path} {name}", child


def _section(path: str, command: Any) -> str:
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option" and not one.hidden]
    own = [one for one in options if one.opts[0] not in COMMON]
    common = [name for name in COMMON if any(one.opts[0] == name for one in options)]
    lines = [f"\n## `{path}`\n\n{_one_line(command.help)}\n"]
    if arguments or own:
        lines.append("\n| | meaning | default |\n|---|---|---|\n")
        lines += [f"| {_code(_argument(one))} | {_meaning(one)} | {_default(one)} |\n" for one in arguments]
        lines += [f"| {_code(one.opts[0], _value(one))} | {_meaning(one)} | {_default(one)} |\n" for one in own]
    lines.append(f"\nAlso takes {', '.join(map(_code, common))}.\n" if common else "")
    return "".join(lines)


def _code(name: str, value: str = "") -> str:
    return f"`{name} {value}`" if value else f"`{name}`"


def _argument(argument: Any) -> str:
    name = str(argument.metavar or argument.name.upper()) + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _value(option: Any) -> str:
    return "" if option.is_flag else str(option.metavar or "VALUE")


def _meaning(parameter: Any) -> str:
    return _one_line(parameter.help or "").replace("|", "\\|")


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    return "" if parameter.default in (None, False) else f"`{parameter.default}`"


def _one_line(text: str) -> str:
    return " ".join(text.split())
