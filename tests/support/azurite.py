"""Azurite, Microsoft's own stand-in for Azure Storage: tables, blobs and queues on loopback, in memory."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

VERSION = "3.37.0"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "universal-data-sync"
READY_SECONDS = 60.0
"""How long Azurite may take until it listens; it needs 3 to 8 s on a free machine."""

_LISTENS = re.compile(r"Azurite (Blob|Queue|Table) service (?:is )?successfully (?:listens|listening) (?:on|at) (\S+)")


class Azurite:
    """A running Azurite with one account of its own; a context manager.

    `blob_url`, `queue_url` and `table_url` are the account's endpoints, `connection_string` names all three.
    With a certificate and its key it speaks TLS, and takes bearer tokens as well: it checks their claims, not who
    signed them.
    """

    def __init__(self, certificate: tuple[Path, Path] | None = None) -> None:
        self.account = "udstests"
        self.key = base64.b64encode(os.urandom(64)).decode()
        self._certificate = certificate
        self._folder = tempfile.TemporaryDirectory(prefix="azurite-")
        self._output: list[str] = []
        self._endpoints: dict[str, str] = {}
        self._changed = threading.Condition()
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        arguments = ["node", str(install()), "--skipApiVersionCheck", "--disableTelemetry", "--silent"]
        arguments += ["--inMemoryPersistence"]
        for service in ("blob", "queue", "table"):
            arguments += [f"--{service}Host", "127.0.0.1", f"--{service}Port", "0"]
        if self._certificate is not None:
            arguments += ["--oauth", "basic", "--cert", str(self._certificate[0])]
            arguments += ["--key", str(self._certificate[1])]
        self._process = subprocess.Popen(
            arguments,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            cwd=self._folder.name,
            env=os.environ | {"AZURITE_ACCOUNTS": f"{self.account}:{self.key}"},
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()
        with self._changed:
            ready = self._changed.wait_for(lambda: len(self._endpoints) == 3 or self._has_ended(), READY_SECONDS)
        if not ready or self._has_ended():
            self.stop()
            raise RuntimeError(f"Azurite {VERSION} did not start. It wrote:\n{''.join(self._output)}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def blob_url(self) -> str:
        return f"{self._endpoints['Blob']}/{self.account}"

    @property
    def queue_url(self) -> str:
        return f"{self._endpoints['Queue']}/{self.account}"

    @property
    def table_url(self) -> str:
        return f"{self._endpoints['Table']}/{self.account}"

    @property
    def connection_string(self) -> str:
        return self.connection_string_of()

    def connection_string_of(
        self, key: str | None = None, table_url: str | None = None, blob_url: str | None = None
    ) -> str:
        """The connection string, with another key, or through proxies in front of the endpoints."""
        protocol = "http" if self._certificate is None else "https"
        return (
            f"DefaultEndpointsProtocol={protocol};AccountName={self.account};AccountKey={key or self.key};"
            f"BlobEndpoint={blob_url or self.blob_url};QueueEndpoint={self.queue_url};"
            f"TableEndpoint={table_url or self.table_url};"
        )

    def stop(self) -> None:
        """End the process that was started; does nothing when it has ended."""
        process = self._process
        if process is None:
            return
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._reader.join()
        if process.stdout is not None:
            process.stdout.close()
        self._folder.cleanup()
        self._process = None

    def _has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            with self._changed:
                self._output.append(line)
                if found := _LISTENS.search(line):
                    self._endpoints[found[1]] = found[2].rstrip("/")
                self._changed.notify_all()
        process.wait()
        with self._changed:
            self._changed.notify_all()


def install() -> Path:
    """Azurite's program, installed from npm into the user's cache the first time any process asks for it."""
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            raise RuntimeError(
                f"The tests of the Azure adapters run Azurite {VERSION}, which needs Node.js, and there is no `{tool}` "
                "on the PATH. Install Node.js 20 or later with npm (Debian: apt-get install nodejs npm)."
            )
    home = CACHE / f"azurite-{VERSION}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"azurite-{VERSION}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not home.exists():
            _install_into(home)
    package = home / "node_modules" / "azurite"
    program = json.loads((package / "package.json").read_text(encoding="utf-8"))["bin"]["azurite"]
    return package / program


def _install_into(home: Path) -> None:
    """Through a folder beside it: an install that was cut off is never taken for a whole one."""
    draft = Path(tempfile.mkdtemp(prefix=f"{home.name}-", dir=home.parent))
    arguments = ["npm", "install", "--prefix", str(draft), "--no-audit", "--no-fund", "--ignore-scripts"]
    try:
        done = subprocess.run([*arguments, f"azurite@{VERSION}"], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"npm could not install azurite@{VERSION}:\n{done.stdout}{done.stderr}")
        draft.rename(home)
    finally:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(draft)
