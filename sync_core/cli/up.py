"""`uds up`: the whole loop on this machine, until Ctrl-C."""

from __future__ import annotations

import fcntl
import json
import logging
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, override

import typer

from sync_core.app import Service, build_service
from sync_core.cli.context import open_catalog, open_settings
from sync_core.cli.options import DEFAULT_CONFIG, DEFAULT_STATE, ConfigOption, EnvironmentOption, StateOption
from sync_core.cli.output import count
from sync_core.domain.errors import PermanentError
from sync_core.loop import Intervals, Loop
from sync_core.web.roles import admit_user
from sync_core.web.routes import Routes
from sync_core.web.server import make_server

ALERTS = "sync_core.alert_delivery"


def up(
    port: Annotated[
        int, typer.Option(metavar="NUMBER", min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")
    ] = 8321,
    tick: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, max=3600, help="Seconds between two looks for what is due.")
    ] = 5.0,
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    environment: EnvironmentOption = None,
) -> None:
    """Run schedules, requests, alerts and HTTP until Ctrl-C. All of it on this machine, with Spark kept warm."""
    catalog = open_catalog(config, environment)
    with alone(state):
        show_log()
        service = build_service(open_settings(state), catalog)
        try:
            serve(service, port, Intervals(tick=tick), len(catalog.pipelines))
        finally:
            service.close()


class Sentences(logging.Formatter):
    """What the control plane logs in structure, as a sentence for the screen."""

    @override
    def formatMessage(self, record: logging.LogRecord) -> str:
        if record.name == ALERTS:
            record.message = _sentence(json.loads(record.message))
        return super().formatMessage(record)


def show_log() -> None:
    """Warnings and the loop's own lines, on standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(Sentences("%(asctime)s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    for name in ("uds.control", ALERTS):
        logging.getLogger(name).setLevel(logging.INFO)


def _sentence(told: dict[str, Any]) -> str:
    match told["event"]:
        case "alert.without_channel":
            notice = told["notice"]
            return f"alert {notice['phase']}: {notice['message']} (No channel of connections.yml takes it.)"
        case "alert.delivered":
            return f"an alert of {told['pipeline_id']} was delivered to {told['channel']}"
        case "alert.delayed":
            return f"an alert of {told['pipeline_id']} goes to {told['channel']} later: {told['reason']}"
        case _:
            return f"an alert of {told['pipeline_id']} was put aside: {told['reason']}"


def serve(service: Service, port: int, intervals: Intervals, pipelines: int) -> None:
    """The loop and the HTTP server, until SIGTERM or Ctrl-C: then what runs is finished, a second time it is ended."""
    try:
        server = make_server(Routes(service.plane, service.webhook_login, admit_user), port)
    except OSError as error:
        raise PermanentError(
            "up.port", f"Port {port} on 127.0.0.1 cannot be used: {error.strerror}.", "Use another --port, or 0."
        ) from error
    loop = Loop(service.plane, intervals)

    def stop(*_: object) -> None:
        if loop.stop.is_set():
            raise KeyboardInterrupt
        print("Stopping: what runs is finished first. Once more ends it at once.", flush=True)
        loop.stop.set()

    before = [(number, signal.signal(number, stop)) for number in (signal.SIGTERM, signal.SIGINT)]
    thread = threading.Thread(target=server.serve_forever, name="http", daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    print(f"{count(pipelines, 'pipeline')}; status at {address}/pipelines. Ctrl-C stops.", flush=True)
    try:
        loop.run()
        service.drain()
        loop.finish()
        print("Stopped.", flush=True)
    finally:
        server.shutdown()
        server.server_close()
        for number, handler in before:
            signal.signal(number, handler)


@contextmanager
def alone(state: Path) -> Generator[None]:
    """Hold the state folder. Raises PermanentError when another `uds up` has it."""
    try:
        state.mkdir(parents=True, exist_ok=True)
        lock = (state / "up.lock").open("w")
    except OSError as error:
        raise PermanentError(
            "state.unusable", f"The state folder {state} cannot be used: {error.strerror}.", "Use another --state."
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PermanentError(
                "up.running", f"Another uds up works on {state}.", "Stop it, or use another --state."
            ) from error
        yield
