"""The warm engine with fake_engine.py's runs in Spark's place: a real process, real lines, locks, logs and signals.

What it does is said by UDS_FAKE, as there; a file UDS_FAKE_PLACE/how says it for the batches that begin from then on.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from spark_entry.events import BatchFiles, send_to, take_standard_output, write_event
from spark_entry.server import Server
from spark_entry.stops import requests
from sync_core.domain.codec import from_json, to_json
from sync_core.domain.run import Manifest, Outcome, RunError
from tests.support.fake_engine import Place, plain


class FakeRunner:
    def __init__(self, place: Place) -> None:
        self.place = place
        self.is_dead = False

    def how(self) -> str:
        path = self.place.folder / "how"
        return path.read_text() if path.exists() else os.environ.get("UDS_FAKE", "")

    def run(self, manifest: Path, lock: int, begun: Callable[[Callable[[], None]], None]) -> None:
        how, stopped = self.how(), threading.Event()
        begun(stopped.set)
        batch = from_json(Manifest, json.loads(manifest.read_text()))
        with (self.place.folder / "started").open("a") as started:
            started.write(f"{batch.batch_id}\n")
        print("what Spark prints", flush=True)
        print(f"a line of the log, {batch.batch_id}", file=sys.stderr, flush=True)
        write_event("batch.started", batch_id=batch.batch_id)
        if how == "refuse":
            write_event("batch.failed", batch_id=batch.batch_id, message="There is no Java.", remedy="Install Java 17.")
            return
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "exit":
            os._exit(3)
        if how == "raise":
            raise RuntimeError("a fault of the engine")
        if how == "ill":
            self.is_dead = True
        if how in ("wait", "stubborn"):
            (self.place.folder / "waiting").touch()
            (manifest.parent / "waiting").touch()
            keys = {order.run_key for order in batch.runs}
            release = self.place.folder / "release"
            while not (
                release.exists()
                or (how == "wait" and (stopped.is_set() or (keys and keys <= requests(manifest.parent / "stop"))))
            ):
                threading.Event().wait(0.01)
        asked = requests(manifest.parent / "stop")
        for order in batch.runs:
            if how == "fail":
                gone = RunError("x.failed", "permanent", "x is gone.")
                result = plain(order, batch.batch_id, Outcome.FAILED, gone)
                self.place.write(manifest.parent / "results" / f"{order.run_key}.json", to_json(result))
                continue
            result = self.place.load(order, batch.batch_id)
            if stopped.is_set() or order.run_key in asked:
                error = RunError("run.stopped", "permanent", "stopped")
                result = plain(order, batch.batch_id, Outcome.CANCELLED, error)
            self.place.write(manifest.parent / "results" / f"{order.run_key}.json", to_json(result))

    def is_well(self) -> bool:
        return not self.is_dead


def main() -> int:
    answers, events = take_standard_output(), BatchFiles()
    send_to(events)
    log = Path(sys.argv[sys.argv.index("--log") + 1]) if "--log" in sys.argv else None
    server = Server(FakeRunner(Place(Path(os.environ["UDS_FAKE_PLACE"]))), events, answers, log)
    signal.signal(signal.SIGTERM, lambda _number, _frame: server.end())
    return server.serve(sys.stdin.fileno())


if __name__ == "__main__":
    sys.exit(main())
