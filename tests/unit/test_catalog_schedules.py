"""Schedules, retries, alerts and channels: what they become, how layers meet, and every fault of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_core.catalog import Catalog, CatalogError, Fault, load_catalog
from sync_core.catalog.cron import cron_fault
from sync_core.domain.alert import AlertRules
from sync_core.domain.connection import Channel, SecretReference
from sync_core.domain.pipeline import Pipeline
from sync_core.domain.schedule import After, Cron, Every, OnDemand, Retry

CONNECTIONS = """\
connections:
  shop: {type: postgresql, host: db, database: shop, username: sync}
  lake: {type: databricks, path: ./lake}
channels:
  ops:
    type: webhook
    url: https://alerts.example.com/sync
    secret_scope: kv
    secret_key: ops
  chat: {type: apprise, secret_scope: kv, secret_key: chat, conditions: [failed, stale]}
"""

Load = Callable[..., Catalog]
Faults = Callable[..., tuple[Fault, ...]]


def entry(name: str, rest: str = "") -> str:
    """A pipeline whose further keys stand on the lines after its first."""
    head = f"  - {{pipeline_id: {name}, source: {{connection: shop, table: {name}}}, target: {{connection: lake, table: {name}}}, mode: full_refresh"
    return head + "".join(f",\n     {line}" for line in rest.splitlines()) + "}\n"


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def write(
        pipelines: str,
        defaults: str = "",
        overlay: str = "",
        connections: str = CONNECTIONS,
        variables: dict[str, str] | None = None,
    ) -> Catalog:
        (tmp_path / "environments").mkdir(exist_ok=True)
        (tmp_path / "connections.yml").write_text(connections)
        (tmp_path / "pipelines.yml").write_text(f"defaults: {{{defaults}}}\npipelines:\n{pipelines}")
        (tmp_path / "environments/e.yml").write_text(overlay or "pipelines: []")
        return load_catalog(tmp_path, "e", variables or {})

    return write


@pytest.fixture
def faults(load: Load) -> Faults:
    def find(*arguments: str, **named: str) -> tuple[Fault, ...]:
        try:
            load(*arguments, **named)
        except CatalogError as error:
            return error.faults
        return ()

    return find


def one(found: tuple[Fault, ...]) -> Fault:
    assert len(found) == 1, "\n".join(map(str, found))
    assert found[0].remedy
    return found[0]


def test_every_key_becomes_the_domains_words(load: Load) -> None:
    text = entry(
        "a",
        """\
