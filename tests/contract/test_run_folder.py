"""What every RunFolder does."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath

import pytest

from sync_core.adapters.databricks_client import DatabricksWorkspace
from sync_core.adapters.local_run_folder import LocalRunFolder
from sync_core.adapters.volume_run_folder import VolumeRunFolder
from sync_core.domain.codec import to_json
from sync_core.domain.errors import PermanentError, RetryableError, SyncError
from sync_core.domain.run import Action, Manifest, Outcome, RunKind, RunResult
from sync_core.ports import RunFolder
from tests.support.databricks_api import FOLDER, DatabricksApi

RESULT = RunResult("orders", "key", "batch", RunKind.INCREMENTAL, 1, Outcome.SUCCEEDED)

FOREVER = 1_000_000


@dataclass
class Site:
    """A run folder, and where on this machine the engine sees what it calls a path."""

    folder: RunFolder
    to_local: Callable[[str], Path]

    def write(self, batch_id: str = "batch") -> Path:
        """Write a manifest; returns the batch's folder on this machine."""
        return self.to_local(self.folder.write_manifest(Manifest(batch_id, {}, ()))).parent

    def put_result(self, text: str) -> Path:
        """Write a result where the engine does: beside the manifest."""
        path = self.write() / "results" / "key.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path


def local(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    return Site(LocalRunFolder(tmp_path / "runs"), Path)


def databricks(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    api: DatabricksApi = request.getfixturevalue("databricks")
    return Site(volume(api), api.files.local)


def volume(api: DatabricksApi, folder: str = FOLDER) -> VolumeRunFolder:
    return VolumeRunFolder(DatabricksWorkspace(api.url, token=api.token, retry_seconds=1), folder, page=2)


@pytest.fixture(params=[local, databricks], ids=lambda make: make.__name__)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    return request.param(request, tmp_path)


def age(folder: Path, seconds: float) -> None:
    """As if a batch's folder had last been touched so long ago."""
    then = datetime.now(UTC).timestamp() - seconds
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (then, then))


def test_a_manifest_is_written_once(site: Site) -> None:
    assert site.folder.read_manifest("batch") is None
    first = Manifest("batch", {}, (), Action.PLAN)
    path = site.folder.write_manifest(first)
    assert path.endswith("/batch/manifest.json")
    assert site.folder.write_manifest(Manifest("batch", {}, (), Action.RUN)) == path
    assert site.folder.read_manifest("batch") == first


def test_the_engine_finds_it_at_the_path(site: Site) -> None:
    manifest = Manifest("batch", {}, (), Action.CHECK)
    assert json.loads(site.to_local(site.folder.write_manifest(manifest)).read_text()) == to_json(manifest)


def test_p21_of_many_writers_of_a_manifest_all_see_one(site: Site) -> None:
    manifests = [Manifest("batch", {}, (), Action.PLAN, version) for version in range(30)]

    def write(manifest: Manifest) -> Manifest | None:
        site.folder.write_manifest(manifest)
        return site.folder.read_manifest("batch")

    with ThreadPoolExecutor(8) as pool:
        assert len(set(map(str, pool.map(write, manifests)))) == 1
    assert [path.name for path in site.write().iterdir()] == ["manifest.json"]


def test_a_result_is_none_until_it_is_there(site: Site) -> None:
    site.write()
    assert site.folder.read_result("batch", "key") is None
    assert site.folder.read_result("other", "key") is None
    path = site.put_result(json.dumps({**to_json(RESULT), "from_a_later_version": 1}))
    assert site.folder.read_result("batch", "key") == RESULT
    path.rename(path.with_suffix(".tmp"))
    assert site.folder.read_result("batch", "key") is None


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"rows": 1}', json.dumps({**to_json(RESULT), "rows": [1]})])
def test_a_result_that_cannot_be_understood(site: Site, text: str) -> None:
    site.put_result(text)
    with pytest.raises(PermanentError, match=r"key\.json cannot be read") as info:
        site.folder.read_result("batch", "key")
    assert info.value.code == "run_folder.unreadable"


def test_a_manifest_that_cannot_be_understood(site: Site) -> None:
    (site.write() / "manifest.json").write_text("{")
    with pytest.raises(PermanentError, match=r"manifest\.json cannot be read") as info:
        site.folder.read_manifest("batch")
    assert info.value.code == "run_folder.unreadable"


def test_a_run_is_asked_to_stop(site: Site) -> None:
    """The engine looks into the folder `stop` for files that are named like runs."""
    folder = site.write()
    for key in ("one", "two", "one"):
        site.folder.ask_to_stop("batch", key)
    assert sorted(path.name for path in (folder / "stop").iterdir()) == ["one", "two"]
    site.folder.discard("batch")
    assert not folder.exists()


