"""Rules for schedules, retries and alerts: what a key means beside the others, and who runs after whom."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache

from sync_core.catalog.cron import cron_fault
from sync_core.catalog.document import SCHEDULES, Node, Written, shown_key
from sync_core.catalog.faults import Fault, suggest
from sync_core.catalog.values import SHORTEST, is_pattern, parse_duration, time_zones
from sync_core.domain.schedule import Cron, Retry
from sync_core.due import fires

_SHOWN = 8


def check_schedule(node: Node, channels: Mapping[str, Node] | None, is_default: bool = False) -> list[Fault]:
    """The faults of one pipeline's schedule, retry, alerts and channels, or of those of defaults.

    `channels` is None when they could not be read. Defaults may hold a part of a schedule.
    """
    faults: list[Fault] = []
    schedule = node.get("schedule")
    if schedule and isinstance(schedule.value, Mapping):
        faults.extend(_kind_faults(schedule, is_default))
        faults.extend(_cron_faults(schedule))
        faults.extend(_stale_faults(node, schedule))
    faults.extend(_retry_faults(node))
    named = node.get("channels")
    for channel in named.items if named else ():
        faults.extend(_channel_faults(channel, channels))
    return faults


def _kind_faults(schedule: Node, is_default: bool) -> list[Fault]:
    kinds = [kind for kind in SCHEDULES if schedule.get(kind)]
    if len(kinds) > 1:
        first, *others = sorted((schedule.mapping[kind] for kind in kinds), key=lambda one: one.line)
        name = first.path.rpartition(".")[2]
        return [one.fault(f"stands beside {name}", "keep one of the two") for one in others]
    if not kinds:
        if is_default or not set(schedule.mapping) <= {"timezone", "catch_up"}:
            return []
        return [schedule.fault("does not say when", "write one of cron, every, after and on_demand: true beneath it")]
    faults: list[Fault] = []
    demand = schedule.get("on_demand")
    if demand and (demand.text or "").lower() == "false":
        faults.append(demand.fault("on_demand: false says nothing", "write cron, every or after in its place"))
    for key, wanted in (("timezone", "cron"), ("catch_up", "cron or every")):
        written = schedule.get(key)
        if written and key not in SCHEDULES[kinds[0]]:
            faults.append(written.fault(f"means nothing without {wanted}", "remove it"))
    return faults


def _cron_faults(schedule: Node) -> list[Fault]:
    cron = schedule.get("cron")
    zone = schedule.text_of("timezone") or "UTC"
    if not cron or not cron.text or not isinstance(cron.value, Written) or zone not in time_zones():
        return []
    if cron_fault(cron.text) is not None or _fires(" ".join(cron.text.split()), zone):
        return []
    remedy = "write a day that the month has"
    if _fires(" ".join(cron.text.split()), "UTC"):
        remedy = "write another time: where the clock is put forward this one never exists"
    return [cron.fault(f"{cron.value.shown} never fires", remedy)]


# Thousands of pipelines share an expression.
@cache
def _fires(expression: str, zone: str) -> bool:
    return fires(Cron(expression, zone))


def _stale_faults(node: Node, schedule: Node) -> list[Fault]:
    every, stale = schedule.get("every"), node.get("alerts", "stale_after")
    if not every or not stale or not every.text or not stale.text:
        return []
    interval, limit = parse_duration(every.text), parse_duration(stale.text)
    if interval is None or limit is None or limit < SHORTEST or limit >= interval:
        return []
    message = f"stale_after {_shown(stale)} is shorter than the schedule's own interval {_shown(every)}"
    remedy = "write a longer one, with time for a run and a retry"
    # Of an inherited limit and a schedule of its own the pipeline can change only the schedule's side.
    if stale.is_default and not every.is_default:
        return [every.fault(message, "write a longer alerts: {stale_after: …} in this pipeline")]
    return [stale.fault(f"{message}: it would always be stale", remedy)]


def _retry_faults(node: Node) -> list[Fault]:
    delay, longest = node.get("retry", "delay"), node.get("retry", "max_delay")
    if not longest or not longest.text:
        return []
    first = parse_duration(delay.text or "") if delay else Retry().delay_seconds
    most = parse_duration(longest.text)
    if first is None or most is None or first <= most:
        return []
    message = f"max_delay {_shown(longest)} is shorter than delay {_shown(delay) if delay else '1m'}"
    if delay and longest.is_default and not delay.is_default:
        return [delay.fault(message, "write a longer max_delay in this pipeline too")]
    return [longest.fault(message, "write a longer one, or leave it out")]


def _channel_faults(channel: Node, channels: Mapping[str, Node] | None) -> list[Fault]:
    if not channel.text:
        return []
    if "://" in channel.text:
        remedy = "write it in connections.yml beneath channels:, and its name here"
        return [channel.fault("is an address, not the name of a channel", remedy)]
    if channels is None or channel.text in channels:
        return []
    remedy = suggest(channel.text, list(channels), "channel")
    if not channels:
        remedy = "write it in connections.yml beneath channels:"
    return [channel.fault(f"there is no channel {_shown(channel)}", remedy)]


def check_order(pipelines: Sequence[Node], is_complete: bool) -> list[Fault]:
    """The faults of `after` over all pipelines: names that are not there, a pipeline after itself, and circles.

    Names are looked for only when every file could be read.
    """
    names = {name: node for node in pipelines if (name := node.text_of("pipeline_id"))}
    has_all = is_complete and all(node.text_of("pipeline_id") for node in pipelines)
    faults: list[Fault] = []
    edges: dict[str, list[tuple[str, Node]]] = {}
    for name, other, item in _followed(names):
        if other == name:
            own = f"give {name} a schedule of its own, or " if item.is_default else ""
            faults.append(item.fault(f"{shown_key(name)} would run after itself", f"{own}take it out"))
        elif other in names:
            edges.setdefault(name, []).append((other, item))
        elif has_all and not is_pattern(other):
            faults.append(item.fault(f"there is no pipeline {_shown(item)}", suggest(other, list(names), "pipeline")))
    for circle, place in _circles(edges):
        told = circle if len(circle) <= _SHOWN else [*circle[: _SHOWN - 1], "…"]
        way = " → ".join([*told, circle[0]])
        faults.append(place.fault(f"the pipelines wait for each other: {way}", "take one of them out of its after"))
    return faults


def _followed(pipelines: Mapping[str, Node]) -> Iterator[tuple[str, str, Node]]:
    """Each pipeline with each name in its `after`, and the place of that name."""
    for name, node in pipelines.items():
        after = node.get("schedule", "after")
        for item in after.items if after else ():
            if item.text:
                yield name, item.text, item


def _circles(edges: Mapping[str, list[tuple[str, Node]]]) -> Iterator[tuple[list[str], Node]]:
    """Circles in "runs after", each with the place that closes it; none is left when those are mended.

    Walked without recursion: a chain may be thousands of pipelines long.
    """
    finished: set[str] = set()
    for start in edges:
        if start in finished:
            continue
        way, nexts, position = [start], [iter(edges[start])], {start: 0}
        while way:
            step = next(nexts[-1], None)
            if step is None:
                nexts.pop()
                finished.add(way.pop())
                continue
            other, place = step
            if other in finished:
                continue
            if other in position:
                yield way[position[other] :], place
                continue
            position[other] = len(way)
            way.append(other)
            nexts.append(iter(edges.get(other, ())))


def _shown(node: Node) -> str:
    return node.value.shown if isinstance(node.value, Written) else ""
