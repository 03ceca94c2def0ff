"""The engine as a subprocess on this machine."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from sync_core.ports import EventHandler, LaunchState, LaunchStatus

GRACE_SECONDS = 10.0
"""How long a cancelled engine may take to stop by itself."""


class LocalLauncher:
    """A Launcher that starts `command --manifest PATH` in a process group of its own.

    While the engine lives it holds a lock on `engine.lock` in its run folder, so that any later process can tell
    whether it does, whatever became of the process that started it. Its events, one JSON object a line on standard
    output, are kept in `events.jsonl`, all else it prints in `engine.log`.
    """

    def __init__(self, folder: Path, command: Sequence[str]) -> None:
        self.folder = folder.absolute()
        self.command = list(command)
        self._processes: dict[str, subprocess.Popen[str]] = {}

    def launch(self, batch_id: str, manifest: str) -> str:
        folder = self.folder / batch_id
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "engine.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return batch_id
        with (folder / "engine.log").open("ab") as log:
            self._processes[batch_id] = subprocess.Popen(
                [*self.command, "--manifest", manifest],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
                errors="replace",
                pass_fds=(lock,),
                start_new_session=True,
            )
        os.close(lock)
        (folder / "engine.pid").write_text(str(self._processes[batch_id].pid))
        return batch_id

    def state(self, launch_id: str) -> LaunchState:
        path = self.folder / launch_id / "engine.lock"
        if not path.exists():
            return LaunchState(LaunchStatus.UNKNOWN, "its run folder is gone")
        with path.open("r+b") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return LaunchState(LaunchStatus.RUNNING)
        return LaunchState(LaunchStatus.ENDED, self._reason(launch_id))

    def follow(self, launch_id: str, on_event: EventHandler) -> LaunchState:
        process = self._processes.get(launch_id)
        if process is None or process.stdout is None:
            while self.state(launch_id).status is LaunchStatus.RUNNING:
                time.sleep(0.2)
            return self.state(launch_id)
        refusal = ""
        with (self.folder / launch_id / "events.jsonl").open("a", encoding="utf-8") as kept:
            for line in process.stdout:
                event = _parse(line)
                if event is not None:
                    kept.write(line)
                    kept.flush()
                    if event["event"] == "batch.failed":
                        refusal = f"{event.get('message', '')} {event.get('remedy', '')}".strip()
                    on_event(event)
        status = process.wait()
        if refusal:
            return LaunchState(LaunchStatus.ENDED, refusal)
        if status == 0:
            return LaunchState(LaunchStatus.ENDED, self._reason(launch_id))
        return LaunchState(LaunchStatus.ENDED, f"{_ending(status)}; {self._log(launch_id)}")

    def cancel(self, launch_id: str) -> None:
        pid = self._pid(launch_id)
        if pid is None or self.state(launch_id).status is not LaunchStatus.RUNNING:
            return
        _signal(pid, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        while self.state(launch_id).status is LaunchStatus.RUNNING:
            if time.monotonic() > deadline:
                _signal(pid, signal.SIGKILL)
            threading.Event().wait(0.1)
        # The JVM outlives its Python by a moment; nothing of the group may write any more.
        _signal(pid, signal.SIGKILL)

    def _pid(self, launch_id: str) -> int | None:
        path = self.folder / launch_id / "engine.pid"
        return int(path.read_text()) if path.exists() else None

    def _reason(self, launch_id: str) -> str:
        return f"the engine ended without a result; {self._log(launch_id)}"

    def _log(self, launch_id: str) -> str:
        return f"its log is {self.folder / launch_id / 'engine.log'}"


def _ending(status: int) -> str:
    if status < 0:
        return f"the engine was killed by {signal.Signals(-status).name}"
    return f"the engine ended with exit status {status}"


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return


def _parse(line: str) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return cast("dict[str, Any]", event) if isinstance(event, dict) and "event" in event else None
