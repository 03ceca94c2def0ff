"""The demo, step by step. Every number on the screen is measured in the run that shows it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from sync_core.demo.config import write_config
from sync_core.demo.data import change_flights, change_planes, load_h2, load_postgres
from sync_core.demo.servers import H2_PACKAGE, H2Server, PostgresServer
from sync_core.domain.codec import from_json
from sync_core.domain.errors import PermanentError
from sync_core.domain.run import Outcome, RunResult

FORWARD = ("flights", "weather", "airports", "planes", "airlines")
POSTGRESQL_DRIVER = "org.postgresql:postgresql:42.7.7"


@dataclass
class Demo:
    """One showing, in `folder`, which is made anew."""

    folder: Path
    console: Console
    postgres: PostgresServer
    h2: H2Server

    def play(self) -> None:
        """All of it. Raises PermanentError when something does not come out as promised."""
        begun = time.monotonic()
        oracle, sql_server = self.h2.oracle_url("station"), self.h2.sql_server_url("fleet")
        flights = load_postgres(self.postgres)
        load_h2(self.h2, oracle, sql_server)
        self.say(
            f"Loaded {flights:,} flights of 2013 into PostgreSQL; weather, airports, planes and airlines into the other two."
        )
        write_config(self.folder / "config", self.folder / "lake", self.postgres.port, oracle, sql_server)

        self.head("Full load: three databases into Delta Lake, then from Delta Lake back into PostgreSQL")
        first = self.run(*FORWARD)
        first += self.run("planes-back")
        self.show(first)

        self.head("The sources change; only the changes move")
        updated, inserted = change_flights(self.postgres, 2)
        planes = change_planes(self.h2, sql_server)
        self.say(f"Changed {updated:,} flights and {planes} planes at the source, added {inserted:,} flights.")
        second = self.run("flights", "weather", "planes")
        second += self.run("planes-back")
        self.show(second)
        flight = next(result for result in second if result.pipeline_id == "flights")
        self.require(
            flight.rows.updated == updated and flight.rows.inserted == inserted, "other rows moved than changed"
        )

        self.head("A run is killed between its commit and its report")
        updated, inserted = change_flights(self.postgres, 1)
        self.say(
            f"Changed {updated:,} flights and added {inserted:,}. The engine gets SIGKILL the moment its commit is done."
        )
        killed = self.run("flights", kill_at="commit.done")[0]
        self.require(killed.state is Outcome.FAILED, "the run was not killed")
        self.say(f"flights: {killed.error.message if killed.error else ''}")
        again = self.run("flights")[0]
        self.show([again])
        self.require(again.rows.inserted == 0 and again.rows.updated == 0, "rows were written twice")
        self.say(
            "The target's ledger had it all: nothing was written a second time, and nothing is missing, as the next step shows."
        )

        self.head("Source and target, counted and hashed by plain Spark")
        self.compare(oracle, sql_server)
        self.say(f"All of it took {time.monotonic() - begun:.0f} s.")
        self.where_next()

    # ---- what is on the screen

    def head(self, text: str) -> None:
        self.console.print(f"\n{text}", style="bold")

    def say(self, text: str) -> None:
        self.console.print(f"  {text}")

    def show(self, results: list[RunResult]) -> None:
        """A table of runs. Raises PermanentError when one failed."""
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("  pipeline")
        table.add_column("state")
        for heading in ("read", "inserted", "updated", "seconds"):
            table.add_column(heading, justify="right")
        table.add_column("watermark")
        for result in results:
            counts = [f"{count:,}" for count in (result.rows.read, result.rows.inserted, result.rows.updated)]
            mark = result.watermark.value if result.watermark else ""
            table.add_row(f"  {result.pipeline_id}", result.state.value, *counts, f"{result.seconds.total:.1f}", mark)
        self.console.print(table, soft_wrap=False)
        for result in results:
            if result.state is Outcome.FAILED:
                raise PermanentError("demo.failed", result.error.message if result.error else "A run failed.")

    def where_next(self) -> None:
        """What a reader does now."""
        self.head("Where to look next")
        shown = self.folder
        if shown.is_relative_to(Path.cwd()):
            shown = shown.relative_to(Path.cwd())
        flags = f"--config {shown}/config --state {shown}/state"
        self.say(f"{shown}/config        the configuration that was run")
        self.say(f"{shown}/lake          the Delta tables; the ledger is in their history")
        self.say(f".venv/bin/uds status {flags}")
        self.say(f".venv/bin/uds history flights {flags}")
        self.say("README.md, docs/exactly-once.md, docs/configuration.md")

    def require(self, fact: bool, otherwise: str) -> None:
        """Stop when the demo did not show what it says."""
        if not fact:
            raise PermanentError(
                "demo.wrong", f"The demo did not come out as promised: {otherwise}.", "Please report it."
            )

    # ---- what is run

    @property
    def environment(self) -> dict[str, str]:
        secrets = {"UDS_SECRET_DEMO_OPERATIONS": self.postgres.password, "UDS_SECRET_DEMO_STAND_IN": self.h2.password}
        return {**os.environ, **secrets}

    def run(self, *pipelines: str, kill_at: str | None = None) -> list[RunResult]:
        """`uds run PIPELINES --json`, as a user types it."""
        environment = self.environment
        if kill_at is not None:
            environment["UDS_ENGINE"] = f"{sys.executable} -m sync_core.demo.killed_engine"
            environment["UDS_DEMO_KILL_AT"] = kill_at
        places = ["--config", str(self.folder / "config"), "--state", str(self.folder / "state")]
        with self.console.status(f"uds run {' '.join(pipelines)}"):
            document = self.program(
                [sys.executable, "-m", "sync_core.cli", "run", *pipelines, *places, "--json"], environment
            )
        if "runs" not in document:
            raise PermanentError("demo.failed", str(document.get("error", {}).get("message", "uds run failed")))
        return [from_json(RunResult, run) for run in document["runs"]]

    def program(self, command: list[str], environment: dict[str, str], given: str = "") -> dict[str, Any]:
        """The JSON document that a program prints last."""
        done = subprocess.run(command, env=environment, input=given, capture_output=True, text=True, check=False)
        try:
            return json.loads(done.stdout[done.stdout.index("{") :])
        except ValueError as error:
            log = self.folder / "failure.log"
            log.write_text(done.stdout + done.stderr, encoding="utf-8")
            raise PermanentError("demo.failed", f"{command[2]} failed.", f"{log} has its output.") from error

    def compare(self, oracle: str, sql_server: str) -> None:
        """Counts and checksums of every pipeline's two ends; raises PermanentError when a pair differs."""
        login = {"user": self.h2.username, "password": self.h2.password, "driver": "org.h2.Driver"}
        station = {"url": oracle, **login}
        fleet = {"url": sql_server, **login}
        login = {"user": self.postgres.username, "password": self.postgres.password, "driver": "org.postgresql.Driver"}
        operations = {"url": self.postgres.jdbc_url, **login}
        sources: dict[str, dict[str, str]] = {
            "flights": {**operations, "dbtable": "flights"},
            "weather": {**station, "dbtable": "WEATHER"},
            "airports": {**station, "dbtable": "AIRPORTS"},
            "planes": {**fleet, "dbtable": "planes"},
            "airlines": {**fleet, "dbtable": "airlines"},
        }
        lake = {name: {"path": str(self.folder / "lake" / name)} for name in sources}
        pairs = {name: {"source": source, "target": lake[name]} for name, source in sources.items()}
        pairs["planes-back"] = {"source": lake["planes"], "target": {**operations, "dbtable": "reporting.planes"}}
        request = json.dumps({"packages": [POSTGRESQL_DRIVER, H2_PACKAGE], "pairs": pairs})
        with self.console.status("comparing"):
            found = self.program([sys.executable, "-m", "sync_core.demo.compare"], self.environment, request)
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("  pipeline")
        for heading in ("rows at the source", "rows in the target", "checksum at the source", "checksum in the target"):
            table.add_column(heading, justify="right")
        for name, (source, target) in found.items():
            table.add_row(f"  {name}", f"{int(source[0]):,}", f"{int(target[0]):,}", source[1][-12:], target[1][-12:])
        self.console.print(table, soft_wrap=False)
        self.require(all(source == target for source, target in found.values()), "source and target differ")
        self.say("They agree.")


def play(folder: Path, console: Console) -> None:
    """Start the servers, show the demo, stop the servers."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    folder = folder.absolute()
    console.print("Universal Data Sync, on this machine alone", style="bold")
    with PostgresServer(folder / "postgres") as postgres, H2Server(folder / "h2") as h2:
        console.print(
            "  PostgreSQL is real. H2 in its Oracle and SQL Server modes stands in for the other two: the engine speaks\n"
            "  their SQL to it, but it is not Oracle and not SQL Server."
        )
        Demo(folder, console, postgres, h2).play()
