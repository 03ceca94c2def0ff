"""infra/azure against the code: every queue, table, route, function and app setting that one names and the other must have."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from sync_core.adapters.service_bus_queue import REJECTED
from sync_core.adapters.table_store import TableStore
from sync_core.domain.errors import ConfigError
from sync_core.messages import QUEUES
from sync_core.settings import read_azure_settings
from sync_core.telemetry_settings import read_telemetry_settings
from tests.support.bicep import Template, at, properties, read, string, text
from tests.support.bicep_rules import app_settings

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "infra/azure"
SHELL = (ROOT / "function_app.py").read_text(encoding="utf-8")

LOCAL = {"UDS_DATABRICKS_LOCAL_TOKEN", "ServiceBusConnection"}
"""A token and a connection string, for servers on one machine alone."""


def module(name: str) -> Template:
    return read(FOLDER / "modules" / name)


class Asked(dict[str, str]):
    """An empty environment that remembers what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def get(self, key: str, default: object = None) -> object:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.names.add(key)
        return default


def given() -> dict[str, str]:
    return {
        name: text(value)
        for name, value in app_settings(read(FOLDER / "main.bicep"), module("function-app.bicep")).items()
    }


def test_every_setting_that_the_app_asks_for_is_set() -> None:
    asked = Asked()
    with pytest.raises(ConfigError):
        read_azure_settings(asked)
    read_telemetry_settings(asked, "dev")
    assert "UDS_LINEAGE_URL" in asked.names
    asked.names = {name for name in asked.names if not name.startswith("OTEL_")}
    assert "UDS_TABLES" in asked.names
    assert asked.names - LOCAL - set(given()) == set()
    assert set(given()) & LOCAL == set()


def test_the_settings_are_such_as_the_app_takes() -> None:
    """Their form, with plausible values in the places of the resources."""
    stand_ins: Mapping[str, str] = {
        "storage.outputs.tablesUrl": "https://stsync.table.core.windows.net",
        "serviceBus.outputs.hostName": "sb-sync.servicebus.windows.net",
        "keyVault.outputs.url": "https://kv-sync.vault.azure.net",
        "secretScope": "uds",  # pragma: allowlist secret
        "furtherVaults": "finance=https://kv-finance.vault.azure.net",
        "catalog": "main",
        "auditSchema": "uds",
        "volume": "runs",
        "databricksJobs": "default=123,large=456",
        "webhookSecret": "uds/databricks-webhook",  # pragma: allowlist secret
        "identityClientId": "00000000-0000-0000-0000-000000000000",
    }

    def value(expression: str) -> str:
        chosen = expression.partition(" ? ")[2].partition(" : ")[2] or expression
        if chosen.startswith("'"):
            return re.sub(r"\$\{([^}]*)\}", lambda found: stand_ins[found.group(1)], chosen[1:-1])
        return stand_ins.get(chosen, "https://adb-1.azuredatabricks.net")

    names = ("UDS_", "AZURE_CLIENT_ID", "ServiceBusConnection__fully")
    settings = read_azure_settings({name: value(text) for name, text in given().items() if name.startswith(names)})
    assert settings.jobs == {"default": 123, "large": 456}
    assert settings.run_folder == "/Volumes/main/uds/runs"
    assert settings.vaults == {
        "uds": "https://kv-sync.vault.azure.net",
        "finance": "https://kv-finance.vault.azure.net",
    }
    assert settings.audit is not None
    assert (settings.audit.catalog, settings.audit.schema) == ("main", "uds")
    assert settings.config == Path("config/compiled.json")


def test_the_host_signs_in_by_identity_everywhere() -> None:
    found = given()
    for connection in ("AzureWebJobsStorage", "ServiceBusConnection"):
        assert found[f"{connection}__credential"] == "'managedidentity'"
        assert found[f"{connection}__clientId"] == "identityClientId"
        assert connection not in found, "that would be a connection string"
    assert found["APPLICATIONINSIGHTS_AUTHENTICATION_STRING"] == "'ClientId=${identityClientId};Authorization=AAD'"
    assert re.findall(r'CONNECTION = "(\w+)"', SHELL) == ["ServiceBusConnection"]


def test_flex_consumption_refuses_none_of_the_settings() -> None:
    refused = re.compile(r"FUNCTIONS_EXTENSION_VERSION|FUNCTIONS_WORKER_RUNTIME|WEBSITE_|SCM_|ENABLE_ORYX_BUILD")
    assert [name for name in given() if refused.match(name)] == []


