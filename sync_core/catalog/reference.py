"""The JSON schema for editors and docs/configuration.md, both made from the model."""

from __future__ import annotations

import json
from typing import Any, cast

from pydantic import BaseModel

from sync_core.catalog.connection_checks import KEYS
from sync_core.catalog.control_model import AlertsEntry, ChannelEntry, RetryEntry, ScheduleEntry
from sync_core.catalog.model import (
    CastEntry,
    ConfigurationFile,
    ConnectionEntry,
    CursorEntry,
    DeriveEntry,
    DropEntry,
    FilterEntry,
    PipelineEntry,
    PipelineItem,
    ReadEntry,
    RenameEntry,
    SelectEntry,
    SourceEntry,
    TableEntry,
    TargetEntry,
)
from sync_core.domain.alert import Condition

_STEPS = (FilterEntry, SelectEntry, RenameEntry, CastEntry, DeriveEntry, DropEntry)


def json_schema() -> dict[str, Any]:
    """One schema for every configuration file.

    Nothing but a transformation's own keys is required in it, since defaults and environments may supply the rest;
    `uds validate` knows what is missing.
    """
    schema: dict[str, Any] = ConfigurationFile.model_json_schema()
    steps = {model.__name__ for model in _STEPS}
    for name, definition in schema["$defs"].items():
        if name not in steps:
            definition.pop("required", None)
    for key in ("pipeline_id", "tables"):
        schema["$defs"]["Defaults"]["properties"].pop(key, None)
    identifier = schema["$defs"]["PipelineItem"]["properties"]["pipeline_id"]
    identifier.pop("anyOf", None)
    identifier["type"] = "string"
    _tidy(schema)
    schema.pop("description", None)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "Universal Data Sync configuration",
    }


def json_schema_text() -> str:
    """The schema as the text of a file."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def _tidy(part: Any) -> None:
    """Leave out titles and null defaults, and put descriptions on one line. Null itself stays: it takes a key away."""
    if isinstance(part, list):
        for item in cast("list[Any]", part):
            _tidy(item)
    if not isinstance(part, dict):
        return
    entry = cast("dict[str, Any]", part)
    if isinstance(entry.get("title"), str):
        del entry["title"]
    if "default" in entry and entry["default"] is None:
        del entry["default"]
    if isinstance(entry.get("description"), str):
        entry["description"] = " ".join(entry["description"].split())
    for value in entry.values():
        _tidy(value)


def configuration_page() -> str:
    """The text of docs/configuration.md: every key with its type, default and meaning."""
    parts = [_INTRODUCTION, _section("connections.NAME", ConnectionEntry), _connection_types()]
    parts.append(_section("channels.NAME", ChannelEntry))
    parts.append(_section("pipelines[]", PipelineEntry))
    parts.append(_section("pipelines[].source", SourceEntry))
    parts.append(_section("pipelines[].target", TargetEntry))
    parts.append(_section("pipelines[].cursor", CursorEntry))
    parts.append(_section("pipelines[].read", ReadEntry))
    parts.append(_section("pipelines[].schedule", ScheduleEntry))
    parts.append(_section("pipelines[].retry", RetryEntry))
    parts.append(_section("pipelines[].alerts", AlertsEntry))
    parts.append("## `pipelines[].transformations[]`\n\nA list; each entry is one of these, applied in order.\n")
    parts.extend(_section(f"type: {step.__name__.removesuffix('Entry').lower()}", step, level=3) for step in _STEPS)
    parts.append(_section("pipelines[].tables", PipelineItem, only=("tables",)))
    parts.append(_section("pipelines[].tables[]", TableEntry, only=("name",)))
    parts.append(_rest())
    return "\n".join(parts)


def _rest() -> str:
    words = ", ".join(f"`{condition.value}`" for condition in Condition)
    return _REST.replace("CONDITIONS.", f"Conditions are\n  {words}.")


def _section(title: str, model: type[BaseModel], level: int = 2, only: tuple[str, ...] = ()) -> str:
    schema = model.model_json_schema()
    lines = [f"{'#' * level} `{title}`", "", *([] if only else [" ".join((model.__doc__ or "").split()), ""])]
    lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name, info in model.model_fields.items():
        key = info.alias or name
        if only and key not in only:
            continue
        definition = schema["properties"][key]
        default = "required" if info.is_required() else _default(definition)
        meaning = " ".join((info.description or "").split())
        examples = definition.get("examples")
        if examples and not isinstance(examples[0], dict | list):
            meaning += f" Example: `{examples[0]}`."
        lines.append(
            "| " + " | ".join(_cell(text) for text in (f"`{key}`", _type(definition), default, meaning)) + " |"
        )
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _default(definition: dict[str, Any]) -> str:
    default = definition.get("default")
    if default is None or default in ({}, []):
        return ""
    return "see below" if isinstance(default, dict) else f"`{json.dumps(default).strip(chr(34))}`"


def _type(definition: dict[str, Any]) -> str:
    if "$ref" in definition:
        return "mapping"
    if "const" in definition:
        return f"`{definition['const']}`"
    if "enum" in definition:
        return ", ".join(f"`{word}`" for word in definition["enum"])
    if "anyOf" in definition:
        options = [option for option in definition["anyOf"] if option.get("type") != "null"]
        return _type(options[0])
    kind = definition.get("type")
    if kind == "array":
        return "list"
    if kind == "object":
        return "mapping"
    if kind == "integer":
        return f"number, {definition['minimum']} to {definition['maximum']}"
    if kind == "boolean":
        return "`true`, `false`"
    return "text" if kind == "string" else "text or number"


def _connection_types() -> str:
    lines = ["Which keys mean something for which type (another key is a fault):", "", "| type | keys |", "|---|---|"]
    order = [info.alias or name for name, info in ConnectionEntry.model_fields.items()]
    for kind, keys in KEYS.items():
        lines.append(f"| `{kind}` | " + ", ".join(f"`{key}`" for key in order if key in keys) + " |")
    return "\n".join(lines) + "\n\n" + _SIGN_IN


_INTRODUCTION = """\
# Configuration

