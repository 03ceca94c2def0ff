"""Several instances of the control plane at once, one port call at a time, in an order that the test chooses; and faults.

A port call is one step: what a store, queue, launcher, run folder or sink does is done at once. Whatever the code
decides between two of them may be old by the time it writes.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from sync_core.control_plane import ControlPlane
from sync_core.tick import due_run, paused_pipelines
from sync_core.watch import CONTROL_PLANE
from tests.support.control import Site

Around = Callable[[str, Callable[[], Any]], Any]
"""Takes a port call's name (`store.save`) and the call, and makes it, or does something else."""

Order = Sequence[tuple[int, int]]
"""Who runs for how many steps; when it is at its end, the lowest that is left goes on."""

PORTS = ("store", "queue", "folder", "launcher", "sink")

WRITES = frozenset({
    "store.save", "store.save_connection", "store.forget_runs", "store.forget_episodes", "queue.send", "queue.reject",
    "queue.complete", "queue.dead_letter", "folder.write_manifest", "folder.ask_to_stop", "folder.forget", "launcher.launch",
    "launcher.cancel", "sink.deliver",
})  # fmt: skip


class Spied:
    """A port whose calls go through `around`."""

    def __init__(self, port: object, name: str, around: Around) -> None:
        self._port, self._name, self._around = port, name, around

    def __getattr__(self, method: str) -> Any:
        found = getattr(self._port, method)
        if not callable(found):
            return found

        def call(*given: Any, **named: Any) -> Any:
            return self._around(f"{self._name}.{method}", lambda: _whole(found(*given, **named)))

        return call


def _whole(answer: Any) -> Any:
    """A generator's answers belong to the call that asked for them."""
    return iter(list(cast("Iterator[Any]", answer))) if isinstance(answer, Iterator) else answer


def spied(plane: ControlPlane, around: Around) -> ControlPlane:
    """The same control plane; each call of its ports goes through `around`."""
    return replace(plane, **{name: cast("Any", Spied(getattr(plane, name), name, around)) for name in PORTS})


@dataclass
class Fault:
    """Fails the port call number `at` (of those in `only`), before it is made or (`obeyed`) after it."""

    at: int
    make: Callable[[], Exception]
    obeyed: bool = False
    only: frozenset[str] | None = None
    count: int = 0
    struck: str = ""

    def __call__(self, name: str, call: Callable[[], Any]) -> Any:
        if self.only is not None and name not in self.only:
            return call()
        number, self.count = self.count, self.count + 1
        if number != self.at:
            return call()
        self.struck = name
        if self.obeyed:
            call()
        raise self.make()


@dataclass
class _Instance:
    go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    done: bool = False
    steps: int = 0
    error: BaseException | None = None


def interleave(
    flows: Sequence[Callable[[Around], None]],
    order: Order | Callable[[Sequence[int]], int],
    only: frozenset[str] | None = None,
) -> list[int]:
    """Run each flow in a thread, of which one goes on at a time until before its next port call, or its next of `only`.

    `order` is a list of segments, or chooses among those that are left. Returns the steps of each. A flow that fails
    fails the test.
    """
    instances = [_Instance() for _ in flows]
    stopped = threading.Semaphore(0)

    def run(one: _Instance, flow: Callable[[Around], None]) -> None:
        def around(name: str, call: Callable[[], Any]) -> Any:
            if only is None or name in only:
                stopped.release()
                one.go.acquire()
                one.steps += 1
            return call()

        one.go.acquire()
        try:
            flow(around)
        except BaseException as error:  # raised in the test's own thread
            one.error = error
        one.done = True
        stopped.release()

    threads = [threading.Thread(target=run, args=pair, daemon=True) for pair in zip(instances, flows, strict=True)]
    for thread in threads:
        thread.start()
    choose = order if callable(order) else _follow(order)
    while left := [number for number, one in enumerate(instances) if not one.done]:
        instances[choose(left)].go.release()
        stopped.acquire()
    for thread in threads:
        thread.join()
    for one in instances:
        if one.error is not None:
            raise one.error
    return [one.steps for one in instances]


def _follow(order: Order) -> Callable[[Sequence[int]], int]:
    steps = iter([number for number, count in order for _ in range(count)])

    def choose(left: Sequence[int]) -> int:
        return next((number for number in steps if number in left), left[0])

    return choose


def orders(steps: Sequence[int], switches: int) -> Iterator[Order]:
    """Every order of two instances with so many switches between them; the first begins, for what is symmetric.

    With one: the first stops anywhere, the second runs to its end, the first goes on. With two the second stops too.
    """
    first, second = steps[0] + 1, steps[1] + 1
    for one in range(first):
        if switches == 1:
            yield [(0, one), (1, second)]
            continue
        for two in range(1, second):
            yield [(0, one), (1, two), (0, first)]


def settle(site: Site) -> None:
    """Rounds of fresh processes until nothing is under way."""
    for _ in range(40):
        site.cycle(minutes=2)
        if is_quiet(site):
            return
    raise AssertionError(f"{site.folder} does not come to its end")


def is_quiet(site: Site) -> bool:
    """No message waits, no run is open, nothing is owed and nothing is due."""
    with sqlite3.connect(site.folder / "state.db") as database:
        left = database.execute("SELECT COUNT(*) FROM messages WHERE dead IS NULL").fetchone()[0]
    database.close()
    store, names = site.store, [*site.pipelines, CONTROL_PLANE]
    records = {stored.record.pipeline_id: stored.record for stored in store.load_many(names)}
    if left or any((one.open_run, one.pending, one.outbox) != (None, (), ()) for one in records.values()):
        return False
    paused = paused_pipelines(store, site.pipelines, records, site.connections)
    active = [one for name, one in site.pipelines.items() if name not in paused]
    return all(due_run(one, records, site.clock()) is None for one in active)


def stored(site: Site) -> str:
    """All that a process which starts now could find, without versions of records and numbers of messages."""
    tables = {"records": "body", "runs": "body", "episodes": "body", "operations": "body", "connections": "body"}
    tables |= {"messages": "queue, key, body, due, dead", "sent_keys": "queue, key", "changes": "body"}
    with sqlite3.connect(site.folder / "state.db") as database:
        found = {
            name: sorted(map(repr, database.execute(f"SELECT {columns} FROM {name}")))
            for name, columns in tables.items()
        }
    database.close()
    files = sorted(str(path.relative_to(site.folder)) for path in site.folder.rglob("*") if "state.db" not in path.name)
    told = sorted(one.notice_id for one in site.sink.notices)
    return repr((found, files, told))
