"""The Databricks bundle: what its library checks, and what only a deployment would find out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from databricks.bundles.jobs import Job
from databricks.bundles.pipelines import Pipeline
from databricks.bundles.schemas import Schema
from databricks.bundles.volumes import Volume

from tests.support.bundle import CLI, GIVEN, REFERENCE, Bundle
from tests.support.quartz import quartz_fault

ROOT = Path(__file__).parents[2]
BUNDLE = Bundle(ROOT / "infra/databricks")
STAGES = ("dev", "test", "prod")
TARGETS = ("personal", *STAGES)
KINDS: dict[str, Any] = {"jobs": Job, "pipelines": Pipeline, "schemas": Schema, "volumes": Volume}
DOCUMENT = ROOT / "docs/databricks.md"


def jobs(target: str = "prod") -> dict[str, dict[str, Any]]:
    return BUNDLE.resolved(target)["jobs"]


@pytest.mark.parametrize("target", TARGETS)
def test_the_library_accepts_every_resource(target: str) -> None:
    resources = BUNDLE.resolved(target)
    assert set(resources) <= set(KINDS), "a kind of resource that nothing checks"
    for kind, found in resources.items():
        for key, content in found.items():
            assert KINDS[kind].from_dict(content).as_dict(), (kind, key)


def test_the_expected_resources_are_there() -> None:
    resources = BUNDLE.resolved("prod")
    assert set(resources["jobs"]) == {"sync", "sync_large", "maintenance", "smoke_test"}
    assert set(resources["schemas"]) == {"audit"}
    assert set(resources["volumes"]) == {"runs"}


def test_includes_match_every_file_and_each_key_is_given_once() -> None:
    for pattern in BUNDLE.root["include"]:
        assert list(BUNDLE.folder.glob(pattern)), f"{pattern} matches no file"
    files = {path for path in BUNDLE.folder.rglob("*.yml") if path.name != "databricks.yml"}
    assert set(BUNDLE.included) == files
    keys = [
        (kind, key)
        for content in BUNDLE.included.values()
        for kind, found in content["resources"].items()
        for key in found
    ]
    assert len(keys) == len(set(keys))


def nodes_at(node: dict[str, Any], path: list[str]) -> list[dict[str, Any]]:
    """The mappings at a path, where * stands for every key; none where there is no such key."""
    if not path:
        return [node]
    first, *rest = path
    below = list(node.values()) if first == "*" else [node[first]] if first in node else []
    return [found for child in below for found in nodes_at(child, rest)]


def test_there_are_no_unknown_keys() -> None:
    known = {
        "": {"bundle", "include", "variables", "artifacts", "run_as", "permissions", "targets"},
        "bundle": {"name", "databricks_cli_version"},
        "run_as": {"service_principal_name"},
        "variables.*": {"description", "default"},
        "artifacts.*": {"type", "path", "executable", "build", "files"},
        "targets.*": {"mode", "default", "variables", "workspace", "resources", "presets"},
        "targets.*.workspace": {"root_path"},
        "targets.*.presets": {"tags", "trigger_pause_status"},
    }
    for where, keys in known.items():
        for node in nodes_at(BUNDLE.root, where.split(".") if where else []):
            assert set(node) <= keys, where
    for path, content in BUNDLE.included.items():
        assert set(content) == {"resources"}, path.name


def test_references_name_what_there_is() -> None:
    used = {reference for text in BUNDLE.texts() for reference in REFERENCE.findall(text)}
    variables = {reference.removeprefix("var.") for reference in used if reference.startswith("var.")}
    assert variables == set(BUNDLE.variables), "a variable is used and not declared, or declared and not used"
    resources = {reference for reference in used if reference.startswith("resources.")}
    assert used - resources - {f"var.{name}" for name in variables} <= CLI
    for reference in resources:
        _, kind, key, name = reference.split(".")
        assert name in BUNDLE.resolved("prod")[kind][key], reference
    assert not [text for text in BUNDLE.texts() if re.search(r"\$(?!\{)|\$\{[^}]*$|(?<!\$)\{var\.", text)]


@pytest.mark.parametrize("target", TARGETS)
def test_every_variable_has_a_value_or_must_be_given(target: str) -> None:
    assert {name for name in BUNDLE.variables if BUNDLE.value(target, name) is None} == set(GIVEN)
    assert set(BUNDLE.targets[target].get("variables", {})) <= set(BUNDLE.variables)
    assert all(variable["description"].endswith(".") for variable in BUNDLE.variables.values())


def test_targets() -> None:
    assert tuple(BUNDLE.targets) == TARGETS
    assert [name for name, target in BUNDLE.targets.items() if target.get("default")] == ["personal"]
    assert [target["mode"] for target in BUNDLE.targets.values()] == ["development", *["production"] * 3]
    for name, target in BUNDLE.targets.items():
        assert target["presets"]["tags"] == {"environment": name}
        # A development target in a folder of everybody's would overwrite other people's copies, and the CLI refuses it.
        assert ("root_path" in target.get("workspace", {})) is (target["mode"] == "production")
        # Whoever destroys production's bundle must not lose the audit tables with it.
        for kind, key in (("schemas", "audit"), ("volumes", "runs")):
            kept = BUNDLE.resolved(name)[kind][key].get("lifecycle", {}).get("prevent_destroy", False)
            assert kept is (name in ("test", "prod"))
    assert BUNDLE.targets["prod"]["presets"].get("trigger_pause_status", "UNPAUSED") == "UNPAUSED"


@pytest.mark.parametrize("stage", STAGES)
def test_the_app_of_a_stage_and_the_bundle_mean_the_same_volume(stage: str) -> None:
    """tools/deploy puts an environment's bundle into the target of its name; in development the CLI would prefix the schema."""
    assert BUNDLE.targets[stage]["mode"] == "production"
    assert "name_prefix" not in BUNDLE.targets[stage]["presets"]
    azure = ROOT / "infra/azure"
    assert BUNDLE.value(stage, "catalog") == json.loads((azure / "stages.json").read_text("utf-8"))[stage]["catalog"]
    for file in azure.glob("*.bicepparam"):
        told = dict(re.findall(r"readEnvironmentVariable\('(UDS_\w+)', '([^']*)'\)", file.read_text("utf-8")))
        wanted = {
            "UDS_SCHEMA": "audit_schema",
            "UDS_VOLUME": "volume",
            "UDS_SECRET_SCOPE": "secret_scope",  # pragma: allowlist secret
        }
        assert {name: told[name] for name in wanted} == {
            name: BUNDLE.value(stage, variable) for name, variable in wanted.items()
        }, file.name


