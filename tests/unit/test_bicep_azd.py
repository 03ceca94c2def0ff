"""azure.yaml and the scripts around it, as far as they go without azd and without Azure."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.support.bicep import at, read, read_parameters, text

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "infra/azure"


def project() -> dict[str, Any]:
    return YAML(typ="safe").load((ROOT / "azure.yaml").read_text(encoding="utf-8"))


def test_azd_finds_the_template_and_the_app() -> None:
    found = project()
    assert (ROOT / found["infra"]["path"] / f"{found['infra']['module']}.bicep").is_file()
    assert (ROOT / found["infra"]["path"] / f"{found['infra']['module']}.bicepparam").is_file()
    (service,) = found["services"]
    tags = at(read(FOLDER / "modules/function-app.bicep").resources["app"].body, "tags")
    assert tags is not None
    assert f"'azd-service-name': '{service}'" in text(tags)
    group_tags = text(read(FOLDER / "main.bicep").variables["tags"])
    assert "'azd-env-name': environmentName" in group_tags


def test_the_package_is_deployed_as_it_was_built() -> None:
    service = project()["services"]["control"]
    assert (service["host"], service["language"], service["remoteBuild"]) == ("function", "python", False)
    build = service["hooks"]["prepackage"]["run"]
    assert "tools/build-package" in build
    assert build.endswith(f"dist/function-app.zip {service['dist']}")
    assert not (ROOT / "requirements.txt").exists(), "azd would build in Azure from it"


def test_hooks_can_be_started() -> None:
    hook = ROOT / project()["hooks"]["postprovision"]["run"]
    for script in (hook, FOLDER / "register-application"):
        assert os.access(script, os.X_OK)
        subprocess.run(["bash", "-n", str(script)], check=True)


def next_steps(**more: str) -> subprocess.CompletedProcess[str]:
    """Run it with what Bicep puts out, and nothing else."""
    outputs = {name: f"<{name}>" for name in read(FOLDER / "main.bicep").outputs}
    environment = {"PATH": os.environ["PATH"], **outputs, **more}
    return subprocess.run(
        [str(FOLDER / "next-steps")], capture_output=True, text=True, env=environment, timeout=60, check=False
    )


def test_the_next_steps_are_said_with_this_installations_names() -> None:
    run = next_steps(UDS_STAGE="test")
    assert run.returncode == 0, run.stderr
    for said in (
        "<AZURE_IDENTITY_CLIENT_ID>",
        "<AZURE_KEY_VAULT_ID>",
        "--target test",
        "azd env set UDS_DATABRICKS_JOBS",
    ):
        assert said in run.stdout


def test_scopes_are_made_as_the_databricks_cli_takes_it() -> None:
    """With --json it takes no other argument: it would answer that the scope belongs into the JSON."""
    page = (ROOT / "docs/databricks.md").read_text(encoding="utf-8")
    for said in (next_steps().stdout, page):
        (given,) = re.findall(r"databricks secrets create-scope --json '([^']*)'", said)
        asked = json.loads(given)
        assert (asked["scope"], asked["scope_backend_type"]) == ("data-sync", "AZURE_KEYVAULT")
        assert {*asked["backend_azure_keyvault"]} == {"resource_id", "dns_name"}
        assert said.count("secrets create-scope") == 1


def test_the_hook_names_every_variable_that_the_bundle_must_be_given() -> None:
    bundle = YAML(typ="safe").load((ROOT / "infra/databricks/databricks.yml").read_text(encoding="utf-8"))
    per_target = set(bundle["targets"]["prod"]["variables"])
    needed = {name for name, one in bundle["variables"].items() if "default" not in one} - per_target
    assert needed <= set(re.findall(r"BUNDLE_VAR_(\w+)=", next_steps().stdout))


def test_a_finished_installation_is_only_checked() -> None:
    run = next_steps(UDS_DATABRICKS_JOBS="default=7")
    assert run.returncode == 0, run.stderr
    assert "<AZURE_FUNCTION_APP_URL>/api/health" in run.stdout
    assert "create-scope" not in run.stdout


def test_the_hook_reads_only_what_azd_knows() -> None:
    """Outputs, and the variables that the parameter file reads too."""
    script = (FOLDER / "next-steps").read_text(encoding="utf-8")
    used = set(re.findall(r"\$\{?((?:AZURE|UDS|DATABRICKS)_\w+)", script))
    assert used
    read_there = set(
        re.findall(r"readEnvironmentVariable\('(\w+)'", (FOLDER / "main.bicepparam").read_text(encoding="utf-8"))
    )
    assert used - read_there - set(read(FOLDER / "main.bicep").outputs) == set()


def test_without_azds_variables_the_hook_says_so() -> None:
    run = subprocess.run(
        [str(FOLDER / "next-steps")], capture_output=True, text=True, env={"PATH": os.environ["PATH"]}, check=False
    )
    assert run.returncode != 0
    assert "AZURE_FUNCTION_APP_URL" in run.stderr


def test_the_entra_application_offers_the_three_roles() -> None:
    application = json.loads((FOLDER / "entra-application.json").read_text(encoding="utf-8"))
    roles = application["appRoles"]
    assert application["api"]["requestedAccessTokenVersion"] == 2, "http-sign-in.bicep names the issuer of version 2"
    assert [role["value"] for role in roles] == ["Sync.Read", "Sync.Request", "Sync.Operate"]
    assert len({role["id"] for role in roles}) == 3
    assert all(role["isEnabled"] and {"User", "Application"} == set(role["allowedMemberTypes"]) for role in roles)


def test_registering_lets_the_azure_cli_call() -> None:
    """The script takes the scope's id out of the description by its last letters."""
    (scope,) = json.loads((FOLDER / "entra-application.json").read_text(encoding="utf-8"))["api"][
        "oauth2PermissionScopes"
    ]
    script = (FOLDER / "register-application").read_text(encoding="utf-8")
    (command,) = re.findall(r"scope=\$\((sed .*)\)", script)
    found = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        env={"here": str(FOLDER), "PATH": os.environ["PATH"]},
        check=True,
    )
    assert found.stdout.strip() == scope["id"]


