"""The engine as runs of Databricks jobs, one job for each compute group."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, cast

from databricks.sdk.errors import BadRequest, NotFound
from databricks.sdk.service.jobs import QueueSettings

from sync_core.adapters.databricks_client import DatabricksWorkspace, databricks_errors
from sync_core.domain.errors import PermanentError
from sync_core.ports import Ending, LaunchState, LaunchStatus

JOBS_SETTING = "UDS_DATABRICKS_JOBS"
"""The setting that holds the mapping from compute groups to job ids."""

ENDINGS: Mapping[str, Ending] = {
    # Nothing says that the runs were done: results decide, and without them it is tried again.
    "SUCCESS": Ending.RETRYABLE,
    "SUCCESS_WITH_FAILURES": Ending.RETRYABLE,
    "RUN_EXECUTION_ERROR": Ending.RETRYABLE,
    # Platform, cloud and cluster.
    "INTERNAL_ERROR": Ending.RETRYABLE,
    "DRIVER_ERROR": Ending.RETRYABLE,
    "CLUSTER_ERROR": Ending.RETRYABLE,
    "CLUSTER_TERMINATED_BY_USER": Ending.RETRYABLE,
    "CLOUD_FAILURE": Ending.RETRYABLE,
    "STORAGE_ACCESS_ERROR": Ending.RETRYABLE,
    "REPOSITORY_CHECKOUT_FAILED": Ending.RETRYABLE,
    "BREAKING_CHANGE": Ending.RETRYABLE,
    # No room.
    "SKIPPED": Ending.RETRYABLE,
    "CLUSTER_REQUEST_LIMIT_EXCEEDED": Ending.RETRYABLE,
    "WORKSPACE_RUN_LIMIT_EXCEEDED": Ending.RETRYABLE,
    "MAX_CONCURRENT_RUNS_EXCEEDED": Ending.RETRYABLE,
    "MAX_JOB_QUEUE_SIZE_EXCEEDED": Ending.RETRYABLE,
    "MAX_SPARK_CONTEXTS_EXCEEDED": Ending.RETRYABLE,
    # CANCELED is the platform's doing, as at the job's time limit; a person's is USER_CANCELED.
    "CANCELED": Ending.RETRYABLE,
    "USER_CANCELED": Ending.CANCELLED,
    # A person must change the job, the workspace or a permission.
    "INVALID_CLUSTER_REQUEST": Ending.PERMANENT,
    "INVALID_RUN_CONFIGURATION": Ending.PERMANENT,
    "RESOURCE_NOT_FOUND": Ending.PERMANENT,
    "UNAUTHORIZED_ERROR": Ending.PERMANENT,
    "FEATURE_DISABLED": Ending.PERMANENT,
    "BUDGET_POLICY_LIMIT_EXCEEDED": Ending.PERMANENT,
    "DISABLED": Ending.PERMANENT,
}
"""By termination code. Codes that are not here, LIBRARY_INSTALLATION_ERROR among them, go by their type."""

OLD_ENDINGS: Mapping[str, Ending] = {
    "CANCELED": Ending.CANCELLED,
    "UPSTREAM_CANCELED": Ending.CANCELLED,
    "DISABLED": Ending.PERMANENT,
}
"""By `result_state`, for a workspace that gives no termination code; all others are retried."""

OLD_END_STATES = frozenset({"TERMINATED", "SKIPPED", "INTERNAL_ERROR"})

_NO_JOB = re.compile(r"\bJob\b.*\bdoes not exist", re.I)

_NO_RUN = re.compile(r"\bRun\b.*(does not|doesn't) exist", re.I)

_MESSAGE_LENGTH = 200


class DatabricksLauncher:
    """A Launcher whose launch id is a run id. `jobs` maps each compute group to the id of the job that it runs as.

    The job takes the manifest's path as its parameter `manifest`; its own retries are off.
    """

    def __init__(self, workspace: DatabricksWorkspace, jobs: Mapping[str, int]) -> None:
        self.workspace = workspace
        self.jobs = dict(jobs)

    def launch(self, batch_id: str, manifest: str, compute: str = "default") -> str:
        job_id = self.jobs.get(compute)
        if job_id is None:
            known = ", ".join(sorted(self.jobs)) or "none"
            raise PermanentError(
                "launch.no_job",
                f"No Databricks job is set for the compute group {compute}; there are: {known}.",
                f"Add {compute} with its job id to {JOBS_SETTING}, or change the pipeline's compute.",
            )
        with databricks_errors(f"The Databricks job {job_id} cannot be started", f"CAN_MANAGE_RUN on job {job_id}"):
            try:
                started: Any = self.workspace.client.jobs.run_now(
                    job_id,
                    # The same token gives the same run, for as long as Databricks keeps it: this is what starts it once.
                    idempotency_token=batch_id,
                    job_parameters={"manifest": manifest},
                    queue=QueueSettings(enabled=True),
                )
            except (BadRequest, NotFound) as error:
                if not _NO_JOB.search(str(error)):
                    raise
                raise PermanentError(
                    "launch.unknown_job",
                    f"The Databricks job {job_id} of the compute group {compute} does not exist.",
                    f"Set the id of an existing job in {JOBS_SETTING}.",
                ) from error
        return str(started.run_id)

    def state(self, launch_id: str) -> LaunchState:
        run = self._run(launch_id)
        if run is None:
            return LaunchState(LaunchStatus.UNKNOWN, f"Databricks knows no run {launch_id}")
        return read_state(run)

    def batch_of(self, launch_id: str) -> str | None:
        run = self._run(launch_id)
        if run is None or run.get("job_id") not in self.jobs.values():
            return None
        parameters = cast("list[dict[str, Any]]", run.get("job_parameters") or [])
        path = next((item.get("value") for item in parameters if item.get("name") == "manifest"), None)
        manifest = PurePosixPath(path or "")
        return (manifest.parent.name or None) if manifest.name == "manifest.json" else None

    def cancel(self, launch_id: str) -> None:
        number = _number(launch_id)
        if number is None:
            return
        with databricks_errors(f"The Databricks run {launch_id} cannot be cancelled", "CAN_MANAGE_RUN on its job"):
            try:
                self.workspace.client.jobs.cancel_run(number)
            except (BadRequest, NotFound):
                # Databricks may refuse to cancel what has ended.
                if self.state(launch_id).status is LaunchStatus.RUNNING:
                    raise

    def _run(self, launch_id: str) -> dict[str, Any] | None:
        """The run as Databricks describes it. Not by `jobs.get_run`, which drops a code that the SDK does not know."""
        number = _number(launch_id)
        if number is None:
            return None
        with databricks_errors(f"The Databricks run {launch_id} cannot be looked up", "CAN_VIEW on its job"):
            client = self.workspace.client
            api = cast("Any", client.api_client)
            headers = {"Accept": "application/json"}
            if client.config.workspace_id:
                headers["X-Databricks-Workspace-Id"] = client.config.workspace_id
            try:
                found = api.do("GET", "/api/2.2/jobs/runs/get", query={"run_id": number}, headers=headers)
            except NotFound:
                return None
            except BadRequest as error:
                if _NO_RUN.search(str(error)):
                    return None
                raise
        return cast("dict[str, Any]", found)


def read_state(run: Mapping[str, Any]) -> LaunchState:
    """What a run's description says: `status` with its termination code, or the old `state` where there is none."""
    status = cast("dict[str, Any]", run.get("status") or {})
    if status:
        if status.get("state") != "TERMINATED":
            return LaunchState(LaunchStatus.RUNNING)
        details = cast("dict[str, Any]", status.get("termination_details") or {})
        code = str(details.get("code") or "an unknown code")
        return _ended(run, code, _ending(code, details.get("type")), details.get("message"))
    old = cast("dict[str, Any]", run.get("state") or {})
    life = str(old.get("life_cycle_state") or "")
    if life not in OLD_END_STATES:
        return LaunchState(LaunchStatus.RUNNING)
    result = str(old.get("result_state") or life)
    return _ended(run, result, OLD_ENDINGS.get(result, Ending.RETRYABLE), old.get("state_message"))


def _ending(code: str, kind: object) -> Ending:
    by_type = Ending.PERMANENT if kind == "CLIENT_ERROR" else Ending.RETRYABLE
    return ENDINGS.get(code, by_type)


def _ended(run: Mapping[str, Any], code: str, ending: Ending, message: object) -> LaunchState:
    lines = str(message or "").strip().splitlines()
    text = lines[0].rstrip(". ") if lines else ""
    text = text if len(text) <= _MESSAGE_LENGTH else f"{text[:_MESSAGE_LENGTH]}…"
    page = run.get("run_page_url")
    reason = f"its Databricks run {run.get('run_id')} ended with {code} and left no result"
    return LaunchState(
        LaunchStatus.ENDED, f"{reason}{f': {text}' if text else ''}{f'; see {page}' if page else ''}", ending
    )


def _number(launch_id: str) -> int | None:
    """A run id, None for what cannot be one: a batch id of this machine, for instance."""
    return int(launch_id) if launch_id.isascii() and launch_id.isdigit() and len(launch_id) < 20 else None
