-- What the sync principal needs in PostgreSQL, and nothing more. docs/grants.md has the statement behind every grant.
--
-- Replace the names: uds_sync (the role), shop (the database), sales.orders (a source table), reporting.orders (a
-- target table). Run it as the owner of the tables. The password is set by psql's \password, never in a script.

-- ---- once for the database

CREATE ROLE uds_sync LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;

-- Everybody has it unless it was revoked from PUBLIC.
GRANT CONNECT ON DATABASE shop TO uds_sync;

-- ---- as a source: once for each schema, once for each table

GRANT USAGE ON SCHEMA sales TO uds_sync;
GRANT SELECT ON sales.orders TO uds_sync;

-- ---- as a target: once for each schema

GRANT USAGE ON SCHEMA reporting TO uds_sync;
-- Staging tables, uds_ledger and uds_ledger_runs, which then belong to uds_sync; and targets that it is to create.
GRANT CREATE ON SCHEMA reporting TO uds_sync;

-- ---- as a target: once for each table that is there already; those that uds_sync creates are its own

GRANT SELECT ON reporting.orders TO uds_sync;
GRANT INSERT ON reporting.orders TO uds_sync;
GRANT UPDATE ON reporting.orders TO uds_sync;
GRANT DELETE ON reporting.orders TO uds_sync;