@pytest.mark.parametrize("target", TARGETS)
def test_tasks_and_clusters_name_what_there_is(target: str) -> None:
    for name, job in jobs(target).items():
        tasks = [task["task_key"] for task in job["tasks"]]
        clusters = [cluster["job_cluster_key"] for cluster in job["job_clusters"]]
        assert len(set(tasks)) == len(tasks), name
        assert len(set(clusters)) == len(clusters), name
        assert {task["job_cluster_key"] for task in job["tasks"]} == set(clusters), name
        for task in job["tasks"]:
            needed = {one["task_key"] for one in task.get("depends_on", [])}
            assert needed <= set(tasks) - {task["task_key"]}, (name, task["task_key"])
        declared = {parameter["name"] for parameter in job.get("parameters", [])}
        asked = set(re.findall(r"\{\{job\.parameters\.(\w+)\}\}", str(job["tasks"])))
        assert asked == declared, name
        assert not re.search(r"\{\{(?!job\.parameters\.)", str(job)), name


def test_schedules_are_cron_expressions_that_quartz_knows() -> None:
    scheduled = {name: job["schedule"] for name, job in jobs().items() if "schedule" in job}
    assert set(scheduled) == {"maintenance"}
    for name, schedule in scheduled.items():
        assert quartz_fault(schedule["quartz_cron_expression"]) is None, name
        assert schedule["timezone_id"] == "UTC"


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("0 40 2 * * ?", None),
        ("0 0/15 8-18 ? JAN-MAR MON,WED", None),
        ("0 0 12 L * ? 2027-2030", None),
        ("0 0 12 ? * 6#3", None),
        ("0 0 12 15W * ?", None),
        ("40 2 * * ?", "5 fields"),
        ("0 40 2 * * *", "must be ?"),
        ("0 40 2 ? * ?", "must be ?"),
        ("0 60 2 * * ?", "minute"),
        ("0 0 24 * * ?", "hour"),
        ("0 0 0 32 * ?", "day of month"),
        ("0 0 0 ? * 0", "day of week"),
        ("0 0 0 ? FOO MON", "month"),
        ("0 0/0 0 * * ?", "minute"),
    ],
)
def test_the_check_of_cron_expressions(expression: str, fault: str | None) -> None:
    found = quartz_fault(expression)
    assert found is None if fault is None else fault in str(found)


