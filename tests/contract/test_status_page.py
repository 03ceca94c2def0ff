"""The status page, over the routes that serve it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest

from sync_core.domain.alert import Condition, Episode
from sync_core.domain.run import (
    Operation,
    Outcome,
    Pause,
    PendingRequest,
    PipelineRecord,
    RowCounts,
    RunError,
    RunKind,
    RunRecord,
    RunResult,
    RunState,
    Seconds,
    make_run_key,
)
from sync_core.domain.schedule import After, Cron, Every, OnDemand
from sync_core.domain.watermark import CursorType, Watermark
from sync_core.web.page import ON_ONE_PAGE, schedule_words
from sync_core.web.roles import admit_user
from sync_core.web.routes import Answer, Request, Routes
from tests.support.control import HOURLY, START, Site
from tests.support.flows import pipeline

BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
MARK = Watermark(CursorType.TIMESTAMP, "2026-01-05T11:59:30.123456")
SCHEDULES = {
    "finance.ledger": After(("sales.items", "sales.orders")),
    "sales.export": OnDemand(),
    "sales.items": Cron("*/15 * * * *", "Europe/Oslo"),
    "sales.orders": HOURLY,
}


def run(name: str, number: int, state: RunState, result: RunResult | None = None) -> RunRecord:
    begun = START - timedelta(hours=number)
    key = make_run_key(name, str(number), 1)
    closed = None if state.is_open else begun + timedelta(seconds=90)
    return RunRecord(key, name, RunKind.INCREMENTAL, 1, state, "b", begun, closed_at=closed, result=result)


def result(name: str, number: int, state: Outcome, error: RunError | None = None) -> RunResult:
    counts = RowCounts(read=1_234_567, inserted=1_200_000, updated=34_567)
    key = make_run_key(name, str(number), 1)
    return RunResult(
        name, key, "b", RunKind.INCREMENTAL, 1, state, watermark=MARK, rows=counts, seconds=Seconds(total=83.2), error=error
    )  # fmt: skip


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Four pipelines: one failed, one running, one paused, one that never ran."""
    site = Site(
        tmp_path,
        {name: replace(pipeline(), pipeline_id=name, schedule=one, owner="team <sales>") for name, one in SCHEDULES.items()},
    )  # fmt: skip
    store = site.store
    message = "Pipeline sales.orders: Connection shop refused the password of <sync>."
    episode = Episode("sales.orders", Condition.FAILED, "e", message, START - timedelta(hours=1), START)
    error = RunError("connection.password", "permanent", message, "Renew the secret kv/shop.")
    store.save(
        store.load("sales.orders"),
        PipelineRecord("sales.orders", generation=7, watermark=MARK, episodes=(episode,), last_success_at=START - timedelta(hours=2)),
        [
            run("sales.orders", 1, RunState.FAILED, result("sales.orders", 1, Outcome.FAILED, error)),
            run("sales.orders", 2, RunState.SUCCEEDED, result("sales.orders", 2, Outcome.SUCCEEDED)),
            Operation(START - timedelta(minutes=5), "ada@example.com", "the secret is being renewed", "retry"),
        ],
    )  # fmt: skip
    running = run("sales.items", 0, RunState.LAUNCHED)
    pending = (PendingRequest("erp-1", RunKind.INCREMENTAL),)
    store.save(
        store.load("sales.items"),
        PipelineRecord("sales.items", open_run=running.run_key, pending=pending),
        [running],
    )
    paused = Pause(START, "ada@example.com", "the database moves tonight")
    store.save(store.load("finance.ledger"), PipelineRecord("finance.ledger", paused=paused))
    return site


def ask(site: Site, path: str, query: dict[str, str] | None = None, headers: dict[str, str] = BROWSER) -> Answer:
    return Routes(site.plane(), lambda _anew: None, admit_user).answer(Request("GET", path, query or {}, headers))


