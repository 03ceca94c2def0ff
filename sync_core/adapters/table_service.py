"""Azure Table Storage as the state store needs it: sign-in, retries, and its errors in the words of this product."""

# pyright: reportUnknownMemberType=false
# azure-data-tables leaves the types of its **kwargs open.
from __future__ import annotations

import ipaddress
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

import requests
from azure.core import MatchConditions
from azure.core.credentials import TokenCredential
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    IncompleteReadError,
    ResourceNotFoundError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.core.pipeline.transport import HttpTransport, RequestsTransport
from azure.data.tables import TableClient, TableEntity, TableServiceClient, TransactionOperation, UpdateMode
from requests.adapters import HTTPAdapter

from sync_core.domain.errors import ConfigError, PermanentError, RetryableError, SyncError

CALLS = 16
"""How many calls one client makes at a time: more wait for each other inside Python."""

LARGEST_TRANSACTION = 100
"""Operations that the service takes in one transaction."""

LARGEST_PAGE = 1000
"""Entities that the service returns at once."""

_EVERY_METHOD = frozenset({"GET", "PUT", "POST", "PATCH", "DELETE"})
# The SDK repeats neither POST nor PATCH when an answer is lost or the account is throttled. Every write here may be
# repeated: it is idempotent, or conditional with an id by which it is recognised (`TableStore`).
_REPEATABLE: dict[str, Any] = {"retry_on_methods": _EVERY_METHOD}

