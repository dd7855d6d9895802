"""Jobs, outbox, tombstones, and what the agent knows of itself, its lanes and its workers."""

from alembic import context, op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_JOB_STATES = "'awaiting', 'held', 'dispatching', 'queued', 'running', 'succeeded', 'failed', 'cancelled'"
_REASONS = "'exhausted', 'crashed', 'timed_out', 'rejected', 'expired', 'unknown_handler', 'undecodable'"
_OUTCOMES = "'succeeded', 'failed', 'retry_at', 'snoozed', 'interrupted', 'lapsed', 'cancelled'"

_STATEMENTS = (
    # st: 0 ready, 1 delayed, 2 leased, 3 parked. `leased_until_us` is in no index, so that extending is cheap.
    """
    CREATE TABLE {p}job (
        id TEXT NOT NULL PRIMARY KEY,
        st INTEGER NOT NULL CHECK (st BETWEEN 0 AND 3),
        seq INTEGER NOT NULL,
        handler TEXT NOT NULL,
        lane TEXT NOT NULL,
        priority INTEGER NOT NULL CHECK (priority BETWEEN 0 AND 4),
        epoch INTEGER NOT NULL CHECK (epoch > 0),
        claim_seq INTEGER NOT NULL DEFAULT 0,
        version INTEGER NOT NULL,
        created_us INTEGER NOT NULL,
        original_due_us INTEGER NOT NULL,
        due_us INTEGER NOT NULL,
        expires_us INTEGER,
        first_started_us INTEGER,
        attempts INTEGER NOT NULL DEFAULT 0,
        snoozes INTEGER NOT NULL DEFAULT 0,
        interrupts INTEGER NOT NULL DEFAULT 0,
        crash_count INTEGER NOT NULL DEFAULT 0,
        suspect INTEGER NOT NULL DEFAULT 0 CHECK (suspect IN (0, 1)),
        schedule TEXT,
        effects INTEGER NOT NULL DEFAULT 0 CHECK (effects IN (0, 1)),
        worker TEXT,
        leased_until_us INTEGER,
        started_us INTEGER,
        progress INTEGER,
        progress_note TEXT,
        error TEXT,
        last_token INTEGER NOT NULL DEFAULT 0,
        last_digest INTEGER NOT NULL DEFAULT 0,
        policy BLOB NOT NULL,
        labels BLOB,
        data BLOB NOT NULL,
        first_data BLOB,
        CHECK (st <> 2 OR (worker IS NOT NULL AND leased_until_us IS NOT NULL AND claim_seq > 0))
    )
    """,
    # The handler is at the end so that a claim passes over those it doesn't know without touching a row.
    "CREATE INDEX {p}job_ready ON {p}job (lane, priority, seq, handler) WHERE st = 0",
    "CREATE INDEX {p}job_delayed ON {p}job (due_us, seq) WHERE st = 1",
    "CREATE INDEX {p}job_leased ON {p}job (worker) WHERE st = 2",
    "CREATE INDEX {p}job_parked ON {p}job (handler, id) WHERE st = 3",
    "CREATE INDEX {p}job_expiry ON {p}job (expires_us) WHERE expires_us IS NOT NULL AND st <> 2",
    # A list of texts costs 1 us a row to check here: the commonest one stands before it.
    f"""
    CREATE TABLE {{p}}outbox (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        kind TEXT NOT NULL CHECK (kind = 'plain' OR kind = 'effect'),
        at_us INTEGER NOT NULL,
        digest INTEGER,
        revoked TEXT,
        job_id TEXT, job_handler TEXT, job_lane TEXT, job_priority INTEGER,
        job_state TEXT CHECK (job_state = 'succeeded' OR job_state IN ({_JOB_STATES})),
        job_reason TEXT CHECK (job_reason IS NULL OR job_reason IN ({_REASONS})),
        job_epoch INTEGER, job_claim_seq INTEGER, job_version INTEGER, job_agent TEXT,
        job_created_us INTEGER, job_original_due_us INTEGER, job_due_us INTEGER, job_expires_us INTEGER,
        job_first_started_us INTEGER, job_finished_us INTEGER,
        job_attempts INTEGER, job_snoozes INTEGER, job_interrupts INTEGER, job_crash_count INTEGER,
        job_suspect INTEGER, job_schedule TEXT, job_effects INTEGER, job_worker TEXT, job_started_us INTEGER,
        job_progress INTEGER, job_progress_note TEXT,
        job_data BLOB, job_policy BLOB, job_labels BLOB, job_result BLOB, job_error TEXT,
        run_job_id TEXT, run_token INTEGER, run_attempt INTEGER, run_worker TEXT, run_host TEXT,
        run_started_us INTEGER, run_finished_us INTEGER,
        run_outcome TEXT CHECK (run_outcome = 'succeeded' OR run_outcome IN ({_OUTCOMES})),
        run_error TEXT, run_detail BLOB
    )
    """,
    # `seq` is the outbox record written with it: tombstones are in order of time, and each knows its last record.
    """
    CREATE TABLE {p}tombstone (
        seq INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        epoch INTEGER NOT NULL,
        last_token INTEGER NOT NULL,
        digest INTEGER NOT NULL,
        at_us INTEGER NOT NULL,
        moved INTEGER NOT NULL DEFAULT 0,
        revoked TEXT CHECK (revoked IN ('cancel', 'move')),
        answer TEXT
    )
    """,
    """
    CREATE TABLE {p}meta (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        incarnation TEXT NOT NULL,
        mode TEXT NOT NULL CHECK (mode IN ('open', 'paused', 'draining', 'quarantined')),
        seq INTEGER NOT NULL
    )
    """,
    "INSERT INTO {p}meta VALUES (1, lower(hex(randomblob(16))), 'open', 0)",
    # The counts are kept by every write, so that asking for them costs the same at a million jobs as at ten.
    """
    CREATE TABLE {p}lane (
        name TEXT NOT NULL PRIMARY KEY,
        paused INTEGER NOT NULL DEFAULT 0,
        ready INTEGER NOT NULL DEFAULT 0,
        delayed INTEGER NOT NULL DEFAULT 0,
        leased INTEGER NOT NULL DEFAULT 0,
        parked INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID
    """,
    # A batch of settlements is one insert into the outbox; what follows from it follows here, see `settling`.
    """
    CREATE TRIGGER {p}settled AFTER INSERT ON {p}outbox WHEN NEW.digest IS NOT NULL BEGIN
        INSERT OR REPLACE INTO {p}tombstone (seq, id, epoch, last_token, digest, at_us)
        VALUES (NEW.seq, NEW.job_id, NEW.job_epoch, NEW.run_token, NEW.digest, NEW.at_us);
        DELETE FROM {p}job WHERE id = NEW.job_id;
    END
    """,
    """
    CREATE TABLE {p}worker (
        id TEXT NOT NULL PRIMARY KEY,
        process TEXT NOT NULL,
        beat_us INTEGER NOT NULL,
        card BLOB NOT NULL
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE {p}signal (
        worker TEXT NOT NULL,
        kind TEXT NOT NULL,
        job_id TEXT NOT NULL,
        seq INTEGER NOT NULL,
        PRIMARY KEY (worker, kind, job_id)
    ) WITHOUT ROWID
    """,
)


def upgrade() -> None:
    prefix = context.config.attributes["prefix"]
    for statement in _STATEMENTS:
        op.execute(statement.replace("{p}", prefix))


def downgrade() -> None:
    raise NotImplementedError("the first revision has nothing below it; drop the tables by hand")
