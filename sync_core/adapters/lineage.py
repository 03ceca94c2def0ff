"""OpenLineage run events by its own client: a START when a run is begun, then COMPLETE, FAIL or ABORT.

Datasets are named as OpenLineage's naming specification says, so that other producers' events meet ours. It has no rule
for Unity Catalog; `databricks://HOST` with `catalog.schema.table` is what its own dbt integration writes.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import requests
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from openlineage.client.facet_v2 import (
    DatasetFacet,
    JobFacet,
    RunFacet,
    column_lineage_dataset,
    error_message_run,
    job_type_job,
    nominal_time_run,
    output_statistics_output_dataset,
    parent_run,
    processing_engine_run,
    schema_dataset,
    set_producer,
    sql_job,
)
from openlineage.client.naming.dataset import ABFSS, LocalFileSystem, Oracle, Postgres
from openlineage.client.transport.http import ApiKeyTokenProvider, HttpConfig, HttpTransport, TokenProvider

from sync_core.domain.connection import Connection
from sync_core.domain.errors import PermanentError, RetryableError
from sync_core.domain.facts import ColumnFact
from sync_core.domain.pipeline import Pipeline
from sync_core.domain.run import RunState as State
from sync_core.lineage import LineageEvent
from sync_core.lineage_columns import Origin, origins

PRODUCER = "urn:universal-data-sync"
NAMESPACE = "universal-data-sync"
RECEIVER_SECONDS = 5.0

REST = timedelta(seconds=30)
"""A receiver that was away is not asked for this long: each try may take RECEIVER_SECONDS from the loop of `uds up`."""

set_producer(PRODUCER)

_RUNS = uuid.uuid5(uuid.NAMESPACE_URL, PRODUCER)
_PORTS = {"oracle": 1521, "azure_sql": 1433, "postgresql": 5432}
_ENDINGS = {State.SUCCEEDED: RunState.COMPLETE, State.FAILED: RunState.FAIL, State.CANCELLED: RunState.ABORT}
_FOLDS: Mapping[str, Callable[[str], str]] = {"oracle": str.upper, "postgresql": str.lower}
_PART = re.compile(r'"((?:[^"]|"")+)"|\[([^\]]+)\]|`([^`]+)`|([^."\[`]+)')
_ABFSS = re.compile(r"abfss://([^@/]+)@([^./]+)\.dfs\.core\.windows\.net(/.*)?")


def run_id(key: str) -> str:
    """The UUID of a run_key or batch_id: the same for every event, every process and every repetition."""
    return str(uuid.uuid5(_RUNS, key))


@dataclass(frozen=True)
class Dataset:
    """A dataset by OpenLineage's naming."""

    namespace: str
    name: str


def dataset_of(connection: Connection, table: str, workspace: str = "") -> Dataset:
    """The dataset of a table. `workspace` is the address of the Databricks workspace, for connections that name none.

    A bare name is spelled as its database spells it: Oracle in capitals, PostgreSQL in small letters.
    """
    folded = _FOLDS.get(connection.type, str)
    parts = [part if quoted else folded(part) for part, quoted in _split(table)]
    name, schema = parts[-1], parts[-2] if len(parts) > 1 else connection.schema
    host, port = connection.host or "localhost", str(connection.port or _PORTS.get(connection.type, ""))
    match connection.type:
        case "oracle":
            service = connection.service_name or connection.sid or ""
            made = Oracle(host, port, service or "ORCL", schema or (connection.username or "PUBLIC").upper(), name)
            return Dataset(made.get_namespace(), made.get_name())
        case "postgresql":
            made = Postgres(host, port, connection.database or "postgres", schema or "public", name)
            return Dataset(made.get_namespace(), made.get_name())
        case "azure_sql":
            # The client has no helper for it; the rule is the one for MSSQL.
            database = parts[-3] if len(parts) > 2 else connection.database or "master"
            return Dataset(f"mssql://{host}:{port}", f"{database}.{schema or 'dbo'}.{name}")
        case "databricks" if connection.path:
            return _path("/".join([connection.path.rstrip("/"), *parts]))
        case "databricks":
            where = re.sub(r"^https?://", "", connection.host or workspace).strip("/") or "workspace"
            context = (connection.catalog, connection.schema)[: max(0, 3 - len(parts))]
            return Dataset(f"databricks://{where}", ".".join([*(part for part in context if part), *parts]))
        case kind:
            return Dataset(f"{kind}://{host}:{port}".rstrip(":"), ".".join(part for part in (schema, name) if part))


