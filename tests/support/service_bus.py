"""The Service Bus stand-in as a process, and a proxy that cuts its connections."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any

from sync_core.demo.servers import free_port

KEY_NAME = "RootManageSharedAccessKey"
PERMISSIVE = {"queues": {"sync-rejected": {"duplicate_window": 600}}}


def connection_string(port: int, name: str = KEY_NAME, key: str = "any") -> str:
    """For a local server without TLS."""
    address = f"Endpoint=sb://127.0.0.1:{port}"
    return f"{address};SharedAccessKeyName={name};SharedAccessKey={key};UseDevelopmentEmulator=true;"


class ServiceBusBroker:
    """tests/support/service_bus_broker.py on loopback, on a free port. Use it as a context manager."""

    def __init__(self, config: dict[str, Any] | None = None) -> None:
        self.config = PERMISSIVE if config is None else config
        self.port = free_port()
        self._process: subprocess.Popen[str] | None = None

    @property
    def connection_string(self) -> str:
        return connection_string(self.port)

    def __enter__(self) -> ServiceBusBroker:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, empty, on the same port each time; returns when it listens."""
        command = [sys.executable, "-m", "tests.support.service_bus_broker", "--port", str(self.port)]
        self._process = subprocess.Popen(
            [*command, "--config", json.dumps(self.config)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        self._expect("LISTENING")

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()
        self._process = None

    def create(self, name: str, **settings: Any) -> str:
        """A queue with the arguments of BrokerQueue, empty even if it was there. Returns its name."""
        self._command({"create": {name: settings}})
        return name

    def queue(self, **settings: Any) -> str:
        """A queue of its own for one test."""
        return self.create(f"queue-{uuid.uuid4().hex[:12]}", **settings)

    def detach(self, name: str) -> None:
        """Close the links of a queue, as the service does with those that were idle too long."""
        self._command({"detach": name})

    def _command(self, command: dict[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        self._expect("DONE")

    def _expect(self, word: str) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        assert line == word, f"The Service Bus stand-in said {line!r} in place of {word!r}."


class CuttingProxy:
    """Passes TCP on to a port of loopback. Cuts connections when told, or when a marker passes. A context manager.

    With `cut_after` the bytes that hold the marker go through first, so that the server has them and its answer is lost.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.cuts = 0
        self._marker: bytes | None = None
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def __enter__(self) -> CuttingProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _end(self._listener)
        self.cut()
        for thread in list(self._threads):
            thread.join()

    def cut_after(self, marker: bytes) -> None:
        """Cut the connection on which the client sends this next, once the server has got it."""
        self._marker = marker

    def cut(self) -> None:
        """Cut every connection."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for one in pair:
                _end(one)

    def _start(self, target: Any, *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._target))
                except OSError:
                    _end(client)
                    continue
                with self._lock:
                    self._pairs.append((client, server))
                self._start(self._pump, client, server, True)
                self._start(self._pump, server, client, False)

    def _pump(self, source: socket.socket, sink: socket.socket, from_client: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                marked = from_client and self._marker is not None and self._marker in data
                if marked:
                    # The answer must not overtake the cut: the client's side is closed before the server reads.
                    self._marker = None
                    self.cuts += 1
                    _end(source)
                sink.sendall(data)
                if marked:
                    break
        _end(source)
        _end(sink)


def _end(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
