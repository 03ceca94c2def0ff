"""infra/azure as a whole: what the Bicep compiler and Azure would refuse, as far as it can be told from the text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.bicep import (
    Template,
    at,
    parameter_source,
    parse,
    properties,
    read,
    read_parameters,
    string,
    syntax_faults,
    text,
    walk,
)
from tests.support.bicep_rules import (
    description_faults,
    diagnostic_faults,
    module_faults,
    name_faults,
    parameter_faults,
    role_faults,
    secret_faults,
    size_faults,
    templates_in,
    version_faults,
)

FOLDER = Path(__file__).parents[2] / "infra/azure"
FILES = templates_in(FOLDER)
PARAMETERS = sorted(FOLDER.glob("*.bicepparam"))
STAGES = ("dev", "test", "prod")


def template(name: str) -> Template:
    return read(FOLDER / name)


def stages() -> dict[str, dict[str, Any]]:
    return json.loads((FOLDER / "stages.json").read_text(encoding="utf-8"))


def test_every_file_is_there() -> None:
    assert [path.name for path in PARAMETERS] == sorted(
        ["main.bicepparam", *(f"main.{one}.bicepparam" for one in STAGES)]
    )
    used = {module.path for module in template("main.bicep").modules.values()}
    assert {path.relative_to(FOLDER).as_posix() for path in FILES} == {"main.bicep", *used}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_grammar_reads_every_template(path: Path) -> None:
    assert syntax_faults(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", PARAMETERS, ids=lambda path: path.name)
def test_the_grammar_reads_every_parameter_file(path: Path) -> None:
    assert syntax_faults(parameter_source(path)) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_names_are_declared_used_and_described(path: Path) -> None:
    found = read(path)
    assert name_faults(found) + description_faults(found) == []


def test_modules_get_what_they_take() -> None:
    modules = {path.relative_to(FOLDER).as_posix(): read(path) for path in FILES}
    assert module_faults(modules["main.bicep"], modules) == []


def test_every_type_has_one_pinned_version() -> None:
    assert version_faults([read(path) for path in FILES]) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_key_is_read_and_no_secret_put_out(path: Path) -> None:
    assert secret_faults(read(path)) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_role_is_explained(path: Path) -> None:
    assert role_faults(read(path)) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_resource_tells_what_happens_to_it(path: Path) -> None:
    assert diagnostic_faults(read(path)) == []


@pytest.mark.parametrize("path", PARAMETERS, ids=lambda path: path.name)
def test_parameter_files_fit_the_template(path: Path) -> None:
    assert parameter_faults(read_parameters(path), template("main.bicep")) == []


@pytest.mark.parametrize("stage", STAGES)
def test_azd_deploys_a_stage_as_the_stages_own_file_does(stage: str) -> None:
    azd, own = read_parameters(FOLDER / "main.bicepparam"), read_parameters(FOLDER / f"main.{stage}.bicepparam")
    assert text(own.values["stage"]) == f"'{stage}'"
    assert text(own.variables["own"]) == f"stages.{stage}"
    assert text(azd.variables["own"]) == "stages[chosen]"
    assert text(azd.variables["stages"]) == text(own.variables["stages"]) == "loadJsonContent('stages.json')"
    of_azd = {"environmentName", "stage", "secretsOfficerPrincipalId"}
    assert {name: text(value) for name, value in own.values.items() if name not in of_azd} == {
        name: text(azd.values[name]) for name in own.values if name not in of_azd
    }


@pytest.mark.parametrize("stage", STAGES)
def test_sizes_are_such_as_the_template_takes(stage: str) -> None:
    main = template("main.bicep")
    assert size_faults(stages()[stage], main) == []
    taken = {
        name
        for name, value in read_parameters(FOLDER / f"main.{stage}.bicepparam").values.items()
        if text(value) == f"own.{name}"
    }
    assert set(stages()[stage]) == taken


def test_production_is_private_and_keeps_its_logs() -> None:
    prod = stages()["prod"]
    assert (prod["privateNetworking"], prod["zoneRedundant"], prod["logQuotaInGigabytes"]) == (True, True, -1)
    assert prod["softDeleteDays"] == 90
    assert stages()["test"]["privateNetworking"], "what is private in production is tried in test"


def test_tools_find_the_outputs_that_they_read() -> None:
    assert {
        "AZURE_FUNCTION_APP_NAME",
        "AZURE_RESOURCE_GROUP",
        "AZURE_IDENTITY_CLIENT_ID",
        "AZURE_KEY_VAULT_URL",
        "AZURE_TABLES_URL",
        "AZURE_SERVICE_BUS_NAMESPACE",
    } <= set(template("main.bicep").outputs)


SECURE = [
    ("modules/storage.bicep", "account", "properties.allowSharedKeyAccess", "false"),
    ("modules/storage.bicep", "account", "properties.allowBlobPublicAccess", "false"),
    ("modules/storage.bicep", "account", "properties.minimumTlsVersion", "'TLS1_2'"),
    ("modules/storage.bicep", "account", "properties.supportsHttpsTrafficOnly", "true"),
    ("modules/storage.bicep", "account", "properties.publicNetworkAccess", "publicNetworkAccess"),
    ("modules/storage.bicep", "blobs", "properties.deleteRetentionPolicy.enabled", "true"),
    ("modules/storage.bicep", "blobs", "properties.containerDeleteRetentionPolicy.enabled", "true"),
    ("modules/service-bus.bicep", "namespace", "properties.disableLocalAuth", "true"),
    ("modules/service-bus.bicep", "namespace", "properties.minimumTlsVersion", "'1.2'"),
    ("modules/service-bus.bicep", "namespace", "properties.publicNetworkAccess", "publicNetworkAccess"),
    ("modules/key-vault.bicep", "vault", "properties.enableRbacAuthorization", "true"),
    ("modules/key-vault.bicep", "vault", "properties.enablePurgeProtection", "true"),
    ("modules/key-vault.bicep", "vault", "properties.enableSoftDelete", "true"),
    ("modules/key-vault.bicep", "vault", "properties.publicNetworkAccess", "publicNetworkAccess"),
    ("modules/monitoring.bicep", "component", "properties.DisableLocalAuth", "true"),
    ("modules/monitoring.bicep", "workspace", "properties.features.disableLocalAuth", "true"),
    ("modules/function-app.bicep", "app", "properties.httpsOnly", "true"),
    ("modules/function-app.bicep", "app", "properties.siteConfig.minTlsVersion", "'1.2'"),
    ("modules/function-app.bicep", "app", "properties.siteConfig.scmMinTlsVersion", "'1.2'"),
    ("modules/function-app.bicep", "app", "properties.siteConfig.ftpsState", "'Disabled'"),
    ("modules/function-app.bicep", "app", "properties.publicNetworkAccess", "publicNetworkAccess"),
    ("modules/function-app.bicep", "app", "properties.functionAppConfig.runtime.version", "'3.13'"),
    (
        "modules/function-app.bicep",
        "app",
        "properties.functionAppConfig.deployment.storage.authentication.type",
        "'UserAssignedIdentity'",
    ),
    ("modules/function-app.bicep", "ftpPublishing", "properties.allow", "false"),
    ("modules/function-app.bicep", "scmPublishing", "properties.allow", "false"),
    ("modules/http-sign-in.bicep", "authentication", "properties.platform.enabled", "true"),
    ("modules/http-sign-in.bicep", "authentication", "properties.globalValidation.requireAuthentication", "true"),
    (
        "modules/http-sign-in.bicep",
        "authentication",
        "properties.globalValidation.unauthenticatedClientAction",
        "'Return401'",
    ),
]


@pytest.mark.parametrize(("file", "resource", "path", "expected"), SECURE, ids=lambda one: str(one).rpartition("/")[2])
def test_doors_are_shut(file: str, resource: str, path: str, expected: str) -> None:
    value = at(template(file).resources[resource].body, path)
    assert value is not None, f"{path} is not set"
    assert text(value) == expected


def test_private_networking_leaves_no_data_service_out() -> None:
    main = template("main.bicep")
    assert text(main.variables["publicDataAccess"]) == "privateNetworking ? 'Disabled' : 'Enabled'"
    for module in ("storage", "keyVault"):
        assert text(main.modules[module].inputs["publicNetworkAccess"]) == "publicDataAccess"
    groups = {
        string(module.inputs["groupId"]): text(module.inputs["zoneName"]).rpartition("zones.")[2].partition(" ")[0]
        for module in main.modules.values()
        if module.path == "modules/private-endpoint.bicep"
    }
    assert groups == {
        "blob": "blob",
        "table": "table",
        "vault": "vault",
        "namespace": "serviceBus",
        "sites": "sites",
    }
    assert {text(one) for one in main.variables["zoneNames"].named_children} == {
        f"zones.{name}" for name in properties(main.variables["zones"])
    }


def test_alarms_ring_people() -> None:
    rules = template("modules/alerts.bicep")
    found = {
        one.symbol: one
        for one in rules.resources.values()
        if one.type.endswith(("metricAlerts", "scheduledQueryRules"))
    }
    assert {"deadLetters", "rejected", "failures", "silence", "throttling"} <= set(found)
    for one in found.values():
        actions = at(one.body, "properties.actions")
        assert actions is not None
        assert "people.id" in text(actions), f"{one.symbol} tells nobody"
        enabled = at(one.body, "properties.enabled")
        assert enabled is not None
        assert text(enabled) == "true", f"{one.symbol} does not ring"


def test_the_trees_are_not_empty() -> None:
    """A grammar that yields nothing would make every rule above hold."""
    assert sum(len(read(path).resources) for path in FILES) > 50
    assert any(node.type == "for_statement" for path in FILES for node in walk(parse(path.read_text(encoding="utf-8"))))