AZ = """#!/usr/bin/env bash
echo "$*" >> "$CALLS"
case "$*" in
    "ad app list"*) echo an-application ;;
    "account show"*) echo a-tenant ;;
    "ad app federated-credential list"*) echo "$TRUSTED" ;;
esac
"""


@pytest.mark.parametrize("trusted", ["", "function-app"])
def test_registering_with_the_app_lets_people_sign_in_by_their_browser(tmp_path: Path, trusted: str) -> None:
    """The identity stands in for a secret, and is trusted once, however often the script runs."""
    (tmp_path / "az").write_text(AZ, encoding="utf-8")
    (tmp_path / "az").chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "CALLS": str(tmp_path / "calls"),
        "TRUSTED": trusted,
    }
    command = [str(FOLDER / "register-application"), "uds", "https://app.example.net/", "an-identity"]
    told = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert told.stdout == "an-application\n"
    calls = (tmp_path / "calls").read_text(encoding="utf-8")
    assert (
        "--web-redirect-uris https://app.example.net/.auth/login/aad/callback --enable-id-token-issuance true" in calls
    )
    created = re.findall(r"federated-credential create .*?--parameters (\{.*?\})", calls, re.DOTALL)
    assert [json.loads(one) for one in created] == (
        []
        if trusted
        else [
            {
                "name": "function-app",
                "issuer": "https://login.microsoftonline.com/a-tenant/v2.0",
                "subject": "an-identity",
                "audiences": ["api://AzureADTokenExchange"],
            }
        ]
    )


def test_registering_needs_a_name() -> None:
    run = subprocess.run([str(FOLDER / "register-application")], capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "usage:" in run.stderr


@pytest.mark.parametrize("stage", ["dev", "test", "prod"])
def test_every_variable_of_a_stage_is_one_of_azds(stage: str) -> None:
    """Who moves from azd to the stage's file sets the same variables."""
    azd = (FOLDER / "main.bicepparam").read_text(encoding="utf-8")
    for value in read_parameters(FOLDER / f"main.{stage}.bicepparam").values.values():
        for name in re.findall(r"readEnvironmentVariable\('(\w+)'", text(value)):
            assert f"'{name}'" in azd
