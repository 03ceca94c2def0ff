"""Programs that are started, and how the scripts end."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The repository."""


class Stopped(Exception):
    """Why a script ends before its work is done; `status` is its exit status: 2 when the call is wrong, else 1."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


def run(*command: str, folder: Path = ROOT, environment: Mapping[str, str] | None = None) -> None:
    """Start a program, its output on ours. Raises Stopped with its exit status when it fails."""
    _start(command, folder, environment, capture=False)


def ask(*command: str, folder: Path = ROOT, environment: Mapping[str, str] | None = None) -> str:
    """Start a program and return what it prints, without the spaces around it. Raises Stopped when it fails."""
    return _start(command, folder, environment, capture=True).strip()


def _start(command: tuple[str, ...], folder: Path, environment: Mapping[str, str] | None, *, capture: bool) -> str:
    say(f"+ {shlex.join(command)}", sys.stderr)
    given = {**os.environ, **(environment or {})}
    try:
        done = subprocess.run(
            command, cwd=folder, env=given, text=True, check=False, stdout=subprocess.PIPE if capture else None
        )
    except OSError as error:
        raise Stopped(f"{command[0]} could not be started: {error.strerror}.") from error
    if done.returncode:
        raise Stopped(f"{shlex.join(command[:4])} … ended with exit status {done.returncode}; what it said is above.")
    return done.stdout or ""


def require_programs(*names: str) -> None:
    """Raises Stopped that names every program that is not on the PATH."""
    missing = [name for name in names if shutil.which(name) is None]
    if missing:
        raise Stopped(f"Not on the PATH: {', '.join(missing)}. docs/delivery.md says where each comes from.", 2)


def require_variables(environment: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """The values of these variables. Raises Stopped that names every one that is not set."""
    wanted = list(names)
    missing = [name for name in wanted if not environment.get(name)]
    if missing:
        raise Stopped(f"These variables are not set: {', '.join(missing)}. docs/delivery.md says what each holds.", 2)
    return {name: environment[name] for name in wanted}


def say(text: str, stream: object = None) -> None:
    """A line, written at once: a build's log is read while it runs."""
    print(text, file=sys.stderr if stream is sys.stderr else sys.stdout, flush=True)


def main(name: str, work: Callable[[], None]) -> None:
    """Run a script's work and end the process with its status."""
    try:
        work()
    except Stopped as stopped:
        say(f"{name}: {stopped}", sys.stderr)
        sys.exit(stopped.status)
    except KeyboardInterrupt:
        say(f"{name}: interrupted. Run it again: each step can be repeated.", sys.stderr)
        sys.exit(130)
