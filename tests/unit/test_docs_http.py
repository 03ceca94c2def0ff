"""docs/http.md names every route, and each example is answered as it says, by the real routes on a real store."""

from __future__ import annotations

import base64
import itertools
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest

from sync_core.app import build_service
from sync_core.catalog import load_catalog
from sync_core.control_plane import ControlPlane
from sync_core.settings import Settings
from sync_core.web.roles import admit_user
from sync_core.web.routes import _ROUTES, LARGEST_BODY, Request, Routes
from tests.support.documents import ROOT, read_blocks

PAGE = ROOT / "docs/http.md"
CONFIGURATION = {
    "connections.yml": """
connections:
  shop: {type: postgresql, host: h, database: d, username: u, secret_scope: kv, secret_key: k}
  lake: {type: databricks, path: ./lake}
""",
    "pipelines.yml": """
defaults:
  source: {connection: shop, table: public.t}
  mode: merge
  merge_keys: [id]
  owner: sales-data
  cursor: {column: at, type: timestamp_tz}
pipelines:
  - {pipeline_id: orders, target: {connection: lake, table: a}, schedule: {every: 15m}}
  - {pipeline_id: customers, target: {connection: lake, table: b}, tags: [nightly]}
  - {pipeline_id: items, target: {connection: lake, table: c}}
""",
}
JSON = {"content-type": "application/json"}
LOGIN = ("databricks", "a-password")  # pragma: allowlist secret


@dataclass(frozen=True)
class Described:
    """A call as the page has it: its heading, and the JSON that stands below it."""

    method: str
    path: str
    requests: tuple[Any, ...]
    answer: Any

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"


def described() -> list[Described]:
    text = PAGE.read_text(encoding="utf-8")
    headings = [
        (text[: match.start()].count("\n") + 1, match[1], match[2])
        for match in re.finditer(r"^### (GET|POST) (/\S*)$", text, re.MULTILINE)
    ]
    blocks = [block for block in read_blocks(PAGE) if block.language == "json"]
    found: list[Described] = []
    for (line, method, path), end in zip(headings, [*(one[0] for one in headings[1:]), 10**6], strict=True):
        below = [block for block in blocks if line < block.line < end]
        answers = [json.loads(block.text) for block in below if "answer" in block.info]
        requests = tuple(json.loads(block.text) for block in below if "request" in block.info)
        assert len(answers) == 1, f"{method} {path} shows one answer"
        found.append(Described(method, path, requests, answers[0]))
    return found


def fill(path: str, run_key: str = "0" * 64) -> str:
    return path.replace("{pipeline_id}", "orders").replace("{connection}", "shop").replace("{run_key}", run_key)


@pytest.fixture
def plane(tmp_path: Path) -> ControlPlane:
    for name, text in CONFIGURATION.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return build_service(Settings(tmp_path / "state"), load_catalog(tmp_path, None, {})).plane


@pytest.fixture
def routes(plane: ControlPlane) -> Routes:
    return Routes(plane, lambda _anew: LOGIN, admit_user)


def possible_paths() -> list[tuple[str, str]]:
    """Every method and path that the routes take, with the page's words for names."""
    found: list[tuple[str, str]] = []
    for method, pattern, _, _ in _ROUTES:
        text = pattern.pattern.replace("([0-9a-f]{64})", "{run_key}").replace(
            "([A-Za-z0-9][A-Za-z0-9_.-]{0,99})", "{name}"
        )
        parts = [part.split("|") for part in re.split(r"\(|\)", text)]
        for chosen in itertools.product(*parts):
            path = "".join(chosen)
            name = "{connection}" if path.startswith("/connections") else "{pipeline_id}"
            found.append((method, path.replace("{name}", name)))
    return found


def test_every_route_is_described_and_every_description_is_a_route(routes: Routes) -> None:
    body = json.dumps({"reason": "why"}).encode()
    known: set[str] = set()
    for method, path in possible_paths():
        answer = routes.answer(Request(method, fill(path), headers=JSON, body=body))
        # Two verbs are for pipelines alone: the route says that there is nothing.
        if json.loads(answer.text).get("error", {}).get("code") != "http.path":
            known.add(f"{method} {path}")
    assert known == {one.name for one in described()}


def assert_shows(shown: Any, real: Any, where: str) -> None:
    """What the page shows is there in the answer, in the same shape."""
    if isinstance(shown, dict):
        assert isinstance(real, dict), where
        there = cast("dict[str, Any]", real)
        for key, value in cast("dict[str, Any]", shown).items():
            assert key in there, f"{where}: there is no {key}"
            if value is not None and there[key] is not None:
                assert_shows(value, there[key], f"{where}.{key}")
    elif isinstance(shown, list):
        assert isinstance(real, list), where
        for one, other in zip(cast("list[Any]", shown), cast("list[Any]", real), strict=False):
            assert_shows(one, other, f"{where}[]")
    else:
        assert isinstance(real, type(shown)), where