def test_every_queue_of_the_code_is_made_and_granted() -> None:
    bus = module("service-bus.bicep")
    queues = [properties(entry) for entry in bus.variables["queues"].named_children if entry.type == "object"]
    assert sorted(string(queue["name"]) for queue in queues) == sorted([*QUEUES, REJECTED])
    roles = module("role-assignments.bicep")
    assert sorted(string(one) for one in roles.variables["triggerQueues"].named_children) == sorted(QUEUES)
    rejected = at(roles.resources["rejectedQueue"].body, "name")
    assert rejected is not None
    assert string(rejected) == REJECTED


def test_the_functions_are_triggered_by_queues_that_are_made() -> None:
    assert sorted(re.findall(r'queue_name="([a-z-]+)"', SHELL)) == sorted(QUEUES)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("requiresDuplicateDetection", "true"),
        ("duplicateDetectionHistoryTimeWindow", "'PT10M'"),
        ("requiresSession", "false"),
        ("lockDuration", "'PT5M'"),
        ("maxDeliveryCount", "10"),
        ("deadLetteringOnMessageExpiration", "true"),
    ],
)
def test_queues_are_what_the_flows_count_on(name: str, expected: str) -> None:
    value = at(module("service-bus.bicep").resources["queue"].body, f"properties.{name}")
    assert value is not None
    assert text(value) == expected


def test_messages_outlive_the_longest_wait() -> None:
    """An alert is tried for three days, and a request may wait for a paused pipeline."""
    entries = [
        properties(one)
        for one in module("service-bus.bicep").variables["queues"].named_children
        if one.type == "object"
    ]
    assert min(int(string(entry["timeToLive"])[1:-1]) for entry in entries) > 3


def test_the_state_table_is_the_stores_own() -> None:
    defaults = TableStore.__init__.__defaults__
    assert defaults is not None
    name = at(module("storage.bicep").resources["stateTable"].body, "name")
    assert name is not None
    assert string(name) == defaults[0]


def test_only_routes_with_a_lock_of_their_own_are_open() -> None:
    paths = at(
        module("http-sign-in.bicep").resources["authentication"].body, "properties.globalValidation.excludedPaths"
    )
    assert paths is not None
    open_paths = [string(one) for one in paths.named_children if one.type == "string"]
    assert open_paths == ["/api/health", "/api/webhooks/databricks"]
    for path in open_paths:
        assert f'@app.route("{path.removeprefix("/api/")}"' in SHELL


def test_a_browsers_sign_in_finds_the_identity_that_stands_in_for_a_secret() -> None:
    name = at(
        module("http-sign-in.bicep").resources["authentication"].body,
        "properties.identityProviders.azureActiveDirectory.registration.clientSecretSettingName",
    )
    assert name is not None
    source = (FOLDER / "modules/function-app.bicep").read_text(encoding="utf-8")
    assert f"{string(name)}: identityClientId" in source


def test_alarms_ask_for_functions_that_exist() -> None:
    rules = module("alerts.bicep")
    criteria = at(rules.resources["silence"].body, "properties.criteria")
    assert criteria is not None
    named = set(re.findall(r'has "(\w+)"', text(criteria)))
    assert named == {"tick"}
    assert all(re.search(rf"^async def {name}\(", SHELL, re.MULTILINE) for name in named)


def test_instances_are_kept_for_functions_that_exist() -> None:
    stages = json.loads((FOLDER / "stages.json").read_text(encoding="utf-8"))
    names = [one["name"] for sizes in stages.values() for one in sizes["alwaysReady"]]
    assert names
    for name in names:
        assert name == "http" or re.search(rf"^async def {name.removeprefix('function:')}\(", SHELL, re.MULTILINE)


def test_the_page_tells_every_setting_and_every_variable() -> None:
    page = (ROOT / "docs/azure.md").read_text(encoding="utf-8")
    told = {name for row in page.splitlines() if row.startswith("| `") for name in re.findall(r"`(\w+)`", row)}
    short = {name for name in given() if f"__{name.rpartition('__')[2]}" in told and "__" in name}
    assert set(given()) - told - short == set()
    variables = set(
        re.findall(r"readEnvironmentVariable\('(\w+)'", (FOLDER / "main.bicepparam").read_text(encoding="utf-8"))
    )
    assert {name for name in variables if not name.startswith("AZURE_")} - told == set()


def test_the_page_tells_every_module() -> None:
    page = (ROOT / "docs/azure.md").read_text(encoding="utf-8")
    table = page.partition("## What is made")[2].partition("**Queues**")[0]
    told = {
        name for row in table.splitlines() for name in re.findall(r"`([a-z-]+)`", row.partition("|")[2].split("|")[0])
    }
    assert told == {path.stem for path in (FOLDER / "modules").glob("*.bicep")}
