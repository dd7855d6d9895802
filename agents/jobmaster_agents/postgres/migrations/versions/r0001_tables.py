"""Jobs, outbox, tombstones, what the agent knows of itself, its lanes and its workers, and the function that puts."""

from alembic import context, op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_JOB_STATES = "'awaiting', 'held', 'dispatching', 'queued', 'running', 'succeeded', 'failed', 'cancelled'"
_REASONS = "'exhausted', 'crashed', 'timed_out', 'rejected', 'expired', 'unknown_handler', 'undecodable'"
_OUTCOMES = "'succeeded', 'failed', 'retry_at', 'snoozed', 'interrupted', 'lapsed', 'cancelled'"

_VACUUM = "autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0"

_STORE = """
WITH stored AS (
        INSERT INTO {p}job (
            seq, id, st, handler, lane, priority, epoch, claim_seq, version, created_us, original_due_us,
            due_us, policy, data, expires_us, first_started_us, attempts, snoozes, interrupts, crash_count,
            suspect, effects, progress, started_us, worker, schedule, progress_note, error, labels
        )
        SELECT v_first + n.place, n.id,
            CASE WHEN coalesce(n.due, p_due[1]) <= v_now THEN 0 ELSE 1 END, coalesce(n.handler, p_handlers[1]),
            coalesce(n.lane, p_lanes[1]), coalesce(n.priority, p_priorities[1]),
            coalesce(n.epoch, p_epochs[1]), coalesce(n.claim_seq, p_claim_seqs[1]),
            coalesce(n.version, p_versions[1]), coalesce(n.created, p_created[1]),
            coalesce(n.original, p_original[1]), coalesce(n.due, p_due[1]),
            coalesce(n.policy, p_policies[1]), coalesce(n.data, p_data[1]),
            n.expires, n.first_started, coalesce(n.attempts, 0), coalesce(n.snoozes, 0),
            coalesce(n.interrupts, 0), coalesce(n.crash_count, 0), coalesce(n.suspect, false),
            coalesce(n.effects, false), n.progress, n.started, n.worker, n.schedule, n.note, n.error, n.labels
        FROM unnest(
            p_places, p_ids, p_handlers, p_lanes, p_priorities, p_epochs, p_claim_seqs, p_versions, p_created,
            p_original, p_due, p_policies, p_data, p_expires, p_first_started, p_attempts, p_snoozes,
            p_interrupts, p_crash_counts, p_suspect, p_effects, p_progress, p_started, p_workers, p_schedules,
            p_notes, p_errors, p_labels
        ) AS n (
            place, id, handler, lane, priority, epoch, claim_seq, version, created, original, due, policy,
            data, expires, first_started, attempts, snoozes, interrupts, crash_count, suspect, effects,
            progress, started, worker, schedule, note, error, labels
        )
        {known}
        RETURNING lane, st
    ), counted AS (
        INSERT INTO {p}count (lane, ready, delayed)
        SELECT lane, count(*) FILTER (WHERE st = 0), count(*) FILTER (WHERE st = 1) FROM stored GROUP BY lane
        RETURNING ready + delayed AS stored
    )
    SELECT coalesce(sum(stored), 0) INTO v_stored FROM counted
"""
"""A part of `put`: the jobs go into the table, and are counted."""

