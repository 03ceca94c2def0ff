"""Around the demo: its folder, its servers, and their end, whatever happens."""

from __future__ import annotations

import shlex
import shutil
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import psycopg
from rich.console import Console

from sync_core.demo.loop import AlertReceiver
from sync_core.demo.programs import Programs
from sync_core.demo.screen import Screen
from sync_core.demo.servers import H2Server, PostgresServer
from sync_core.demo.story import Story
from sync_core.domain.errors import ConfigError, PermanentError

MARK = ".made-by-uds-demo"


def play(folder: Path, console: Console, keep: bool) -> dict[str, Any]:
    """Start the servers, tell the story, stop the servers. Returns the story's summary.

    Raises PermanentError with one sentence for whatever went wrong, Ctrl-C too.
    """
    shown = str(folder)
    folder = folder.absolute()
    try:
        with stopped_by_sigterm():
            clear(folder)
            return _play(folder, shown, Screen(console), keep)
    except KeyboardInterrupt as error:
        raise PermanentError(
            "demo.stopped", f"The demo was stopped, and its servers with it. Its files are in {shown}."
        ) from error
    except (RuntimeError, OSError, psycopg.Error) as error:
        message = f"The demo could not go on: {str(error).strip() or type(error).__name__}"
        raise PermanentError("demo.failed", message, f"Its servers are stopped; their logs are in {shown}.") from error


def _play(folder: Path, shown: str, screen: Screen, keep: bool) -> dict[str, Any]:
    screen.title("Universal Data Sync: real data, three databases, a Delta lake, and an engine killed half-way")
    screen.step("Three databases start on this machine")
    with PostgresServer(folder / "postgres") as postgres, H2Server(folder / "h2") as h2, AlertReceiver() as receiver:
        version = postgres.execute("SHOW server_version")[0][0]
        screen.say(f"PostgreSQL {version}: the real server.")
        screen.say("H2 in Oracle mode and H2 in MSSQLServer mode, posing as Oracle and SQL Server: their SQL dialects")
        screen.say("run for real, the servers are stand-ins.")
        secrets = {
            "UDS_SECRET_DEMO_OPERATIONS": postgres.password,
            "UDS_SECRET_DEMO_STAND_IN": h2.password,
            "UDS_SECRET_DEMO_ALERTS": receiver.secret,
        }
        story = Story(folder, shown, screen, postgres, h2, receiver, Programs(folder, secrets))
        story.tell()
        if keep:
            keep_running(folder, shown, screen, secrets)
        return story.summary()


def keep_running(folder: Path, shown: str, screen: Screen, secrets: dict[str, str]) -> None:
    """Leave the servers running until Ctrl-C, with their passwords in a file that only this user reads."""
    path = folder / "secrets.env"
    path.touch(mode=0o600)
    path.write_text("".join(f"export {name}={shlex.quote(value)}\n" for name, value in secrets.items()))
    flags = f"--config {shown}/config --state {shown}/state"
    try:
        screen.step("The databases keep running until you press Ctrl-C. In another terminal:")
        screen.say(f". {shown}/secrets.env && .venv/bin/uds plan flights {flags}")
        threading.Event().wait()
    except KeyboardInterrupt:
        screen.say("Stopped.")
    finally:
        path.unlink(missing_ok=True)


def clear(folder: Path) -> None:
    """Make the folder anew. Raises ConfigError rather than remove a folder that no demo made."""
    if folder.exists():
        if not folder.is_dir() or (any(folder.iterdir()) and not (folder / MARK).exists()):
            raise ConfigError(
                "demo.folder", f"{folder} is not empty and was not made by a demo.", "Name another --folder."
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / MARK).touch()


@contextmanager
def stopped_by_sigterm() -> Generator[None]:
    """SIGTERM ends the demo as Ctrl-C does, so that its servers end with it."""

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
