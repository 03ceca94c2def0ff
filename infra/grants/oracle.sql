-- What the sync principals need in Oracle, and nothing more. docs/grants.md has the statement behind every grant.
--
-- Two users, because they need different things: UDS_READER reads tables of others, UDS_WRITER owns the target schema.
-- Oracle before 23ai has no right to create tables in one schema of somebody else: only CREATE ANY TABLE, which is far
-- too much. So the user of a target connection is the owner of the target tables.
--
-- Replace the names: UDS_READER, UDS_WRITER, SALES.ORDERS (a source table), USERS (the tablespace of the targets).
-- Create the users first, with a password that is typed and not written down: CREATE USER UDS_READER IDENTIFIED BY ...

-- ---- as a source: once

GRANT CREATE SESSION TO UDS_READER;

-- Reads the system change number, so that all parts of a read see one state. Without it they are read without a common state.
GRANT EXECUTE ON SYS.DBMS_FLASHBACK TO UDS_READER;

-- ---- as a source: once for each table

-- READ and not SELECT, with which rows could be locked (SELECT FOR UPDATE).
GRANT READ ON SALES.ORDERS TO UDS_READER;

-- AS OF SCN. Needed where EXECUTE on DBMS_FLASHBACK was granted and a table is read in several parts.
GRANT FLASHBACK ON SALES.ORDERS TO UDS_READER;

-- ---- as a target: once

GRANT CREATE SESSION TO UDS_WRITER;

-- Staging tables, UDS_LEDGER and UDS_LEDGER_RUNS, and targets, all in its own schema.
GRANT CREATE TABLE TO UDS_WRITER;

-- Room for them: the targets, and once more the largest of them for staging.
ALTER USER UDS_WRITER QUOTA 50G ON USERS;