class Table(HTMLParser):
    """The text of each cell, row by row, and every address."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self._in_cell = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._in_cell = False
            self.rows[-1][-1] = " ".join(self.rows[-1][-1].split())

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.rows[-1][-1] += data


def test_the_root_shows_the_pipelines(site: Site) -> None:
    assert ask(site, "/").text == ask(site, "/pipelines").text
    assert ask(site, "/", headers={}).text == ask(site, "/pipelines", headers={}).text
    refused = ask(site, "/nothing", headers={})
    assert (refused.status, "GET /pipelines shows" in refused.text) == (404, True)


@pytest.mark.parametrize(
    ("seconds", "words"), [(60, "every 1 m"), (900, "every 15 m"), (5400, "every 1 h 30 m"), (86_400, "every 1 d")]
)
def test_a_schedule_has_no_empty_part(seconds: float, words: str) -> None:
    assert schedule_words(Every(seconds)) == words


def test_every_pipeline_and_every_alert_are_shown(site: Site) -> None:
    answer = ask(site, "/pipelines")
    assert (answer.status, answer.content_type) == (200, "text/html")
    page = Table(answer.text)
    assert [row[:5] for row in page.rows[1:]] == [
        ["finance.ledger", "paused", "—", "—", "after sales.items, sales.orders"],
        ["sales.export", "never run", "—", "—", "on demand"],
        ["sales.items", "running 1 asked for", "—", "—", "*/15 * * * * in Europe/Oslo next in 15 m 00 s"],
        ["sales.orders", "failed", "2 h 00 m ago", MARK.value, "every 1 h next in 1 h 00 m"],
    ]
    assert "open alerts: 1. As of" in answer.text
    assert "refused the password of &lt;sync&gt;." in answer.text
    assert set(page.links) == {f"pipelines/{name}" for name in SCHEDULES}


def test_one_pipeline_shows_its_runs_and_what_was_done_by_hand(site: Site) -> None:
    page = Table(ask(site, "/pipelines/sales.orders").text)
    first, second = ([*row] for row in page.rows[1:4:2])
    assert first[:3] == ["2026-01-05 11:00:00 UTC", "incremental", "failed"]
    assert page.rows[2][0].endswith("Renew the secret kv/shop.")
    assert second[1:] == [
        "incremental", "succeeded", "1,234,567", "1,200,000", "34,567", "0", "1 m 23 s", MARK.value
    ]  # fmt: skip
    assert page.rows[-1][1:] == ["retry", "ada@example.com", "the secret is being renewed"]


def test_a_run_shows_who_asked_for_it(site: Site) -> None:
    store = site.store
    stored = store.load("sales.export")
    asked = replace(run("sales.export", 1, RunState.FAILED), requested_by="<erp>")
    store.save(stored, stored.record, [asked])
    answer = ask(site, "/pipelines/sales.export")
    assert Table(answer.text).rows[1][1] == "incremental asked by <erp>"
    assert "asked by &lt;erp&gt;" in answer.text


def test_a_run_shows_its_notes_and_what_changed_in_the_columns(site: Site) -> None:
    store = site.store
    stored = store.load("sales.export")
    told = replace(
        result("sales.export", 1, Outcome.SUCCEEDED),
        notes=("3 rows have the id of a newer row, and were left out",),
        schema_changes=("new column <city> string",),
    )
    store.save(stored, stored.record, [run("sales.export", 1, RunState.SUCCEEDED, told)])
    answer = ask(site, "/pipelines/sales.export")
    assert [row[0] for row in Table(answer.text).rows[2:4]] == [*told.schema_changes, *told.notes]
    assert "new column &lt;city&gt; string" in answer.text


def test_a_run_under_way_shows_how_long_it_has_taken(site: Site) -> None:
    site.clock.pass_by(minutes=5)
    page = Table(ask(site, "/pipelines/sales.items").text)
    assert page.rows[1][2:] == ["running", "", "", "", "", "5 m 00 s", ""]


def test_a_page_has_no_script_and_loads_nothing(site: Site) -> None:
    for path in ("/pipelines", "/pipelines/sales.orders"):
        answer = ask(site, path)
        assert Table(answer.text).tags.isdisjoint({"script", "img", "link", "iframe", "form"})
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert answer.headers["cache-control"] == "no-store"


def test_a_program_gets_json_from_the_same_addresses(site: Site) -> None:
    for path in ("/pipelines", "/pipelines/sales.orders"):
        answer = ask(site, path, headers={"accept": "application/json"})
        assert answer.content_type == "application/json"
        assert "content-security-policy" not in answer.headers


def test_many_pipelines_come_in_pages_and_every_alert_on_each(site: Site) -> None:
    more = {f"x{number:03}": replace(pipeline(), pipeline_id=f"x{number:03}") for number in range(ON_ONE_PAGE)}
    site.pipelines.update(more)
    first, second = ask(site, "/pipelines"), ask(site, "/pipelines", {"page": "2"})
    shown = [[row[0] for row in Table(one.text).rows[1:]] for one in (first, second)]
    assert [len(one) for one in shown] == [ON_ONE_PAGE, len(SCHEDULES)]
    assert sorted(shown[0] + shown[1]) == sorted(site.pipelines)
    assert all("refused the password" in one.text for one in (first, second))
    assert "pipelines?page=2" in Table(first.text).links
    assert ask(site, "/pipelines", {"page": "9"}).status == 200


@pytest.mark.parametrize(("path", "query"), [("/pipelines/nope", {}), ("/pipelines", {"page": "0"})])
def test_a_wrong_address_is_told_as_to_a_program(site: Site, path: str, query: dict[str, str]) -> None:
    answer = ask(site, path, query)
    assert answer.status in (400, 404)
    assert answer.content_type == "application/json"