_REFUSALS = {
    "ConditionNotMet",
    "EntityAlreadyExists",
    "EntityNotFound",
    "ResourceNotFound",
    "UpdateConditionNotSatisfied",
}
_TOO_LARGE = {"EntityTooLarge", "PropertyValueTooLarge", "RequestBodyTooLarge", "ContentLengthExceeded"}
_PASSING = {408, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class Patience:
    """How long a call is tried before it fails with RetryableError; all in seconds but `retries`.

    `backoff` doubles from retry to retry up to `longest_pause`, unless the service names a pause itself.
    """

    retries: int = 5
    backoff: float = 0.25
    longest_pause: float = 8.0
    connect: float = 5.0
    answer: float = 30.0
    whole: float = 90.0


def open_table_service(
    address: str, credential: TokenCredential | None, patience: Patience = Patience()
) -> TableServiceClient:
    """A client for `https://ACCOUNT.table.core.windows.net` signed in by the credential.

    A connection string is taken for a server on this machine alone. Raises ConfigError for any other address.
    """
    options: dict[str, Any] = {
        "retry_total": patience.retries,
        "retry_connect": patience.retries,
        "retry_read": patience.retries,
        "retry_status": patience.retries,
        "retry_backoff_factor": patience.backoff,
        "retry_backoff_max": patience.longest_pause,
        "timeout": patience.whole,
        "transport": _transport(patience),
    }
    if address.startswith("https://"):
        if credential is None or urlsplit(address).query:
            raise ConfigError(
                "store.credential",
                "The state store's account is used with an identity, never with a key or a token in its address.",
                "Give the account's URL alone, and run with a managed identity or a signed-in Azure CLI.",
            )
        return TableServiceClient(address, credential=credential, **options)
    try:
        service = TableServiceClient.from_connection_string(address, **options)
    except ValueError:
        # Not chained: the SDK's message may quote the string, which holds a key.
        raise _unusable_address() from None
    if not _is_local(service.url):
        service.close()
        raise _unusable_address()
    return service


def _unusable_address() -> ConfigError:
    return ConfigError(
        "store.address",
        "The state store's address is neither an account's URL nor the connection string of a server on this machine.",
        "Write https://ACCOUNT.table.core.windows.net; connection strings are for Azurite.",
    )


def _is_local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _transport(patience: Patience) -> HttpTransport[Any, Any]:
    session = requests.Session()
    for protocol in ("http://", "https://"):
        # As many kept connections as callers: the default of 10 closes the others after each call.
        session.mount(protocol, HTTPAdapter(pool_connections=4, pool_maxsize=CALLS * 2, max_retries=0))
    options = {"connection_timeout": patience.connect, "read_timeout": patience.answer}
    return cast("HttpTransport[Any, Any]", RequestsTransport(session=session, **options))


class Refused(Exception):
    """A condition of a transaction was not met; nothing of it was written."""


@dataclass(frozen=True)
class Entity:
    """A stored entity: its properties without keys and times, and the tag of this version."""

    row_key: str
    values: Mapping[str, Any]
    tag: str


@dataclass(frozen=True)
class Write:
    """One operation of a transaction. `tag` None: unconditional, but for `create`, which wants nothing to be there."""

    operation: TransactionOperation
    row_key: str
    values: Mapping[str, Any]
    tag: str | None = None


def create(row_key: str, values: Mapping[str, Any]) -> Write:
    """Refused when the row is there."""
    return Write(TransactionOperation.CREATE, row_key, values)


def replace_version(row_key: str, values: Mapping[str, Any], tag: str) -> Write:
    """Refused when the row is not in the version of this tag any more."""
    return Write(TransactionOperation.UPDATE, row_key, values, tag)


def put(row_key: str, values: Mapping[str, Any]) -> Write:
    """Whatever was there."""
    return Write(TransactionOperation.UPSERT, row_key, values)


def delete(row_key: str, tag: str | None = None) -> Write:
    """Refused when the row is not there, or not in the version of this tag."""
    return Write(TransactionOperation.DELETE, row_key, {}, tag)


class Table:
    """One table, made at its first use when it is missing: a process starts though its account is out of reach by then.

    Raises RetryableError and PermanentError, and Refused where it says so.
    """

    def __init__(self, service: TableServiceClient, name: str) -> None:
        self._service = service
        self._name = name
        self._subject = f"The state store (table {name} at {urlsplit(service.url).netloc})"
        self._found: TableClient | None = None

    def close(self) -> None:
        """Close its connections."""
        self._service.close()

    @property
    def _client(self) -> TableClient:
        # Of threads that come at the same moment each asks for it: it is made once all the same.
        if self._found is None:
            self._service.create_table_if_not_exists(self._name, **_REPEATABLE)
            self._found = self._service.get_table_client(self._name)
        return self._found

    def get(self, partition: str, row_key: str, select: Sequence[str] = ()) -> Entity | None:
        """A point read, of some properties or all; None when there is no such row."""
        chosen = [*select, "RowKey", "Timestamp"] if select else None
        with self._errors():
            try:
                return _entity(self._client.get_entity(partition, row_key, select=chosen))
            except ResourceNotFoundError as error:
                if _code(error) == "TableNotFound":
                    raise
                return None

    def query(
        self, partition: str, low: str, high: str, limit: int = -1, select: Sequence[str] = (), where: str = ""
    ) -> Iterator[Entity]:
        """The rows of a partition with low <= key < high in the order of their keys, a page at a time."""
        text = "PartitionKey eq @partition and RowKey ge @low and RowKey lt @high" + (where and f" and {where}")
        chosen = [*select, "RowKey", "Timestamp"] if select else None
        size = min(limit, LARGEST_PAGE) if limit > 0 else LARGEST_PAGE
        parameters = {"partition": partition, "low": low, "high": high}
        with self._errors():
            found = self._client.query_entities(text, parameters=parameters, select=chosen, results_per_page=size)
        pages = found.by_page()
        while limit:
            with self._errors():
                page = next(pages, None)
                some = [_entity(one) for one in page or ()]
            if page is None:
                return
            for entity in some:
                if limit == 0:
                    return
                limit -= 1
                yield entity

    def merge(self, partition: str, row_key: str, values: Mapping[str, Any]) -> None:
        """Set some properties of a row, which is made when it is missing."""
        with self._errors():
            self._client.upsert_entity(_with_keys(partition, row_key, values), UpdateMode.MERGE, **_REPEATABLE)

    def transact(self, partition: str, writes: Sequence[Write]) -> None:
        """All of the writes or none. Raises Refused when a condition is not met.

        It may also be Refused because it was repeated after its answer was lost: the caller must know its own writes.
        """
        if len(writes) > LARGEST_TRANSACTION:
            raise PermanentError(
                "store.too_many_rows",
                f"{self._subject} takes {LARGEST_TRANSACTION} rows in one step, and {len(writes)} are to be written.",
                "Write fewer runs at a time.",
            )
        with self._errors():
            try:
                self._client.submit_transaction([_operation(partition, write) for write in writes], **_REPEATABLE)
            except HttpResponseError as error:
                if _code(error) in _REFUSALS:
                    raise Refused from error
                raise

    @contextmanager
    def _errors(self) -> Generator[None]:
        try:
            yield
        except AzureError as error:
            raise _translated(error, self._subject) from error


def _operation(partition: str, write: Write) -> tuple[TransactionOperation, dict[str, Any], dict[str, Any]]:
    options: dict[str, Any] = {}
    if write.tag is not None:
        options = {"etag": write.tag, "match_condition": MatchConditions.IfNotModified}
    if write.operation in (TransactionOperation.UPDATE, TransactionOperation.UPSERT):
        options["mode"] = UpdateMode.REPLACE
    return write.operation, _with_keys(partition, write.row_key, write.values), options


def _with_keys(partition: str, row_key: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {"PartitionKey": partition, "RowKey": row_key, **values}


def _entity(found: TableEntity) -> Entity:
    values = cast("dict[str, Any]", dict(found))
    return Entity(values["RowKey"], values, found.metadata["etag"] or "")


def _code(error: AzureError) -> str:
    code = getattr(error, "error_code", None) or ""
    return str(getattr(code, "value", code))


def _translated(error: AzureError, subject: str) -> SyncError:
    """In words that hold neither the request nor its headers."""
    status, code = getattr(error, "status_code", None), _code(error)
    told = " ".join(str(part) for part in (status, code) if part) or type(error).__name__
    if status in (401, 403) or isinstance(error, ClientAuthenticationError):
        # For later: a role that was just assigned takes minutes to count, and the endpoint that gives tokens may be away.
        return RetryableError(
            "store.refused",
            f"{subject} refuses this sign-in ({told}).",
            "Give the identity the role Storage Table Data Contributor on the account, let the account's network rules "
            "admit it, and check this machine's clock; for a local server check its key.",
        )
    if code in _TOO_LARGE or status == 413:
        return PermanentError(
            "store.too_large",
            f"{subject} does not take so much at once ({told}).",
            "A record or result is unusually large: look at the pipeline's pending requests and notes.",
        )
    if code == "TableNotFound":
        return PermanentError("store.gone", f"{subject} was deleted.", "Restart: the table is made at the start.")
    unreachable = isinstance(error, ServiceRequestError | ServiceResponseError | IncompleteReadError)
    if unreachable or status in _PASSING or code == "TableBeingDeleted":
        what = "cannot be reached" if unreachable else "cannot answer now"
        return RetryableError(
            "store.unavailable", f"{subject} {what} ({told}).", "Nothing to do, unless it lasts: check its address."
        )
    return PermanentError("store.failed", f"{subject} failed ({told}).", "See the error's cause in the log.")
