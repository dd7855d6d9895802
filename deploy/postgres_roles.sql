-- Three roles with no more rights than they need, in a schema that holds nothing but JobMaster's tables.
--
-- Run it once in each database that a master or an agent lives in, as a superuser or as the database's owner with
-- CREATEROLE; running it again changes nothing:
--
--     psql --dbname=jobs --file=deploy/postgres_roles.sql
--
-- Then give each a way in, for example: ALTER ROLE jobmaster_app PASSWORD '…'.
--
--     jobmaster_migrate   owns schema and tables: `jobmaster migrate`
--     jobmaster_app       reads and writes rows, creates nothing: workers and applications, with the option migrate = false
--     jobmaster_read      reads: `jobmaster jobs`, `stats`, `doctor`

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['jobmaster_migrate', 'jobmaster_app', 'jobmaster_read'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
            EXECUTE format('CREATE ROLE %I LOGIN', name);
        END IF;
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), name);
        -- In this database only: the roles may be used in others.
        EXECUTE format('ALTER ROLE %I IN DATABASE %I SET search_path = jobmaster', name, current_database());
    END LOOP;
END
$$;

CREATE SCHEMA IF NOT EXISTS jobmaster;
GRANT USAGE, CREATE ON SCHEMA jobmaster TO jobmaster_migrate;
GRANT USAGE ON SCHEMA jobmaster TO jobmaster_app, jobmaster_read;
REVOKE CREATE ON SCHEMA jobmaster FROM jobmaster_app, jobmaster_read, PUBLIC;

-- What is there.
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA jobmaster TO jobmaster_app;
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA jobmaster TO jobmaster_app;
-- Those that cut and drop parts of the history, as the owner of the tables.
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA jobmaster TO jobmaster_app;
GRANT SELECT ON ALL SEQUENCES IN SCHEMA jobmaster TO jobmaster_read;
GRANT SELECT ON ALL TABLES IN SCHEMA jobmaster TO jobmaster_read;

-- What migrations will make.
ALTER DEFAULT PRIVILEGES FOR ROLE jobmaster_migrate IN SCHEMA jobmaster
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO jobmaster_app;
ALTER DEFAULT PRIVILEGES FOR ROLE jobmaster_migrate IN SCHEMA jobmaster
    GRANT USAGE, SELECT ON SEQUENCES TO jobmaster_app;
ALTER DEFAULT PRIVILEGES FOR ROLE jobmaster_migrate IN SCHEMA jobmaster
    GRANT EXECUTE ON FUNCTIONS TO jobmaster_app;
ALTER DEFAULT PRIVILEGES FOR ROLE jobmaster_migrate IN SCHEMA jobmaster
    GRANT SELECT ON SEQUENCES TO jobmaster_read;
ALTER DEFAULT PRIVILEGES FOR ROLE jobmaster_migrate IN SCHEMA jobmaster
    GRANT SELECT ON TABLES TO jobmaster_read;
