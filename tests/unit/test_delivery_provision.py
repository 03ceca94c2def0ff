"""tools/deploy --provision against stand-ins of az and azd: what an environment has must not be lost."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.delivery_cloud import STEPS, VARIABLES, A, B, Cloud, first_of_each, open_cloud
from tools.delivery.provision import read_values


@pytest.fixture
def cloud(tmp_path: Path) -> Generator[Cloud]:
    with open_cloud(tmp_path) as opened:
        yield opened


PLACE = {"AZURE_SUBSCRIPTION_ID": "s", "AZURE_LOCATION": "northeurope"}
UNSET: dict[str, str] = dict.fromkeys(("AZURE_RESOURCE_GROUP", "AZURE_FUNCTION_APP_NAME", "AZURE_TABLES_URL"), "")
TOKENS = ["az account get-access-token"] * 2


def provisioned(cloud: Cloud) -> dict[str, str]:
    """The variables that azd was started with."""
    return json.loads((cloud.folder / "state/provisioned").read_text())


def test_provisioning_comes_first_and_its_outputs_are_used(cloud: Cloud) -> None:
    outputs = [f'{name}="{value}"' for name, value in VARIABLES.items() if name != "DATABRICKS_HOST"]
    (cloud.folder / "state/outputs").write_text("\n".join(outputs))
    folder = cloud.release(A)
    said = cloud.fail("deploy", "dev", "--from", folder, "--provision", status=2, given=UNSET)
    assert "These variables are not set: AZURE_SUBSCRIPTION_ID, AZURE_LOCATION." in said
    cloud.succeed("deploy", "dev", "--from", folder, "--provision", **UNSET, **PLACE)
    calls = cloud.calls()
    assert calls[:4] == [*TOKENS, "azd provision", "azd env get-values"]
    assert first_of_each(calls[4:]) == list(STEPS)
    said = cloud.fail(
        "deploy", "dev", "--from", folder, "--provision", given={**UNSET, **PLACE, "UDS_TESTS_FAIL": "azd provision"}
    )
    assert "tools/deploy: azd provision" in said
    assert cloud.calls() == [*TOKENS, "azd provision"]


def test_every_token_is_fetched_while_the_sign_in_is_fresh(cloud: Cloud) -> None:
    given = {**PLACE, "DATABRICKS_AUTH_TYPE": "azure-cli", "UDS_TESTS_FAIL": "azd provision"}
    said = cloud.fail("deploy", "dev", "--from", cloud.release(A), "--provision", given=given)
    asked = [line.split("--resource ")[1].split()[0] for line in said.splitlines() if "get-access-token" in line]
    assert asked == [
        "https://management.azure.com",
        "https://storage.azure.com",
        "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d",
    ]
    given = {**PLACE, "UDS_TESTS_FAIL": "https://storage.azure.com"}
    cloud.calls()
    cloud.fail("deploy", "dev", "--from", cloud.folder / "releases" / A[:6], "--provision", given=given)
    assert "azd provision" not in cloud.calls()


def test_provisioning_takes_no_jobs_from_an_app_that_runs(cloud: Cloud) -> None:
    cloud.given(A)
    given = {**PLACE, "UDS_PROVISION": "true", "UDS_AZD_ENVIRONMENT": 'UDS_DATABRICKS_JOBS="default=9"'}
    cloud.fail("deploy", "dev", "--from", cloud.release(B), given=given, UDS_TESTS_FAIL="az storage container create")
    assert cloud.calls()[:4] == [*TOKENS, "az functionapp config appsettings list", "azd provision"]
    assert json.loads((cloud.folder / "state/settings.json").read_text())["UDS_DATABRICKS_JOBS"] == "default=11"


def test_a_runner_gives_azd_what_a_person_told_it(cloud: Cloud) -> None:
    told = """
AZURE_ENV_NAME="uds-europe"
AZURE_LOCATION="northeurope"
AZURE_SUBSCRIPTION_ID="s"
UDS_ALERT_EMAILS="[\\"ann@example.com\\"]"
UDS_DEPLOYER_ID="from azd"
UDS_VOLUME="sync"
"""
    given = {"UDS_AZD_ENVIRONMENT": told, "UDS_DEPLOYER_ID": "from the runner"}
    cloud.succeed("deploy", "dev", "--from", cloud.release(A), "--provision", **given)
    found = provisioned(cloud)
    assert {name: found[name] for name in ("UDS_ALERT_EMAILS", "UDS_VOLUME", "UDS_DEPLOYER_ID")} == {
        "UDS_ALERT_EMAILS": '["ann@example.com"]',
        "UDS_VOLUME": "sync",
        "UDS_DEPLOYER_ID": "from the runner",
    }
    assert (found["AZURE_ENV_NAME"], found["UDS_STAGE"]) == ("uds-europe", "dev"), "no second set of resources"


def test_an_app_that_asks_for_a_sign_in_is_not_made_one_that_asks_for_none(cloud: Cloud) -> None:
    cloud.given(A)
    settings = cloud.folder / "state/settings.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "UDS_HTTP_AUTH": "entra"}))
    folder = cloud.release(B)
    said = cloud.fail("deploy", "dev", "--from", folder, "--provision", status=2, given=PLACE)
    assert "UDS_AUTH_CLIENT_ID is not set: function keys would be the only lock." in said
    assert "azd provision" not in cloud.calls()
    (cloud.folder / "state/outputs").write_text('UDS_AUTH_CLIENT_ID="a client"')
    cloud.succeed("deploy", "dev", "--from", folder, "--provision", **PLACE)
    settings.write_text(json.dumps({"UDS_HTTP_AUTH": "entra"}))
    (cloud.folder / "state/outputs").unlink()
    told = {**PLACE, "UDS_AZD_ENVIRONMENT": 'UDS_AUTH_CLIENT_ID="a client"'}
    cloud.succeed("deploy", "dev", "--from", folder, "--provision", **told)
    assert provisioned(cloud)["UDS_AUTH_CLIENT_ID"] == "a client"


def test_the_lines_of_azd_are_read_as_azd_writes_them() -> None:
    lines = 'A="x=1"\nB=7\nC="say \\"hi\\" \\$5 \\\\"\n\nno line\nD="one\\ntwo"\nE=""'
    assert read_values(lines) == {"A": "x=1", "B": "7", "C": 'say "hi" $5 \\', "D": "one\ntwo", "E": ""}
