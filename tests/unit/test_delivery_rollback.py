"""tools/rollback against stand-ins of az and databricks, and the record of deployments that it goes by."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.delivery_cloud import A, B, C, Cloud, open_cloud
from tools.delivery.commands import Stopped
from tools.delivery.history import Deployments


@pytest.fixture
def cloud(tmp_path: Path) -> Generator[Cloud]:
    with open_cloud(tmp_path) as opened:
        yield opened


def test_a_rollback_puts_the_release_before_back_the_control_plane_first(cloud: Cloud) -> None:
    cloud.given(A, B)
    said = cloud.roll_back("prod")
    assert f"Release {A} runs in prod again." in said
    calls = cloud.calls()
    assert calls.index("az account get-access-token") < calls.index("databricks bundle deploy")
    assert cloud.state() == (A, A, A)
    assert cloud.deployments() == Deployments((A,), A)
    assert (cloud.folder / "back/release.json").exists()
    assert f"There is no release before {A} in this environment." in cloud.fail("rollback", "prod")


@pytest.mark.parametrize("step", ["databricks bundle deploy", "get-access-token", "appsettings set"])
def test_a_rollback_after_half_a_deployment_goes_to_the_last_that_answered(cloud: Cloud, step: str) -> None:
    cloud.given(A, B)
    cloud.fail("deploy", "prod", "--from", cloud.release(C), UDS_TESTS_FAIL=step)
    cloud.roll_back("prod")
    assert cloud.state() == (B, B, B)
    assert cloud.deployments() == Deployments((A, B), B)


@pytest.mark.parametrize("step", ["blob download", "appsettings set", "get-access-token", "databricks bundle deploy"])
def test_a_rollback_that_fails_can_be_repeated(cloud: Cloud, step: str) -> None:
    cloud.given(A, B)
    assert "tools/rollback: " in cloud.fail("rollback", "prod", A, "--to", cloud.folder / "back", UDS_TESTS_FAIL=step)
    cloud.roll_back("prod", A)
    assert cloud.state() == (A, A, A)
    assert cloud.deployments() == Deployments((A,), A)


def test_a_rollback_to_a_named_release(cloud: Cloud) -> None:
    cloud.given(A, B, C)
    cloud.roll_back("prod", A)
    assert cloud.state() == (A, A, A)
    said = cloud.fail("rollback", "prod", "d" * 40, "--to", cloud.folder / "back")
    assert f"Release {'d' * 40} is not in the container releases of studs." in said


def test_a_stored_release_that_was_changed_is_not_put_back(cloud: Cloud) -> None:
    cloud.given(A, B)
    (cloud.folder / "state/blobs/releases" / A / "function-app.zip").write_bytes(b"other")
    said = cloud.fail("rollback", "prod", "--to", cloud.folder / "back")
    assert "function-app.zip is not the file that was built" in said
    assert cloud.state() == (B, B, B)


def test_the_record_of_deployments() -> None:
    record = Deployments()
    with pytest.raises(Stopped, match="no release before the first"):
        record.before()
    for name in (A, B, A, C):
        record = record.begin(name).succeed(name)
    assert record == Deployments((A, B, A, C), C)
    assert record.succeed(C) == record
    assert record.before() == A
    back = record.begin(A).go_back(A)
    assert back == Deployments((A, B, A), A)
    assert back.before() == B
    assert record.begin("e").before() == C
    assert record.begin("e").go_back("e").healthy == (A, B, A, C, "e")
