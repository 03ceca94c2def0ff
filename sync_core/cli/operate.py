"""`uds pause`, `resume`, `cancel`, `retry`, `dead-letters`: an operator's hand, recorded with who, when and why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from sync_core.cli.context import open_service, who
from sync_core.cli.options import Common, takes_common
from sync_core.cli.output import print_json
from sync_core.control_plane import ControlPlane
from sync_core.domain.errors import ConfigError

Name = Annotated[str, typer.Argument(metavar="NAME", help="A pipeline; with --connection a connection.")]
Pipeline = Annotated[str, typer.Argument(metavar="PIPELINE", help="A pipeline's id.")]
Reason = Annotated[str, typer.Option(metavar="WHY", help="Why; kept with the record.")]
ConnectionOption = Annotated[bool, typer.Option("--connection", help="NAME is a connection: all that use it.")]


@takes_common
def pause(common: Common, name: Name, reason: Reason, connection: ConnectionOption = False) -> None:
    """Begin nothing more of a pipeline or a connection. What runs ends by itself."""
    plane = _plane(common)
    _do(lambda: plane.pause(name, who(), _said(reason), connection=connection), name, "paused", common)


@takes_common
def resume(common: Common, name: Name, reason: Reason, connection: ConnectionOption = False) -> None:
    """Go on after a pause. What became due or was asked for meanwhile begins."""
    plane = _plane(common)
    was_paused = plane.resume(name, who(), _said(reason), connection=connection)
    _tell(name, "resumed" if was_paused else "was not paused by hand", common)


@takes_common
def cancel(common: Common, name: Pipeline, reason: Reason) -> None:
    """Stop a pipeline's open run and give it up. The others of its batch go on."""
    plane = _plane(common)
    _do(lambda: plane.cancel(name, who(), _said(reason)), name, "cancelled", common)


@takes_common
def retry(
    common: Common,
    name: Pipeline,
    reason: Reason,
    run: Annotated[str | None, typer.Option(metavar="RUN_KEY", help="Which run; the last one without it.")] = None,
) -> None:
    """Queue once more what a run was to do. `uds up` carries it out."""
    plane = _plane(common)
    _do(lambda: plane.retry(name, run, who(), _said(reason)), name, "queued again", common)


@takes_common
def dead_letters(
    common: Common,
    send_again: Annotated[
        str | None, typer.Option(metavar="QUEUE/KEY", help="Give this one back to its queue, its cause being mended.")
    ] = None,
) -> None:
    """Show what was put aside, and why; or send it again."""
    plane = _plane(common)
    if send_again is not None:
        queue, slash, key = send_again.partition("/")
        if not slash:
            remedy = "uds dead-letters shows those that were put aside, each as QUEUE/KEY."
            raise ConfigError("call.wrong", f"{send_again} is not QUEUE/KEY.", remedy)
        _do(lambda: plane.send_again(queue, key), send_again, "sent again", common)
        return
    found = plane.dead_letters()
    if common.as_json:
        print_json(
            {
                "dead_letters": [
                    {"queue": one.queue, "key": one.key, "body": one.body, "reason": one.dead} for one in found
                ]
            }
        )
        return
    for one in found:
        print(f"{one.queue}/{one.key}\n  {one.dead}\n  {one.body[:300]}")
    if not found:
        print("No message was put aside.")


def _plane(common: Common) -> ControlPlane:
    return open_service(common.config, common.state, common.environment).plane


def _do(act: Callable[[], object], name: str, done: str, common: Common) -> None:
    act()
    _tell(name, done, common)


def _tell(name: str, done: str, common: Common) -> None:
    if common.as_json:
        print_json({"name": name, "done": done})
    else:
        print(f"{name}: {done}.")


def _said(reason: str) -> str:
    if not reason.strip():
        raise ConfigError("call.wrong", "The reason is empty.", "Say why in a few words; others will read it.")
    return reason
