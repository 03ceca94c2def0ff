"""The Functions app on the real worker library: how its service is made, and what becomes of messages meanwhile."""

from __future__ import annotations

import asyncio
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from sync_core.app import Service, _open_azure, build_service
from sync_core.catalog import load_catalog
from sync_core.settings import Settings
from tests.support.functions_worker import PROTOCOL, Worker

ROOT = Path(__file__).parents[2]
CONFIG = """connections:
  shop: {type: postgresql, host: db, database: shop, username: sync, secret_scope: kv, secret_key: shop}
  lake: {type: databricks, path: ./lake}
"""
PIPELINES = """pipelines:
  - pipeline_id: orders
    source: {connection: shop, table: orders}
    target: {connection: lake, table: orders}
    mode: full_refresh
"""


@pytest.fixture
def service(tmp_path: Path) -> Service:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/connections.yml").write_text(CONFIG)
    (tmp_path / "config/pipelines.yml").write_text(PIPELINES)
    return build_service(Settings(tmp_path / "state"), load_catalog(tmp_path / "config", None, {}))


def test_the_service_is_made_once_and_the_event_loop_goes_on_meanwhile(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop answers the host: while it is held up, the host takes the worker for dead."""
    monkeypatch.delitem(sys.modules, "function_app", raising=False)
    _open_azure.cache_clear()
    made: list[str] = []
    go_on = threading.Event()

    def build(_settings: Any) -> Service:
        made.append(threading.current_thread().name)
        assert go_on.wait(20), "the event loop was held up"
        return service

    async def begin() -> None:
        worker = Worker(str(ROOT))
        await worker.start()
        for name in ("sync_core.app", "function_app"):
            monkeypatch.setattr(sys.modules[name], "build_azure", build, raising=False)
            monkeypatch.setattr(sys.modules[name], "read_azure_settings", lambda _environment: None, raising=False)
        try:
            timers = [asyncio.create_task(worker.timer(name)) for name in ("tick", "reconcile")]
            message = asyncio.create_task(worker.message("take_request", b"{", "key"))
            while not made:
                await asyncio.sleep(0.01)
            go_on.set()
            await asyncio.gather(*timers)
            answer = await message
        finally:
            worker.stop()
        assert answer.result.status == PROTOCOL.StatusResult.Success

    asyncio.run(begin())
    _open_azure.cache_clear()
    assert len(made) == 1
    assert made != [threading.main_thread().name]
    assert [letter.key for letter in service.plane.queue.dead_letters("sync-requests")] == ["key"]
