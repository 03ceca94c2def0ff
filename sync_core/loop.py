"""The control plane on one machine: the timers and the queues of the Functions app, one after the other (`uds up`)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event

from sync_core.control_plane import ControlPlane
from sync_core.domain.errors import ConfigError, PermanentError, SyncError
from sync_core.formatting import run_text
from sync_core.messages import QUEUES
from sync_core.ports import Message

LOG = logging.getLogger("uds.control")

IDLE_SECONDS = 0.2


@dataclass(frozen=True)
class Intervals:
    """Seconds between two calls of each timer."""

    tick: float = 5.0
    reconcile: float = 2.0
    watch: float = 60.0
    forget: float = 3600.0


@dataclass
class Loop:
    """Runs until `stop` is set; what is in hand is finished first. Every step may be killed: the next loop goes on."""

    plane: ControlPlane
    intervals: Intervals = Intervals()
    stop: Event = field(default_factory=Event)
    monotonic: Callable[[], float] = time.monotonic

    def run(self) -> None:
        timers: dict[str, tuple[float, Callable[[], object]]] = {
            "tick": (self.intervals.tick, self._tick),
            "reconcile": (self.intervals.reconcile, self._reconcile),
            "watch": (self.intervals.watch, self.plane.watch),
            "forget": (self.intervals.forget, self.plane.forget),
        }
        due = dict.fromkeys(timers, self.monotonic())
        while not self.stop.is_set():
            for name, (seconds, call) in timers.items():
                if self.monotonic() >= due[name]:
                    attempt(name, call)
                    due[name] = self.monotonic() + seconds
            if not self.drain():
                self.stop.wait(IDLE_SECONDS)

    def finish(self) -> None:
        """Take in what is still running, until nothing is; begin nothing."""
        while any(True for _ in self.plane.running()):
            attempt("reconcile", self._reconcile)
            time.sleep(IDLE_SECONDS)

    def drain(self) -> int:
        """Handle one message of each queue. Returns how many there were."""
        found = 0
        for name in QUEUES:
            found += attempt(name, lambda name=name: self._take(name)) or 0
        return found

    def _tick(self) -> None:
        for batch in self.plane.tick():
            LOG.info("begun: %s", ", ".join(pipeline_id for pipeline_id, _ in batch.runs))

    def _reconcile(self) -> None:
        for run in self.plane.reconcile():
            LOG.info("%s", run_text(run))

    def _take(self, name: str) -> int:
        message = self.plane.queue.receive(name)
        if message is None:
            return 0
        self._handle(message)
        return 1

    def _handle(self, message: Message) -> None:
        try:
            self.plane.handle(message.queue, message.body)
        except (ConfigError, PermanentError) as error:
            LOG.warning("a message of %s is put aside: %s", message.queue, error)
            self.plane.queue.dead_letter(message, str(error))
        # Not abandoned: it comes again when its lock runs out, and that is the pause before the next try.
        except SyncError as error:
            LOG.warning("a message of %s comes again: %s", message.queue, error)
        except Exception:
            LOG.exception("a message of %s comes again", message.queue)
        else:
            self.plane.queue.complete(message)


def attempt[T](name: str, call: Callable[[], T]) -> T | None:
    """A failure is told and does not end the loop: the next call does what this one did not. None when it failed."""
    try:
        return call()
    except SyncError as error:
        LOG.warning("%s: %s", name, error)
    except Exception:
        LOG.exception("%s failed", name)
    return None