def test_discard_and_forget(site: Site) -> None:
    now = datetime.now(UTC)
    assert site.folder.forget(now, set()) == 0
    for batch in ("old", "open", "new", "plan"):
        folder = site.write(batch)
        site.folder.ask_to_stop(batch, "key")
        age(folder, 0 if batch == "new" else 86_400)
    site.folder.discard("plan")
    site.folder.discard("never there")
    assert site.folder.forget(now - timedelta(hours=1), {"open"}) == 1
    assert [batch for batch in ("old", "open", "new", "plan") if site.folder.read_manifest(batch)] == ["open", "new"]
    assert site.folder.forget(now - timedelta(hours=1), {"open"}) == 0


def test_forget_reaches_every_batch(site: Site) -> None:
    names = [f"batch{number:02}" for number in range(9)]
    for name in names:
        folder = site.write(name)
        (folder / "results").mkdir()
        for number in range(5):
            (folder / "results" / f"{number}.json").write_text("{}")
        age(folder, 86_400)
    assert site.folder.forget(datetime.now(UTC) - timedelta(hours=1), {"batch04"}) == 8
    assert [name for name in names if site.folder.read_manifest(name)] == ["batch04"]
    assert not site.to_local(f"{FOLDER}/batch00").exists()


# ---- on this machine


def test_local_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    folder = LocalRunFolder(tmp_path / "runs")
    with pytest.raises(PermanentError, match=r"cannot be written: Not a directory.*--state"):
        folder.write_manifest(Manifest("batch", {}, ()))
    with pytest.raises(PermanentError, match=r"cannot be written: Not a directory.*--state"):
        folder.ask_to_stop("batch", "key")


# ---- in a volume


@pytest.mark.parametrize("error", [RetryableError, PermanentError])
def test_volume_what_cannot_be_forgotten_keeps_the_others_no_longer(
    databricks: DatabricksApi, monkeypatch: pytest.MonkeyPatch, error: type[SyncError]
) -> None:
    """A call that fails or is ended half way has brought it further: or no night would ever be long enough."""
    folder = volume(databricks)
    names = [f"batch{number:02}" for number in range(12)]
    for name in names:
        folder.write_manifest(Manifest(name, {}, ()))
        age(databricks.files.local(f"{FOLDER}/{name}"), 86_400)
    look = folder._is_idle

    def is_idle(path: PurePosixPath, limit: float) -> bool:
        if path.name == "batch11":
            raise error("test.away", "It cannot be listed.")
        return look(path, limit)

    monkeypatch.setattr(folder, "_is_idle", is_idle)
    with pytest.raises(error, match="cannot be listed"):
        folder.forget(datetime.now(UTC) - timedelta(hours=1), set())
    left = [name for name in names if folder.read_manifest(name)]
    assert "batch11" in left
    assert len(left) < 12 if error is RetryableError else left == ["batch11"]


def test_volume_a_batch_whose_result_is_new_is_not_old(databricks: DatabricksApi) -> None:
    site = Site(volume(databricks), databricks.files.local)
    age(site.write(), 86_400)
    site.put_result(json.dumps(to_json(RESULT)))
    assert site.folder.forget(datetime.now(UTC) - timedelta(hours=1), set()) == 0
    assert site.folder.read_result("batch", "key") == RESULT


def test_volume_a_result_is_never_read_in_part(databricks: DatabricksApi) -> None:
    site = Site(volume(databricks), databricks.files.local)
    content = json.dumps(to_json(RESULT))
    # Ends with an object that is JSON by itself: a reader of parts would take it for the whole.
    site.put_result(content + " " * 5000)
    for length in (0, 10, len(content), len(content) + 4999):
        databricks.cut_answer("results/key.json", length)
        with pytest.raises(RetryableError):
            site.folder.read_result("batch", "key")
    assert site.folder.read_result("batch", "key") == RESULT


def test_volume_files_go_through_the_workspace_itself(databricks: DatabricksApi) -> None:
    """Not by presigned URLs of the storage account, which a private network closes."""
    folder = volume(databricks)
    folder.write_manifest(Manifest("batch", {}, ()))
    assert folder.read_manifest("batch") == Manifest("batch", {}, ())
    paths = {path for _, path, _ in databricks.requests}
    assert paths == {"/.well-known/databricks-config", f"/api/2.0/fs/files{FOLDER}/batch/manifest.json"}


