"""The engine's entry: `--manifest PATH` in, one result file a run out. Exit 0 when every result is written."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pyspark.sql import SparkSession

from spark_entry.adapters.registry import driver_packages
from spark_entry.batch import Batch
from spark_entry.compute_faults import JVM_GONE
from spark_entry.events import JsonLines, send_to, take_standard_output, write_event
from spark_entry.local_session import build_session
from spark_entry.redacted_log import redacted_standard_error
from spark_entry.secrets import Secrets, find_secrets
from sync_core.domain.codec import from_json, to_json
from sync_core.domain.errors import PermanentError, SyncError
from sync_core.domain.run import CONTRACT_VERSION, Manifest, RunResult


def main(arguments: list[str] | None = None) -> int:
    """Run the batch of a manifest. Returns the process's exit status: 0 when every result is written, else 1."""
    parser = argparse.ArgumentParser(prog="uds-engine", description="Move the rows of one batch.")
    parser.add_argument("--manifest", type=Path, required=True, help="path of the batch's manifest.json")
    path: Path = parser.parse_args(arguments).manifest
    secrets: list[Secrets] = []
    with redacted_standard_error(lambda line: secrets[0].redact(line) if secrets else line):
        # A Databricks runtime has set up the root logger already, with a stream that is not redacted.
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", force=True)
        send_to(JsonLines(take_standard_output()))
        return _run(path, secrets)


def _run(path: Path, secrets: list[Secrets]) -> int:
    """Run the batch; `secrets` is filled as soon as there is a place to find them."""
    try:
        manifest = read_manifest(path)
        spark = build_session(driver_packages(manifest.connections.values()), f"uds {manifest.batch_id[:12]}")
    except SyncError as error:
        report_failed_start(path, error)
        return 1
    secrets.append(find_secrets())
    run_batch(spark, manifest, path, secrets[0])
    if "DATABRICKS_RUNTIME_VERSION" not in os.environ:
        # Every result is written: a JVM that is gone by now changes nothing.
        with suppress(*JVM_GONE):
            spark.stop()
    return 0


def report_failed_start(path: Path, error: SyncError) -> None:
    """Say why no run of the batch could begin."""
    logging.getLogger("uds.engine").error("the batch could not start", exc_info=error)
    write_event("batch.failed", batch_id=path.parent.name, code=error.code, message=error.message, remedy=error.remedy)


def run_batch(
    spark: SparkSession,
    manifest: Manifest,
    path: Path,
    secrets: Secrets,
    begun: Callable[[Callable[[], None]], None] = lambda _: None,
) -> None:
    """Run the batch of the manifest at `path`; returns when every result is written. `begun` gets what stops it."""
    results = path.parent / "results"
    results.mkdir(exist_ok=True)
    write_event("batch.started", batch_id=manifest.batch_id, runs=len(manifest.runs), spark=spark.version)
    batch = Batch(spark, manifest, secrets, lambda result: write_result(results, result), path.parent / "stop")
    begun(batch.stop)
    batch.run()
    write_event("batch.finished", batch_id=manifest.batch_id)


def read_manifest(path: Path) -> Manifest:
    """The manifest at `path`. Raises PermanentError when this engine is older than it, or cannot read it."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        version = data["version"]
        if version > CONTRACT_VERSION:
            raise PermanentError(
                "engine.too_old",
                f"The manifest has version {version}, this engine reads up to {CONTRACT_VERSION}.",
                "Install the engine's wheel of the release that the control plane runs.",
            )
        return from_json(Manifest, data)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PermanentError(
            "manifest.unreadable", f"The manifest {path} cannot be read: {error}.", "Launch the batch again."
        ) from error


def write_result(folder: Path, result: RunResult) -> None:
    """Write one result under a temporary name, then rename it, so that a reader sees all of it or nothing."""
    path = folder / f"{result.run_key}.json"
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(to_json(result), file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main())
