"""A stand-in for the engine: reads a manifest, moves numbers from a source into a target with a ledger, writes results.

As a program (`python fake_engine.py --manifest PATH`) it works in the folder UDS_FAKE_PLACE and behaves as UDS_FAKE says.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from sync_core.domain.codec import from_json, to_json
from sync_core.domain.run import (
    Action,
    Manifest,
    Outcome,
    RowCounts,
    RunError,
    RunKind,
    RunOrder,
    RunPlan,
    RunResult,
    Window,
)
from sync_core.domain.watermark import CursorType, Watermark

EMPTY: dict[str, Any] = {"epoch": 0, "generation": 0, "watermark": None, "rows": [], "entries": {}}


class Place:
    """Source and targets as files: `source` holds the greatest number, `<pipeline>.json` a target with its ledger."""

    def __init__(self, folder: Path, on_write: Callable[[], None] = lambda: None) -> None:
        self.folder = folder
        self.on_write = on_write

    def source(self) -> int:
        path = self.folder / "source"
        return int(path.read_text()) if path.exists() else 3

    def target(self, pipeline_id: str) -> dict[str, Any]:
        path = self.folder / f"{pipeline_id}.json"
        return json.loads(path.read_text()) if path.exists() else {**EMPTY, "rows": [], "entries": {}}

    def write(self, path: Path, content: Any) -> None:
        self.on_write()
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(content))
        temporary.replace(path)
        self.on_write()

    def load(self, order: RunOrder, batch_id: str) -> RunResult:
        """One run by the protocol: R10 the ledger decides, R14 one commit, R15 the ledger verbatim."""
        name = order.pipeline.pipeline_id
        target = self.target(name)
        state = Outcome.SUCCEEDED
        if order.run_key not in target["entries"]:
            own = target["epoch"] >= order.epoch
            mark = target["watermark"] if own else (int(order.watermark.value) if order.watermark else None)
            refresh = order.kind is RunKind.FULL_REFRESH
            new = [row for row in range(1, self.source() + 1) if refresh or row > (mark or 0)]
            if new or not own or refresh:
                kept = [] if refresh else target["rows"]
                target["rows"] = kept + [row for row in new if row not in kept]
                target["epoch"] = max(target["epoch"], order.epoch)
                target["generation"] += 1
                target["watermark"] = self.source()
                target["entries"][order.run_key] = target["generation"]
                self.write(self.folder / f"{name}.json", target)
            else:
                state = Outcome.UNCHANGED
        counted = target["entries"].get(order.run_key)
        mark = target["watermark"]
        return RunResult(
            name, order.run_key, batch_id, order.kind, order.attempt, state, order.request_id,
            epoch=target["epoch"], generation=target["generation"],
            watermark=None if mark is None else Watermark(CursorType.NUMBER, str(mark)),
            rows=RowCounts(read=3, inserted=3 if counted else 0), counted_generation=counted,
        )  # fmt: skip

    def wait_for(self, name: str) -> None:
        deadline = time.monotonic() + 60
        while not (self.folder / name).exists() and time.monotonic() < deadline:
            time.sleep(0.01)


def plain(order: RunOrder, batch_id: str, state: Outcome, error: RunError | None = None) -> RunResult:
    return RunResult(
        order.pipeline.pipeline_id, order.run_key, batch_id, order.kind, order.attempt, state, order.request_id, error=error
    )  # fmt: skip


def asked(order: RunOrder, manifest: Manifest, how: str) -> RunResult:
    """The answer to plan and check."""
    error = RunError("table.missing", "permanent", "the table x is missing.", "Create it.")
    if how == "fail":
        return plain(order, manifest.batch_id, Outcome.FAILED, error)
    five, nine = Watermark(CursorType.NUMBER, "5"), Watermark(CursorType.NUMBER, "9")
    plan = RunPlan(("SELECT id\nFROM x WHERE id >= 5 AND id <= 9",), ("MERGE INTO y",), 4, "SCN 77")
    result = plain(order, manifest.batch_id, Outcome.UNCHANGED)
    problems = (error,) if how == "problems" else ()
    result = plain(order, manifest.batch_id, Outcome.UNCHANGED)
    return replace(
        result, plan=plan, window=Window(five, five, nine), schema_changes=("column z is new",), problems=problems
    )


def main() -> int:
    path = Path(sys.argv[sys.argv.index("--manifest") + 1])
    manifest = from_json(Manifest, json.loads(path.read_text()))
    place = Place(Path(os.environ["UDS_FAKE_PLACE"]))
    how = os.environ.get("UDS_FAKE", "")
    with (place.folder / "started").open("a") as started:
        started.write(f"{manifest.batch_id}\n")

    def event(name: str, **fields: Any) -> None:
        print(json.dumps({"event": name, **fields}), flush=True)

    def finish() -> None:
        for order in manifest.runs:
            event("run.started", pipeline=order.pipeline.pipeline_id)
            if manifest.action is not Action.RUN:
                result = asked(order, manifest, how)
            elif how == "fail":
                result = plain(
                    order, manifest.batch_id, Outcome.FAILED, RunError("x.failed", "permanent", "x is gone.")
                )
            elif how == "superseded":
                result = plain(order, manifest.batch_id, Outcome.SUPERSEDED)
            else:
                result = place.load(order, manifest.batch_id)
            if how == "killed_after_commit":
                os.kill(os.getpid(), signal.SIGKILL)
            content = {"rows": "garbage"} if how == "garbage" else to_json(result)
            place.write(path.parent / "results" / f"{order.run_key}.json", content)
            event("run.finished", pipeline=order.pipeline.pipeline_id, state=result.state.value)

    def stop(*_: object) -> None:
        if how == "commits_when_stopped":
            finish()
        if how != "stubborn":
            sys.exit(1)

    signal.signal(signal.SIGTERM, stop)
    print("what Spark prints", flush=True)
    print("a line of the log", file=sys.stderr, flush=True)
    event("batch.started", batch_id=manifest.batch_id)
    if how == "refuse":
        event("batch.failed", code="java.missing", message="There is no Java.", remedy="Install Java 17.")
        return 1
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "exit":
        return 3
    if how in ("wait", "stubborn", "commits_when_stopped"):
        (place.folder / "waiting").touch()
        place.wait_for("release")
    finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
