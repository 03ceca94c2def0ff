"""What may be written in the configuration. The JSON schema and docs/configuration.md come from these classes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from sync_core.catalog.control_model import AlertsEntry, ChannelEntry, Group, RetryEntry, Schedule
from sync_core.catalog.section import Names, SecretName, Section, distinct, filled
from sync_core.catalog.values import (
    Duration,
    Free,
    Interval,
    Name,
    Partitions,
    Scalar,
    SparkType,
    Table,
    Text,
    TimeZone,
    Truth,
    matching,
    one_of,
    whole,
)
from sync_core.domain.connection import Authentication
from sync_core.domain.pipeline import LoadMode, NullCursor, SchemaChanges
from sync_core.domain.watermark import CursorType

Port = Annotated[int, whole(1, 65_535)]
Concurrent = Annotated[int, whole(1, 10_000)]
FetchSize = Annotated[int, whole(1, 1_000_000)]
AuthenticationWord = Annotated[Authentication, one_of(Authentication)]
CursorTypeWord = Annotated[CursorType, one_of(CursorType)]
NullCursorWord = Annotated[NullCursor, one_of(NullCursor)]
LoadModeWord = Annotated[LoadMode, one_of(LoadMode)]
SchemaChangesWord = Annotated[SchemaChanges, one_of(SchemaChanges)]
NullKeysWord = Annotated[Literal["fail", "ignore"], one_of(("fail", "ignore"))]
LossyWord = Annotated[Literal["cut", "refuse"], one_of(("cut", "refuse"))]
PipelineId = Annotated[
    str,
    matching(
        r"[a-z0-9][a-z0-9_.-]{0,99}",
        "a pipeline_id: up to 100 of a-z 0-9 _ . -, the first a letter or digit",
        "sales.orders",
    ),
]
Tag = Annotated[str, matching(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", "a tag: letters, digits, _ . -", "nightly")]


class ConnectionEntry(Section):
    """A named database."""

    type: Name = Field(examples=["oracle"])
    """Adapter: `oracle`, `azure_sql`, `postgresql`, `databricks`, or one that a package adds."""

    host: Name | None = None
    """Host name alone; the port has its own key."""

    port: Port | None = None
    """TCP port. Without it the database's usual one."""

    database: Name | None = None
    """Database name (`azure_sql`, `postgresql`)."""

    service_name: Name | None = None
    """Oracle service; exactly one of `service_name` and `sid`."""

    sid: Name | None = None
    """Oracle SID; exactly one of `service_name` and `sid`."""

    username: Name | None = None
    """Who signs in."""

    auth: AuthenticationWord = Authentication.PASSWORD
    """How to sign in; other ways than `password` are for `azure_sql`."""

    secret_scope: SecretName | None = None
    """Where the password, client secret or token lies: Databricks secret scope. Elsewhere the environment
    variable `UDS_SECRET_<SCOPE>_<KEY>`."""

    secret_key: SecretName | None = None
    """Name of the secret in its scope; never the secret itself."""

    tenant_id: Name | None = None
    """Microsoft Entra tenant, for `auth: service_principal`."""

    client_id: Name | None = None
    """Application (client) id, for `auth: service_principal`."""

    service_credential: Name | None = None
    """Unity Catalog service credential, for `auth: service_credential`."""

    tls: Truth | None = None
    """Encrypt the connection. Without it the adapter's default."""

    trust_server_certificate: Truth = False
    """Accept any certificate (`azure_sql`, `postgresql`); for tests only."""

    catalog: Name | None = None
    """Unity Catalog catalog (`databricks`)."""

    schema_: Name | None = Field(None, alias="schema")
    """Schema of tables that are written without one. `databricks` needs it beside `catalog`."""

    path: Name | None = None
    """Folder of Delta tables in place of `catalog` and `schema` (`databricks`); relative to where `uds` is
    started."""

    timezone: TimeZone | None = None
    """IANA zone in which timestamps without zone are written. Without it the database's own."""

    max_concurrent: Concurrent | None = None
    """How many runs may use it at once, over all pipelines. Without it any number."""

    driver_package: Name | None = None
    """Maven coordinate of the JDBC driver, where the adapter's own is not the one to use."""

    options: dict[str, Free] = Field({})
    """Driver properties, passed through; `url` and `driver` override what the adapter builds."""


