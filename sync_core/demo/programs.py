"""The programs that the demo runs: `uds`, as a person would type it, and the comparison."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sync_core.demo.loop import Up
from sync_core.domain.codec import from_json
from sync_core.domain.errors import PermanentError
from sync_core.domain.run import RunResult

STOP_SECONDS = 20

SHORT_RUNS = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
"""Eight engines run for some seconds each: better compiled code would never pay for itself."""


@dataclass(frozen=True)
class Programs:
    """Programs on the demo's folder. Only they get `secrets`, in their environment."""

    folder: Path
    secrets: dict[str, str]

    def validate(self) -> dict[str, Any]:
        """What `uds validate` finds."""
        return self._uds("validate", "--config", str(self.folder / "config"))

    def run(self, *pipelines: str, kill_at: str | None = None) -> list[RunResult]:
        """`uds run PIPELINES`; with `kill_at` the engine is killed at that event."""
        more = {} if kill_at is None else {"UDS_ENGINE": KILLED_ENGINE, "UDS_DEMO_KILL_AT": kill_at}
        places = ("--config", str(self.folder / "config"), "--state", str(self.folder / "state"))
        document = self._uds("run", *pipelines, *places, **more)
        if "runs" not in document:
            raise PermanentError("demo.failed", f"uds run {' '.join(pipelines)} did not run: {_message(document)}")
        return [from_json(RunResult, run) for run in document["runs"]]

    def up(self) -> Up:
        """`uds up`, for a with statement."""
        return Up(self.folder, self._environment({}))

    def compare(self, request: dict[str, Any]) -> dict[str, list[list[str]]]:
        """Count and checksum of each pair's source and target."""
        return self._execute([sys.executable, "-m", "sync_core.demo.compare"], {}, json.dumps(request))

    def _environment(self, more: dict[str, str]) -> dict[str, str]:
        return {"UDS_JAVA_OPTIONS": SHORT_RUNS, **os.environ, **self.secrets, **more}

    def _uds(self, *arguments: str, **more: str) -> dict[str, Any]:
        return self._execute([sys.executable, "-m", "sync_core.cli", *arguments, "--json"], more)

    def _execute(self, command: list[str], more: dict[str, str], given: str = "") -> dict[str, Any]:
        """The JSON document that a program prints. Whatever interrupts the wait stops the program too."""
        process = subprocess.Popen(
            command,
            env=self._environment(more),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            output, log = process.communicate(given)
        except BaseException:
            _stop(process)
            raise
        try:
            return json.loads(output[output.index("{") :])
        except ValueError as error:
            path = self.folder / "failure.log"
            path.write_text(output + log, encoding="utf-8")
            name = " ".join(command[2:4])
            raise PermanentError("demo.failed", f"{name} did not finish.", f"What it printed is in {path}.") from error


def _stop(process: subprocess.Popen[str]) -> None:
    """As Ctrl-C does: `uds run` then stops its engine and closes its run."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _message(document: dict[str, Any]) -> str:
    refused: list[dict[str, Any]] = document.get("refused", [])
    errors: list[dict[str, Any]] = [document.get("error", {}), *(entry["error"] for entry in refused)]
    return " ".join(str(error["message"]) for error in errors if "message" in error)


KILLED_ENGINE = f"{sys.executable} -m sync_core.demo.killed_engine"
