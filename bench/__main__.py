"""`make bench`: our full copy and our merge beside raw PySpark's, in one Spark application, turn about.

Only ratios are reported: a bare time says more about the machine than about the code. The floor is what a careful
engineer writes by hand: the same partitions, fetch size and driver, and nothing that keeps a promise.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench import control
from bench.floor import Floor
from bench.ours import Ours
from spark_entry.adapters.registry import known_driver_packages
from spark_entry.local_session import build_session
from sync_core.demo.servers import PostgresServer

COLUMNS = """id bigint primary key, customer bigint, product int, quantity int, price numeric(12,2), discount numeric(5,4),
status text, channel text, city text, country text, note text, priority smallint, weight double precision,
is_gift boolean, ordered_on date, created_at timestamp, shipped_at timestamp, updated_at timestamp not null"""


def make_rows(first: int, last: int, updated: str) -> str:
    """An INSERT of 18 columns for ids first..last."""
    return f"""INSERT INTO orders SELECT i, i % 50000, i % 1000, i % 17, (i % 100000) / 7.0, (i % 100) / 1000.0,
        (ARRAY['new','paid','sent','done'])[1 + i % 4], 'channel ' || i % 9, 'city ' || i % 500, 'country ' || i % 60,
        md5(i::text), i % 5, i * 0.25, i % 3 = 0, DATE '2020-01-01' + (i % 1500)::int,
        TIMESTAMP '2020-01-01' + i * INTERVAL '1 second', TIMESTAMP '2020-01-02' + i * INTERVAL '1 second', {updated}
        FROM generate_series({first}, {last}) AS i"""


def turn_about(
    name: str,
    floor: Callable[[], None],
    ours: Callable[[], None],
    rounds: int,
    prepare: Callable[[], None] = lambda: None,
) -> float:
    """Run both in turn; print and return the median of ours / floor, pair by pair. The first pair warms up."""
    ratios: list[float] = []
    for number in range(rounds + 1):
        pair: list[float] = []
        prepare()
        for work in (floor, ours):
            begun = time.perf_counter()
            work()
            pair.append(time.perf_counter() - begun)
        if number:
            ratios.append(pair[1] / pair[0])
            print(f"  {name}, pair {number}: {ratios[-1]:.2f}", flush=True)
    print(
        f"{name}: {statistics.median(ratios):.2f} × the floor (min {min(ratios):.2f}, max {max(ratios):.2f})",
        flush=True,
    )
    return statistics.median(ratios)


def peak_memory(rows: int, server: PostgresServer) -> int:
    """Peak resident memory in KiB of a whole engine, JVM included, that copies `rows` rows in full."""
    folder = Path(tempfile.mkdtemp(prefix="uds-bench-"))
    code = f"from bench.ours import copy_once; copy_once({rows}, {server.port}, {str(folder)!r})"
    environment = {**os.environ, "UDS_SECRET_BENCH_PG": server.password, "UDS_DRIVER_MEMORY": "2g"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    shutil.rmtree(folder, ignore_errors=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return int(done.stdout.split()[-1])


def main() -> None:
    """Build the data, measure, print the ratios."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", action="store_true", help="also copy five times the rows and compare peak memory")
    parser.add_argument("--control", action="store_true", help="measure the control plane alone")
    given = parser.parse_args()
    control.main(10_000, 10)
    if given.control:
        return
    folder = Path(tempfile.mkdtemp(prefix="uds-bench-"))
    try:
        with PostgresServer(folder / "postgres") as server:
            print(f"{given.rows:,} rows × 18 columns, PostgreSQL to Delta, {os.cpu_count()} cores", flush=True)
            past = "TIMESTAMP '2024-01-01' + i * INTERVAL '1 second' / 1000"
            server.execute(f"CREATE TABLE orders ({COLUMNS})", make_rows(1, given.rows, past))
            server.execute("CREATE INDEX ON orders (updated_at)", "VACUUM ANALYZE orders")
            measure(server, folder, given.rounds)
            if given.memory:
                once = peak_memory(given.rows, server)
                server.execute(make_rows(given.rows + 1, given.rows * 5, past), "VACUUM ANALYZE orders")
                print(
                    f"peak memory, five times the rows: {peak_memory(given.rows * 5, server) / once:.2f} × that of one"
                )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def measure(server: PostgresServer, folder: Path, rounds: int) -> None:
    """Full copies, then merges of one per cent of the rows, changed before each pair."""
    spark = build_session(known_driver_packages(), "bench")
    floor, ours = Floor(spark, server, folder / "floor"), Ours(spark, server, folder / "ours")

    def change() -> None:
        moment = "now() AT TIME ZONE 'UTC' - INTERVAL '1 hour'"
        server.execute(f"UPDATE orders SET quantity = quantity + 1, updated_at = {moment} WHERE id % 100 = 7")

    turn_about("full copy", floor.copy, ours.copy, rounds)
    turn_about("merge of 1 %", floor.merge, ours.merge, rounds, change)
    spark.stop()


if __name__ == "__main__":
    main()
