"""The Jobs API's part of the Databricks stand-in: runs that are processes on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tests.support.databricks_files import Answer, failure

GRACE_SECONDS = 10.0
"""How long a cancelled task may take to stop by itself."""

FIRST_RUN = 9_100_000_000_000_001
"""Run ids are 64 bits wide: these are beyond what a float can count."""


@dataclass(frozen=True)
class Termination:
    """How a run ended."""

    code: str
    type: str = "CLIENT_ERROR"
    message: str = ""

    @property
    def result_state(self) -> str:
        """What the old `state` says of it."""
        return {
            "SUCCESS": "SUCCESS",
            "USER_CANCELED": "CANCELED",
            "SUCCESS_WITH_FAILURES": "SUCCESS_WITH_FAILURES",
            "MAX_CONCURRENT_RUNS_EXCEEDED": "MAXIMUM_CONCURRENT_RUNS_REACHED",
            "DISABLED": "DISABLED",
        }.get(self.code, "FAILED")


@dataclass
class Job:
    """A job with one task, the command; `{manifest}` in it is the manifest's path on this machine."""

    job_id: int
    command: Sequence[str]
    max_concurrent_runs: int


@dataclass
class Run:
    run_id: int
    job: Job
    parameters: dict[str, str]
    state: Literal["QUEUED", "PENDING", "RUNNING", "TERMINATING", "TERMINATED"] = "PENDING"
    ended: Termination | None = None
    to_end: Termination | None = None
    process: subprocess.Popen[bytes] | None = None
    done: threading.Event = field(default_factory=threading.Event)


