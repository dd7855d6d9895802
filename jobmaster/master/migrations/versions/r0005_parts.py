"""On Postgres: history and runs in parts, by the time that is in the id.

What is old is dropped part by part, in the time of a file's removal. The statements are functions that run as the owner
of the tables, since the users that work own none; so each does one thing, whoever calls it.
"""

import sqlalchemy as sa
from alembic import context, op

revision = "0005"
down_revision = "0004"

FAR = "04000000-0000-0000-0000-000000000000"


def upgrade() -> None:
    connection = op.get_bind()
    if connection.dialect.name != "postgresql":
        return
    prefix = context.config.attributes["prefix"]
    for name, key, primary in (("history", "id", "id"), ("run", "job_id", "job_id, token")):
        kind = connection.execute(
            sa.text("SELECT relkind::text FROM pg_class WHERE oid = to_regclass(:name)"), {"name": prefix + name}
        ).scalar()
        if kind != "p":
            _divide(connection, prefix + name, key, primary)
    history = f"{prefix}history"
    for name, *columns in (("handler", "handler", "id"), ("group", "state", "lane", "finished_us")):
        op.create_index(f"{history}_{name}", history, columns, if_not_exists=True)
    unusual = sa.text("state <> 'succeeded'")
    op.create_index(f"{history}_unusual", history, ["state", "id"], if_not_exists=True, postgresql_where=unusual)
    schema = connection.exec_driver_sql("SELECT quote_ident(current_schema())").scalar_one()
    cut, fold = f"{prefix}cut(cut_at uuid)", f"{prefix}fold(low uuid, high uuid, rules jsonb, most bigint)"
    for signature, body in ((cut, CUT), (fold, FOLD)):
        connection.exec_driver_sql(
            f"CREATE OR REPLACE FUNCTION {signature} RETURNS text LANGUAGE plpgsql SECURITY DEFINER "
            f"SET search_path = {schema}, pg_temp SET lock_timeout = '3s' "
            f"AS $body${body.replace('{p}', prefix)}$body$"
        )
        connection.exec_driver_sql(f"REVOKE ALL ON FUNCTION {signature} FROM PUBLIC")


def _divide(connection: sa.Connection, table: str, key: str, primary: str) -> None:
    """Make the table the first part of one of its name: ids until an hour from now, which are all but strange ones."""
    first = f"{table}_first"
    connection.exec_driver_sql(f"ALTER TABLE {table} RENAME TO {first}")
    named = "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = to_regclass($1)"
    for (index,) in connection.exec_driver_sql(named, (first,)).all():
        connection.exec_driver_sql(f"ALTER INDEX {index} RENAME TO {index.replace(table, first)}")
    connection.exec_driver_sql(
        f"CREATE TABLE {table} (LIKE {first} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE, "
        f"PRIMARY KEY ({primary})) PARTITION BY RANGE ({key})"
    )
    ahead = connection.exec_driver_sql(
        "SELECT (lpad(to_hex((extract(epoch FROM clock_timestamp())::bigint + 3600) * 1000), 12, '0') "
        "|| repeat('0', 20))::uuid::text"
    ).scalar_one()
    for part, since, until in (("ahead", f"'{ahead}'", f"'{FAR}'"), ("far", f"'{FAR}'", "MAXVALUE")):
        connection.exec_driver_sql(
            f"CREATE TABLE {table}_{part} PARTITION OF {table} FOR VALUES FROM ({since}) TO ({until})"
        )
    connection.exec_driver_sql(
        f"WITH late AS (DELETE FROM {first} WHERE {key} >= '{ahead}' RETURNING *) "  # noqa: S608 - our own names
        f"INSERT INTO {table} SELECT * FROM late"
    )
    connection.exec_driver_sql(
        f"ALTER TABLE {table} ATTACH PARTITION {first} FOR VALUES FROM (MINVALUE) TO ('{ahead}')"
    )


CUT = r"""
-- End the part ahead at an id, and begin another one there. Says 'done', 'busy' where somebody is in the way, or
-- 'sealed'.
DECLARE
    word text; key text; since text; part text;
BEGIN
    IF EXISTS (SELECT FROM {p}meta WHERE name = 'sealed') THEN
        RETURN 'sealed';
    END IF;
    -- Everybody waits behind who waits for this.
    PERFORM set_config('lock_timeout', '500ms', true);
    LOCK TABLE {p}history, {p}run IN ACCESS EXCLUSIVE MODE;
    FOR word, key IN VALUES ('history', 'id'), ('run', 'job_id') LOOP
        SELECT substring(pg_get_expr(relpartbound, oid) FROM $re$FROM \('([0-9a-f-]+)'\)$re$) INTO STRICT since
            FROM pg_class WHERE oid = to_regclass(format('{p}%s_ahead', word));
        IF cut_at > since::uuid THEN
            part := format('{p}%s_%s', word, left(replace(since, '-', ''), 12));
            EXECUTE format('ALTER TABLE {p}%1$s DETACH PARTITION {p}%1$s_ahead', word);
            EXECUTE format('ALTER TABLE {p}%1$s_ahead RENAME TO %2$I', word, part);
            EXECUTE format('CREATE TABLE {p}%1$s_ahead PARTITION OF {p}%1$s FOR VALUES FROM (%2$L) TO (%3$L)',
                word, cut_at, '04000000-0000-0000-0000-000000000000');
            EXECUTE format('WITH late AS (DELETE FROM %2$I WHERE %3$I >= %4$L RETURNING *) '
                'INSERT INTO {p}%1$s SELECT * FROM late', word, part, key, cut_at);
            EXECUTE format('ALTER TABLE {p}%1$s ATTACH PARTITION %2$I FOR VALUES FROM (%3$L) TO (%4$L)',
                word, part, since, cut_at);
        END IF;
    END LOOP;
    RETURN 'done';
EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
    RETURN 'busy';
END
"""

