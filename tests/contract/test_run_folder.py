"""What every RunFolder does."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sync_core.adapters.local_run_folder import LocalRunFolder
from sync_core.domain.codec import to_json
from sync_core.domain.errors import PermanentError
from sync_core.domain.run import Action, Manifest, Outcome, RunKind, RunResult
from sync_core.ports import RunFolder

RESULT = RunResult("orders", "key", "batch", RunKind.INCREMENTAL, 1, Outcome.SUCCEEDED)


@pytest.fixture(params=["local"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> RunFolder:
    return {"local": lambda: LocalRunFolder(tmp_path / "runs")}[request.param]()


def put_result(manifest_path: str, text: str) -> None:
    """Write a result where the engine does: beside the manifest."""
    path = Path(manifest_path).parent / "results" / "key.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def test_a_manifest_is_written_once(folder: RunFolder) -> None:
    assert folder.read_manifest("batch") is None
    first = Manifest("batch", {}, (), Action.PLAN)
    path = folder.write_manifest(first)
    assert folder.write_manifest(Manifest("batch", {}, (), Action.RUN)) == path
    assert folder.read_manifest("batch") == first


def test_p21_of_many_writers_of_a_manifest_all_see_one(folder: RunFolder) -> None:
    manifests = [Manifest("batch", {}, (), Action.PLAN, version) for version in range(30)]

    def write(manifest: Manifest) -> Manifest | None:
        folder.write_manifest(manifest)
        return folder.read_manifest("batch")

    with ThreadPoolExecutor(8) as pool:
        assert len(set(map(str, pool.map(write, manifests)))) == 1


def test_a_result_is_none_until_it_is_there(folder: RunFolder) -> None:
    path = folder.write_manifest(Manifest("batch", {}, ()))
    assert folder.read_result("batch", "key") is None
    assert folder.read_result("other", "key") is None
    put_result(path, json.dumps({**to_json(RESULT), "from_a_later_version": 1}))
    assert folder.read_result("batch", "key") == RESULT


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"rows": 1}', json.dumps({**to_json(RESULT), "rows": [1]})])
def test_a_result_that_cannot_be_understood(folder: RunFolder, text: str) -> None:
    put_result(folder.write_manifest(Manifest("batch", {}, ())), text)
    with pytest.raises(PermanentError, match="cannot be read"):
        folder.read_result("batch", "key")


def test_local_a_request_to_stop_is_a_file_named_like_the_run(tmp_path: Path) -> None:
    folder = LocalRunFolder(tmp_path / "runs")
    for _ in range(2):
        folder.ask_to_stop("batch", "key")
    assert [path.name for path in (tmp_path / "runs/batch/stop").iterdir()] == ["key"]
    path = folder.write_manifest(Manifest("batch", {}, ()))
    assert folder.read_manifest("batch") == Manifest("batch", {}, ())
    assert Path(path).parent == tmp_path / "runs/batch"


def test_discard_and_forget(folder: RunFolder) -> None:
    now = datetime.now(UTC)
    assert folder.forget(now, set()) == 0
    for batch in ("old", "open", "new", "plan"):
        path = Path(folder.write_manifest(Manifest(batch, {}, ())))
        age = 0 if batch == "new" else 86_400
        os.utime(path.parent, (now.timestamp() - age, now.timestamp() - age))
    folder.discard("plan")
    folder.discard("never there")
    assert folder.forget(now - timedelta(hours=1), {"open"}) == 1
    assert [batch for batch in ("old", "open", "new", "plan") if folder.read_manifest(batch)] == ["open", "new"]


def test_local_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(PermanentError, match=r"cannot be written: Not a directory.*--state"):
        LocalRunFolder(tmp_path / "runs").write_manifest(Manifest("batch", {}, ()))