class SourceEntry(Section):
    """Where rows come from."""

    connection: Name = Field(examples=["oracle_prod"])
    """Name of a connection."""

    table: Table | None = None
    """Table or view; exactly one of `table` and `query`."""

    query: Text | None = None
    """A SELECT in the source's own SQL, without `;` at its end."""


class TargetEntry(Section):
    """Where rows go."""

    connection: Name = Field(examples=["lake"])
    """Name of a connection."""

    table: Table = Field(examples=["orders"])
    """Table; it is created when it is missing. No two pipelines may write one table."""


class CursorEntry(Section):
    """The column that says which rows are new."""

    column: Name | None = None
    """Source column. Left out for `type: version` only."""

    type: CursorTypeWord = Field(examples=["timestamp"])
    """Type of the column; `rowversion` for `azure_sql`, `version` (a Delta table's own versions) for
    `databricks` sources."""

    initial: Scalar | None = None
    """The first load reads from this value on, inclusive. Without it everything."""

    settle: Duration = "30s"
    """How long a transaction at the source may stay open: younger rows wait for the next run, or are read
    again."""

    lookback: Scalar | None = None
    """How far before the watermark each run reads again: a duration for dates and timestamps, a number for
    numbers."""

    nulls: NullCursorWord = NullCursor.FAIL
    """Rows without a cursor value: stop the run, load them each time, or leave them out; counted always."""

    timezone: TimeZone | None = None
    """IANA zone in which the column's values are written (`date`, `timestamp`). Without it the
    connection's."""


class ReadEntry(Section):
    """How the source is read."""

    partitions: Partitions = "auto"
    """Parallel parts of the read; `auto` decides from the table's statistics."""

    fetch_size: FetchSize = 10_000
    """Rows in one round trip to the database."""


class FilterEntry(Section):
    """Keep the rows for which a condition is true."""

    type: Literal["filter"]
    """`filter`"""

    condition: Text = Field(examples=["STATUS <> 'DRAFT'"])
    """Spark SQL condition."""


class SelectEntry(Section):
    """Keep these columns, in this order."""

    type: Literal["select"]
    """`select`"""

    columns: Names = Field(examples=[["ORDER_ID", "STATUS"]])
    """Columns to keep; cursor and merge keys must be among them."""


class RenameEntry(Section):
    """Give columns other names. Cursor and merge keys are followed to their new names."""

    type: Literal["rename"]
    """`rename`"""

    mapping: Annotated[dict[str, Name], AfterValidator(filled)] = Field(examples=[{"ORDER_ID": "order_id"}])
    """Old name to new name."""


class CastEntry(Section):
    """Change the type of columns. A value that does not fit fails the run."""

    type: Literal["cast"]
    """`cast`"""

    columns: Annotated[dict[str, SparkType], AfterValidator(filled)] = Field(examples=[{"AMOUNT": "decimal(18,2)"}])
    """Column to Spark SQL type; neither the cursor nor a merge key."""


class DeriveEntry(Section):
    """Add or replace a column."""

    type: Literal["derive"]
    """`derive`"""

    column: Name = Field(examples=["TOTAL"])
    """The column's name; neither the cursor nor a merge key."""

    expression: Text = Field(examples=["PRICE * QUANTITY"])
    """Spark SQL expression."""


class DropEntry(Section):
    """Leave columns out."""

    type: Literal["drop"]
    """`drop`"""

    columns: Names = Field(examples=[["COMMENT"]])
    """Columns to leave out; neither the cursor nor a merge key."""