def call(routes: Routes, method: str, path: str, document: Any = None, headers: dict[str, str] | None = None) -> Any:
    body = b"" if document is None else json.dumps(document).encode()
    return routes.answer(Request(method, path, headers=JSON | (headers or {}), body=body))


def test_each_call_is_answered_as_the_page_shows(plane: ControlPlane, routes: Routes) -> None:
    calls = {one.name: one for one in described()}
    plane.queue.reject("sync-requests", "{", "erp-1", "The message is not JSON.")
    assert plane.tick()
    run_key = plane.store.load("orders").record.open_run or ""
    operation = next(json.loads(one.text) for one in read_blocks(PAGE) if "operation" in one.info)
    basic = base64.b64encode(":".join(LOGIN).encode()).decode()
    for name, one in calls.items():
        headers = {"authorization": f"Basic {basic}"} if "webhooks" in name else None
        requests = one.requests or ((operation,) if one.method == "POST" else (None,))
        answers = [call(routes, one.method, fill(one.path, run_key), request, headers) for request in requests]
        assert {answer.status for answer in answers} <= {200, 202}, (name, [answer.text for answer in answers])
        assert_shows(one.answer, json.loads(answers[0].text), name)
        if name == "GET /pipelines/{pipeline_id}":
            # It says that these are all.
            assert set(one.answer) == set(json.loads(answers[0].text))


def test_each_wrong_call_is_answered_as_the_page_says(plane: ControlPlane, routes: Routes) -> None:
    wrong = [
        (404, "pipeline.unknown", "GET", "/pipelines/nothing", None),
        (400, "call.wrong", "GET", "/pipelines/orders?runs=0", None),
        (404, "run.none", "GET", fill("/pipelines/orders/runs/{run_key}"), None),
        (404, "run.none", "POST", "/pipelines/orders/cancel", {"reason": "why"}),
        (404, "run.none", "POST", "/pipelines/orders/retry", {"reason": "why"}),
        (400, "call.wrong", "POST", "/pipelines/orders/pause", {}),
        (404, "connection.unknown", "POST", "/connections/nothing/pause", {"reason": "why"}),
        (400, "request.wrong", "POST", "/requests", {"pipelines": ["orders"]}),
        (404, "pipeline.unknown", "POST", "/requests", {"request_id": "1", "pipelines": ["nothing"]}),
        (401, "http.sign_in", "POST", "/webhooks/databricks", {"run": {"run_id": 1}}),
        (404, "http.path", "GET", "/nothing", None),
        (405, "http.method", "POST", "/health", None),
    ]
    text = PAGE.read_text(encoding="utf-8")
    for status, code, method, path, document in wrong:
        path, _, query = path.partition("?")
        request = Request(method, path, headers=JSON, body=json.dumps(document or {}).encode())
        if query:
            request = replace(request, query=dict([query.split("=")]))
        answer = routes.answer(request)
        assert (answer.status, json.loads(answer.text)["error"]["code"]) == (status, code), path
        assert set(json.loads(answer.text)["error"]) == {"code", "message", "remedy"}
        assert re.search(rf"^\| [^|]*{status}[^|]* \|.*`{code}`", text, re.MULTILINE), (
            f"{status} {code} is not on the page"
        )
    plane.tick()
    refused = call(routes, "POST", "/pipelines/orders/retry", {"reason": "why"})
    assert json.loads(refused.text)["error"]["code"] == "run.open"
    assert routes.answer(Request("POST", "/requests", body=b" " * (LARGEST_BODY + 1))).status == 413
    for headers in ({}, {"content-type": "text/plain"}):
        untold = routes.answer(Request("POST", "/pipelines/orders/pause", headers=headers, body=b'{"reason": "why"}'))
        assert (untold.status, json.loads(untold.text)["error"]["code"]) == (415, "http.content_type")
    assert f"{LARGEST_BODY // 1024} KiB" in text


def test_every_refusal_of_the_web_is_on_the_page() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "sync_core/web").glob("*.py"))
    codes = set(re.findall(r'"(http\.(?!server)\w+)"', sources))
    assert "http.role" in codes
    page = PAGE.read_text(encoding="utf-8")
    assert {code for code in codes if f"[`{code}`]" not in page} == set()