schedule: {cron: "*/15  6-20 * * MON-FRI", timezone: Europe/Oslo, catch_up: all}
paused: true
compute: large
retry: {attempts: 5, delay: 30s, max_delay: 10m}
timeout: 2h
alerts: {failed: false, stale_after: 90m, max_duration: 1h, zero_rows: false, schema_changes: false, repeat_every: 1d}
owner: sales team
channels: [chat, ops]""",
    )
    pipeline = load(text).pipelines["a"]
    assert pipeline.schedule == Cron("*/15 6-20 * * MON-FRI", "Europe/Oslo", "all")
    assert (pipeline.paused, pipeline.compute, pipeline.timeout_seconds) == (True, "large", 7200.0)
    assert pipeline.retry == Retry(5, 30.0, 600.0)
    assert pipeline.alerts == AlertRules(False, 5400.0, 3600.0, False, False, 86_400.0)
    assert (pipeline.owner, pipeline.channels) == ("sales team", ("chat", "ops"))


def test_without_any_of_them_the_domains_defaults_hold(load: Load) -> None:
    pipeline = load(entry("a")).pipelines["a"]
    plain = Pipeline("a", pipeline.source, pipeline.target, pipeline.mode)
    assert pipeline == plain
    assert plain.schedule == OnDemand()


@pytest.mark.parametrize(
    ("written", "schedule"),
    [
        ("{every: 15m}", Every(900.0)),
        ("{every: 90s, catch_up: all}", Every(90.0, "all")),
        ("{after: [b]}", After(("b",))),
        ("{on_demand: true}", OnDemand()),
        ('{cron: "0 3 L * *"}', Cron("0 3 L * *")),
        ('{cron: "${CRON}", timezone: "${ZONE:-Asia/Kolkata}"}', Cron("1 2 * * *", "Asia/Kolkata")),
        ('{every: "${EVERY}"}', Every(300.0)),
        ('{after: ["${OTHER}"]}', After(("b",))),
        ('{on_demand: "${YES}"}', OnDemand()),
    ],
)
def test_kinds_of_schedule(load: Load, written: str, schedule: object) -> None:
    variables = {"CRON": "1 2 * * *", "EVERY": "5m", "OTHER": "b", "YES": "true"}
    assert (
        load(entry("a", f"schedule: {written}") + entry("b"), variables=variables).pipelines["a"].schedule == schedule
    )


def test_the_longest_pause_is_never_below_the_first(load: Load) -> None:
    assert load(entry("a", "retry: {delay: 2h}")).pipelines["a"].retry == Retry(3, 7200.0, 7200.0)


def test_channels_and_concurrency_become_the_domains_words(load: Load) -> None:
    limited = CONNECTIONS.replace("database: shop,", 'database: shop, max_concurrent: "${N}",')
    overlay = "channels: {ops: {url: 'http://localhost:8080/x', conditions: [dead_letters]}}"
    catalog = load(entry("a"), overlay=overlay, connections=limited, variables={"N": "3"})
    assert (catalog.connections["shop"].max_concurrent, catalog.connections["lake"].max_concurrent) == (3, None)
    assert catalog.channels == {
        "ops": Channel("ops", "webhook", "http://localhost:8080/x", SecretReference("kv", "ops"), ("dead_letters",)),
        "chat": Channel("chat", "apprise", None, SecretReference("kv", "chat"), ("failed", "stale")),
    }
    assert type(catalog.channels["chat"].conditions[0]) is str


CRON = 'schedule: {cron: "0 5 * * *", timezone: Europe/Oslo, catch_up: all}'


@pytest.mark.parametrize(
    ("defaults", "own", "schedule"),
    [
        (CRON, "", Cron("0 5 * * *", "Europe/Oslo", "all")),
        (CRON, "schedule: {after: [b]}", After(("b",))),
        (CRON, "schedule: {every: 5m}", Every(300.0)),
        (CRON, "schedule: {cron: ~, every: 5m, timezone: ~}", Every(300.0)),
        (CRON, "schedule: {on_demand: true}", OnDemand()),
        (CRON, "schedule: ~", OnDemand()),
        (CRON, 'schedule: {cron: "0 6 * * *"}', Cron("0 6 * * *", "Europe/Oslo", "all")),
        (CRON, 'schedule: {cron: "0 6 * * *", timezone: ~}', Cron("0 6 * * *", "UTC", "all")),
        (CRON, "schedule: {timezone: UTC}", Cron("0 5 * * *", "UTC", "all")),
        ("schedule: {timezone: Asia/Kolkata, catch_up: all}", "", OnDemand()),
        ("schedule: {timezone: Asia/Kolkata, catch_up: all}", 'schedule: {cron: "0 6 * * *"}', Cron("0 6 * * *", "Asia/Kolkata", "all")),
        ("schedule: {timezone: Asia/Kolkata, catch_up: all}", "schedule: {every: 5m}", Every(300.0, "all")),
        ("schedule: {timezone: Asia/Kolkata, catch_up: all}", "schedule: {every: 5m, catch_up: ~}", Every(300.0)),
        ("schedule: {timezone: Asia/Kolkata, catch_up: all}", "schedule: {after: [b]}", After(("b",))),
        ("schedule: {every: 5m, catch_up: all}", "schedule: {every: 10m}", Every(600.0, "all")),
        ("schedule: {after: [b]}", "schedule: {every: 10m}", Every(600.0)),
    ],
)  # fmt: skip
def test_a_schedule_of_another_kind_replaces_the_default(load: Load, defaults: str, own: str, schedule: object) -> None:
    assert load(entry("a", own) + entry("b", "schedule: ~"), defaults).pipelines["a"].schedule == schedule


def test_an_environment_changes_schedules_and_alerts(load: Load) -> None:
    overlay = """\