<!-- Made from the model by `python tools/generate_configuration_docs.py`; a test compares. -->

A configuration folder (`--config`, default `config`) holds

| file | holds |
|---|---|
| `connections.yml` | `connections:`, the databases by name, and `channels:`, where alerts go |
| `pipelines.yml`, `pipelines/*.yml`, or both | `pipelines:`, and `defaults:` that every pipeline inherits |
| `environments/NAME.yml` | what is different with `--env NAME` |

`uds validate` reports every fault at once, each with file, line and what to write instead. `uds init` writes a
starter; `uds schema --write config/schema.json` writes the schema by which editors complete and check. A key
that is not on this page is a fault.
"""

_SIGN_IN = """\
An address: `oracle` needs `host` and one of `service_name` and `sid`; `azure_sql` and `postgresql` need `host`
and `database`; `databricks` needs `path`, or `catalog` and `schema`. `options.url` takes the place of all of
them. A type that a package adds (entry-point group `universal_data_sync.adapters`) may use every key.

A sign-in: `auth: password` needs `username`, `secret_scope` and `secret_key` (for `postgresql`, with
`options.url`, and with an Oracle wallet in `options`, `oracle.net.…`, they may be left out),
`service_principal` needs `tenant_id`, `client_id` and a secret, `token` a secret, `service_credential` needs
`service_credential`. Passwords and tokens are never written, not even by a variable: `secret_scope: kv,
secret_key: oracle-pw` is read from the Databricks secret scope `kv`, elsewhere from the environment variable
`UDS_SECRET_KV_ORACLE_PW`.
"""

_REST = """\
## Defaults, tables, environments

- `defaults:` takes every key of a pipeline except `pipeline_id` and `tables`. Those of `pipelines.yml` apply to
  all files, those of another file to its own pipelines. Mappings are merged deeply, lists and single values are
  replaced. A default `cursor` without `type` applies to the pipelines that have a cursor.
  A `schedule` of another kind (`after` where the default says `cron`) replaces the default's as a whole; a default
  `schedule` with nothing but `timezone` and `catch_up` applies to the pipelines that have a schedule.
- `tables: [SALES.ORDERS, {name: SALES.CUSTOMERS, merge_keys: [ID]}]` makes a pipeline of each table. In
  `pipeline_id` and `target.table`, `{schema}` and `{table}` stand for the parts of its name in lower case.
- `environments/NAME.yml` has the shape of the other files: `connections:` and `channels:` by name, `pipelines:` by
  `pipeline_id` (as expanded, or as the template that is written), `defaults:` above those of the files and
  below the pipelines' own keys. It changes what is there; a name that is not there is a fault.
