"""One engine on this machine that stays, for all batches: Spark is started once."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sync_core.adapters.local_launcher import GRACE_SECONDS, POLL_SECONDS, LocalLauncher
from sync_core.adapters.local_run_folder import LocalRunFolder
from sync_core.domain.errors import PermanentError

STOP_SECONDS = 60.0
"""How long the runs of a cancelled batch may take to stop by themselves, before the engine is ended for it."""

LOGS_KEPT_SECONDS = 86_400.0


@dataclass
class Engine:
    """The process, the socket that is its standard input, and the file of its standard error."""

    process: subprocess.Popen[bytes]
    orders: socket.socket
    log: Path


class WarmLauncher(LocalLauncher):
    """A LocalLauncher whose batches share one process, `command`, started for the first one and again when it has died.

    The process gets a line a batch on its standard input, and with it the batch's `engine.lock`, which it holds until
    the batch is done. So the state of a batch is told as that of any engine, by every process, and when the engine dies
    all batches that it had are seen to have ended, with its log and the signal that killed it. `on_done` is called, by a
    thread of this object, with each batch that is done. Any thread may use it.

    `home` is where the process's own log lies; a batch's `engine.log` is that file until it is done.
    """

    def __init__(
        self,
        folder: Path,
        command: Sequence[str],
        home: Path | None = None,
        on_done: Callable[[str], None] = lambda _: None,
    ) -> None:
        super().__init__(folder, command)
        self._home = (home or self.folder.parent / "engine").absolute()
        self._on_done = on_done
        self._starting = threading.Lock()
        self._engine: Engine | None = None

    def drain(self) -> None:
        """Give the engine no more batches; it ends when those that it has are done. Returns at once."""
        with self._starting:
            if self._engine is not None:
                self._engine.orders.close()

    def stop(self) -> None:
        """End the engine: runs that have not committed are cancelled. Returns when nothing can write any more."""
        with self._starting:
            engine = self._engine
            if engine is None:
                return
            with suppress(ProcessLookupError):
                if engine.process.poll() is None:
                    os.kill(engine.process.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                engine.process.wait(GRACE_SECONDS)
            self._bury(engine)
            engine.process.wait()

    def cancel(self, launch_id: str) -> None:
        """Ask each of its runs to stop; end the engine, with all it runs, only when they do not."""
        if self._has_ended(launch_id):
            return
        folder = LocalRunFolder(self.folder)
        try:
            manifest = folder.read_manifest(launch_id)
        except PermanentError:
            # The engine cannot read it either, and will say so.
            manifest = None
        for order in manifest.runs if manifest else ():
            folder.ask_to_stop(launch_id, order.run_key)
        deadline = time.monotonic() + STOP_SECONDS
        while time.monotonic() < deadline:
            if self._has_ended(launch_id):
                return
            time.sleep(POLL_SECONDS)
        super().cancel(launch_id)

    def _start(self, batch_id: str, manifest: str, lock: int) -> None:
        folder = self.folder / batch_id
        (folder / "events.jsonl").touch()
        line = json.dumps({"manifest": manifest, "lock": True}).encode() + b"\n"
        with self._starting:
            for last in (False, True):
                engine = self._alive()
                self._processes[batch_id] = engine.process
                try:
                    sent = socket.send_fds(engine.orders, [line], [lock])
                    engine.orders.sendall(line[sent:])
                    break
                except OSError:
                    # It died just now; the next one gets the whole line.
                    self._bury(engine)
                    self._processes.pop(batch_id, None)
                    if last:
                        raise
        (folder / "engine.pid").write_text(str(engine.process.pid))

    def _alive(self) -> Engine:
        """The engine; a new one when there is none, or when it has died or was told to end."""
        engine = self._engine
        if engine is not None and engine.process.poll() is None and engine.orders.fileno() >= 0:
            return engine
        if engine is not None:
            engine.orders.close()
            engine.log.unlink(missing_ok=True)
        self._home.mkdir(parents=True, exist_ok=True)
        self._remove_old_logs()
        log = self._home / f"engine-{secrets.token_hex(8)}.log"
        ours, theirs = socket.socketpair()
        try:
            with theirs, log.open("ab") as errors:
                process = subprocess.Popen(
                    [*self.command, "--log", str(log)],
                    stdin=theirs.fileno(),
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    start_new_session=True,
                )
        except OSError:
            ours.close()
            log.unlink(missing_ok=True)
            raise
        self._engine = Engine(process, ours, log)
        threading.Thread(target=self._take_answers, args=(process,), name="uds-engine-answers", daemon=True).start()
        return self._engine

    def _bury(self, engine: Engine) -> None:
        """Nothing of its process group may write any more; its log stays as that of the batches that it had."""
        engine.orders.close()
        with suppress(ProcessLookupError):
            os.killpg(engine.process.pid, signal.SIGKILL)
        engine.log.unlink(missing_ok=True)

    def _remove_old_logs(self) -> None:
        """Those of engines whose launcher died as well."""
        limit = time.time() - LOGS_KEPT_SECONDS
        for log in self._home.glob("engine-*.log"):
            with suppress(FileNotFoundError):
                if log.stat().st_mtime < limit:
                    log.unlink()

    def _take_answers(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None  # noqa: S101 - it was asked for
        with process.stdout as answers:
            for line in answers:
                with suppress(ValueError, KeyError, TypeError):
                    batch_id = str(json.loads(line)["done"])
                    # From here on the process's end is not this batch's.
                    self._processes.pop(batch_id, None)
                    self._on_done(batch_id)
        process.wait()

    def _ask_to_end(self, pid: int) -> None:
        # Only the engine itself, which then ends its JVM: one that was ended first could not stop its runs properly.
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)

    def _has_ended(self, launch_id: str) -> bool:
        return not self.is_locked(launch_id)

    def _process_of(self, launch_id: str) -> subprocess.Popen[bytes] | None:
        process = self._processes.get(launch_id)
        if process is not None:
            # A lock is free an instant before the process is seen to be dead, or before its answer is read.
            deadline = time.monotonic() + 1.0
            while process.poll() is None and launch_id in self._processes and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS / 10)
        return process if launch_id in self._processes else None
