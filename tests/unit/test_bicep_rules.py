"""The rules themselves: each must find what it is there to find."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.bicep import ParameterFile, Template, parse, read_text, syntax_faults, text
from tests.support.bicep_rules import (
    description_faults,
    diagnostic_faults,
    module_faults,
    name_faults,
    parameter_faults,
    role_faults,
    secret_faults,
    size_faults,
    version_faults,
)

GOOD = """
@description('Name of the queue.')
param name string

resource queue 'Microsoft.ServiceBus/namespaces/queues@2024-01-01' = {
  name: name
}

output id string = queue.id
"""


@pytest.mark.parametrize(
    "source",
    [
        GOOD.replace("= {", "= "),
        GOOD.replace("name: name\n}", "name: name\n"),
        GOOD.replace("'Name of the queue.'", "'Name of the queue."),
        GOOD.replace("output id string", "output id"),
    ],
)
def test_what_cannot_be_read_is_found(source: str) -> None:
    assert syntax_faults(source)
    assert not syntax_faults(GOOD)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("name: name", "name: 'fixed'", "name is never used"),
        ("name: name", "name: nmae", "nmae is not declared"),
        ("queue.id", "queu.id", "queu is not declared"),
        ("name: name", "name: '${prefix}-${name}'", "prefix is not declared"),
        ("name: name", "name: lowerCase(name)", "lowerCase() is not known"),
        ("output", "var unused = name\noutput", "unused is never used"),
        (
            "queues@2024-01-01' =",
            "queues@2024-01-01' existing = [for one in list: {\n  name: one\n}]\nvar x =",
            "list is not",
        ),
    ],
)
def test_names_that_do_not_fit_are_found(old: str, new: str, fault: str) -> None:
    assert name_faults(read_text(GOOD)) == []
    assert any(fault in one for one in name_faults(read_text(GOOD.replace(old, new))))


def test_a_parameter_without_a_word_is_found() -> None:
    assert description_faults(read_text("@allowed(['a'])\nparam mode string\n")) == [
        "main.bicep: parameter mode is not described"
    ]


def modules(call: str) -> list[str]:
    called = read_text(
        "param name string\n@allowed(['A', 'B'])\nparam tier string = 'A'\nparam size int = 1\noutput id string = name\n"
    )
    return module_faults(read_text(call), {"queue.bicep": called})


def call_of(parameters: str, path: str = "queue.bicep", output: str = "id") -> str:
    return f"module q '{path}' = {{\n  name: 'q'\n  params: {{\n{parameters}\n  }}\n}}\noutput x string = q.outputs.{output}\n"


@pytest.mark.parametrize(
    ("call", "fault"),
    [
        (call_of("    size: 2"), "q: name is not given"),
        (call_of("    name: 'x'\n    sise: 2"), "q: queue.bicep has no parameter sise"),
        (call_of("    name: 'x'\n    size: '2'"), "q: size is a string, queue.bicep wants int"),
        (call_of("    name: 'x'\n    tier: 'C'"), "q: tier is a 'C', which is not allowed, queue.bicep wants string"),
        (call_of("    name: 'x'", output="ID"), "q: queue.bicep has no output ID"),
        (call_of("    name: 'x'", path="queues.bicep"), "q: there is no queues.bicep"),
    ],
)
def test_module_calls_that_do_not_fit_are_found(call: str, fault: str) -> None:
    assert modules(call_of("    name: 'x'\n    size: 2\n    tier: 'B'")) == []
    assert modules(call) == [fault]


def resource(kind: str, symbol: str = "one") -> Template:
    return read_text(f"resource {symbol} '{kind}' = {{\n  name: 'x'\n}}\n")


@pytest.mark.parametrize(
    ("kinds", "fault"),
    [
        (["Microsoft.KeyVault/vaults"], "has no pinned version"),
        (["Microsoft.KeyVault/vaults@latest"], "has no pinned version"),
        (["Microsoft.KeyVault/vaults@2024-12-01-preview"], "is of a preview version"),
        (["Microsoft.KeyVault/vaults@2024-11-01", "Microsoft.KeyVault/vaults@2023-07-01"], "elsewhere 2024-11-01"),
    ],
)
def test_versions_that_move_are_found(kinds: list[str], fault: str) -> None:
    assert version_faults([resource("Microsoft.Insights/diagnosticSettings@2021-05-01-preview")]) == []
    assert [fault in one for one in version_faults([resource(kind) for kind in kinds])] == [True]


@pytest.mark.parametrize(
    "line",
    [
        "output key string = account.listKeys().keys[0].value",
        "output connectionString string = account.name",
        "output storagePassword string = account.name",
        "output telemetry string = account.properties.ConnectionString",
        "var keys = listKeys(account.id, '2024-01-01')",
        "var connection = 'DefaultEndpointsProtocol=https;AccountName=${account.name}'",
        "var connection = 'Endpoint=sb://x;SharedAccessKeyName=y'",
        "var password = vault.getSecret('password')",
    ],
)
def test_secrets_are_found(line: str) -> None:
    declared = "resource account 'Microsoft.Storage/storageAccounts@2025-01-01' existing = {\n  name: 'x'\n}\n"
    assert secret_faults(read_text(declared + "output id string = account.id\n")) == []
    assert secret_faults(read_text(declared + line + "\n"))


ROLE = """
var reader = 'acdd72a7-3385-48ef-bd42-f606fba81ae7'
resource look 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: 'x'
  scope: account
  properties: {
    description: 'The watch looks at what was put aside, to raise its alert.'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', reader)
    principalId: 'y'
    principalType: 'ServicePrincipal'
  }
}
"""


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("    description: 'The watch looks at what was put aside, to raise its alert.'\n", "", "does not say why"),
        ("The watch looks at what was put aside, to raise its alert.", "Reader", "does not say why"),
        ("  scope: account\n", "", "whole resource group"),
        ("    principalType: 'ServicePrincipal'\n", "", "principalType is missing"),
        (", reader)", ", 'acdd72a7-3385-48ef-bd42-f606fba81ae7')", "has no name"),
    ],
)
def test_unexplained_roles_are_found(old: str, new: str, fault: str) -> None:
    assert role_faults(read_text(ROLE)) == []
    assert [fault in one for one in role_faults(read_text(ROLE.replace(old, new)))] == [True]


def test_resources_that_tell_nothing_are_found() -> None:
    silent = resource("Microsoft.KeyVault/vaults@2024-11-01", "vault")
    assert diagnostic_faults(silent) == ["main.bicep: vault has no diagnostic settings"]
    told = text(silent.tree) + (
        "resource told 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {\n  name: 'x'\n  scope: vault\n}\n"
    )
    assert diagnostic_faults(read_text(told)) == []


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ("var size = 2", "name has no value"),
        ("var name = 'x'\nvar extra = 1", "there is no parameter extra"),
        ("var name = 3", "name is a int, not string"),
        ("var name = own.nmae", "name is given own.nmae"),
        ("var name = 'x'\nvar size = own.sise", "size is given own.sise"),
        ("var name = x", "x is not declared"),
        ("var name = 'x'\nvar size = readEnvironmentVariable('SIZE', '2')", "size is not turned into int"),
        ("var name = 'x'\nvar size = bool(readEnvironmentVariable('SIZE', 'true'))", "size is not turned into int"),
    ],
)
def test_parameter_files_that_do_not_fit_are_found(values: str, fault: str, tmp_path: Path) -> None:
    (tmp_path / "main.bicep").touch()
    template = read_text("param name string\nparam size int = 1\n")

    def file(source: str) -> ParameterFile:
        found = read_text(source).variables
        return ParameterFile(tmp_path / "main.bicepparam", "main.bicep", found, {"own": parse("")})

    assert (
        parameter_faults(file("var name = 'x'\nvar size = int(readEnvironmentVariable('SIZE', '2'))"), template) == []
    )
    assert [fault in one for one in parameter_faults(file(values), template)] == [True]


@pytest.mark.parametrize(
    ("sizes", "fault"),
    [
        ({"size": True}, "size is not of type int"),
        ({"size": "2"}, "size is not of type int"),
        ({"tier": "C"}, "tier may not be C"),
        ({"sise": 1}, "there is no parameter sise"),
    ],
)
def test_sizes_that_do_not_fit_are_found(sizes: dict[str, object], fault: str) -> None:
    template = read_text("@allowed(['A', 'B'])\nparam tier string\nparam size int\n")
    assert size_faults({"tier": "A", "size": 1}, template) == []
    assert size_faults(sizes, template) == [fault]


def test_the_parser_sees_errors_and_not_only_nothing() -> None:
    assert parse("param").has_error