FOLD = r"""
-- Make one part of all from an id (NULL: the first) up to another: with the jobs that no rule of {states, handler,
-- besides, before_us} lets go and the runs of these and of live ones, as long as these jobs are not too many. Says
-- 'done', 'many', 'busy' where somebody is in the way, 'gone' where no parts are bounded so any more, or 'sealed'.
DECLARE
    goes text; word text; bound text; each text; stays text; kept bigint; total bigint := 0;
    parts text[]; whole boolean; names jsonb := '{}';
BEGIN
    IF EXISTS (SELECT FROM {p}meta WHERE name = 'sealed') THEN
        RETURN 'sealed';
    END IF;
    SELECT string_agg(format('(o.state = ANY (%L::text[]) AND o.finished_us < %s AND %s)', r.states, r.before_us,
        CASE WHEN r.handler IS NULL THEN format('o.handler <> ALL (%L::text[])', r.besides)
             ELSE format('o.handler = %L', r.handler) END), ' OR ') INTO STRICT goes
        FROM jsonb_to_recordset(rules) AS r (states text[], handler text, besides text[], before_us bigint);
    FOREACH word IN ARRAY ARRAY['history', 'run'] LOOP
        SELECT array_agg(part ORDER BY part), bool_or(since IS NOT DISTINCT FROM low) AND bool_or(until = high)
            INTO STRICT parts, whole FROM (
                SELECT c.relname::text AS part,
                    substring(pg_get_expr(c.relpartbound, c.oid) FROM $re$FROM \('([0-9a-f-]+)'\)$re$)::uuid AS since,
                    substring(pg_get_expr(c.relpartbound, c.oid) FROM $re$TO \('([0-9a-f-]+)'\)$re$)::uuid AS until
                FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
                WHERE i.inhparent = to_regclass('{p}' || word)
            ) AS p
            WHERE part NOT IN (format('{p}%s_ahead', word), format('{p}%s_far', word))
                AND until <= high AND (low IS NULL OR since >= low);
        IF whole IS NOT TRUE THEN
            RETURN 'gone';
        END IF;
        names := names || jsonb_build_object(word, parts);
        -- Whoever reads goes on; whoever writes there, as hardly anybody does, waits. A vacuum is given up for this,
        -- but only after `deadlock_timeout`.
        FOREACH each IN ARRAY parts LOOP
            EXECUTE format('LOCK TABLE %I IN SHARE MODE', each);
        END LOOP;
        EXECUTE format('CREATE TABLE {p}%1$s_fold (LIKE {p}%1$s INCLUDING ALL)', word);
        FOREACH each IN ARRAY parts LOOP
            stays := CASE word
                WHEN 'history' THEN format('NOT (%s) LIMIT %s', goes, most + 1 - total)
                ELSE 'EXISTS (SELECT FROM {p}history_fold AS h WHERE h.id = o.job_id) '
                    'OR EXISTS (SELECT FROM {p}job AS j WHERE j.id = o.job_id)' END;
            EXECUTE format('INSERT INTO {p}%s_fold SELECT o.* FROM %I AS o WHERE %s', word, each, stays);
            GET DIAGNOSTICS kept = ROW_COUNT;
            total := total + CASE word WHEN 'history' THEN kept ELSE 0 END;
            IF total > most THEN
                RAISE EXCEPTION USING ERRCODE = 'JM001';
            END IF;
        END LOOP;
    END LOOP;
    -- Everybody waits behind who waits for this.
    PERFORM set_config('lock_timeout', '500ms', true);
    LOCK TABLE {p}history, {p}run IN ACCESS EXCLUSIVE MODE;
    FOREACH word IN ARRAY ARRAY['history', 'run'] LOOP
        bound := coalesce(quote_literal(low), 'MINVALUE');
        FOR each IN SELECT jsonb_array_elements_text(names -> word) LOOP
            EXECUTE format('ALTER TABLE {p}%s DETACH PARTITION %I', word, each);
            EXECUTE format('DROP TABLE %I', each);
        END LOOP;
        each := CASE WHEN low IS NULL THEN format('{p}%s_first', word)
            ELSE format('{p}%s_%s', word, left(replace(low::text, '-', ''), 12)) END;
        EXECUTE format('ALTER TABLE {p}%s_fold RENAME TO %I', word, each);
        EXECUTE format('ALTER TABLE {p}%s ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%L)', word, each, bound, high);
    END LOOP;
    RETURN 'done';
EXCEPTION
    WHEN lock_not_available OR deadlock_detected THEN
        RETURN 'busy';
    WHEN SQLSTATE 'JM001' THEN
        RETURN 'many';
END
"""