TransformationEntry = Annotated[
    FilterEntry | SelectEntry | RenameEntry | CastEntry | DeriveEntry | DropEntry, Field(discriminator="type")
]


class PipelineEntry(Section):
    """Source, transformations, target."""

    pipeline_id: PipelineId = Field(examples=["sales.orders"])
    """The pipeline's name: `[a-z0-9][a-z0-9_.-]{0,99}`. Its record and its ledger go by it."""

    source: SourceEntry
    """Where rows come from."""

    target: TargetEntry
    """Where rows go."""

    mode: LoadModeWord = Field(examples=["merge"])
    """`full_refresh` replaces the target, `incremental` appends new rows, `merge` updates and inserts by key;
    `merge` without a cursor reads the whole source each run."""

    cursor: CursorEntry | None = None
    """The column that says which rows are new; `incremental` needs one."""

    merge_keys: Names | None = None
    """Source columns that identify a row. `merge` needs them; `incremental` tells by them rows it has; a new
    table in a database gets them as its primary key."""

    null_keys: NullKeysWord = "fail"
    """Rows with a NULL merge key: stop the run, or leave them out, counted."""

    schema_changes: SchemaChangesWord = SchemaChanges.EVOLVE
    """A new or widened source column: `evolve` changes the target, `freeze` stops the run, `discard` leaves
    new columns out; reported always."""

    lossy: LossyWord = "cut"
    """Digits below a microsecond outside the cursor: cut and counted, or an error."""

    types: dict[str, SparkType] | None = None
    """Source column to the Spark SQL type it is carried in; waives the refusal of a type that cannot be
    carried without loss."""

    read: ReadEntry = ReadEntry()
    """How the source is read."""

    transformations: list[TransformationEntry] = Field([])
    """Applied in this order."""

    tags: Annotated[list[Tag], AfterValidator(distinct)] | None = None
    """Names for groups of pipelines; `tag:NAME` selects them."""

    schedule: Schedule | None = None
    """When it runs. Without it on demand."""

    paused: Truth = False
    """`true`: it begins no run, whatever its schedule, until this is taken away."""

    compute: Group = "default"
    """The compute group, whose pipelines are run together; the settings of the control plane say which job serves it."""

    retry: RetryEntry = RetryEntry()
    """What happens after a failed run."""

    timeout: Interval | None = None
    """A run that takes longer is stopped and fails; at least `1m`."""

    alerts: AlertsEntry = AlertsEntry()
    """What it is watched for."""

    owner: Name | None = None
    """Whom its alerts name: a team or a person."""

    channels: Names | None = None
    """Names of the channels its alerts go to, each those that match its `conditions`. Without it every channel."""


class TableEntry(PipelineEntry):
    """One of `tables:`; every other key overrides what the list's pipeline says."""

    name: Table = Field(examples=["SALES.CUSTOMERS"])
    """Source table."""


class PipelineItem(PipelineEntry):
    """One entry of `pipelines:`."""

    tables: list[Table | TableEntry] | None = None
    """Source tables, each of which becomes a pipeline. `pipeline_id` (default `{schema}.{table}`) and
    `target.table` (default `{table}`) are then templates with `{schema}` and `{table}` in lower case."""


class Defaults(PipelineEntry):
    """Keys for every pipeline of the file, those of `pipelines.yml` for the pipelines of all files."""


class ConfigurationFile(Section):
    """connections.yml, pipelines.yml, pipelines/*.yml and environments/*.yml."""

    connections: dict[str, ConnectionEntry] = Field({})
    """In `connections.yml` and in environments: databases by name."""

    channels: dict[str, ChannelEntry] = Field({})
    """In `connections.yml` and in environments: where alerts go, by name."""

    defaults: Defaults | None = None
    """Keys of a pipeline that each pipeline below inherits, all but `pipeline_id` and `tables`."""

    pipelines: list[PipelineItem] = Field([])
    """In `pipelines.yml`, `pipelines/*.yml` and in environments: pipelines."""
