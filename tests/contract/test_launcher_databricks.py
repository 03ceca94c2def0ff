"""What the DatabricksLauncher does beyond what every Launcher does: the real SDK against tests/support/databricks_api.py."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from databricks.sdk.service.jobs import TerminationCodeCode

from sync_core.adapters import databricks_client
from sync_core.adapters.databricks_client import DatabricksWorkspace
from sync_core.adapters.databricks_launcher import ENDINGS, JOBS_SETTING, DatabricksLauncher
from sync_core.adapters.volume_run_folder import VolumeRunFolder
from sync_core.domain.errors import PermanentError, RetryableError, SyncError
from sync_core.domain.run import Manifest, make_batch_id
from sync_core.ports import Ending, LaunchState, LaunchStatus
from tests.conftest import FAKE_ENGINE
from tests.contract.test_launcher import BATCH, OTHER, end_of
from tests.support.databricks_api import FOLDER, DatabricksApi

RUN_NOW, GET, CANCEL = "jobs/run-now", "jobs/runs/get", "jobs/runs/cancel"

FOREVER = 1_000_000


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UDS_FAKE_PLACE", str(tmp_path))
    return tmp_path


@pytest.fixture
def manifest(databricks: DatabricksApi, place: Path) -> str:
    return write(databricks, BATCH)


@pytest.fixture
def launcher(databricks: DatabricksApi, place: Path) -> DatabricksLauncher:
    return DatabricksLauncher(impatient(databricks), {"default": databricks.job_id})


def impatient(api: DatabricksApi, answer_seconds: float = 20) -> DatabricksWorkspace:
    """A workspace whose client gives up soon: after the first or second try."""
    return DatabricksWorkspace(api.url, token=api.token, answer_seconds=answer_seconds, retry_seconds=1)


def write(api: DatabricksApi, batch_id: str) -> str:
    return VolumeRunFolder(impatient(api), FOLDER).write_manifest(Manifest(batch_id, {}, ()))


def started(place: Path) -> list[str]:
    path = place / "started"
    return path.read_text().splitlines() if path.exists() else []


def raised(call: Callable[[], object]) -> SyncError:
    with pytest.raises(SyncError) as info:
        call()
    return info.value


def test_what_a_launch_asks_for(databricks: DatabricksApi, launcher: DatabricksLauncher, manifest: str) -> None:
    assert manifest == f"{FOLDER}/{BATCH}/manifest.json"
    launcher.launch(BATCH, manifest)
    asked = next(body for method, path, body in databricks.requests if method == "POST" and path.endswith(RUN_NOW))
    assert asked == {
        "job_id": databricks.job_id,
        "idempotency_token": BATCH,
        "job_parameters": {"manifest": manifest},
        "queue": {"enabled": True},
    }


def test_each_compute_group_has_its_job(databricks: DatabricksApi, place: Path, manifest: str) -> None:
    large = databricks.jobs.create_job(FAKE_ENGINE)
    launcher = DatabricksLauncher(impatient(databricks), {"default": databricks.job_id, "large": large})
    run_id = launcher.launch(BATCH, manifest, "large")
    assert databricks.jobs.runs[int(run_id)].job.job_id == large
    assert launcher.batch_of(run_id) == BATCH
    error = raised(lambda: launcher.launch(OTHER, manifest, "huge"))
    assert isinstance(error, PermanentError)
    assert "compute group huge; there are: default, large" in str(error)
    assert JOBS_SETTING in error.remedy


# ---- P21: once, whatever is lost on the way


def test_p21_a_lost_answer_is_asked_for_again_by_the_sdk(databricks: DatabricksApi, place: Path, manifest: str) -> None:
    databricks.lose_answer(RUN_NOW)
    launcher = DatabricksLauncher(DatabricksWorkspace(databricks.url, token=databricks.token), {"default": 101})
    run_id = launcher.launch(BATCH, manifest)
    assert list(databricks.jobs.runs) == [int(run_id)]
    assert databricks.count(RUN_NOW) == 2


@pytest.mark.parametrize("how", ["lost", "late"])
def test_p21_a_launch_after_one_whose_answer_never_came(
    databricks: DatabricksApi, place: Path, manifest: str, how: str
) -> None:
    (databricks.lose_answer if how == "lost" else databricks.hold_answer)(RUN_NOW, FOREVER)
    launcher = DatabricksLauncher(impatient(databricks, 0.3), {"default": databricks.job_id})
    error = raised(lambda: launcher.launch(BATCH, manifest))
    assert isinstance(error, RetryableError)
    assert f"The Databricks job {databricks.job_id} cannot be started" in error.message
    assert "0x" not in error.message
    databricks.heal()
    another = DatabricksLauncher(impatient(databricks), {"default": databricks.job_id})
    run_id = another.launch(BATCH, manifest)
    assert end_of(another, run_id).status is LaunchStatus.ENDED
    assert list(databricks.jobs.runs) == [int(run_id)]
    assert started(place) == [BATCH]


def test_p21_the_run_of_a_token_was_deleted(
    databricks: DatabricksApi, launcher: DatabricksLauncher, place: Path, manifest: str
) -> None:
    run_id = launcher.launch(BATCH, manifest)
    end_of(launcher, run_id)
    databricks.jobs.forget_run(int(run_id))
    assert launcher.state(run_id).status is LaunchStatus.UNKNOWN
    assert launcher.batch_of(run_id) is None
    launcher.cancel(run_id)
    error = raised(lambda: launcher.launch(BATCH, manifest))
    assert isinstance(error, PermanentError)
    assert "was deleted" in error.message
    assert started(place) == [BATCH]


def test_p21_a_run_beyond_the_limit_waits_in_the_queue(
    databricks: DatabricksApi, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UDS_FAKE", "wait")
    small = databricks.jobs.create_job(FAKE_ENGINE, max_concurrent_runs=1)
    launcher = DatabricksLauncher(impatient(databricks), {"default": small})
    batches = [make_batch_id([str(number)]) for number in range(3)]
    ids = [launcher.launch(batch, write(databricks, batch)) for batch in batches]
    assert [databricks.jobs.runs[int(run_id)].state for run_id in ids] == ["RUNNING", "QUEUED", "QUEUED"]
    assert [launcher.state(run_id).status for run_id in ids] == [LaunchStatus.RUNNING] * 3
    launcher.cancel(ids[1])
    assert launcher.state(ids[1]).ending is Ending.CANCELLED
    (place / "release").touch()
    assert [end_of(launcher, run_id).status for run_id in ids] == [LaunchStatus.ENDED] * 3
    assert started(place) == [batches[0], batches[2]]


# ---- faults of the service


@pytest.mark.parametrize(
    ("status", "code", "message", "expected"),
    [
        (429, "", "Too many requests", "databricks.busy"),
        (429, "REQUEST_LIMIT_EXCEEDED", "There are already 5 active runs (limit: 5).", "databricks.busy"),
        (400, "QUOTA_EXCEEDED", "Too many jobs are at work.", "databricks.busy"),
        (400, "BAD_REQUEST", "The workspace has reached its limit of 2000 concurrent runs.", "databricks.busy"),
        (503, "TEMPORARILY_UNAVAILABLE", "The service is busy", "databricks.unavailable"),
        (500, "INTERNAL_ERROR", "Something broke", "databricks.unavailable"),
        (502, "", "", "databricks.unavailable"),
        (504, "DEADLINE_EXCEEDED", "Too late", "databricks.unavailable"),
        (409, "ABORTED", "Another request changes the job", "databricks.unavailable"),
    ],
)
def test_a_launch_that_may_succeed_later(
    databricks: DatabricksApi, launcher: DatabricksLauncher, manifest: str,
    status: int, code: str, message: str, expected: str,
) -> None:  # fmt: skip
    databricks.fail(RUN_NOW, status, code, message, FOREVER)
    error = raised(lambda: launcher.launch(BATCH, manifest))
    assert isinstance(error, RetryableError)
    assert error.code == expected
    assert message.rstrip(".") in error.message
    assert not databricks.jobs.runs
    databricks.heal()
    assert launcher.launch(BATCH, manifest)


@pytest.mark.parametrize(
    ("status", "code", "expected", "permission"),
    [
        (401, "UNAUTHENTICATED", "databricks.sign_in", "CAN_MANAGE_RUN"),
        (403, "PERMISSION_DENIED", "databricks.forbidden", "CAN_MANAGE_RUN on job 101"),
        (400, "INVALID_PARAMETER_VALUE", "databricks.refused", ""),
        (400, "MALFORMED_REQUEST", "databricks.refused", ""),
        (404, "ENDPOINT_NOT_FOUND", "databricks.not_found", ""),
        (501, "NOT_IMPLEMENTED", "databricks.refused", ""),
    ],
)
def test_p26_a_launch_that_needs_a_person(
    databricks: DatabricksApi, launcher: DatabricksLauncher, manifest: str,
    status: int, code: str, expected: str, permission: str,
) -> None:  # fmt: skip
    # The SDK adds its whole configuration to the message of a 401 and a 403.
    rest = "" if permission else "\nAnd a trace"
    databricks.fail(RUN_NOW, status, code, f"This is why.{rest}", FOREVER)
    error = raised(lambda: launcher.launch(BATCH, manifest))
    assert isinstance(error, PermanentError)
    assert error.code == expected
    assert f"This is why ({code})." in error.message
    assert permission in error.remedy
    assert "Config" not in str(error)
    assert "trace" not in str(error)
    assert databricks.token not in str(error)


def test_a_job_that_does_not_exist(databricks: DatabricksApi, place: Path, manifest: str) -> None:
    error = raised(lambda: DatabricksLauncher(impatient(databricks), {"default": 4711}).launch(BATCH, manifest))
    assert isinstance(error, PermanentError)
    assert error.code == "launch.unknown_job"
    assert "job 4711 of the compute group default does not exist" in error.message
    assert JOBS_SETTING in error.remedy


def test_a_pause_that_the_service_asks_for_is_not_kept_for_an_hour(
    databricks: DatabricksApi, place: Path, manifest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(databricks_client, "LONGEST_PAUSE", 0.01)
    databricks.fail(RUN_NOW, 429, times=3, retry_after=3600)
    launcher = DatabricksLauncher(DatabricksWorkspace(databricks.url, token=databricks.token), {"default": 101})
    assert launcher.launch(BATCH, manifest)
    assert databricks.count(RUN_NOW) == 4


def test_a_workspace_that_is_out_of_reach(databricks: DatabricksApi, place: Path) -> None:
    launcher = DatabricksLauncher(impatient(databricks), {"default": 101})
    databricks.close()
    for call in (lambda: launcher.launch(BATCH, "x"), lambda: launcher.state("1")):
        error = raised(call)
        assert isinstance(error, RetryableError)
        assert error.code == "databricks.unavailable"


def test_a_state_that_cannot_be_told_now(
    databricks: DatabricksApi, launcher: DatabricksLauncher, manifest: str
) -> None:
    run_id = launcher.launch(BATCH, manifest)
    databricks.fail(GET, 500, "INTERNAL_ERROR", "Something broke", FOREVER)
    assert isinstance(raised(lambda: launcher.state(run_id)), RetryableError)
    assert isinstance(raised(lambda: launcher.batch_of(run_id)), RetryableError)
    databricks.heal()
    databricks.fail(GET, 403, "PERMISSION_DENIED", "No", FOREVER)
    error = raised(lambda: launcher.state(run_id))
    assert isinstance(error, PermanentError)
    assert "CAN_VIEW" in error.remedy
    databricks.heal()
    databricks.fail(GET, 404, "RESOURCE_DOES_NOT_EXIST", "Run: 1 in job: 2 doesn't exist")
    assert launcher.state(run_id).status is LaunchStatus.UNKNOWN


# ---- how runs end


def ended(api: DatabricksApi, launcher: DatabricksLauncher, code: str, kind: str, message: str = "") -> LaunchState:
    api.jobs.end_next(code, kind, message)
    run_id = launcher.launch(make_batch_id([code, kind]), "x")
    state = launcher.state(run_id)
    assert state.status is LaunchStatus.ENDED
    assert code in state.reason
    assert state.reason.endswith(f"see {api.url}/?o=1#job/{api.job_id}/run/{run_id}")
    return state


@pytest.mark.parametrize(("code", "ending"), ENDINGS.items())
def test_how_a_run_ends_by_its_code_whatever_its_type(
    databricks: DatabricksApi, launcher: DatabricksLauncher, code: str, ending: Ending
) -> None:
    for kind in ("CLIENT_ERROR", "INTERNAL_ERROR"):
        assert ended(databricks, launcher, code, kind).ending is ending


def test_every_code_of_the_sdk_is_known_or_goes_by_its_type() -> None:
    codes = {code.value for code in TerminationCodeCode}
    assert codes - set(ENDINGS) == {"LIBRARY_INSTALLATION_ERROR"}


@pytest.mark.parametrize("code", ["A_CODE_OF_NEXT_YEAR", "LIBRARY_INSTALLATION_ERROR"])
@pytest.mark.parametrize(
    ("kind", "ending"),
    [
        ("CLIENT_ERROR", Ending.PERMANENT),
        ("INTERNAL_ERROR", Ending.RETRYABLE),
        ("CLOUD_FAILURE", Ending.RETRYABLE),
        ("SOMETHING_NEW", Ending.RETRYABLE),
    ],
)
def test_how_a_run_ends_by_the_type_of_other_codes(
    databricks: DatabricksApi, launcher: DatabricksLauncher, code: str, kind: str, ending: Ending
) -> None:
    assert ended(databricks, launcher, code, kind).ending is ending


def test_the_reason_is_one_sentence_with_the_platforms_own_words(
    databricks: DatabricksApi, launcher: DatabricksLauncher
) -> None:
    message = "The cluster could not be started. \n" + "a trace\n" * 100
    state = ended(databricks, launcher, "CLUSTER_ERROR", "CLOUD_FAILURE", message)
    assert "ended with CLUSTER_ERROR and left no result: The cluster could not be started; see http" in state.reason
    assert "\n" not in state.reason
    assert len(ended(databricks, launcher, "DRIVER_ERROR", "INTERNAL_ERROR", "x" * 5000).reason) < 500


@pytest.mark.parametrize(
    ("code", "ending", "said"),
    [
        ("SUCCESS", Ending.RETRYABLE, "SUCCESS"),
        ("USER_CANCELED", Ending.CANCELLED, "CANCELED"),
        ("RUN_EXECUTION_ERROR", Ending.RETRYABLE, "FAILED"),
        ("MAX_CONCURRENT_RUNS_EXCEEDED", Ending.RETRYABLE, "MAXIMUM_CONCURRENT_RUNS_REACHED"),
        ("DISABLED", Ending.PERMANENT, "DISABLED"),
    ],
)
def test_a_workspace_without_termination_codes(
    databricks: DatabricksApi, launcher: DatabricksLauncher, code: str, ending: Ending, said: str
) -> None:
    databricks.jobs.old_states_only = True
    databricks.jobs.end_next(code, message="Why.")
    state = launcher.state(launcher.launch(BATCH, "x"))
    assert (state.status, state.ending) == (LaunchStatus.ENDED, ending)
    assert f"ended with {said} and left no result: Why; see " in state.reason


def test_a_running_run_without_a_status(
    databricks: DatabricksApi, launcher: DatabricksLauncher, place: Path, manifest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UDS_FAKE", "wait")
    databricks.jobs.old_states_only = True
    assert launcher.state(launcher.launch(BATCH, manifest)).status is LaunchStatus.RUNNING


def test_an_engine_that_fails_and_a_cluster_that_goes(
    databricks: DatabricksApi, launcher: DatabricksLauncher, place: Path, manifest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UDS_FAKE", "exit")
    state = end_of(launcher, launcher.launch(BATCH, manifest))
    assert state.ending is Ending.RETRYABLE
    assert "RUN_EXECUTION_ERROR" in state.reason
    assert "exit status 3" in state.reason
    monkeypatch.setenv("UDS_FAKE", "wait")
    run_id = launcher.launch(OTHER, write(databricks, OTHER))
    databricks.jobs.end(int(run_id), "CLUSTER_ERROR", "CLOUD_FAILURE", "The spot instance was taken away.")
    state = end_of(launcher, run_id)
    assert state.ending is Ending.RETRYABLE
    assert "CLUSTER_ERROR" in state.reason


def test_p23_a_run_of_another_job_is_not_ours(
    databricks: DatabricksApi, launcher: DatabricksLauncher, manifest: str
) -> None:
    foreign = databricks.jobs.create_job(FAKE_ENGINE)
    databricks.jobs.end_next("SUCCESS", "SUCCESS")
    run_id = DatabricksLauncher(launcher.workspace, {"default": foreign}).launch(BATCH, manifest)
    assert launcher.batch_of(run_id) is None


@pytest.mark.parametrize(
    "parameters", [{}, {"other": "x"}, {"manifest": ""}, {"manifest": "manifest.json"}, {"manifest": "/a/b"}]
)
def test_p23_a_run_of_our_job_that_somebody_started_by_hand(
    databricks: DatabricksApi, launcher: DatabricksLauncher, parameters: dict[str, str]
) -> None:
    databricks.jobs.end_next("SUCCESS", "SUCCESS")
    started = launcher.workspace.client.jobs.run_now(databricks.job_id, job_parameters=parameters)
    assert launcher.batch_of(str(started.run_id)) is None


def test_a_cancel_that_is_refused(
    databricks: DatabricksApi, launcher: DatabricksLauncher, place: Path, manifest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UDS_FAKE", "wait")
    run_id = launcher.launch(BATCH, manifest)
    databricks.fail(CANCEL, 400, "INVALID_STATE", "Not now")
    assert isinstance(raised(lambda: launcher.cancel(run_id)), PermanentError)
    databricks.fail(CANCEL, 403, "PERMISSION_DENIED", "No")
    assert "CAN_MANAGE_RUN" in raised(lambda: launcher.cancel(run_id)).remedy
    databricks.lose_answer(CANCEL, FOREVER)
    assert isinstance(raised(lambda: launcher.cancel(run_id)), RetryableError)
    databricks.heal()
    state = end_of(launcher, run_id)
    assert state.ending is Ending.CANCELLED
    databricks.fail(CANCEL, 400, "INVALID_STATE", "The run has ended")
    launcher.cancel(run_id)


# ---- the real engine as the job's task


def test_the_engine_itself_finds_its_manifest(databricks: DatabricksApi, place: Path) -> None:
    """Without Spark: it refuses a manifest that is newer than it before it starts a session."""
    job_id = databricks.jobs.create_job([sys.executable, "-m", "spark_entry.main", "--manifest", "{manifest}"])
    manifest = VolumeRunFolder(impatient(databricks), FOLDER).write_manifest(Manifest(BATCH, {}, (), version=99))
    launcher = DatabricksLauncher(impatient(databricks), {"default": job_id})
    run_id = launcher.launch(BATCH, manifest)
    assert "RUN_EXECUTION_ERROR" in end_of(launcher, run_id).reason
    assert "engine.too_old" in databricks.jobs.output(int(run_id))
