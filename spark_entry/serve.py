"""The engine kept warm: batches by lines on standard input, in one Spark application, until they end (see server.py)."""

from __future__ import annotations

import argparse
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyspark import SparkContext
from pyspark.sql import SparkSession

from spark_entry.adapters.registry import driver_packages, known_driver_packages
from spark_entry.events import BatchFiles, send_to, take_standard_output
from spark_entry.local_session import build_session
from spark_entry.main import read_manifest, report_failed_start, run_batch
from spark_entry.redacted_log import redacted_standard_error
from spark_entry.secrets import Secrets, find_secrets
from spark_entry.server import Server
from sync_core.domain.errors import PermanentError, SyncError


class SparkRunner:
    """Runs batches in one Spark application, which is started for the first one."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets
        self._starting = threading.Lock()
        self._spark: SparkSession | None = None
        self._packages: frozenset[str] = frozenset()

    def run(self, manifest: Path, lock: int, begun: Callable[[Callable[[], None]], None]) -> None:
        try:
            found = read_manifest(manifest)
            needed = driver_packages(found.connections.values())
            spark = self._session(needed)
        except SyncError as error:
            report_failed_start(manifest, error)
            return
        if self._packages.issuperset(needed):
            run_batch(spark, found, manifest, self._secrets, begun)
        else:
            # The class path of a running JVM is what it is.
            run_alone(manifest, lock, begun)

    def is_well(self) -> bool:
        process = getattr(getattr(SparkContext, "_gateway", None), "proc", None)
        if process is not None and process.poll() is not None:
            return False
        if self._spark is None:
            return True
        try:
            context: Any = self._spark.sparkContext
            return not context._jsc.sc().isStopped()
        except Exception:
            return False

    def close(self) -> None:
        """End the Spark application, if there is one that can be told."""
        if self._spark is not None and self.is_well():
            self._spark.stop()

    def _session(self, needed: list[str]) -> SparkSession:
        with self._starting:
            if self._spark is None:
                wanted = frozenset({*known_driver_packages(), *needed})
                try:
                    self._spark = build_session(wanted, "uds")
                except PermanentError as error:
                    if error.code != "engine.jars":
                        raise
                    # Where not every driver is to be had, those that are needed are enough.
                    wanted = frozenset(needed)
                    self._spark = build_session(wanted, "uds")
                self._packages = wanted
            return self._spark


def run_alone(manifest: Path, lock: int, begun: Callable[[Callable[[], None]], None]) -> None:
    """Run a batch in an engine of its own, because it needs a driver that this one was not started with."""
    with (manifest.parent / "events.jsonl").open("ab") as events:
        engine = subprocess.Popen(
            [sys.executable, "-m", "spark_entry.main", "--manifest", str(manifest)],
            stdin=subprocess.DEVNULL,
            stdout=events,
            pass_fds=(lock,),
        )
    begun(engine.terminate)
    engine.wait()


def main(arguments: list[str] | None = None) -> int:
    """Serve until standard input ends or SIGTERM comes. Returns the process's exit status."""
    parser = argparse.ArgumentParser(
        prog="uds-engine-serve", description="Move the rows of batches, one after another."
    )
    parser.add_argument("--log", type=Path, help="the file that standard error goes to, for the batches' own logs")
    log: Path | None = parser.parse_args(arguments).log
    secrets: list[Secrets] = []
    with redacted_standard_error(lambda line: secrets[0].redact(line) if secrets else line):
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
        answers, events = take_standard_output(), BatchFiles()
        send_to(events)
        secrets.append(find_secrets())
        runner = SparkRunner(secrets[0])
        server = Server(runner, events, answers, log)
        signal.signal(signal.SIGTERM, lambda _number, _frame: server.end())
        status = server.serve(sys.stdin.fileno())
        runner.close()
    return status


if __name__ == "__main__":
    sys.exit(main())
