"""Every flow of the control plane on an installation at its busiest, copied for every order of their port calls."""

from __future__ import annotations

import itertools
import json
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sync_core.alert_delivery import owe
from sync_core.control_plane import ControlPlane
from sync_core.domain.alert import AlertRules
from sync_core.domain.connection import Connection
from sync_core.domain.errors import ConfigError
from sync_core.domain.schedule import After, Every, OnDemand, Retry
from sync_core.domain.watermark import CursorType, Watermark
from sync_core.messages import COMPLETIONS, REQUESTS, RUNS, CompletionHint, encode
from sync_core.operate import change_watermark
from tests.support.alerts import notice
from tests.support.control import START, Site
from tests.support.flows import CONNECTIONS, pipeline
from tests.support.instances import WRITES, Around, interleave, settle, spied, stored

DAILY = Every(86_400)

Flow = Callable[[ControlPlane], object]


@contextmanager
def in_memory() -> Generator[Path]:
    """A folder in memory where there is one: thousands of schedules write to it."""
    memory = Path("/dev/shm")  # noqa: S108
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


def busy(folder: Path) -> Site:
    """`orders` and `broken` were launched and have ended unheard, `items` is queued and stale, `idle` ran long ago."""
    site = Site(folder)
    site.has(3)
    site.connections = {**CONNECTIONS, "shop": Connection("shop", "postgresql", max_concurrent=2)}
    site.pipelines = {
        "idle": replace(pipeline("idle"), schedule=OnDemand()),
        "items": replace(pipeline("items"), schedule=OnDemand(), alerts=AlertRules(stale_after=3600)),
    }
    site.clock.pass_by(days=-200)
    for number in ("old", "older"):
        site.plane().submit(ask(number, "idle", "items"))
        settle(site)
    site.clock.time = START
    for name, schedule in {"orders": DAILY, "broken": DAILY, "items": DAILY, "report": After(("orders",))}.items():
        rules = AlertRules(stale_after=3600) if name == "items" else AlertRules()
        site.pipelines[name] = replace(
            pipeline(name), schedule=schedule, compute=name, alerts=rules, retry=Retry(1, 1, 1)
        )
    plane = site.plane()
    plane.tick()
    site.pipelines["fresh"] = replace(pipeline("fresh"), schedule=DAILY, compute="fresh")
    messages = [message for _ in range(3) if (message := plane.queue.receive(RUNS)) is not None]
    for message in messages:
        if '"items"' in message.body:
            plane.queue.abandon(message)
        else:
            plane.handle(RUNS, message.body)
            plane.queue.complete(message)
    return site


def ask(identity: str, *names: str, **more: Any) -> str:
    return json.dumps({"request_id": identity, "pipelines": names, **more})


def copied(site: Site, folder: Path) -> Site:
    shutil.copytree(site.folder, folder)
    made = replace(site, folder=folder, clock=replace(site.clock), launched=list(site.launched), running=set())
    made.sink = replace(site.sink, notices=list(site.sink.notices))
    return made


def outcome(site: Site) -> dict[str, Any]:
    """What a person sees when all has come to its end: runs, watermarks, rows, alerts, operations."""
    told = sorted((one.pipeline_id, one.condition.value, one.phase.value, one.count) for one in notices(site))
    return {name: shown(site, name) for name in site.pipelines} | {"told": told, "dead": site.dead_letters()}


def notices(site: Site) -> list[Any]:
    return list({one.notice_id: one for one in site.sink.notices}.values())


def shown(site: Site, name: str) -> dict[str, Any]:
    record = site.store.load(name).record
    runs = [(run.occasion, run.kind.value, run.attempt, run.state.value) for run in site.store.runs(name, -1)]
    return {
        "runs": sorted(runs),
        "record": (record.generation, record.successes, record.consumed, record.last_slot, record.open_run),
        "rows": site.place.target(name)["rows"],
        "paused": record.paused is not None,
        "operations": sorted(one.what for one in site.store.operations(name, 99)),
        "episodes": sorted((one.condition.value, one.closed_at is None) for one in site.store.episodes(name, 99)),
    }


