-- What the sync principal needs in Azure SQL (SQL Database, Managed Instance, SQL Server), and nothing more.
-- docs/grants.md has the statement behind every grant.
--
-- Replace the names: uds_sync (the name of the service principal or managed identity in Microsoft Entra),
-- sales.orders (a source table), reporting.orders (a target table). Run it in the database itself, signed in as its
-- Entra administrator, with sqlcmd or the query editor; GO between the parts is not needed.

-- ---- once for the database

-- The principal of Entra, without a password in the database. For a SQL login instead: CREATE USER uds_sync FOR LOGIN uds_sync.
CREATE USER [uds_sync] FROM EXTERNAL PROVIDER;

-- CREATE USER grants it; it is here for databases where it was revoked.
GRANT CONNECT TO [uds_sync];

-- ---- as a source: once for each table

GRANT SELECT ON [sales].[orders] TO [uds_sync];

-- ---- as a target: once for the database

-- Staging tables, uds_ledger and uds_ledger_runs, and targets that it is to create. It creates only where the next grant lets it.
GRANT CREATE TABLE TO [uds_sync];

-- ---- as a target: once for each schema

-- Puts tables into the schema, drops its own staging tables, adds and widens columns, sets IDENTITY_INSERT.
-- It reaches every table of the schema: give targets a schema of their own, without views or procedures in it.
GRANT ALTER ON SCHEMA::[reporting] TO [uds_sync];

-- On the schema and not the table, for the staging tables and the ledger belong to the schema's owner.
GRANT SELECT ON SCHEMA::[reporting] TO [uds_sync];
GRANT INSERT ON SCHEMA::[reporting] TO [uds_sync];
GRANT UPDATE ON SCHEMA::[reporting] TO [uds_sync];
GRANT DELETE ON SCHEMA::[reporting] TO [uds_sync];