_STATEMENTS = (
    # st: 0 ready, 1 delayed, 2 leased, 3 parked. `leased_until_us` is in no index and no predicate, so that extending
    # is HOT. What has a fixed width comes first, for the sake of alignment. Half of each page is left free: where all
    # jobs of a page are claimed, each then has room for its next version there, also while somebody's snapshot keeps
    # the last one from being cleared away.
    """
    CREATE TABLE {p}job (
        seq bigint NOT NULL,
        epoch bigint NOT NULL CHECK (epoch > 0),
        claim_seq bigint NOT NULL DEFAULT 0,
        version bigint NOT NULL,
        created_us bigint NOT NULL,
        original_due_us bigint NOT NULL,
        due_us bigint NOT NULL,
        id uuid NOT NULL PRIMARY KEY,
        last_token bigint NOT NULL DEFAULT 0,
        last_digest bigint NOT NULL DEFAULT 0,
        attempts integer NOT NULL DEFAULT 0,
        snoozes integer NOT NULL DEFAULT 0,
        interrupts integer NOT NULL DEFAULT 0,
        crash_count integer NOT NULL DEFAULT 0,
        st smallint NOT NULL CHECK (st BETWEEN 0 AND 3),
        priority smallint NOT NULL CHECK (priority BETWEEN 0 AND 4),
        suspect boolean NOT NULL DEFAULT false,
        effects boolean NOT NULL DEFAULT false,
        progress smallint,
        expires_us bigint,
        first_started_us bigint,
        leased_until_us bigint,
        started_us bigint,
        handler text COLLATE "C" NOT NULL,
        lane text COLLATE "C" NOT NULL,
        worker text COLLATE "C",
        schedule text COLLATE "C",
        progress_note text COLLATE "C",
        error text COLLATE "C",
        policy bytea NOT NULL,
        labels bytea,
        data bytea NOT NULL,
        first_data bytea,
        CHECK (st <> 2 OR (worker IS NOT NULL AND leased_until_us IS NOT NULL AND claim_seq > 0))
    ) WITH (fillfactor = 50, {vacuum})
    """,
    "CREATE INDEX {p}job_ready ON {p}job (lane, priority, seq, handler) WHERE st = 0",
    "CREATE INDEX {p}job_delayed ON {p}job (due_us, seq) WHERE st = 1",
    "CREATE INDEX {p}job_leased ON {p}job (worker) WHERE st = 2",
    "CREATE INDEX {p}job_parked ON {p}job (handler, id) WHERE st = 3",
    "CREATE INDEX {p}job_expiry ON {p}job (expires_us) WHERE expires_us IS NOT NULL AND st <> 2",
    "CREATE SEQUENCE {p}place INCREMENT BY 1048576",
    "CREATE SEQUENCE {p}outbox_seq",
    # The commonest text stands first in each check: a list is slower to look through.
    f"""
    CREATE TABLE {{p}}outbox (
        seq bigint NOT NULL PRIMARY KEY DEFAULT nextval('{{p}}outbox_seq'),
        at_us bigint NOT NULL,
        digest bigint,
        kind text COLLATE "C" NOT NULL CHECK (kind = 'plain' OR kind = 'effect'),
        revoked text COLLATE "C",
        job_id uuid, job_handler text COLLATE "C", job_lane text COLLATE "C", job_priority smallint,
        job_state text COLLATE "C" CHECK (job_state = 'succeeded' OR job_state IN ({_JOB_STATES})),
        job_reason text COLLATE "C" CHECK (job_reason IS NULL OR job_reason IN ({_REASONS})),
        job_epoch bigint, job_claim_seq bigint, job_version bigint, job_agent text COLLATE "C",
        job_created_us bigint, job_original_due_us bigint, job_due_us bigint, job_expires_us bigint,
        job_first_started_us bigint, job_finished_us bigint,
        job_attempts integer, job_snoozes integer, job_interrupts integer, job_crash_count integer,
        job_suspect boolean, job_schedule text COLLATE "C", job_effects boolean, job_worker text COLLATE "C",
        job_started_us bigint, job_progress smallint, job_progress_note text COLLATE "C",
        job_data bytea, job_policy bytea, job_labels bytea, job_result bytea, job_error text COLLATE "C",
        run_job_id uuid, run_token bigint, run_attempt integer, run_worker text COLLATE "C",
        run_host text COLLATE "C", run_started_us bigint, run_finished_us bigint,
        run_outcome text COLLATE "C" CHECK (run_outcome = 'succeeded' OR run_outcome IN ({_OUTCOMES})),
        run_error text COLLATE "C", run_detail bytea
    ) WITH ({{vacuum}})
    """,
    "ALTER SEQUENCE {p}outbox_seq OWNED BY {p}outbox.seq",
    # `seq` is that of the outbox record written with it: in order of time, and each knows its last record.
    """
    CREATE TABLE {p}tombstone (
        id uuid NOT NULL PRIMARY KEY,
        seq bigint NOT NULL,
        epoch bigint NOT NULL,
        last_token bigint NOT NULL,
        digest bigint NOT NULL,
        at_us bigint NOT NULL,
        moved boolean NOT NULL DEFAULT false,
        revoked text COLLATE "C" CHECK (revoked IN ('cancel', 'move')),
        answer text COLLATE "C"
    ) WITH ({vacuum})
    """,
    "CREATE INDEX {p}tombstone_seq ON {p}tombstone (seq)",
    """
    CREATE TABLE {p}meta (
        one boolean NOT NULL PRIMARY KEY CHECK (one),
        incarnation text COLLATE "C" NOT NULL,
        mode text COLLATE "C" NOT NULL CHECK (mode IN ('open', 'paused', 'draining', 'quarantined'))
    )
    """,
    "INSERT INTO {p}meta VALUES (true, replace(gen_random_uuid()::text, '-', ''), 'open')",
    """
    CREATE TABLE {p}lane (
        name text COLLATE "C" NOT NULL PRIMARY KEY,
        paused boolean NOT NULL DEFAULT false,
        ready bigint NOT NULL DEFAULT 0,
        delayed bigint NOT NULL DEFAULT 0,
        leased bigint NOT NULL DEFAULT 0,
        parked bigint NOT NULL DEFAULT 0
    ) WITH (fillfactor = 50)
    """,
    # Every write adds by how much the jobs of a lane became more or fewer; adding them up into the lane's row is a
    # duty. Writers that met at the lane's row would wait for each other's commits.
    """
    CREATE TABLE {p}count (
        lane text COLLATE "C" NOT NULL,
        ready bigint NOT NULL DEFAULT 0,
        delayed bigint NOT NULL DEFAULT 0,
        leased bigint NOT NULL DEFAULT 0,
        parked bigint NOT NULL DEFAULT 0
    ) WITH ({vacuum})
    """,
    """
    CREATE TABLE {p}worker (
        id text COLLATE "C" NOT NULL PRIMARY KEY,
        beat_us bigint NOT NULL,
        card bytea NOT NULL
    ) WITH (fillfactor = 50)
    """,
    """
    CREATE TABLE {p}signal (
        seq bigint GENERATED BY DEFAULT AS IDENTITY,
        worker text COLLATE "C" NOT NULL,
        kind text COLLATE "C" NOT NULL,
        job_id text COLLATE "C" NOT NULL,
        PRIMARY KEY (worker, kind, job_id)
    )
    """,
    # One call for the whole verb, so that it is one round trip, and one statement in a transaction of the caller's.
    # Each statement in here sees what was committed before it began: the job is stored if absent, and only then is
    # looked for a tombstone, so that a job being settled meanwhile is seen as a row or as a tombstone. In one
    # statement, or under a snapshot kept for the transaction, it could be seen as neither.
    #
    # The arrays are in order of id (all writers lock in that order); `places` says where each job stands in the batch
    # as it was given. Of those that are never NULL, one with a single value holds it for all. Gives NULL if all were
    # stored, else one answer for each, in the order of the arrays.
    """
    CREATE FUNCTION {p}put(
        p_incarnation text, p_deadline_us bigint, p_places integer[], p_ids uuid[], p_handlers text[], p_lanes text[],
        p_priorities smallint[], p_epochs bigint[], p_claim_seqs bigint[], p_versions bigint[], p_created bigint[],
        p_original bigint[], p_due bigint[], p_policies bytea[], p_data bytea[], p_expires bigint[],
        p_first_started bigint[], p_attempts integer[], p_snoozes integer[], p_interrupts integer[],
        p_crash_counts integer[], p_suspect boolean[], p_effects boolean[], p_progress smallint[],
        p_started bigint[], p_workers text[], p_schedules text[], p_notes text[], p_errors text[], p_labels bytea[]
    ) RETURNS text[] LANGUAGE plpgsql VOLATILE AS $put$
    DECLARE
        v_now bigint := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
        v_first bigint;
        v_incarnation text;
        v_mode text;
        v_open boolean;
        v_plain boolean;
        v_asked integer := cardinality(p_ids);
        v_stored integer;
        v_new uuid[];
        v_buried uuid[];
        v_answers text[];
        v_answer text;
        v_last uuid;
        v_row record;
        v_replaced record;
        v_stone bigint;
        v_here boolean;
    BEGIN
        IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
            RAISE EXCEPTION 'a put in a % transaction could bring an ended job back',
                current_setting('transaction_isolation') USING ERRCODE = 'JM003';
        END IF;
        SELECT incarnation, mode INTO v_incarnation, v_mode FROM {p}meta;
        IF v_incarnation IS DISTINCT FROM p_incarnation THEN
            RAISE EXCEPTION '%', v_incarnation USING ERRCODE = 'JM001';
        END IF;
        v_first := nextval('{p}place');
        v_open := v_mode NOT IN ('draining', 'quarantined');
        IF v_open AND v_now <= p_deadline_us THEN
            -- Mostly none is known. Not asking that of each saves a third, where enough come to pay for the
            -- subtransaction.
            v_plain := v_asked >= 20;
            IF v_plain THEN
                BEGIN
                    {store_new};
                EXCEPTION WHEN unique_violation THEN
                    v_plain := false;
                END;
            END IF;
            IF NOT v_plain THEN
                {store_unknown};
            END IF;
            IF EXISTS (
                SELECT 1 FROM unnest(p_ids) AS n (id) CROSS JOIN LATERAL (
                    SELECT 1 FROM {p}tombstone AS t WHERE t.id = n.id LIMIT 1
                ) AS stone
            ) THEN
                -- Those stored just now are told from all others by their places.
                WITH buried AS (
                    DELETE FROM {p}job WHERE seq BETWEEN v_first AND v_first + 1048575 AND id = ANY (ARRAY(
                        SELECT n.id FROM unnest(p_ids, p_epochs) AS n (id, epoch) CROSS JOIN LATERAL (
                            SELECT 1 FROM {p}tombstone AS t
                            WHERE t.id = n.id AND t.epoch >= coalesce(n.epoch, p_epochs[1]) LIMIT 1
                        ) AS stone
                    ))
                    RETURNING id, lane, st
                ), counted AS (
                    INSERT INTO {p}count (lane, ready, delayed)
                    SELECT lane, -count(*) FILTER (WHERE st = 0), -count(*) FILTER (WHERE st = 1)
                    FROM buried GROUP BY lane
                )
                SELECT array_agg(id) INTO v_buried FROM buried;
            END IF;
            IF v_stored = v_asked AND v_buried IS NULL THEN
                RETURN NULL;
            END IF;
            SELECT array_agg(id) INTO v_new FROM {p}job
                WHERE id = ANY (p_ids) AND seq BETWEEN v_first AND v_first + 1048575;
            v_new := v_new || v_buried;
        END IF;
        -- Some are known here, or may not come: each gets its own answer.
        FOR v_row IN
            SELECT n.place, n.id, n.at, coalesce(n.handler, p_handlers[1]) AS handler,
                coalesce(n.data, p_data[1]) AS data, coalesce(n.epoch, p_epochs[1]) AS epoch,
                coalesce(n.due, p_due[1]) AS due, (n.id = ANY (v_new)) AS stored, (n.id = ANY (v_buried)) AS buried
            FROM unnest(p_places, p_ids, p_handlers, p_data, p_epochs, p_due) WITH ORDINALITY
                AS n (place, id, handler, data, epoch, due, at) ORDER BY n.at
        LOOP
            IF v_row.stored AND v_row.id IS DISTINCT FROM v_last THEN
                v_last := v_row.id;
                v_answers := v_answers || CASE WHEN v_row.buried THEN 'tombstoned' ELSE 'stored' END;
                CONTINUE;
            END IF;
            v_answer := NULL;
            SELECT epoch, st, handler, coalesce(first_data, data) AS data, last_token, last_digest, lane
                INTO v_replaced FROM {p}job WHERE id = v_row.id;
            IF FOUND AND v_replaced.epoch < v_row.epoch AND v_replaced.st <> 2 THEN
                SELECT epoch, st, handler, coalesce(first_data, data) AS data, last_token, last_digest, lane
                    INTO v_replaced FROM {p}job WHERE id = v_row.id FOR UPDATE;
            END IF;
            -- Only what was seen, and is locked by now, may be replaced: another row of this job may come meanwhile,
            -- and be claimed at once.
            v_here := FOUND;
            IF v_here THEN
                v_answer := CASE
                    WHEN v_replaced.epoch = v_row.epoch AND v_replaced.handler = v_row.handler
                        AND v_replaced.data = v_row.data THEN 'duplicate'
                    WHEN v_replaced.epoch = v_row.epoch THEN 'conflict'
                    WHEN v_replaced.epoch > v_row.epoch THEN 'stale_epoch'
                    WHEN v_replaced.st = 2 THEN 'conflict'
                END;
            END IF;
            IF v_answer IS NULL THEN
                SELECT epoch INTO v_stone FROM {p}tombstone WHERE id = v_row.id;
                IF FOUND AND v_stone >= v_row.epoch THEN
                    v_answer := 'tombstoned';
                ELSIF v_now > p_deadline_us THEN
                    v_answer := 'stale_put';
                ELSIF NOT v_open THEN
                    RAISE EXCEPTION '%', v_mode USING ERRCODE = 'JM002', DETAIL = v_row.id::text;
                END IF;
            END IF;
            IF v_answer IS NULL THEN
                IF v_here THEN
                    DELETE FROM {p}job WHERE id = v_row.id;
                    INSERT INTO {p}count (lane, ready, delayed, parked) VALUES (v_replaced.lane,
                        -(v_replaced.st = 0)::integer, -(v_replaced.st = 1)::integer, -(v_replaced.st = 3)::integer);
                END IF;
                WITH stored AS (
                    INSERT INTO {p}job (
                        seq, id, st, handler, lane, priority, epoch, claim_seq, version, created_us, original_due_us,
                        due_us, policy, data, expires_us, first_started_us, attempts, snoozes, interrupts, crash_count,
                        suspect, effects, progress, started_us, worker, schedule, progress_note, error, labels,
                        last_token, last_digest
                    )
                    SELECT v_first + v_row.place, v_row.id, CASE WHEN v_row.due <= v_now THEN 0 ELSE 1 END,
                        v_row.handler, coalesce(p_lanes[at], p_lanes[1]), coalesce(p_priorities[at], p_priorities[1]),
                        v_row.epoch, coalesce(p_claim_seqs[at], p_claim_seqs[1]),
                        coalesce(p_versions[at], p_versions[1]), coalesce(p_created[at], p_created[1]),
                        coalesce(p_original[at], p_original[1]), v_row.due,
                        coalesce(p_policies[at], p_policies[1]), v_row.data, p_expires[at],
                        p_first_started[at], coalesce(p_attempts[at], 0), coalesce(p_snoozes[at], 0),
                        coalesce(p_interrupts[at], 0), coalesce(p_crash_counts[at], 0), coalesce(p_suspect[at], false),
                        coalesce(p_effects[at], false), p_progress[at], p_started[at], p_workers[at], p_schedules[at],
                        p_notes[at], p_errors[at], p_labels[at], coalesce(v_replaced.last_token, 0),
                        coalesce(v_replaced.last_digest, 0)
                    FROM (SELECT v_row.at AS at) AS here
                    ON CONFLICT (id) DO NOTHING
                    RETURNING lane, st
                )
                INSERT INTO {p}count (lane, ready, delayed)
                SELECT lane, (st = 0)::integer, (st = 1)::integer FROM stored;
                -- Somebody else was first just now. Whoever asks again learns what has become of it.
                IF NOT FOUND THEN
                    RAISE EXCEPTION 'job % came at the same time', v_row.id USING ERRCODE = '40001';
                END IF;
                v_answer := 'stored';
            END IF;
            v_answers := v_answers || v_answer;
        END LOOP;
        RETURN v_answers;
    END
    $put$
    """,
    # The same for one job that nobody has claimed yet, as most calls bring: true where it was stored. Where anything
    # speaks against that nothing is done, and `put` is to be asked.
    """
    CREATE FUNCTION {p}put_one(
        p_incarnation text, p_deadline_us bigint, p_id uuid, p_handler text, p_lane text, p_priority smallint,
        p_epoch bigint, p_claim_seq bigint, p_version bigint, p_created bigint, p_original bigint, p_due bigint,
        p_policy bytea, p_data bytea
    ) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $put$
    DECLARE
        v_now bigint := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
        v_st smallint := CASE WHEN p_due <= v_now THEN 0 ELSE 1 END;
    BEGIN
        IF v_now > p_deadline_us
            OR current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted')
            OR NOT EXISTS (SELECT 1 FROM {p}meta WHERE incarnation = p_incarnation AND mode IN ('open', 'paused'))
        THEN
            RETURN false;
        END IF;
        INSERT INTO {p}job (
            seq, id, st, handler, lane, priority, epoch, claim_seq, version, created_us, original_due_us, due_us,
            policy, data
        ) VALUES (
            nextval('{p}place'), p_id, v_st, p_handler, p_lane, p_priority, p_epoch, p_claim_seq, p_version, p_created,
            p_original, p_due, p_policy, p_data
        ) ON CONFLICT (id) DO NOTHING;
        IF NOT FOUND THEN
            RETURN false;
        END IF;
        IF EXISTS (SELECT 1 FROM {p}tombstone WHERE id = p_id) THEN
            -- Nobody has seen it: this transaction is still open.
            DELETE FROM {p}job WHERE id = p_id;
            RETURN false;
        END IF;
        INSERT INTO {p}count (lane, ready, delayed) VALUES (p_lane, 1 - v_st, v_st);
        RETURN true;
    END
    $put$
    """,
)


def upgrade() -> None:
    prefix = context.config.attributes["prefix"]
    for statement in _STATEMENTS:
        # By way of the driver: SQLAlchemy would take `:=` and `%` for its own.
        for part, known in (("{store_new}", ""), ("{store_unknown}", "ON CONFLICT (id) DO NOTHING")):
            statement = statement.replace(part, _STORE.strip().replace("{known}", known))
        op.get_bind().exec_driver_sql(statement.replace("{p}", prefix).replace("{vacuum}", _VACUUM))


def downgrade() -> None:
    raise NotImplementedError("the first revision has nothing below it; drop the tables by hand")