def test_a_failed_run_is_the_control_planes_to_retry_and_none_is_skipped() -> None:
    for name, job in jobs().items():
        assert [task["max_retries"] for task in job["tasks"]] == [0] * len(job["tasks"]), name
        assert job["queue"] == {"enabled": True}, name
        assert 1 <= job["max_concurrent_runs"] <= 1000
        assert job["timeout_seconds"] > 0
        assert all(rule["value"] < job["timeout_seconds"] for rule in job.get("health", {}).get("rules", []))


def sync_jobs() -> dict[str, dict[str, Any]]:
    return {name: job for name, job in jobs().items() if name == "sync" or name.startswith("sync_")}


def test_each_compute_group_has_its_job_named_after_it() -> None:
    """tools/deploy hands `sync` to the control plane as the group default, and `sync_NAME` as the group NAME."""
    assert len(sync_jobs()) == 2
    for key, job in sync_jobs().items():
        group = "default" if key == "sync" else key.removeprefix("sync_")
        assert job["tags"]["compute_group"] == group
        assert [one["new_cluster"]["custom_tags"]["compute_group"] for one in job["job_clusters"]] == [group]
        hints = job["webhook_notifications"]
        assert hints["on_success"] == hints["on_failure"] == [{"id": GIVEN["webhook_destination"]}]
        assert [parameter["name"] for parameter in job["parameters"]] == ["manifest"]


def test_the_principal_of_the_jobs_may_read_the_wheel() -> None:
    """What stands at the top holds for the folder of the deployment; CAN_VIEW is read there, and to look at runs."""
    assert BUNDLE.root["permissions"] == [{**BUNDLE.root["run_as"], "level": "CAN_VIEW"}]


def test_who_may_do_what() -> None:
    assert BUNDLE.root["run_as"] == {"service_principal_name": "${var.service_principal}"}
    groups = {name: BUNDLE.value("prod", name) for name in BUNDLE.variables if name.endswith("_group")}
    levels = {"admins_group": "CAN_MANAGE", "engineers_group": "CAN_MANAGE_RUN", "viewers_group": "CAN_VIEW"}
    wanted = [{"group_name": groups[name], "level": level} for name, level in levels.items()]
    starter = {"service_principal_name": GIVEN["service_principal"], "level": "CAN_MANAGE_RUN"}
    for key, job in jobs().items():
        assert job["permissions"] == [*wanted, starter] if key in sync_jobs() else job["permissions"] == wanted, key
    writers = {"${var.service_principal}", "${var.control_plane}"}
    written = {
        kind: {grant["principal"]: set(grant["privileges"]) for grant in content["resources"][kind][key]["grants"]}
        for content in BUNDLE.included.values()
        for kind, key in (("schemas", "audit"), ("volumes", "runs"))
        if kind in content["resources"]
    }
    assert {who for who, what in written["volumes"].items() if "WRITE_VOLUME" in what} == writers
    assert "${var.viewers_group}" not in written["volumes"], "a failed run's result may quote a row"
    assert written["schemas"]["${var.control_plane}"] == {"USE_SCHEMA"}
    assert written["schemas"]["${var.service_principal}"] == {"USE_SCHEMA", "CREATE_TABLE", "SELECT", "MODIFY"}
    assert all("USE_SCHEMA" in what for what in written["schemas"].values())
    assert not [what for grants in written.values() for what in grants.values() if "ALL_PRIVILEGES" in what]


def test_every_variable_and_job_is_documented() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    section = text.partition("\n## Variables\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \|", section, re.MULTILINE)
    assert [name for name, _ in rows] == list(BUNDLE.variables)
    for name, value in rows:
        default = BUNDLE.variables[name].get("default")
        if name in GIVEN:
            assert value == "must be given"
        elif default is not None and not default.startswith("$"):
            assert value == f"`{default}`"
    for name in (*jobs(), "audit", "runs"):
        assert f"`{name}`" in text, name