defaults: {alerts: {repeat_every: 1h}}
pipelines:
  - {pipeline_id: a, schedule: {every: 1h}, paused: true}
  - {pipeline_id: b, schedule: {timezone: UTC}, alerts: {stale_after: ~}}
"""
    text = entry("a") + entry("b", "alerts: {max_duration: 1h}")
    pipelines = load(text, CRON + ", alerts: {stale_after: 2d, failed: false}", overlay).pipelines
    assert (pipelines["a"].schedule, pipelines["a"].paused) == (Every(3600.0), True)
    assert pipelines["b"].schedule == Cron("0 5 * * *", "UTC", "all")
    assert pipelines["a"].alerts == AlertRules(failed=False, stale_after=172_800.0, repeat_every=3600.0)
    assert pipelines["b"].alerts == AlertRules(failed=False, max_duration=3600.0, repeat_every=3600.0)


def test_pipelines_of_tables_may_be_named_after(load: Load) -> None:
    text = """\
  - source: {connection: shop}
    target: {connection: lake}
    mode: full_refresh
    tables: [s.a, {name: s.b, schedule: {after: [s.a]}}]
""" + entry("c", "schedule: {after: [s.a, s.b]}")
    pipelines = load(text).pipelines
    assert (pipelines["s.b"].schedule, pipelines["c"].schedule) == (After(("s.a",)), After(("s.a", "s.b")))


PIPELINE_FAULTS = [
    # what is written on line 4 of the file; path, message, remedy
    ("schedule: 15m", "schedule", "must be a mapping, not text", "{every: 15m}"),
    ("schedule: [15m]", "schedule", "must be a mapping, not a list", "{every: 15m}"),
    ('schedule: "${UNSET}"', "schedule", "UNSET is not set", "${UNSET:-default}"),
    ("schedule: {}", "schedule", "does not say when", "cron, every, after and on_demand: true"),
    ("schedule: {timezone: UTC}", "schedule", "does not say when", "cron"),
    ('schedule: {cron: "* * * * *", every: 5m}', "schedule.every", "stands beside cron", "keep one"),
    ("schedule: {after: [b], on_demand: true}", "schedule.on_demand", "stands beside after", "keep one"),
    ("schedule: {on_demand: false}", "schedule.on_demand", "says nothing", "cron, every or after"),
    ("schedule: {on_demand: yes}", "schedule.on_demand", "neither true nor false", "true"),
    ("schedule: {every: 5m, timezone: UTC}", "schedule.timezone", "means nothing without cron", "remove"),
    ("schedule: {after: [b], timezone: UTC}", "schedule.timezone", "means nothing without cron", "remove"),
    ("schedule: {after: [b], catch_up: all}", "schedule.catch_up", "means nothing without cron or every", "remove"),
    ("schedule: {every: 5m, catch_up: none}", "schedule.catch_up", "'none' is not known", "latest or all"),
    ("schedule: {every: 59s}", "schedule.every", "'59s' is shorter than 1m", "1m or more"),
    ("schedule: {every: 5}", "schedule.every", "'5' is not a duration", "30s"),
    ("schedule: {evry: 5m}", "schedule.evry", "is not known", "write every"),
    ("cron: '* * * * *'", "cron", "is not known", "write schedule.cron"),
    ("depends_on: [b]", "depends_on", "is not known", "write schedule.after"),
    ('schedule: {cron: "0 0 * * * *"}', "schedule.cron", "'0 0 * * * *' has 6 fields where cron has 5", "leave out the seconds"),
    ('schedule: {cron: "* * * *"}', "schedule.cron", "has 4 fields", "minute hour day month weekday"),
    ("schedule: {cron: daily}", "schedule.cron", "has 1 field where", "minute hour day month weekday"),
    ('schedule: {cron: "@daily"}', "schedule.cron", "short form", '"0 0 * * *"'),
    ('schedule: {cron: "0 0 ? * 1"}', "schedule.cron", "holds a ?", "write *"),
    ('schedule: {cron: "60 * * * *"}', "schedule.cron", "'60 * * * *' is not a cron expression: its minute is wrong", "0 to 59"),
    ('schedule: {cron: "* 24 * * *"}', "schedule.cron", "its hour is wrong", "0 to 23"),
    ('schedule: {cron: "* * 32 * *"}', "schedule.cron", "its day of the month is wrong", "1 to 31"),
    ('schedule: {cron: "* * * 13 *"}', "schedule.cron", "its month is wrong", "JAN to DEC"),
    ('schedule: {cron: "* * * * FRI-MON"}', "schedule.cron", "its weekday is wrong", "MON-FRI"),
    ('schedule: {cron: "0 0 30 2 *"}', "schedule.cron", "'0 0 30 2 *' never fires", "a day that the month has"),
    ('schedule: {cron: "0 0 31 4,6 *"}', "schedule.cron", "never fires", "a day that the month has"),
    ('schedule: {cron: "30 2 * 3 0L", timezone: Europe/Oslo}', "schedule.cron", "never fires", "put forward"),
    ("schedule: {cron: '* * * * *', timezone: Oslo}", "schedule.timezone", "'Oslo' is not an IANA time zone", "write"),
    ("schedule: {after: b}", "schedule.after", "must be a list, not text", "list"),
    ("schedule: {after: []}", "schedule.after", "is empty", "at least one"),
    ("schedule: {after: [b, b]}", "schedule.after", "names b twice", "once"),
    ("schedule: {after: [bb]}", "schedule.after[0]", "there is no pipeline 'bb'", "write b"),
    ("schedule: {after: [b, sales.*]}", "schedule.after[1]", "is a pattern", "each pipeline_id"),
    ("schedule: {after: ['tag:night']}", "schedule.after[0]", "is a pattern", "each pipeline_id"),
    ("schedule: {after: [a]}", "schedule.after[0]", "a would run after itself", "take it out"),
    ("paused: maybe", "paused", "neither true nor false", "true"),
    ("compute: a b", "compute", "'a b' is not a compute group", "large"),
    ("retry: 3", "retry", "must be a mapping", "key: value"),
    ("retry: {attempts: 0}", "retry.attempts", "'0' is not a whole number from 1 to 10", "plain digits"),
    ("retry: {attempts: 11}", "retry.attempts", "'11' is not a whole number from 1 to 10", "plain digits"),
    ("retry: {delay: 1}", "retry.delay", "'1' is not a duration", "30s"),
    ("retry: {delay: 2h, max_delay: 1h}", "retry.max_delay", "max_delay '1h' is shorter than delay '2h'", "longer"),
    ("retry: {max_delay: 30s}", "retry.max_delay", "max_delay '30s' is shorter than delay 1m", "longer"),
    ("timeout: 30s", "timeout", "'30s' is shorter than 1m", "1m or more"),
    ("timeout: long", "timeout", "'long' is not a duration", "30s"),
    ("alerts: {stale_after: true}", "alerts.stale_after", "not a duration", "2h"),
    ("alerts: {stale_after: 5s}", "alerts.stale_after", "shorter than 1m", "1m"),
    ("alerts: {repeat_every: 0s}", "alerts.repeat_every", "shorter than 1m", "1m"),
    ("alerts: {failed: 5m}", "alerts.failed", "neither true nor false", "true"),
    ("alerts: {stale: 5m}", "alerts.stale", "is not known", "stale_after"),
    ("stale_after: 5m", "stale_after", "is not known", "write alerts.stale_after"),
    ("schedule: {every: 15m}, alerts: {stale_after: 5m}", "alerts.stale_after", "'5m' is shorter than the schedule's own interval '15m'", "longer"),
    ("channels: ops", "channels", "must be a list", "list"),
    ("channels: [opps]", "channels[0]", "there is no channel 'opps'", "write ops"),
    ("channels: [ops, x]", "channels[1]", "there is no channel 'x'", "one of ops, chat"),
    ("owner: {a: b}", "owner", "must be text", "one value"),
    ('schedule: {cron: "${UNSET}"}', "schedule.cron", "UNSET is not set", "${UNSET:-default}"),
    ('schedule: {after: ["${UNSET}"]}', "schedule.after[0]", "UNSET is not set", "${UNSET:-default}"),
]  # fmt: skip


@pytest.mark.parametrize(("written", "path", "message", "remedy"), PIPELINE_FAULTS)
def test_faults_of_a_pipeline(faults: Faults, written: str, path: str, message: str, remedy: str) -> None:
    fault = one(faults(entry("a", written) + entry("b")))
    assert (Path(fault.file).name, fault.line, fault.path) == ("pipelines.yml", 4, f"pipelines[0].{path}")
    assert message in fault.message
    assert remedy in fault.remedy


def test_a_stale_limit_that_is_longer_or_uncertain_is_none_of_them(faults: Faults) -> None:
    limit = "\nalerts: {stale_after: 15m}"
    assert faults(entry("a", "schedule: {every: 15m}" + limit)) == ()
    assert faults(entry("a", 'schedule: {cron: "0 0 * * *"}' + limit)) == ()


def test_of_an_inherited_stale_limit_the_pipelines_own_part_is_named(faults: Faults) -> None:
    fault = one(faults(entry("a", "schedule: {every: 1d}"), "alerts: {stale_after: 2h}"))
    assert (fault.line, fault.path) == (4, "pipelines[0].schedule.every")
    assert "in this pipeline" in fault.remedy
    fault = one(faults(entry("a"), "alerts: {stale_after: 2h}, schedule: {every: 1d}"))
    assert (fault.line, fault.path) == (1, "defaults.alerts.stale_after")
    fault = one(faults(entry("a", "retry: {delay: 2h}"), "retry: {max_delay: 1h}"))
    assert (fault.line, fault.path) == (4, "pipelines[0].retry.delay")


def test_faults_of_defaults_are_told_without_a_pipeline_that_inherits_them(faults: Faults) -> None:
    own = entry("a", "schedule: ~\nchannels: ~")
    found = faults(own, 'schedule: {cron: "0 0 30 2 *", every: 5m}, channels: [nobody]')
    assert [(fault.line, fault.path) for fault in found] == [
        (1, "defaults.channels[0]"),
        (1, "defaults.schedule.cron"),
        (1, "defaults.schedule.every"),
    ]


def test_defaults_that_run_after_a_pipeline_spare_it(faults: Faults) -> None:
    fault = one(faults(entry("a") + entry("b"), "schedule: {after: [b]}"))
    assert (fault.path, fault.message) == ("defaults.schedule.after[0]", "b would run after itself")
    assert "give b a schedule of its own" in fault.remedy
    assert faults(entry("a") + entry("b", "schedule: {every: 5m}"), "schedule: {after: [b]}") == ()


def test_circles_are_named(faults: Faults) -> None:
    text = "".join(
        entry(name, f"schedule: {{after: [{after}]}}")
        for name, after in (("a", "b"), ("b", "free, c"), ("c", "a"), ("d", "a"), ("x", "y"), ("y", "x"))
    )
    found = faults(text + entry("free"))
    assert [(fault.line, fault.path, fault.message) for fault in found] == [
        (8, "pipelines[2].schedule.after[0]", "the pipelines wait for each other: a → b → c → a"),
        (14, "pipelines[5].schedule.after[0]", "the pipelines wait for each other: x → y → x"),
    ]
    assert "take one of them out" in found[0].remedy


def test_a_long_circle_is_cut_and_a_long_chain_is_none(faults: Faults) -> None:
    chain = "".join(entry(f"p{n}", f"schedule: {{after: [p{n + 1}]}}") for n in range(1500))
    assert faults(chain + entry("p1500")) == ()
    fault = one(faults(chain + entry("p1500", "schedule: {after: [p0]}")))
    assert fault.message.endswith("p0 → p1 → p2 → p3 → p4 → p5 → p6 → … → p0")


def test_names_are_not_looked_for_where_a_file_could_not_be_read(tmp_path: Path, faults: Faults) -> None:
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines/more.yml").write_text("pipelines: [")
    fault = one(faults(entry("a", "schedule: {after: [elsewhere]}\nchannels: [ops]")))
    assert Path(fault.file).name == "more.yml"
    found = faults(entry("a", "channels: [unseen]"), connections="connections: [")
    assert {Path(fault.file).name for fault in found} == {"more.yml", "connections.yml"}


CHANNEL_FAULTS = [
    ("type: webhook", "type: slack", 6, "type", "the value is not known here", "webhook or apprise"),
    ("    type: webhook\n", "", 5, "type", "is missing", "type: webhook"),
    ("    url: https://alerts.example.com/sync\n", "", 5, "url", "is missing", "https://"),
    ("https://alerts", "http://alerts", 7, "url", "is plain http", "on this machine alone"),
    ("https://alerts", "ftp://alerts", 7, "url", "is not an https address", "https://"),
    ("https://alerts.example.com/sync", "alerts", 7, "url", "is not an https address", "https://"),
    ("https://alerts.example.com/sync", "https://[x/", 7, "url", "is not an address", "https://"),
    ("https://alerts.example.com/sync", "https://h:99999/", 7, "url", "is not an address", "https://"),
    ("    secret_scope: kv\n    secret_key: ops\n", "", 5, "secret_key", "needs a secret", "write secret_scope"),
    ("    secret_key: ops\n", "", 8, "secret_scope", "without secret_key", "write secret_key"),
    ("    secret_scope: kv\n", "", 8, "secret_key", "without secret_scope", "write secret_scope"),
    ("type: webhook", "type: apprise", 7, "url", "means nothing for type apprise", "the whole address as a secret"),
    ("type: webhook", "type: webhook\n    conditions: [faild]", 7, "conditions[0]", "the value is not known", "write failed (or"),
    ("type: webhook", "type: webhook\n    conditions: failed", 7, "conditions", "must be a list", "list"),
    ("type: webhook", "type: webhook\n    conditions: []", 7, "conditions", "is empty", "at least one"),
    ("type: webhook", "type: webhook\n    conditions: [failed, failed]", 7, "conditions", "names failed twice", "once"),
    ("type: webhook", "type: webhook\n    events: [failed]", 7, "events", "is not known", "known are"),
    ("  ops:", "  o ps:", 5, "", "not a channel's name", "letters"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "line", "path", "message", "remedy"), CHANNEL_FAULTS)
def test_faults_of_a_channel(
    faults: Faults, old: str, new: str, line: int, path: str, message: str, remedy: str
) -> None:
    assert old in CONNECTIONS
    fault = one(faults(entry("a"), connections=CONNECTIONS.replace(old, new, 1)))
    assert (Path(fault.file).name, fault.line) == ("connections.yml", line)
    assert fault.path == (f"channels.ops.{path}" if path else "channels.o…")
    assert message in fault.message
    assert remedy in fault.remedy


def test_channels_stand_in_the_connections_file_alone(faults: Faults, tmp_path: Path) -> None:
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines/more.yml").write_text("channels: {}\npipelines: []\n")
    fault = one(faults(entry("a")))
    assert (fault.path, fault.message, fault.remedy) == (
        "channels",
        "does not belong here",
        "move it to connections.yml",
    )


def test_an_environment_changes_the_channels_that_are_there(faults: Faults) -> None:
    overlay = "channels: {opps: {type: webhook}}"
    fault = one(faults(entry("a"), overlay=overlay))
    assert (Path(fault.file).name, fault.path, fault.remedy) == ("e.yml", "channels.opps", "write ops")
    fault = one(faults(entry("a"), overlay=overlay, connections=CONNECTIONS.partition("channels:")[0]))
    assert fault.remedy == "write it beneath channels: in connections.yml"


def test_a_channel_without_any_is_to_be_written(faults: Faults) -> None:
    fault = one(faults(entry("a", "channels: [ops]"), connections=CONNECTIONS.partition("channels:")[0]))
    assert fault.remedy == "write it in connections.yml beneath channels:"


@pytest.mark.parametrize("written", ["0", "-1", "x", "1.5", "10001"])
def test_max_concurrent_is_a_whole_number(faults: Faults, written: str) -> None:
    connections = CONNECTIONS.replace("database: shop,", f"database: shop, max_concurrent: {written},")
    fault = one(faults(entry("a"), connections=connections))
    assert (fault.line, fault.path) == (2, "connections.shop.max_concurrent")
    assert fault.message == "the value is not a whole number from 1 to 10000"


SECRET = "hunter2Xq"  # pragma: allowlist secret


@pytest.mark.parametrize(
    "line",
    [
        "password: hunter2Xq",
        "secret: whsec_hunter2Xq",
        "token: hunter2Xq",
        "secret_key: whsec_hunter2Xq",
        "secret_key: msteams://hunter2Xq/a/b",
        "secret_scope: hunter2Xq/+=",
        "url: https://user:hunter2Xq@alerts.example.com/",  # pragma: allowlist secret
        "url: https://hunter2Xq@alerts.example.com/",
        "url: https://alerts.example.com/?token=hunter2Xq",
        "url: https://alerts.example.com/?a=1&code=hunter2Xq",
        "url: https://alerts.example.com/x?sig=hunter2Xq",
        "url: slack://hunter2Xq/b/c",
        "url: '${SECRET}'",
        "url: 'https://${SECRET}@h/'",
        "type: hunter2Xq",
        "conditions: [hunter2Xq]",
        "hunter2Xq",
    ],
)
@pytest.mark.parametrize("kind", ["webhook", "apprise"])
def test_p26_no_secret_of_a_channel_in_faults(load: Load, line: str, kind: str) -> None:
    text = CONNECTIONS.partition("channels:")[0] + f"channels:\n  ops:\n    {line}\n"
    if not line.startswith("type"):
        text += f"    type: {kind}\n"
    with pytest.raises(CatalogError) as failure:
        load(entry("a"), connections=text, variables={"SECRET": SECRET})
    assert SECRET.lower() not in f"{failure.value} {failure.value.faults!r}".lower()


def test_p26_an_address_in_the_place_of_a_channels_name_is_not_shown(faults: Faults) -> None:
    fault = one(faults(entry("a", "channels: ['slack://hunter2Xq/b/c']")))
    assert "is an address" in fault.message
    assert SECRET not in f"{fault!r}"


@given(
    st.text(max_size=30)
    | st.lists(st.text("0123456789*/,-LW#?@MONJA ", min_size=1, max_size=5), max_size=7).map(" ".join)
)
def test_any_text_is_a_cron_expression_or_has_a_fault(text: str) -> None:
    fault = cron_fault(text)
    assert fault is None or all(fault)


def test_numbers_of_any_size_are_no_cron(faults: Faults) -> None:
    fault = one(faults(entry("a", f'schedule: {{cron: "{"9" * 5000} * * * *"}}')))
    assert "cron" in fault.message
