"""What is particular to the table store: lost answers, throttling, sign-in, limits, crashes between its writes, cost."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Generator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from azure.data.tables import TableServiceClient

from sync_core.adapters.table_store import TableStore
from sync_core.domain.errors import PermanentError, RetryableError
from sync_core.domain.run import ConnectionRecord, OutboxEntry, PipelineRecord, RunState, WatermarkChange
from sync_core.ports import Conflict
from tests.support.azurite import Azurite
from tests.support.proxy import Proxy, Request
from tests.support.stores import FIVE, NOW, QUICK, a_run, a_success, an_episode, an_operation, tables_of

DAY = timedelta(days=1)


def transactions(request: Request) -> bool:
    return request.path.endswith("/$batch")


def reads(request: Request) -> bool:
    return request.method == "GET"


def confirmations(request: Request) -> bool:
    return request.method == "PATCH" and b'"confirmed"' in request.body


def tables(request: Request) -> bool:
    return request.path.endswith("/Tables")


@pytest.fixture
def proxy(azurite: Azurite) -> Generator[Proxy]:
    with Proxy(azurite.table_url) as opened:
        yield opened


@pytest.fixture
def table() -> str:
    return f"t{uuid.uuid4().hex}"


@pytest.fixture
def store(azurite: Azurite, proxy: Proxy, table: str) -> Generator[TableStore]:
    """Speaks to the server through the proxy."""
    with tables_of(azurite.connection_string_of(table_url=proxy.url), table=table) as opened:
        yield opened()


@pytest.fixture
def other(azurite: Azurite, table: str) -> Generator[TableStore]:
    """The same table, without the proxy."""
    with tables_of(azurite.connection_string, table=table) as opened:
        yield opened()


@pytest.fixture
def service(azurite: Azurite) -> Generator[TableServiceClient]:
    with TableServiceClient.from_connection_string(azurite.connection_string) as opened:
        yield opened


@pytest.mark.parametrize("existing", [False, True])
def test_a_write_whose_answer_was_lost_is_no_conflict(
    store: TableStore, other: TableStore, proxy: Proxy, existing: bool
) -> None:
    if existing:
        other.save(other.load("orders"), PipelineRecord("orders", epoch=1), [a_run("a")])
    change = WatermarkChange(NOW, "eve", "", None, FIVE)
    rows = [a_success("a"), a_run("b", at=NOW + DAY), an_episode("e"), an_operation("pause"), change]
    stored = store.load("orders")
    before = proxy.count(transactions)
    proxy.lose_answers(1, transactions)
    store.save(stored, PipelineRecord("orders", epoch=2), rows)
    assert proxy.count(transactions) == before + 2
    assert other.load("orders").record == PipelineRecord("orders", epoch=2)
    assert [run.run_key for run in other.runs("orders", 9)] == ["b", "a"]
    assert other.last_success("orders") == a_success("a")
    assert other.episodes("orders", 9) == [an_episode("e")]
    assert other.changes("orders", 9) == [change]
    assert len(other.operations("orders", 9)) == 1
    with pytest.raises(Conflict):
        store.save(stored, PipelineRecord("orders", epoch=3))


def test_a_lost_answer_is_no_conflict_though_others_wrote_before_the_repetition(
    store: TableStore, other: TableStore, proxy: Proxy
) -> None:
    def others_write() -> None:
        for _ in range(3):
            stored = other.load("orders")
            other.save(stored, replace(stored.record, generation=stored.record.generation + 1))

    store.save(store.load("orders"), PipelineRecord("orders", generation=1))
    stored = store.load("orders")
    proxy.lose_answers(1, transactions, others_write)
    store.save(stored, replace(stored.record, generation=stored.record.generation + 1))
    assert other.load("orders").record.generation == 5


def test_a_conflict_that_is_real_stays_one_though_its_answer_was_lost(
    store: TableStore, other: TableStore, proxy: Proxy
) -> None:
    stored = store.load("orders")
    other.save(other.load("orders"), PipelineRecord("orders", epoch=1))
    proxy.lose_answers(1, transactions)
    with pytest.raises(Conflict):
        store.save(stored, PipelineRecord("orders", epoch=2))
    assert other.load("orders").record.epoch == 1


def test_a_connection_whose_answer_was_lost_is_no_conflict(store: TableStore, proxy: Proxy) -> None:
    record = ConnectionRecord("lake", operations=(an_operation("pause"),))
    empty = store.load_connection("lake")
    proxy.lose_answers(1, transactions)
    store.save_connection(empty, record)
    stored = store.load_connection("lake")
    assert stored.record == record
    proxy.lose_answers(1, transactions)
    store.save_connection(stored, ConnectionRecord("lake"))
    assert store.load_connection("lake").record == ConnectionRecord("lake")
    with pytest.raises(Conflict):
        store.save_connection(empty, ConnectionRecord("lake"))


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_service_is_asked_again(store: TableStore, other: TableStore, proxy: Proxy, status: int) -> None:
    headers = {"Retry-After": "0"} if status == 429 else {}
    proxy.answer(status, 2, transactions, headers)
    proxy.answer(status, 2, reads)
    proxy.answer(status, 2, confirmations)
    store.save(store.load("orders"), PipelineRecord("orders", epoch=1), [a_run("a")])
    proxy.answer(status, 2, reads)
    assert store.runs("orders", 9) == [a_run("a")]
    proxy.answer(status, 2, reads)
    assert list(store.pipelines()) == ["orders"]
    proxy.lose_answers(2, reads)
    assert [one.record.epoch for one in store.load_many(["orders", "none", "orders"])] == [1, 0, 1]
    assert other.load("orders").record.epoch == 1


@pytest.mark.parametrize("status", [429, 503])
def test_a_service_that_stays_busy_is_for_later(store: TableStore, proxy: Proxy, status: int) -> None:
    stored = store.load("orders")
    proxy.answer(status, 99)
    calls = (
        lambda: store.load("orders"),
        lambda: store.save(stored, PipelineRecord("orders")),
        lambda: store.runs("orders", 9),
        lambda: list(store.pipelines()),
        lambda: list(store.load_many(["orders"])),
        lambda: store.load_connection("lake"),
    )
    for call in calls:
        seen = proxy.count()
        with pytest.raises(RetryableError, match=rf"cannot answer now \({status}") as caught:
            call()
        assert caught.value.code == "store.unavailable"
        assert not isinstance(caught.value, Conflict)
        assert proxy.count() - seen == QUICK.retries + 1


def test_a_service_that_does_not_answer_is_for_later(azurite: Azurite, proxy: Proxy, table: str) -> None:
    patience = replace(QUICK, answer=0.2, retries=1)
    with tables_of(azurite.connection_string_of(table_url=proxy.url), patience=patience, table=table) as opened:
        store = opened()
        stored = store.load("orders")
        proxy.keep_silent(99)
        for call in (lambda: store.load("orders"), lambda: store.save(stored, stored.record)):
            with pytest.raises(RetryableError, match="cannot be reached"):
                call()


def test_a_service_that_is_not_there_is_for_later(azurite: Azurite) -> None:
    with socket.socket() as held:
        # Bound, and nobody listens: the connection is refused for as long as it is held.
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}/{azurite.account}"
        with (
            tables_of(azurite.connection_string_of(table_url=url)) as opened,
            pytest.raises(RetryableError, match="cannot be reached") as caught,
        ):
            opened().load("orders")
    assert azurite.key not in str(caught.value)


def test_a_role_that_was_taken_away_is_told_by_every_call(store: TableStore, proxy: Proxy) -> None:
    stored = store.load("orders")
    body = b'{"odata.error": {"code": "AuthorizationPermissionMismatch", "message": {"lang": "en", "value": "No."}}}'
    proxy.answer(403, 99, headers={"Content-Type": "application/json"}, body=body)
    for call in (lambda: store.load("orders"), lambda: store.save(stored, stored.record)):
        with pytest.raises(RetryableError, match=r"403 AuthorizationPermissionMismatch.*Data Contributor"):
            call()


def test_a_crash_before_the_first_record_leaves_no_pipeline(store: TableStore, other: TableStore, proxy: Proxy) -> None:
    proxy.answer(403, 1, transactions)
    with pytest.raises(RetryableError):
        store.save(store.load("orders"), PipelineRecord("orders"))
    assert proxy.count(transactions) == 1
    assert list(other.pipelines()) == []
    other.save(other.load("orders"), PipelineRecord("orders"))
    assert list(store.pipelines()) == ["orders"]


def test_a_crash_after_the_first_record_misses_no_pipeline(store: TableStore, other: TableStore, proxy: Proxy) -> None:
    proxy.answer(403, 1, confirmations)
    store.save(store.load("orders"), PipelineRecord("orders"))
    assert proxy.count(confirmations) == 1
    assert list(other.pipelines()) == ["orders"]


def test_no_record_is_written_before_its_name(store: TableStore, other: TableStore, proxy: Proxy) -> None:
    proxy.answer(403, 1, lambda request: request.method == "PATCH")
    with pytest.raises(RetryableError):
        store.save(store.load("orders"), PipelineRecord("orders"))
    assert other.load("orders").tag is None


def test_a_body_that_no_entity_holds_is_refused_whole(store: TableStore) -> None:
    huge = (OutboxEntry("alerts", "k", "x" * 500_000),)
    with pytest.raises(PermanentError, match=r"The record of orders has 500,\d+ characters; .* up to 480,000"):
        store.save(store.load("orders"), PipelineRecord("orders", outbox=huge), [a_run("a")])
    assert store.load("orders").tag is None
    assert store.run("orders", "a") is None


def test_the_largest_bodies_fit_into_one_transaction(store: TableStore) -> None:
    run = a_success("a")
    assert run.result is not None
    run = replace(run, result=replace(run.result, notes=("x" * 470_000,)))
    record = PipelineRecord("orders", outbox=(OutboxEntry("alerts", "k", "y" * 470_000),))
    store.save(store.load("orders"), record, [run])
    assert store.load("orders").record == record
    assert store.last_success("orders") == run


def test_what_the_service_calls_too_large_is_told(store: TableStore, proxy: Proxy) -> None:
    proxy.answer(413, 1, transactions)
    with pytest.raises(PermanentError, match="does not take so much at once") as caught:
        store.save(store.load("orders"), PipelineRecord("orders"))
    assert caught.value.code == "store.too_large"


def test_more_rows_than_one_transaction_takes_are_refused_whole(store: TableStore) -> None:
    with pytest.raises(PermanentError, match="takes 100 rows in one step, and 101"):
        store.save(store.load("orders"), PipelineRecord("orders"), [a_run(str(number)) for number in range(50)])
    assert store.load("orders").tag is None


def test_a_body_that_is_not_what_was_written(store: TableStore, service: TableServiceClient, table: str) -> None:
    store.save(store.load("orders"), PipelineRecord("orders"), [a_run("a")])
    for body in ("{", '{"epoch": "x", "pipeline_id": "orders"}', "[]"):
        service.get_table_client(table).upsert_entity({"PartitionKey": "orders", "RowKey": "record", "body0": body})
        with pytest.raises(PermanentError, match=r"orders in row record is not what uds wrote"):
            store.load("orders")


def test_a_table_that_was_deleted_is_told(store: TableStore, service: TableServiceClient, table: str) -> None:
    stored = store.load("orders")
    service.delete_table(table)
    for call in (
        lambda: store.load("orders"),
        lambda: store.save(stored, stored.record),
        lambda: store.runs("orders", 9),
        lambda: list(store.pipelines()),
    ):
        with pytest.raises(PermanentError, match=r"was deleted\. Restart"):
            call()


def test_what_calls_cost(store: TableStore, other: TableStore, proxy: Proxy) -> None:
    """Calls to the service, whatever else is in the partition."""
    for start in range(0, 1200, 40):
        runs = [a_run(str(n), RunState.FAILED, NOW + n * timedelta(minutes=1)) for n in range(start, start + 40)]
        other.save(other.load("orders"), PipelineRecord("orders"), runs)
    other.save(other.load("orders"), PipelineRecord("orders", epoch=5), [a_success("x"), an_episode("e")])
    stored = store.load("orders")
    assert proxy.count(tables) == 1, "the table is made once"

    def cost(call: Any) -> int:
        before = proxy.count()
        call()
        return proxy.count() - before

    assert cost(lambda: store.load("orders")) == 1
    assert cost(lambda: list(store.load_many(["orders"] * 30))) == 30
    assert cost(lambda: store.run("orders", "700")) == 1
    assert cost(lambda: store.runs("orders", 20)) == 1
    assert cost(lambda: store.last_success("orders")) == 1
    assert cost(lambda: store.episodes("orders", 20)) == 1
    assert cost(lambda: store.changes("orders", 20)) == 1
    assert cost(lambda: list(store.pipelines())) == 1
    assert cost(lambda: store.forget_runs("orders", NOW - DAY)) == 1
    assert cost(lambda: store.forget_episodes("orders", NOW)) == 1
    assert cost(lambda: store.forget_runs("orders", NOW + timedelta(minutes=50))) == 3, "look, last success, delete"
    assert cost(lambda: store.save(stored, PipelineRecord("orders"))) == 1
    assert cost(lambda: store.save(store.load("orders"), PipelineRecord("orders"), [a_run("new")])) == 3
    assert cost(lambda: store.save(store.load("orders"), PipelineRecord("orders"), [a_success("new")])) == 4
    assert cost(lambda: store.save(store.load("new"), PipelineRecord("new"))) == 4, "load, name, record, confirmation"
    bodies = [len(request.path) for request in proxy.seen if "RowKey%20ge" in request.path and "top=20" in request.path]
    assert bodies, "a page is no larger than what is asked for"


def test_a_run_that_changes_while_it_is_forgotten_stays(store: TableStore, other: TableStore, proxy: Proxy) -> None:
    runs = [a_run(str(number), RunState.FAILED) for number in range(3)]
    other.save(other.load("orders"), PipelineRecord("orders"), runs)
    late = replace(a_success("1"), state=RunState.FAILED, late_success=True)

    def wakes(request: Request) -> bool:
        """Just before the first deletion a result comes after all."""
        if transactions(request) and other.last_success("orders") is None:
            stored = other.load("orders")
            other.save(stored, stored.record, [late])
        return False

    proxy.answer(500, 1, wakes)
    assert store.forget_runs("orders", NOW + DAY) == 2
    assert other.runs("orders", 9) == [late]
    assert other.last_success("orders") == late
