"""`uds watermark show/set/reset`: the operator's hand on the watermark, recorded with who and why (R8)."""

from __future__ import annotations

from typing import Annotated

import typer

from sync_core.cli.context import open_app, open_catalog, who
from sync_core.cli.options import Common, takes_common
from sync_core.cli.output import print_json
from sync_core.domain.codec import to_json
from sync_core.domain.errors import ConfigError
from sync_core.domain.pipeline import Pipeline
from sync_core.domain.run import PipelineRecord
from sync_core.domain.watermark import Watermark
from sync_core.operate import change_watermark, parse_watermark

commands = typer.Typer(
    help="Show or change the watermark of a pipeline.", rich_markup_mode=None, invoke_without_command=True
)

Name = Annotated[str, typer.Argument(metavar="PIPELINE", help="A pipeline's id.")]
AdoptOption = Annotated[bool, typer.Option("--adopt", help="Take over a target that another tool filled.")]
Reason = Annotated[str, typer.Option(metavar="WHY", help="Why; kept with the change.")]


@commands.callback()
def start(context: typer.Context) -> None:
    """The help, where no command follows."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@commands.command("show")
@takes_common
def show(
    common: Common,
    name: Name,
    limit: Annotated[int, typer.Option(metavar="NUMBER", min=1, help="How many changes, newest first.")] = 20,
) -> None:
    """Show the remembered watermark, and who changed it."""
    pipeline = open_catalog(common.config, common.environment).the_one(name)
    store = open_app(common.state).store
    record = store.load(pipeline.pipeline_id).record
    changes = store.changes(pipeline.pipeline_id, limit)
    if common.as_json:
        fields = ("pipeline_id", "epoch", "generation", "watermark", "seen", "adopt")
        document = {field: to_json(getattr(record, field)) for field in fields}
        print_json(document | {"changes": to_json(changes)})
        return
    print(f"{pipeline.pipeline_id}: {_shown(record.watermark)}, generation {record.generation}, epoch {record.epoch}")
    for change in changes:
        when = f"{change.at:%Y-%m-%d %H:%M:%S} UTC"
        print(f"  {when}  {change.who}: {_shown(change.before)} → {_shown(change.after)}  ({change.reason})")


@commands.command("set", context_settings={"ignore_unknown_options": True})  # VALUE may be -5
@takes_common
def set_value(
    common: Common,
    name: Name,
    value: Annotated[str, typer.Argument(metavar="VALUE", help="A cursor value: 2024-01-31T23:59:59, 42, ...")],
    reason: Reason,
    adopt: AdoptOption = False,
) -> None:
    """Let the next run start from a value. What the target's ledger says is passed over."""
    pipeline = open_catalog(common.config, common.environment).the_one(name)
    _change(pipeline, parse_watermark(pipeline, value), reason, adopt, common)


@commands.command("reset")
@takes_common
def reset(common: Common, name: Name, reason: Reason, adopt: AdoptOption = False) -> None:
    """Let the next run start from the beginning. Rows that are there are merged or left out, not doubled."""
    pipeline = open_catalog(common.config, common.environment).the_one(name)
    _change(pipeline, None, reason, adopt, common)


def _change(pipeline: Pipeline, value: Watermark | None, reason: str, adopt: bool, common: Common) -> None:
    if not reason.strip():
        raise ConfigError("call.wrong", "The reason is empty.", "Say why in a few words; others will read it.")
    app = open_app(common.state)
    before, after = change_watermark(app.store, pipeline.pipeline_id, value, who(), reason, adopt, app.now())
    if common.as_json:
        print_json(
            {
                "pipeline_id": pipeline.pipeline_id,
                "before": to_json(before.watermark),
                "after": to_json(after.watermark),
            }
        )
        return
    print(f"{pipeline.pipeline_id}: {_shown(before.watermark)} → {_shown(after.watermark)}")
    where = "there" if value else "the beginning"
    print(f"The next run starts from {where}, in a new epoch{_open(before)}.")


def _open(record: PipelineRecord) -> str:
    return "; the open run keeps to the old one" if record.open_run else ""


def _shown(watermark: Watermark | None) -> str:
    return f"watermark {watermark.value}" if watermark else "no watermark"
