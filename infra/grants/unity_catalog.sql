-- What the sync principal needs in Unity Catalog, and nothing more. docs/grants.md has the statement behind every grant.
--
-- Replace the names: `uds-sync` (the application id of the service principal that the job runs as), `uds-control` (the
-- application id of the Functions app's identity), main.sales.orders (a source table), main.bronze (the schema of the
-- targets), ops.audit (the audit schema), ops.audit.runs (the volume of the run folders), `sql-sign-in` (a service
-- credential). Run it as the owner of the objects.

-- ---- as a source: catalog, schema, table

GRANT USE CATALOG ON CATALOG main TO `uds-sync`;
GRANT USE SCHEMA ON SCHEMA main.sales TO `uds-sync`;
GRANT SELECT ON TABLE main.sales.orders TO `uds-sync`;

-- ---- as a target: the schema; what it creates there is its own

GRANT USE SCHEMA ON SCHEMA main.bronze TO `uds-sync`;
GRANT CREATE TABLE ON SCHEMA main.bronze TO `uds-sync`;

-- ---- as a target: once for each table that is there already

GRANT SELECT ON TABLE main.bronze.orders TO `uds-sync`;
GRANT MODIFY ON TABLE main.bronze.orders TO `uds-sync`;

-- ---- audit tables and run folders

GRANT USE CATALOG ON CATALOG ops TO `uds-sync`;
GRANT USE SCHEMA ON SCHEMA ops.audit TO `uds-sync`;
GRANT CREATE TABLE ON SCHEMA ops.audit TO `uds-sync`;
GRANT READ VOLUME ON VOLUME ops.audit.runs TO `uds-sync`;
GRANT WRITE VOLUME ON VOLUME ops.audit.runs TO `uds-sync`;

-- ---- the control plane writes manifests and reads results; it reads no table

GRANT USE CATALOG ON CATALOG ops TO `uds-control`;
GRANT USE SCHEMA ON SCHEMA ops.audit TO `uds-control`;
GRANT READ VOLUME ON VOLUME ops.audit.runs TO `uds-control`;
GRANT WRITE VOLUME ON VOLUME ops.audit.runs TO `uds-control`;

-- ---- only for connections with auth: service_credential

GRANT ACCESS ON SERVICE CREDENTIAL `sql-sign-in` TO `uds-sync`;