def test_volume_a_manifest_whose_answer_is_lost_is_there_once(databricks: DatabricksApi) -> None:
    folder, manifest = volume(databricks), Manifest("batch", {}, (), Action.CHECK)
    databricks.lose_answer("manifest.json", FOREVER)
    with pytest.raises(RetryableError, match=r"batch/manifest\.json cannot be written"):
        folder.write_manifest(manifest)
    databricks.heal()
    assert folder.write_manifest(Manifest("batch", {}, (), Action.RUN)) == f"{FOLDER}/batch/manifest.json"
    assert folder.read_manifest("batch") == manifest


@pytest.mark.parametrize(
    ("status", "code", "kind", "expected"),
    [
        (403, "PERMISSION_DENIED", PermanentError, "databricks.forbidden"),
        (401, "UNAUTHENTICATED", PermanentError, "databricks.sign_in"),
        (400, "INVALID_PARAMETER_VALUE", PermanentError, "databricks.refused"),
        (429, "RESOURCE_EXHAUSTED", RetryableError, "databricks.busy"),
        (500, "INTERNAL_ERROR", RetryableError, "databricks.unavailable"),
        (503, "TEMPORARILY_UNAVAILABLE", RetryableError, "databricks.unavailable"),
    ],
)
def test_volume_p26_faults_of_the_service(
    databricks: DatabricksApi, status: int, code: str, kind: type[SyncError], expected: str
) -> None:
    site = Site(volume(databricks), databricks.files.local)
    age(site.write("old"), 86_400)
    calls: list[tuple[str, Callable[[], object]]] = [
        ("WRITE VOLUME", lambda: site.folder.write_manifest(Manifest("batch", {}, ()))),
        ("READ VOLUME", lambda: site.folder.read_manifest("old")),
        ("READ VOLUME", lambda: site.folder.read_result("old", "key")),
        ("WRITE VOLUME", lambda: site.folder.ask_to_stop("old", "key")),
        ("READ VOLUME", lambda: site.folder.forget(datetime.now(UTC), set())),
        ("READ VOLUME", lambda: site.folder.discard("old")),
    ]
    # The SDK tries these anew for a second or two each time.
    for privilege, call in calls[:2] if status in (429, 503) else calls:
        databricks.fail("/api/2.0/fs/", status, code, "This is why.", FOREVER)
        with pytest.raises(kind, match="This is why") as info:
            call()
        databricks.heal()
        assert info.value.code == expected
        assert FOLDER in info.value.message
        assert databricks.token not in str(info.value)
        if status in (401, 403):
            assert privilege in info.value.remedy
            assert "USE SCHEMA" in info.value.remedy
    assert site.folder.read_manifest("old") == Manifest("old", {}, ())


def test_volume_that_is_not_there_is_not_an_empty_one(databricks: DatabricksApi) -> None:
    """A result that is missing closes its run: a volume that is missing must not."""
    folder = volume(databricks, "/Volumes/main/uds/gone")
    calls: list[Callable[[], object]] = [
        lambda: folder.write_manifest(Manifest("batch", {}, ())),
        lambda: folder.read_result("batch", "key"),
        lambda: folder.forget(datetime.now(UTC), set()),
        lambda: folder.discard("batch"),
    ]
    for call in calls:
        with pytest.raises(PermanentError, match=r"Volume 'main.uds.gone' does not exist") as info:
            call()
        assert info.value.code == "databricks.not_found"


@pytest.mark.parametrize(
    "path", ["/mnt/runs", "/Volumes/main/uds", "/Volumes//uds/runs", "Volumes/a/b/c", "/Volumes/a/b/c/"]
)
def test_volume_a_path_that_is_none(databricks: DatabricksApi, path: str) -> None:
    with pytest.raises(PermanentError, match="is not a folder in a Unity Catalog volume"):
        volume(databricks, path)


def test_volume_a_folder_below_its_root(databricks: DatabricksApi) -> None:
    folder = volume(databricks, f"{FOLDER}/uds/production")
    assert folder.forget(datetime.now(UTC), set()) == 0
    assert folder.write_manifest(Manifest("batch", {}, ())) == f"{FOLDER}/uds/production/batch/manifest.json"
    assert folder.read_manifest("batch") == Manifest("batch", {}, ())


def test_volume_what_is_written_while_it_is_deleted_stays(databricks: DatabricksApi) -> None:
    site = Site(volume(databricks), databricks.files.local)
    site.write()
    databricks.fail(f"fs/directories{FOLDER}/batch/", 400, "DIRECTORY_NOT_EMPTY", "The directory is not empty.")
    databricks.fail("fs/files", 404, "NOT_FOUND", "The file being accessed is not found.")
    site.folder.discard("batch")
    assert site.folder.read_manifest("batch") == Manifest("batch", {}, ())
