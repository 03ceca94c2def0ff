"""How the control plane signs in to Databricks: the real SDK and the real azure-identity against servers on loopback."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import ManagedIdentityCredential

from sync_core.adapters.databricks_client import DATABRICKS_SCOPE, DatabricksWorkspace, translate
from sync_core.adapters.databricks_launcher import DatabricksLauncher
from sync_core.adapters.volume_run_folder import VolumeRunFolder
from sync_core.domain.errors import PermanentError, RetryableError
from sync_core.domain.run import Manifest
from sync_core.ports import LaunchStatus
from tests.contract.test_launcher import BATCH, end_of
from tests.contract.test_launcher_databricks import FOREVER, impatient, raised
from tests.support.databricks_api import DATABRICKS_RESOURCE, FOLDER, IDENTITY_HEADER, DatabricksApi


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UDS_FAKE_PLACE", str(tmp_path))
    return tmp_path


@pytest.fixture
def identity(databricks: DatabricksApi, monkeypatch: pytest.MonkeyPatch) -> ManagedIdentityCredential:
    """A managed identity as App Service and Functions give it to their processes."""
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{databricks.url}/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", IDENTITY_HEADER)
    return ManagedIdentityCredential()


def test_it_signs_in_by_managed_identity(
    databricks: DatabricksApi, identity: ManagedIdentityCredential, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What other tools have in the environment is not what this one signs in with.
    for name in ("ARM_CLIENT_ID", "ARM_CLIENT_SECRET", "DATABRICKS_TOKEN", "DATABRICKS_USERNAME"):
        monkeypatch.setenv(name, "somebody-else")
    assert f"{DATABRICKS_RESOURCE}/.default" == DATABRICKS_SCOPE
    workspace = DatabricksWorkspace(databricks.url, identity, retry_seconds=1)
    folder = VolumeRunFolder(workspace, FOLDER)
    launcher = DatabricksLauncher(workspace, {"default": databricks.job_id})
    run_id = launcher.launch(BATCH, folder.write_manifest(Manifest(BATCH, {}, ())))
    assert end_of(launcher, run_id).status is LaunchStatus.ENDED
    assert databricks.count("/msi/token") == 1


def test_p26_a_sign_in_that_fails(
    databricks: DatabricksApi, identity: ManagedIdentityCredential, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "databricks")
    launcher = DatabricksLauncher(DatabricksWorkspace(databricks.url, identity, retry_seconds=1), {"default": 101})
    databricks.fail("/msi/token", 400, "", "x", FOREVER)
    error = raised(lambda: launcher.launch(BATCH, "x"))
    assert (error.code, type(error)) == ("databricks.sign_in", RetryableError)
    assert "no token for Databricks can be had now" in error.message
    databricks.heal()
    databricks.jobs.end_next("SUCCESS", "SUCCESS")
    assert launcher.launch(BATCH, "x")
    databricks.signed_in.clear()
    error = raised(lambda: launcher.state("1"))
    assert (error.code, type(error)) == ("databricks.sign_in", PermanentError)
    for secret in (IDENTITY_HEADER, "aad-1"):
        assert secret not in str(error)
        assert secret not in caplog.text


@pytest.mark.parametrize(
    "host", ["", "adb-1.azuredatabricks.net", "ftp://adb-1.azuredatabricks.net", "http://adb-1.azuredatabricks.net"]
)
def test_a_workspace_whose_address_is_wrong(host: str) -> None:
    error = raised(lambda: DatabricksWorkspace(host, token="x"))
    assert isinstance(error, PermanentError)
    assert error.code == "databricks.settings"
    assert "https://adb-" in error.remedy


@pytest.mark.parametrize(
    "host",
    [
        "https://adb-1.azuredatabricks.net",
        "https://localhost.example.net",
        "https://127.0.0.1@example.net",
        "https://10.0.0.4",
    ],
)
def test_a_token_is_for_a_server_on_this_machine(host: str) -> None:
    error = raised(lambda: DatabricksWorkspace(host, token="a-token"))
    assert (type(error), error.code) == (PermanentError, "databricks.settings")
    assert "is not on this machine, and a token is given for it" in error.message
    assert "Take UDS_DATABRICKS_LOCAL_TOKEN away" in error.remedy
    assert "a-token" not in str(error)


@pytest.mark.parametrize("host", ["http://127.0.0.1:8080", "https://localhost:8080", "http://[::1]:8080"])
def test_a_token_opens_a_server_on_this_machine(host: str) -> None:
    assert DatabricksWorkspace(host, token="a-token").host == host


def test_a_workspace_needs_one_way_to_sign_in(databricks: DatabricksApi, identity: ManagedIdentityCredential) -> None:
    with pytest.raises(ValueError, match="credential or a token"):
        DatabricksWorkspace(databricks.url)
    with pytest.raises(ValueError, match="credential or a token"):
        DatabricksWorkspace(databricks.url, identity, token="x")


def test_a_profile_in_the_environment_that_is_not_there(
    databricks: DatabricksApi, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "profiles").write_text("[other]\nhost = https://elsewhere\n")
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(place / "profiles"))
    monkeypatch.setenv("DATABRICKS_CONFIG_PROFILE", "gone")
    error = raised(lambda: DatabricksLauncher(impatient(databricks), {"default": 101}).launch(BATCH, "x"))
    assert isinstance(error, PermanentError)
    assert error.code == "databricks.settings"
    assert "has no gone profile" in error.message
    assert databricks.token not in str(error)


def test_the_client_is_built_when_it_is_needed(databricks: DatabricksApi) -> None:
    launcher = DatabricksLauncher(impatient(databricks), {"default": databricks.job_id})
    assert databricks.requests == []
    launcher.state("1")
    launcher.state("1")
    assert databricks.count("/.well-known/databricks-config") == 1


def test_an_identity_endpoint_that_does_not_answer(databricks: DatabricksApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{databricks.url}/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", IDENTITY_HEADER)
    databricks.lose_answer("/msi/token", FOREVER)
    workspace = DatabricksWorkspace(databricks.url, ManagedIdentityCredential(retry_total=0), retry_seconds=1)
    error = raised(lambda: DatabricksLauncher(workspace, {"default": 101}).launch(BATCH, "x"))
    assert (error.code, type(error)) == ("databricks.sign_in", RetryableError)
    assert "had now: ServiceResponseError." in error.message


def test_a_sign_in_that_microsoft_entra_id_refuses() -> None:
    refusal = ClientAuthenticationError("AADSTS7000222: The provided client secret keys are expired.\nTrace ID: 1")
    error = translate(refusal, "Job 7 cannot be started", "CAN_MANAGE_RUN")
    assert (error.code, type(error)) == ("databricks.sign_in", PermanentError)
    assert "AADSTS7000222" in error.message
    assert "Trace" not in error.message