- `key: ~` takes away what a default or the base has written.

## Values

- YAML 1.2: `true` and `false` are the truth values; `yes`, `no`, `on` and `off` are text. Dates and numbers in
  the place of text are taken as they are written.
- `${NAME}` is filled from the environment variable NAME, `${NAME:-default}` has a default for an unset or empty
  one, `$${` stands for the characters `${`. Variables stand in values, never in keys.
- Durations are a number with its unit: `500ms`, `30s`, `10m`, `2h`, `1d`.
- `initial` is written as the cursor's type is: `2024-01-31`, `2024-01-31T23:59:59.123456`, with `Z` or an
  offset for `timestamp_tz`, `-12.5`, `0x00000000000007D1`, `42`.

## Schedules

- A pipeline without `schedule` runs on demand: by `uds run`, or when a request asks for it.
- `cron` has five fields: minute, hour, day of the month, month, weekday. They take `*`, numbers, names (`JAN`, `MON`),
  lists `1,15`, ranges `MON-FRI` and steps `*/15`; also `L` and `LW` for the last day and the last working day of the
  month, `5L` for its last Friday, `MON#1` for its first Monday. When day and weekday are both given, and neither
  begins with `*`, one of the two is enough. Seconds, `?` and `@daily` are faults, and so is a date that never comes.
- The times of `cron` are local times of `timezone`. Each one that exists fires once: where clocks are put back, the
  first of the two; where they are put forward, a time that is leapt over does not fire. So `*/15 * * * *` in
  `Europe/Oslo` rests for an hour in autumn; `every: 15m`, or `cron` in UTC, does not.
- `every: 15m` counts from 1970-01-01T00:00:00Z: at :00, :15, :30 and :45 for everyone.
- What is due is counted from the last slot that was begun, so that nothing is lost when the control plane was late
  or down. Missed slots run once, for the latest, or with `catch_up: all` once each, oldest first; of more than 1,000
  the newest 1,000.
- A pipeline that has never run is due at once, for its latest slot in the past. To hold it back, write `paused: true`.
- `after: [a, b]` runs once `a` and `b` have each succeeded anew. It names pipelines by their full id, those of
  `tables:` too (`sales.orders`); tags and patterns such as `sales.*` are faults, and so are circles.

## Alerts

- Alerts go to the `channels` that the pipeline names, or to every channel when it names none; to each of them those
  that match its `conditions`. CONDITIONS.
- A channel's secret is named as a connection's is. For a `webhook` it is the key `whsec_…` by which the receiver
  checks the signature; for `apprise` the whole address, which holds its own password.
- The `url` of a webhook is https; plain http is for a receiver on this machine.

## Rules over several keys

- `merge` needs `merge_keys`, `incremental` needs a `cursor`. `merge` without `cursor` reads the whole source
  each time.
- `type: rowversion` is for `azure_sql` sources; `type: version` for tables of `databricks` sources, without
  `column`. Both have no `settle` and no `lookback`.
- `stale_after` is not shorter than `every`; `max_delay` is not shorter than `delay`.
- Transformations: a renamed cursor or merge key is followed to its new name; to drop it, to leave it out of
  `select`, to cast it, or to derive over it is a fault.
- In `incremental` mode without `merge_keys`, functions that give another value each time (`rand()`, `uuid()`,
  `current_timestamp()`, …) are a fault in `filter` and `derive`: loaded rows could not be recognised.
- No two pipelines write one table, whatever the names of their connections, and none writes the table it reads.

## Environment variables of the engine on this machine

| variable | default | meaning |
|---|---|---|
| `UDS_SECRET_<SCOPE>_<KEY>` | | the secret that `secret_scope` and `secret_key` name, in capitals, other characters as `_` |
| `UDS_DRIVER_MEMORY` | a quarter of the machine's, 1 to 8 GiB | memory of Spark's driver, such as `3g` |
| `UDS_SPARK_MASTER` | `local[*]` | where Spark runs, and on how many cores |
| `UDS_JAVA_OPTIONS` | | more options for its Java. `-XX:TieredStopAtLevel=1` makes runs of a few seconds shorter, long ones longer |
| `UDS_ENGINE` | this installation's | the command that starts the engine |
"""
