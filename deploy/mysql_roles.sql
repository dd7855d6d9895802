-- Three users with no more rights than they need, in a database that holds nothing but JobMaster's tables (and, for an
-- application that enqueues inside its own transactions, its tables too).
--
-- Run it once in each database that a master or an agent lives in, as a user who may create users; running it again
-- changes nothing:
--
--     mariadb --database=jobs < deploy/mysql_roles.sql
--
-- Until then they are locked. Give each a way in, for example:
--
--     ALTER USER jobmaster_app IDENTIFIED BY '…' ACCOUNT UNLOCK;
--
--     jobmaster_migrate   makes and changes tables: `jobmaster migrate`
--     jobmaster_app       reads and writes rows, creates nothing: workers and applications, with the option migrate = false
--     jobmaster_read      reads: `jobmaster jobs`, `stats`, `doctor`

CREATE USER IF NOT EXISTS jobmaster_migrate ACCOUNT LOCK;
CREATE USER IF NOT EXISTS jobmaster_app ACCOUNT LOCK;
CREATE USER IF NOT EXISTS jobmaster_read ACCOUNT LOCK;

-- A star alone is the database that the script runs in.
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX, DROP, REFERENCES ON * TO jobmaster_migrate;
GRANT SELECT, INSERT, UPDATE, DELETE ON * TO jobmaster_app;
GRANT SELECT ON * TO jobmaster_read;
