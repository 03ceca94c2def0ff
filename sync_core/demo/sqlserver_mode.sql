-- What SQL Server has and H2 in its MSSQLServer mode lacks. Run it once in every such database.
-- The clock: overloads of one length keep LocalDateTime.now out.
CREATE ALIAS IF NOT EXISTS SYSUTCDATETIME FOR 'java.time.Instant.now';
CREATE ALIAS IF NOT EXISTS SYSDATETIME FOR 'java.time.Instant.now';
CREATE ALIAS IF NOT EXISTS OBJECT_ID AS 'int id(String name) { return name.hashCode(); }';
CREATE ALIAS IF NOT EXISTS CHECKSUM AS 'int checksum(String... values) { return java.util.Arrays.hashCode(values); }';

-- Row versions: SET rv = CAST(NEXT VALUE FOR row_versions AS BINARY(8)) by hand where the server does it by itself.
CREATE SEQUENCE IF NOT EXISTS "row_versions" START WITH 2001;
CREATE ALIAS IF NOT EXISTS MIN_ACTIVE_ROWVERSION AS '
long next(java.sql.Connection connection) throws java.sql.SQLException {
    String query = "SELECT BASE_VALUE FROM INFORMATION_SCHEMA.SEQUENCES WHERE SEQUENCE_NAME = ''row_versions''";
    try (java.sql.ResultSet found = connection.createStatement().executeQuery(query)) {
        found.next();
        return found.getLong(1);
    }
}';

CREATE SCHEMA IF NOT EXISTS "sys";
CREATE VIEW IF NOT EXISTS "sys"."partitions" AS
SELECT OBJECT_ID('"' || TABLE_SCHEMA || '"."' || TABLE_NAME || '"') AS "object_id", 1 AS "index_id", ROW_COUNT_ESTIMATE AS "rows"
FROM INFORMATION_SCHEMA.TABLES;

-- H2's identity columns take any value, so that none needs IDENTITY_INSERT.
CREATE VIEW IF NOT EXISTS "sys"."identity_columns" AS
SELECT "object_id" FROM "sys"."partitions" WHERE 1 = 0;

-- H2 has no collation of a column's own: a comment on the column names one.
CREATE VIEW IF NOT EXISTS "sys"."columns" AS
SELECT OBJECT_ID('"' || TABLE_SCHEMA || '"."' || TABLE_NAME || '"') AS "object_id", COLUMN_NAME AS "name", 167 AS "system_type_id",
    NULLIF(REMARKS, '') AS "collation_name"
FROM INFORMATION_SCHEMA.COLUMNS;
CREATE ALIAS IF NOT EXISTS TYPE_NAME AS 'String name(int type) { return "varchar"; }';
CREATE ALIAS IF NOT EXISTS COLLATIONPROPERTY AS 'int page(String collation, String property) { return collation.contains("_CP1_") ? 1252 : 0; }';