def _path(path: str) -> Dataset:
    found = _ABFSS.fullmatch(path)
    if found is not None:
        made = ABFSS(found[1], found[2], found[3])
        return Dataset(made.get_namespace(), made.get_name())
    if "://" in path:
        scheme, _, rest = path.partition("://")
        authority, _, name = rest.partition("/")
        return Dataset(f"{scheme}://{authority}", f"/{name}")
    local = LocalFileSystem(path)
    return Dataset(local.get_namespace(), local.get_name())


def _split(table: str) -> list[tuple[str, bool]]:
    """The parts of a name, and whether each was quoted."""
    found = _PART.findall(table)
    return [(double or bracket or tick or bare.strip(), not bare) for double, bracket, tick, bare in found]


@dataclass(frozen=True)
class EventBuilder:
    """Builds the events of one installation: `environment` is part of the job namespace, `workspace` of dataset names."""

    environment: str = ""
    workspace: str = ""

    @property
    def namespace(self) -> str:
        return f"{NAMESPACE}.{self.environment}" if self.environment else NAMESPACE

    def build(self, event: LineageEvent) -> RunEvent:
        """The same event makes the same one there. Raises KeyError when a connection is not in the configuration."""
        run = event.run
        at = (run.closed_at or run.created_at) if event.ended else run.created_at
        return RunEvent(
            eventType=_ENDINGS[run.state] if event.ended else RunState.START,
            eventTime=_time(at),
            run=Run(run_id(run.run_key), self._run_facets(event)),
            job=Job(self.namespace, event.pipeline.pipeline_id, _job_facets(event.pipeline)),
            inputs=self._inputs(event),
            outputs=self._outputs(event),
            producer=PRODUCER,
        )

    def _run_facets(self, event: LineageEvent) -> dict[str, RunFacet]:
        run = event.run
        facets: dict[str, RunFacet] = {
            "parent": parent_run.ParentRunFacet(
                parent_run.Run(run_id(run.batch_id)), parent_run.Job(self.namespace, "batch")
            )
        }
        if run.slot is not None:
            facets["nominalTime"] = nominal_time_run.NominalTimeRunFacet(_time(run.slot))
        if not event.ended:
            return facets
        if event.facts is not None:
            facets["processing_engine"] = processing_engine_run.ProcessingEngineRunFacet(
                event.facts.spark_version or "unknown", "spark"
            )
        error = run.result.error if run.result else None
        if error is not None:
            facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(f"{error.code}: {error.message}", "PYTHON")
        return facets

    def _inputs(self, event: LineageEvent) -> list[InputDataset]:
        # A query reads what only its text says; the job's `sql` facet carries it for receivers that read SQL.
        source = self._source(event)
        if source is None:
            return []
        facets = _schema(event.facts.source_columns) if event.facts else {}
        return [InputDataset(source.namespace, source.name, facets=facets)]

    def _outputs(self, event: LineageEvent) -> list[OutputDataset]:
        source = self._source(event)
        target = self._dataset(event, event.pipeline.target.connection, event.pipeline.target.table)
        facets = _schema(event.facts.target_columns) if event.facts else {}
        if event.facts is not None and source is not None:
            known = origins(event.pipeline, event.facts)
            fields = {name: _field(source, origin) for name, origin in known.items()}
            if fields:
                facets["columnLineage"] = column_lineage_dataset.ColumnLineageDatasetFacet(fields)
        output = OutputDataset(target.namespace, target.name, facets=facets)
        result = event.run.result
        if event.ended and result is not None and event.run.state is State.SUCCEEDED:
            rows = result.rows.inserted + result.rows.updated
            statistics = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(rowCount=rows)
            output.outputFacets = {"outputStatistics": statistics}
        return [output]

    def _source(self, event: LineageEvent) -> Dataset | None:
        source = event.pipeline.source
        return self._dataset(event, source.connection, source.table) if source.table is not None else None

    def _dataset(self, event: LineageEvent, connection: str, table: str) -> Dataset:
        return dataset_of(event.connections[connection], table, self.workspace)


