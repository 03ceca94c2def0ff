"""The workflows: what actionlint and zizmor say of them, and what neither looks at."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
PINNED = re.compile(r"uses: [A-Za-z][\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
VENDORS = {"actions", "azure", "Azure", "databricks"}
ALLOWED_RUNS = re.compile(
    r"make (setup|lint|test)|tools/[a-z-]+ ?.*|azd config set .*|gh attestation verify .*|echo \"\$DIGEST .*|echo \"digest=.*"
)


def load(name: str) -> dict[str, Any]:
    return YAML(typ="safe").load((ROOT / f".github/workflows/{name}.yml").read_text(encoding="utf-8"))


def jobs() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path in WORKFLOWS:
        for name, job in load(path.stem)["jobs"].items():
            yield path.stem, name, job


def steps() -> Iterator[tuple[str, dict[str, Any]]]:
    for workflow, name, job in jobs():
        for step in job.get("steps", ()):
            yield f"{workflow}.{name}", step


def check(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "tools/check-workflows", folder],
        text=True,
        capture_output=True,
        check=False,
        env={**os.environ, **environment},
    )


def test_actionlint_and_zizmor_find_nothing() -> None:
    done = check(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("No faults in the workflows.\n")


@pytest.mark.parametrize(("file", "good", "bad", "said"), [
    ("deliver.yml", "needs: [build, dev]", "needs: [build, developement]", "needs job"),
    ("deliver.yml", "steps.build.outputs", "steps.built.outputs", "property \"built\" is not defined"),
    ("environment.yml", "        with:\n          persist-credentials: false\n", "", "artipacked"),
    ("environment.yml", 'tools/deploy "$UDS_TARGET"', "tools/deploy ${{ inputs.environment }}", "template-injection"),
    ("ci.yml", "@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1", "@v7", "unpinned-uses"),
    ("ci.yml", "permissions: {}", "permissions: write-all", "excessive-permissions"),
])  # fmt: skip
def test_a_fault_in_a_workflow_fails_the_check(tmp_path: Path, file: str, good: str, bad: str, said: str) -> None:
    shutil.copytree(ROOT / ".github", tmp_path / ".github")
    (tmp_path / ".git").mkdir()
    path = tmp_path / ".github/workflows" / file
    assert good in path.read_text(encoding="utf-8")
    path.write_text(path.read_text(encoding="utf-8").replace(good, bad), encoding="utf-8")
    done = check(tmp_path)
    assert done.returncode != 0
    assert said in done.stdout + done.stderr


def test_without_go_the_check_says_what_to_install(tmp_path: Path) -> None:
    done = check(ROOT, UDS_TOOLS=str(tmp_path), PATH="/usr/bin:/bin")
    if shutil.which("go", path="/usr/bin:/bin"):
        pytest.fail("Go lies in /usr/bin here: this test needs a PATH without it")
    assert done.returncode == 1
    assert "Go is needed to build actionlint and was not found: install it" in done.stderr


def test_every_action_is_pinned_by_commit_with_its_version_and_comes_from_a_known_vendor() -> None:
    for path in WORKFLOWS:
        for line in path.read_text(encoding="utf-8").splitlines():
            if "uses:" not in line or "uses: ./" in line:
                continue
            assert PINNED.search(line), f"{path.name}: {line.strip()}"
            assert line.split("uses: ")[1].split("/")[0] in VENDORS
    pins: dict[str, set[str]] = {}
    for _, step in steps():
        if "uses" in step:
            name, _, commit = step["uses"].partition("@")
            pins.setdefault(name, set()).add(commit)
    assert {name: found for name, found in pins.items() if len(found) > 1} == {}


def test_every_step_calls_a_script_that_any_runner_can_call() -> None:
    for where, step in steps():
        for line in step.get("run", "").strip().splitlines():
            assert ALLOWED_RUNS.fullmatch(line.strip()), f"{where}: {line}"
            for script in re.findall(r"tools/[a-z-]+", line):
                assert os.access(ROOT / script, os.X_OK), f"{where}: {script}"


def test_no_workflow_needs_a_stored_secret() -> None:
    for path in WORKFLOWS:
        assert "secrets." not in path.read_text(encoding="utf-8").replace("secrets, workflows", ""), path.name
    for where, step in steps():
        if step.get("uses", "").startswith("azure/login@"):
            assert {*step["with"]} == {"client-id", "tenant-id", "subscription-id"}, where


def test_permissions_are_given_job_by_job_and_writing_ones_are_known() -> None:
    allowed = {
        "deliver.build": {"id-token", "attestations"},
        "environment.deploy": {"id-token"},
        "rollback.rollback": {"id-token"},
    }
    for path in WORKFLOWS:
        assert load(path.stem)["permissions"] == {}, path.name
    for workflow, name, job in jobs():
        writing = {scope for scope, access in job["permissions"].items() if access == "write"}
        calls_environment = job.get("uses", "").endswith("environment.yml")
        assert writing == ({"id-token"} if calls_environment else allowed.get(f"{workflow}.{name}", set())), (
            workflow,
            name,
        )


def test_the_release_is_built_once_and_promoted_from_one_environment_to_the_next() -> None:
    delivery = load("deliver")["jobs"]
    assert load("deliver")["on"]["push"]["branches"] == ["main"]
    builders = [where for where, step in steps() if "tools/build-package" in step.get("run", "")]
    assert builders == ["ci.package", "deliver.build"]
    assert load("ci")["jobs"]["package"]["if"] == "github.event_name == 'pull_request'"
    assert delivery["build"]["needs"] == "check"
    assert delivery["check"]["uses"] == "./.github/workflows/ci.yml"
    assert [delivery[name]["needs"] for name in ("dev", "test", "prod")] == [
        "build",
        ["build", "dev"],
        ["build", "test"],
    ]
    for name in ("dev", "test", "prod"):
        assert delivery[name]["uses"] == "./.github/workflows/environment.yml"
        assert delivery[name]["with"] == {"environment": name, "digest": "${{ needs.build.outputs.digest }}"}
        assert "if" not in delivery[name]


def test_an_environment_verifies_deploys_and_tries_in_this_order() -> None:
    deploy = load("environment")["jobs"]["deploy"]
    assert deploy["environment"] == "${{ inputs.environment }}"
    runs = [step["run"].split()[0] for step in deploy["steps"] if "run" in step]
    assert runs == ["echo", "gh", "azd", "tools/deploy", "tools/smoke-test"]
    assert not [step for step in deploy["steps"] if step.get("continue-on-error")]


def test_deployments_and_rollbacks_of_an_environment_never_overlap_and_are_never_cut_off() -> None:
    groups = [
        load(workflow)["jobs"][job]["concurrency"]
        for workflow, job in (("environment", "deploy"), ("rollback", "rollback"))
    ]
    assert groups == [{"group": "environment-${{ inputs.environment }}", "cancel-in-progress": False}] * 2
    assert load("deliver")["concurrency"] == {"group": "deliver", "cancel-in-progress": False}


def test_every_variable_that_the_scripts_need_is_given() -> None:
    from tools.delivery.provision import TO_PROVISION, TOLD
    from tools.delivery.target import NEEDED

    assert {*NEEDED, *TO_PROVISION, TOLD} <= {*load("environment")["jobs"]["deploy"]["env"]}
    assert {*NEEDED} <= {*load("rollback")["jobs"]["rollback"]["env"]}
    page = (ROOT / "docs/delivery.md").read_text(encoding="utf-8")
    used = {name for path in WORKFLOWS for name in re.findall(r"vars\.([A-Z_]+)", path.read_text(encoding="utf-8"))}
    assert {name for name in used if f"`{name}`" not in page} == set()


def test_every_job_ends_by_itself() -> None:
    for workflow, name, job in jobs():
        assert "uses" in job or isinstance(job["timeout-minutes"], int), (workflow, name)


def test_the_functions_lock_holds_the_same_versions_for_what_the_app_needs() -> None:
    whole, app = (locked(ROOT / name) for name in ("requirements.lock", "requirements-functions.lock"))
    assert {name: version for name, version in app.items() if whole.get(name) != version} == {}
    assert not {*app} & {"pyspark", "delta-spark", "pytest", "ruff"}
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for extra in ("control", "azure"):
        [block] = re.findall(rf"^{extra} = \[(.*?)^\]", project, re.MULTILINE | re.DOTALL)
        wanted = {re.sub(r"[-_.]+", "-", name).lower() for name in re.findall(r'"([\w.-]+)', block)}
        assert wanted <= {*app}, "run make lock"


def locked(path: Path) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)(?:\[[^\]]*\])?==([^\s;]+)", path.read_text(encoding="utf-8"), re.MULTILINE))