class JobRuns:
    """Jobs and their runs, by the rules of the service: one run for each token, queueing, limits, asynchronous cancel."""

    def __init__(self, logs: Path, to_local: Callable[[str], Path], host: Callable[[], str]) -> None:
        self.jobs: dict[int, Job] = {}
        self.runs: dict[int, Run] = {}
        self.old_states_only = False
        self._logs = logs
        self._to_local = to_local
        self._host = host
        self._tokens: dict[str, int] = {}
        self._scripted: deque[Termination] = deque()
        self._lock = threading.RLock()
        self._threads: list[threading.Thread] = []
        logs.mkdir(parents=True)

    def create_job(self, command: Sequence[str], max_concurrent_runs: int = 1000) -> int:
        job = Job(101 + len(self.jobs), command, max_concurrent_runs)
        self.jobs[job.job_id] = job
        return job.job_id

    def end_next(self, code: str, kind: str = "CLIENT_ERROR", message: str = "") -> None:
        """The next run that would start ends so instead; more calls, more runs."""
        self._scripted.append(Termination(code, kind, message))

    def end(self, run_id: int, code: str, kind: str = "CLIENT_ERROR", message: str = "") -> None:
        """A running run ends so at once: its cluster is gone, and its process with it."""
        self._stop(self.runs[run_id], Termination(code, kind, message), signal.SIGKILL)

    def forget_run(self, run_id: int) -> None:
        """As after 60 days, or when a person deletes it: its token is used up all the same."""
        del self.runs[run_id]

    def output(self, run_id: int) -> str:
        """What the task printed."""
        return (self._logs / str(run_id)).read_text()

    def close(self) -> None:
        """End every process that is left."""
        with self._lock:
            self.jobs.clear()
            left = list(self.runs.values())
        for run in left:
            self._stop(run, Termination("CANCELED", "INTERNAL_ERROR"), signal.SIGKILL)
        for thread in self._threads:
            thread.join()

    def run_now(self, body: dict[str, Any]) -> Answer:
        with self._lock:
            token = str(body.get("idempotency_token") or "")
            if len(token) > 64:
                return failure(400, "INVALID_PARAMETER_VALUE", "The idempotency token must have at most 64 characters.")
            if token in self._tokens:
                found = self.runs.get(self._tokens[token])
                if found is None:
                    return failure(400, "INVALID_PARAMETER_VALUE", f"The run with the token {token} was deleted.")
                return 200, {"run_id": found.run_id, "number_in_job": found.run_id}
            job = self.jobs.get(int(body.get("job_id", 0)))
            if job is None:
                return failure(400, "INVALID_PARAMETER_VALUE", f"Job {body.get('job_id')} does not exist.")
            has_room = self._active(job) < job.max_concurrent_runs
            run = Run(FIRST_RUN + len(self._tokens), job, dict(body.get("job_parameters") or {}))
            self.runs[run.run_id] = run
            self._tokens[token or f"none {run.run_id}"] = run.run_id
            if has_room:
                self._start(run)
            elif (body.get("queue") or {}).get("enabled"):
                run.state = "QUEUED"
            else:
                message = (
                    f"Skipping this run because the limit of {job.max_concurrent_runs} concurrent runs is reached."
                )
                self._end(run, Termination("MAX_CONCURRENT_RUNS_EXCEEDED", "CLIENT_ERROR", message))
            return 200, {"run_id": run.run_id, "number_in_job": run.run_id}

    def get(self, run_id: int) -> Answer:
        if run_id >= 2**63:
            return failure(400, "MALFORMED_REQUEST", "Could not parse request object: a number is out of range.")
        with self._lock:
            run = self.runs.get(run_id)
            return (200, self._describe(run)) if run else _no_run(run_id)

    def cancel(self, run_id: int) -> Answer:
        run = self.runs.get(run_id)
        if run is None:
            return _no_run(run_id)
        self._stop(run, Termination("USER_CANCELED", "SUCCESS", "Run cancelled."), signal.SIGTERM)
        return 200, {}

    def _active(self, job: Job) -> int:
        return sum(run.job is job and run.state in ("PENDING", "RUNNING", "TERMINATING") for run in self.runs.values())

    def _start(self, run: Run) -> None:
        if self._scripted:
            self._end(run, self._scripted.popleft())
            return
        run.state = "RUNNING"
        local = str(self._to_local(run.parameters.get("manifest", "")))
        with (self._logs / str(run.run_id)).open("wb") as log:
            run.process = subprocess.Popen(
                [part.replace("{manifest}", local) for part in run.job.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._threads.append(threading.Thread(target=self._wait, args=(run, run.process), daemon=True))
        self._threads[-1].start()

    def _wait(self, run: Run, process: subprocess.Popen[bytes]) -> None:
        status = process.wait()
        # A process of the group may outlive its first one, as the JVM its Python.
        _signal(process, signal.SIGKILL)
        message = f"Task main failed with exit status {status}. This caused all downstream tasks to get skipped."
        found = (
            Termination("SUCCESS", "SUCCESS") if status == 0 else Termination("RUN_EXECUTION_ERROR", message=message)
        )
        with self._lock:
            self._end(run, run.to_end or found)

    def _stop(self, run: Run, how: Termination, number: signal.Signals) -> None:
        with self._lock:
            if run.state == "TERMINATED":
                return
            run.to_end = run.to_end or how
            if run.process is None:
                self._end(run, how)
                return
            run.state = "TERMINATING"
            _signal(run.process, number)
        if number is signal.SIGTERM:
            self._threads.append(threading.Thread(target=self._kill_late, args=(run, run.process), daemon=True))
            self._threads[-1].start()

    def _kill_late(self, run: Run, process: subprocess.Popen[bytes]) -> None:
        if not run.done.wait(GRACE_SECONDS):
            _signal(process, signal.SIGKILL)

    def _end(self, run: Run, how: Termination) -> None:
        run.state, run.ended = "TERMINATED", how
        run.done.set()
        waiting = next((one for one in self.runs.values() if one.job is run.job and one.state == "QUEUED"), None)
        if waiting and self.jobs and self._active(run.job) < run.job.max_concurrent_runs:
            self._start(waiting)

    def _describe(self, run: Run) -> dict[str, Any]:
        old: dict[str, Any] = {"life_cycle_state": run.state, "state_message": run.ended.message if run.ended else ""}
        status: dict[str, Any] = {"state": run.state}
        if run.ended:
            old["result_state"] = run.ended.result_state
            status["termination_details"] = {
                "code": run.ended.code,
                "type": run.ended.type,
                "message": run.ended.message,
            }
        described: dict[str, Any] = {
            "job_id": run.job.job_id,
            "run_id": run.run_id,
            "run_page_url": f"{self._host()}/?o=1#job/{run.job.job_id}/run/{run.run_id}",
            "run_type": "JOB_RUN",
            "state": old,
            "job_parameters": [{"name": name, "default": "", "value": value} for name, value in run.parameters.items()],
        }
        return described if self.old_states_only else {**described, "status": status}


def _no_run(run_id: int) -> Answer:
    return failure(400, "INVALID_PARAMETER_VALUE", f"Run {run_id} does not exist.")


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