class LineageClient:
    """Sends events to an OpenLineage receiver. `api_key` is asked for at the first event, and again after a refusal."""

    def __init__(
        self, url: str, builder: EventBuilder, now: Callable[[], datetime], api_key: Callable[[], str] | None = None
    ) -> None:
        self._url = url
        self._builder = builder
        self._now = now
        self._rests_until: datetime | None = None
        self._api_key = api_key
        self._transport: HttpTransport | None = None

    def send(self, event: LineageEvent) -> None:
        if self._rests_until is not None and self._now() < self._rests_until:
            raise RetryableError("lineage.resting", "The lineage receiver was away a moment ago.")
        try:
            built = self._builder.build(event)
        except (KeyError, ValueError) as error:
            raise PermanentError(
                "lineage.event", f"There is no event to make of run {event.run.run_key[:16]}: {type(error).__name__}."
            ) from error
        try:
            self._emit(built)
        except RetryableError:
            self._rests_until = self._now() + REST
            raise

    def _emit(self, event: RunEvent) -> None:
        try:
            self._open().emit(event)
        except requests.HTTPError as error:
            self._refused(error.response.status_code if error.response is not None else 0)
        # Their words hold the address, and an address may hold a key.
        except requests.RequestException as error:
            raise RetryableError(
                "lineage.away", f"The lineage receiver cannot be reached: {type(error).__name__}."
            ) from None

    def _open(self) -> HttpTransport:
        if self._transport is None:
            key = self._key()
            token = ApiKeyTokenProvider({"apiKey": key}) if key else TokenProvider({})
            # No pauses in here: what is not taken now is sent with the next round.
            config = HttpConfig(self._url, timeout=RECEIVER_SECONDS, auth=token, retry={"total": 0})
            self._transport = HttpTransport(config)
        return self._transport

    def _key(self) -> str:
        try:
            return self._api_key() if self._api_key else ""
        except PermanentError as error:
            # It is the key that is wrong and not the event, which is kept until somebody has put the key in its place.
            raise RetryableError(error.code, error.message, error.remedy) from error

    def _refused(self, status: int) -> None:
        if status in (401, 403):
            # The key may have been changed in its vault.
            self._transport = None
        if status in (0, 401, 403, 404, 408, 429) or status >= 500:
            raise RetryableError("lineage.away", f"The lineage receiver answered with status {status}.")
        raise PermanentError("lineage.refused", f"The lineage receiver refused the event with status {status}.")


def _job_facets(pipeline: Pipeline) -> dict[str, JobFacet]:
    facets: dict[str, JobFacet] = {
        "jobType": job_type_job.JobTypeJobFacet(processingType="BATCH", integration="UDS", jobType="PIPELINE")
    }
    if pipeline.source.query is not None:
        facets["sql"] = sql_job.SQLJobFacet(pipeline.source.query)
    return facets


def _schema(columns: Sequence[ColumnFact]) -> dict[str, DatasetFacet]:
    fields = [schema_dataset.SchemaDatasetFacetFields(column.name, column.type) for column in columns]
    return {"schema": schema_dataset.SchemaDatasetFacet(fields)} if fields else {}


def _field(source: Dataset, origin: Origin) -> column_lineage_dataset.Fields:
    subtype = "IDENTITY" if origin.same else "TRANSFORMATION"
    how = column_lineage_dataset.Transformation("DIRECT", subtype, masking=False)
    return column_lineage_dataset.Fields(
        [column_lineage_dataset.InputField(source.namespace, source.name, origin.column, [how])]
    )


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
