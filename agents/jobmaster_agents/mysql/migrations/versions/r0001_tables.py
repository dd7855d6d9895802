"""Jobs, outbox, tombstones, what the agent knows of itself, its lanes and its workers.

Each statement is committed by itself, and may be repeated: a migration that was cut off is run again from its start.
"""

from uuid import uuid4

from alembic import context, op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_JOB_STATES = "'awaiting', 'held', 'dispatching', 'queued', 'running', 'succeeded', 'failed', 'cancelled'"
_REASONS = "'exhausted', 'crashed', 'timed_out', 'rejected', 'expired', 'unknown_handler', 'undecodable'"
_OUTCOMES = "'succeeded', 'failed', 'retry_at', 'snoozed', 'interrupted', 'lapsed', 'cancelled'"

_ID = "CHAR(36) CHARACTER SET ascii COLLATE ascii_bin"
_TABLE = "ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"

_STATEMENTS = (
    # st: 0 ready, 1 delayed, 2 leased, 3 parked. One index finds all four, as each further one would cost every job two
    # changes: what is ready or leased stands in the line of its lane, by priority and place; what is delayed in a line
    # without a name, by due time; what is parked in that of its handler. What a claim writes has its width before, so
    # that the row stays where it is; `leased_until_us` is in no index, so that extending changes none.
    f"""
    CREATE TABLE IF NOT EXISTS {{p}}job (
        id {_ID} NOT NULL PRIMARY KEY,
        st TINYINT NOT NULL CHECK (st BETWEEN 0 AND 3),
        line VARCHAR(64) NOT NULL,
        line_rank TINYINT NOT NULL,
        seq BIGINT NOT NULL,
        priority TINYINT NOT NULL CHECK (priority BETWEEN 0 AND 4),
        lane VARCHAR(48) NOT NULL,
        handler VARCHAR(64) NOT NULL,
        epoch BIGINT NOT NULL CHECK (epoch > 0),
        claim_seq BIGINT NOT NULL DEFAULT 0,
        version BIGINT NOT NULL,
        created_us BIGINT NOT NULL,
        original_due_us BIGINT NOT NULL,
        due_us BIGINT NOT NULL,
        expires_us BIGINT,
        first_started_us BIGINT,
        started_us BIGINT,
        leased_until_us BIGINT NOT NULL DEFAULT 0,
        worker CHAR(64) NOT NULL DEFAULT '',
        last_token BIGINT NOT NULL DEFAULT 0,
        last_digest BIGINT NOT NULL DEFAULT 0,
        attempts INT NOT NULL DEFAULT 0,
        snoozes INT NOT NULL DEFAULT 0,
        interrupts INT NOT NULL DEFAULT 0,
        crash_count INT NOT NULL DEFAULT 0,
        suspect BOOLEAN NOT NULL DEFAULT FALSE,
        effects BOOLEAN NOT NULL DEFAULT FALSE,
        progress SMALLINT,
        schedule VARBINARY(255),
        progress_note TEXT,
        error MEDIUMTEXT,
        policy MEDIUMBLOB NOT NULL,
        labels MEDIUMBLOB,
        data MEDIUMBLOB NOT NULL,
        first_data MEDIUMBLOB,
        INDEX {{p}}job_line (st, line, line_rank, seq),
        INDEX {{p}}job_expiry (expires_us),
        CHECK (st <> 2 OR (worker <> '' AND leased_until_us > 0 AND claim_seq > 0))
    ) {_TABLE}
    """,
    # Ids and names are as wide as in the master's tables, which these rows go to unchanged.
    f"""
    CREATE TABLE IF NOT EXISTS {{p}}outbox (
        seq BIGINT NOT NULL PRIMARY KEY,
        at_us BIGINT NOT NULL,
        digest BIGINT,
        kind VARCHAR(8) NOT NULL CHECK (kind = 'plain' OR kind = 'effect'),
        revoked TEXT,
        job_id {_ID}, job_handler VARCHAR(64), job_lane VARCHAR(48), job_priority SMALLINT,
        job_state VARCHAR(16) CHECK (job_state = 'succeeded' OR job_state IN ({_JOB_STATES})),
        job_reason VARCHAR(16) CHECK (job_reason IS NULL OR job_reason IN ({_REASONS})),
        job_epoch BIGINT, job_claim_seq BIGINT, job_version BIGINT, job_agent VARCHAR(48),
        job_created_us BIGINT, job_original_due_us BIGINT, job_due_us BIGINT, job_expires_us BIGINT,
        job_first_started_us BIGINT, job_finished_us BIGINT,
        job_attempts INT, job_snoozes INT, job_interrupts INT, job_crash_count INT,
        job_suspect BOOLEAN, job_schedule VARBINARY(255), job_effects BOOLEAN, job_worker TEXT,
        job_started_us BIGINT, job_progress SMALLINT, job_progress_note TEXT,
        job_data MEDIUMBLOB, job_policy MEDIUMBLOB, job_labels MEDIUMBLOB, job_result MEDIUMBLOB, job_error MEDIUMTEXT,
        run_job_id {_ID}, run_token BIGINT, run_attempt INT, run_worker TEXT, run_host TEXT,
        run_started_us BIGINT, run_finished_us BIGINT,
        run_outcome VARCHAR(16) CHECK (run_outcome = 'succeeded' OR run_outcome IN ({_OUTCOMES})),
        run_error MEDIUMTEXT, run_detail MEDIUMBLOB
    ) {_TABLE}
    """,
    # `seq` is that of the outbox record written with it: in order of time, and each knows its last record.
    f"""
    CREATE TABLE IF NOT EXISTS {{p}}tombstone (
        id {_ID} NOT NULL PRIMARY KEY,
        seq BIGINT NOT NULL,
        epoch BIGINT NOT NULL,
        last_token BIGINT NOT NULL,
        digest BIGINT NOT NULL,
        at_us BIGINT NOT NULL,
        moved BOOLEAN NOT NULL DEFAULT FALSE,
        revoked VARCHAR(8) CHECK (revoked IN ('cancel', 'move')),
        answer TEXT,
        INDEX {{p}}tombstone_seq (seq)
    ) {_TABLE}
    """,
    f"""
    CREATE TABLE IF NOT EXISTS {{p}}meta (
        one TINYINT NOT NULL PRIMARY KEY CHECK (one = 1),
        incarnation VARCHAR(64) NOT NULL,
        mode VARCHAR(16) NOT NULL CHECK (mode IN ('open', 'paused', 'draining', 'quarantined'))
    ) {_TABLE}
    """,
    """
    INSERT INTO {p}meta (one, incarnation, mode)
    SELECT 1, '{new}', 'open' FROM DUAL WHERE NOT EXISTS (SELECT 1 FROM {p}meta)
    """,
    f"""
    CREATE TABLE IF NOT EXISTS {{p}}lane (
        name VARCHAR(48) NOT NULL PRIMARY KEY,
        paused BOOLEAN NOT NULL DEFAULT FALSE,
        n_ready BIGINT NOT NULL DEFAULT 0,
        n_delayed BIGINT NOT NULL DEFAULT 0,
        n_leased BIGINT NOT NULL DEFAULT 0,
        n_parked BIGINT NOT NULL DEFAULT 0
    ) {_TABLE}
    """,
    # Every write adds by how much the jobs of a lane became more or fewer; adding them up into the lane's row is a
    # duty. Writers that met at the lane's row would wait for each other's commits.
    f"""
    CREATE TABLE IF NOT EXISTS {{p}}count (
        id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
        lane VARCHAR(48) NOT NULL,
        n_ready BIGINT NOT NULL DEFAULT 0,
        n_delayed BIGINT NOT NULL DEFAULT 0,
        n_leased BIGINT NOT NULL DEFAULT 0,
        n_parked BIGINT NOT NULL DEFAULT 0
    ) {_TABLE}
    """,
    # A number is drawn without waiting for anybody's commit, and never twice. Each stands for 1,048,576 places in line
    # and in the outbox.
    f"CREATE TABLE IF NOT EXISTS {{p}}ticket (id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY) {_TABLE}",
    f"""
    CREATE TABLE IF NOT EXISTS {{p}}worker (
        id VARCHAR(255) NOT NULL PRIMARY KEY,
        beat_us BIGINT NOT NULL,
        card MEDIUMBLOB NOT NULL
    ) {_TABLE}
    """,
    f"""
    CREATE TABLE IF NOT EXISTS {{p}}signal (
        seq BIGINT NOT NULL AUTO_INCREMENT UNIQUE,
        worker VARCHAR(255) NOT NULL,
        kind VARCHAR(16) NOT NULL,
        job_id VARCHAR(36) NOT NULL,
        PRIMARY KEY (worker, kind, job_id)
    ) {_TABLE}
    """,
)


def upgrade() -> None:
    prefix = context.config.attributes["prefix"]
    for statement in _STATEMENTS:
        op.get_bind().exec_driver_sql(statement.replace("{p}", prefix).replace("{new}", uuid4().hex))


def downgrade() -> None:
    raise NotImplementedError("the first revision has nothing below it; drop the tables by hand")
