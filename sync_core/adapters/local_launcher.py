"""The engine as a subprocess on this machine."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

from sync_core.domain.errors import PermanentError, RetryableError
from sync_core.ports import EventHandler, LaunchState, LaunchStatus

GRACE_SECONDS = 10.0
"""How long a cancelled engine may take to stop by itself."""

POLL_SECONDS = 0.05

LOG_END = 65_536
"""How much of the engine's log is searched for the cause of its end."""

LINE_LENGTH = 200

_ERROR = re.compile(
    # An exception's own line (Python's and Java's), or what the JVM and the system say when they give up.
    r"(Caused by: |Exception in thread \S+ )?[\w.$]*(Error|Exception)(:|$)|#?.*(insufficient memory|No space left on device)"
)


class LocalLauncher:
    """A Launcher that starts `command --manifest PATH` in a process group of its own.

    While the engine lives it holds a lock on `engine.lock` in its run folder, so that any later process can tell
    whether it does, whatever became of the process that started it. Its events, one JSON object a line on standard
    output, are kept in `events.jsonl`, all else it prints in `engine.log`; `engine.pid` says that it was started.
    """

    def __init__(self, folder: Path, command: Sequence[str]) -> None:
        self.folder = folder.absolute()
        self.command = list(command)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._reserved: dict[str, int] = {}
        self._launching = threading.Lock()

    @contextmanager
    def reserve(self, batch_id: str) -> Generator[None]:
        try:
            (self.folder / batch_id).mkdir(parents=True, exist_ok=True)
            lock = os.open(self.folder / batch_id / "engine.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise _unusable(self.folder / batch_id, error) from error
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RetryableError("launch.busy", f"Batch {batch_id[:12]} is running.", "Wait for it.") from error
            self._reserved[batch_id] = lock
            yield
        finally:
            self._reserved.pop(batch_id, None)
            os.close(lock)

    def launch(self, batch_id: str, manifest: str, compute: str = "default") -> str:
        # One at a time: of two threads with one batch, the second would start it on a lock that the first gives up.
        with self._launching:
            reserved = batch_id in self._reserved
            started = batch_id in self._processes or (self.folder / batch_id / "engine.pid").exists()
            if started or (not reserved and self.is_locked(batch_id)):
                return batch_id
            with nullcontext() if reserved else self.reserve(batch_id):
                # Asked again: another process may have started it, and it may have ended, before the lock was taken.
                if not (self.folder / batch_id / "engine.pid").exists():
                    self.start(batch_id, manifest, self._reserved[batch_id])
        return batch_id

    def start(self, batch_id: str, manifest: str, lock: int) -> None:
        """Start the engine, which holds `lock` from now on."""
        try:
            self._start(batch_id, manifest, lock)
        except OSError as error:
            if batch_id in self._processes:
                raise _unusable(self.folder / batch_id, error) from error
            raise PermanentError(
                "launch.failed",
                f"The engine {self.command[0]} cannot be started: {error.strerror}.",
                "Check UDS_ENGINE, or install uds anew.",
            ) from error

    def _start(self, batch_id: str, manifest: str, lock: int) -> None:
        folder = self.folder / batch_id
        with (folder / "engine.log").open("ab") as log, (folder / "events.jsonl").open("ab") as events:
            self._processes[batch_id] = process = subprocess.Popen(
                [*self.command, "--manifest", manifest],
                stdin=subprocess.DEVNULL,
                stdout=events,
                stderr=log,
                pass_fds=(lock,),
                start_new_session=True,
            )
        (folder / "engine.pid").write_text(str(process.pid))

    def state(self, launch_id: str) -> LaunchState:
        locked = self.is_locked(launch_id)
        if locked is None:
            return LaunchState(LaunchStatus.UNKNOWN, "its run folder is gone")
        if locked:
            return LaunchState(LaunchStatus.RUNNING)
        return LaunchState(LaunchStatus.ENDED, self._reason(launch_id))

    def is_locked(self, launch_id: str) -> bool | None:
        """Whether an engine, or who reserves its place, lives; None when there never was one."""
        try:
            lock = (self.folder / launch_id / "engine.lock").open("rb")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _unusable(self.folder / launch_id, error) from error
        with lock:
            try:
                # Shared: two who look at once must not take each other for the engine.
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def batch_of(self, launch_id: str) -> str | None:
        # A launch id comes from outside: a path in it must not lead elsewhere.
        name = launch_id == Path(launch_id).name and launch_id not in ("", "..")
        return launch_id if name and self.state(launch_id).status is not LaunchStatus.UNKNOWN else None

    def follow(self, launch_id: str, on_event: EventHandler) -> LaunchState:
        rest = b""
        with (self.folder / launch_id / "events.jsonl").open("rb") as events:
            ended = False
            while not ended:
                ended = self._has_ended(launch_id)
                new = events.read()
                *lines, rest = (rest + new).split(b"\n")
                for event in map(_parse, lines):
                    if event is not None:
                        on_event(event)
                if not new and not ended:
                    time.sleep(POLL_SECONDS)
        return LaunchState(LaunchStatus.ENDED, self._reason(launch_id))

    def cancel(self, launch_id: str) -> None:
        process = self._processes.get(launch_id)
        pid = process.pid if process else self._pid(launch_id)
        if pid is None or self._has_ended(launch_id):
            return
        self._ask_to_end(pid)
        deadline = time.monotonic() + GRACE_SECONDS
        while not self._has_ended(launch_id):
            if time.monotonic() > deadline:
                _signal(pid, signal.SIGKILL)
            time.sleep(POLL_SECONDS)
        # The JVM outlives its Python by a moment; nothing of the group may write any more.
        _signal(pid, signal.SIGKILL)

    def _ask_to_end(self, pid: int) -> None:
        _signal(pid, signal.SIGTERM)

    def _has_ended(self, launch_id: str) -> bool:
        process = self._processes.get(launch_id)
        if process is not None:
            return process.poll() is not None
        return not self.is_locked(launch_id)

    def _process_of(self, launch_id: str) -> subprocess.Popen[bytes] | None:
        """The process whose end was the batch's end; None when another process started it."""
        return self._processes.get(launch_id)

    def _pid(self, launch_id: str) -> int | None:
        try:
            return int((self.folder / launch_id / "engine.pid").read_text())
        except (FileNotFoundError, ValueError):
            # Empty when the process that started the engine died while it wrote it.
            return None

    def _reason(self, launch_id: str) -> str:
        """Why there may be no results: what the engine said itself, else how it ended."""
        folder = self.folder / launch_id
        if not (folder / "engine.log").exists():
            return "its engine was never started"
        with (folder / "events.jsonl").open("rb") as events:
            for event in map(_parse, events):
                if event is not None and event["event"] == "batch.failed":
                    return f"{event.get('message', '')} {event.get('remedy', '')}".strip()
        process = self._process_of(launch_id)
        error = _last_error(folder / "engine.log")
        said = f", its last error was {error}" if error else ""
        return f"{_ending(process.poll() if process else None)}{said}; its log is {folder / 'engine.log'}"


def _last_error(log: Path) -> str:
    """The last line of the log's end that looks like the cause; empty when none does."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LOG_END))
        lines = file.read().decode("utf-8", "replace").splitlines()
    found = next((line.strip() for line in reversed(lines) if _ERROR.match(line)), "")
    return found if len(found) <= LINE_LENGTH else f"{found[:LINE_LENGTH]}…"


def _ending(status: int | None) -> str:
    if not status:
        return "the engine ended without a result"
    if status > 0:
        return f"the engine ended with exit status {status}"
    known = -status in signal.valid_signals()
    return f"the engine was killed by {signal.Signals(-status).name if known else f'signal {-status}'}"


def _unusable(folder: Path, error: OSError) -> PermanentError:
    return PermanentError(
        "run_folder.failed", f"{folder} cannot be used: {error.strerror}.", "Check the disk, or use another --state."
    )


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return cast("dict[str, Any]", event) if isinstance(event, dict) and "event" in event else None
