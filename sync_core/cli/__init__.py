"""`uds`: the command line. A command is one import and one line below `app`."""

from __future__ import annotations

import importlib.metadata
import os
import signal
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Annotated, NoReturn, Protocol, runtime_checkable

import typer

from sync_core.cli import demo, explain, init, operate, plan, run, schema, status, up, validate, watermark
from sync_core.cli.compile import compile_configuration
from sync_core.cli.options import move_options
from sync_core.cli.output import exit_status, print_error
from sync_core.domain.errors import ConfigError, PermanentError, RetryableError, SyncError

INTERRUPTED = 130
"""Exit status after Ctrl-C or SIGTERM."""

HELP = """Copy tables between Oracle, Azure SQL, PostgreSQL and Delta Lake: no row lost, no row doubled.

Every command takes --config FOLDER (config), --state FOLDER (.uds), --env NAME and --json.
"""

app = typer.Typer(
    help=HELP,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    invoke_without_command=True,
)
app.command("demo")(demo.demo)
app.command("init")(init.init)
app.command("validate")(validate.validate)
app.command("plan")(plan.plan)
app.command("run")(run.run)
app.command("status")(status.status)
app.command("history")(status.history)
app.command("up")(up.up)
app.command("pause")(operate.pause)
app.command("resume")(operate.resume)
app.command("cancel")(operate.cancel)
app.command("retry")(operate.retry)
app.command("dead-letters")(operate.dead_letters)
app.command("explain")(explain.explain)
app.command("schema")(schema.schema)
app.command("compile")(compile_configuration)
app.add_typer(watermark.commands, name="watermark")


@app.callback()
def start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    """What stands before the command's name."""
    if version:
        print(f"uds {importlib.metadata.version('universal-data-sync')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit


class Place(Protocol):
    """The command that the option parser was at."""

    command_path: str


@runtime_checkable
class UsageFault(Protocol):
    """What the option parser raises when the call is wrong."""

    exit_code: int
    ctx: Place | None

    def format_message(self) -> str: ...


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The `uds` program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    # A scheduler's stop is a person's: the engine ends with the command. `uds up` takes both signals itself.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(run_command_line(list(sys.argv[1:] if arguments is None else arguments)))


def run_command_line(arguments: list[str]) -> int:
    """Run one command line and return its exit status; errors are printed, never raised."""
    arguments = move_options(arguments)
    try:
        return _run(arguments, "--json" in arguments)
    except BrokenPipeError:
        _drop_output()
        return 1
    except OSError as error:
        # Standard output itself may be what is full: no document goes there, and none is left for the exit to write.
        message = f"uds stopped: {error.strerror or type(error).__name__}."
        print_error(PermanentError("system.failed", message, "Check the disk, and where the output goes."), False)
        _drop_output()
        return 1


def _run(arguments: list[str], as_json: bool) -> int:
    """The same, but for errors of the system, which may be those of the output."""
    try:
        result = app(args=arguments, prog_name="uds", standalone_mode=False)
        if result == INTERRUPTED:
            raise KeyboardInterrupt  # typer made a status of it
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except SyncError as error:
        print_error(error, as_json)
        return exit_status(error)
    except (KeyboardInterrupt, typer.Abort):
        remedy = "uds status shows how a run that was under way has ended."
        print_error(RetryableError("interrupted", "Interrupted.", remedy), as_json)
        return INTERRUPTED
    except OSError:
        raise
    except Exception as error:
        if isinstance(error, UsageFault):
            remedy = f"{error.ctx.command_path if error.ctx else 'uds COMMAND'} --help lists what can be written."
            print_error(ConfigError("call.wrong", error.format_message(), remedy), as_json)
            return 2
        if os.environ.get("UDS_DEBUG"):
            raise
        # The text of an unforeseen error may hold a connection string (P26).
        message = f"uds stopped on an unforeseen {type(error).__name__}."
        print_error(
            PermanentError("internal", message, "Run it again with UDS_DEBUG=1 and report what it prints."),
            as_json,
        )
        return 1


def _drop_output() -> None:
    """Let what is still to be written to standard output go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