def body_of(site: Site, queue: str) -> str:
    """The message that waits in a queue."""
    with sqlite3.connect(site.folder / "state.db") as database:
        found = database.execute("SELECT body FROM messages WHERE queue = ? AND dead IS NULL", (queue,)).fetchone()[0]
    database.close()
    return str(found)


def hint_of(site: Site, name: str) -> str:
    return encode(CompletionHint(launch_id=site.runs(name)[-1].launch_id))


def refused(flow: Flow) -> Flow:
    """A person whose wish another one carried out already is told so."""

    def call(plane: ControlPlane) -> None:
        try:
            flow(plane)
        except ConfigError as error:
            assert error.code in ("run.none", "run.open")  # noqa: PT017

    return call


def flows_on(site: Site) -> dict[str, Flow]:
    """Every door of the control plane, each with something to do on the busy site."""
    launch, alert = body_of(site, RUNS), owe(notice()).body
    ended, failed = hint_of(site, "orders"), hint_of(site, "broken")
    asked = ask("r", "idle", "orders", "items", kind="full_refresh")
    return {
        "tick": lambda plane: plane.tick(),
        "request": lambda plane: plane.handle(REQUESTS, asked),
        "launch": lambda plane: plane.handle(RUNS, launch),
        "complete": lambda plane: plane.handle(COMPLETIONS, ended),
        "complete a failure": lambda plane: plane.handle(COMPLETIONS, failed),
        "reconcile": lambda plane: plane.reconcile(),
        "watch": lambda plane: plane.watch(),
        "alert": lambda plane: plane.handle("sync-alerts", alert),
        "forget": lambda plane: plane.forget(),
        "cancel": refused(lambda plane: plane.cancel("items", "eve", "not today")),
        "pause": lambda plane: plane.pause("idle", "eve", "maintenance"),
        "resume": lambda plane: plane.resume("idle", "eve", "it is over"),
        "pause a connection": lambda plane: plane.pause("shop", "eve", "maintenance", connection=True),
        "retry": refused(lambda plane: plane.retry("idle", None, "eve", "to be sure")),
        "reset": lambda plane: change_watermark(
            plane.store, "idle", Watermark(CursorType.NUMBER, "1"), "eve", "again", False, plane.now()
        ),
    }


FLOWS = (
    "tick", "request", "launch", "complete", "complete a failure", "reconcile", "watch", "alert", "forget", "cancel",
    "pause", "resume", "pause a connection", "retry", "reset",
)  # fmt: skip


@dataclass(frozen=True)
class Played:
    end: dict[str, Any]
    steps: list[int]


class Stage:
    """Copies of the busy site; each order is played on a new one."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.numbers = folder, itertools.count()
        self.site = busy(folder / "busy")
        self.flows = flows_on(self.site)
        self.ends: dict[str, dict[str, Any]] = {}

    def play(self, names: Sequence[str], order: Any, only: frozenset[str] | None = WRITES) -> Played:
        """Run these flows in this order, then let all come to its end."""
        site = copied(self.site, self.folder / str(next(self.numbers)))
        site.clock.pass_by(minutes=3)
        steps = interleave([instance(site, self.flows[name]) for name in names], order, only)
        state = stored(site)
        # Most orders leave the same state behind, and what comes after is decided by it.
        if state not in self.ends:
            site.plane().resume("idle", "adam", "settle")
            site.plane().resume("shop", "adam", "settle", connection=True)
            settle(site)
            self.ends[state] = outcome(site)
        shutil.rmtree(site.folder)
        return Played(self.ends[state], steps)


def instance(site: Site, flow: Flow) -> Callable[[Around], None]:
    """One process: its own connection to everything."""

    def run(around: Around) -> None:
        flow(spied(site.plane(), around))

    return run
