"""The values that cross the agent contract: what is asked, and each answer."""

from collections.abc import Mapping
from enum import StrEnum
from hashlib import blake2b
from typing import Any

from msgspec import Struct

from jobmaster.model.job import Job, Run
from jobmaster.model.outcome import RunOutcome
from jobmaster.model.states import FailReason, JobState

PUT_WINDOW_US = 600_000_000
"""How long after its first try an epoch may still be placed: 10 minutes. A tombstone outlives twice that."""


class PutAnswer(StrEnum):
    STORED = "stored"
    DUPLICATE = "duplicate"
    STALE_EPOCH = "stale_epoch"
    """The job is here, or was, at a higher epoch."""
    CONFLICT = "conflict"
    """Same id with another payload, or a lower epoch that is leased."""
    TOMBSTONED = "tombstoned"
    """The job ended or was taken back here in this or a later epoch."""
    STALE_PUT = "stale_put"
    """The put deadline has passed."""


class ExtendAnswer(StrEnum):
    HELD = "held"
    LOST = "lost"
    CANCELLED = "cancelled"
    """Lost, because somebody cancelled the job."""
    BUSY = "busy"
    """The row is locked by somebody: neither kept nor lost, ask again."""


class SettleAnswer(StrEnum):
    ACCEPTED = "accepted"
    STALE = "stale"
    UNKNOWN = "unknown"


class AmendAnswer(StrEnum):
    CHANGED = "changed"
    CONFLICT = "conflict"
    """It has another version than expected."""
    RUNNING = "running"
    UNKNOWN = "unknown"


class RevokeAnswer(StrEnum):
    REVOKED = "revoked"
    ABSENT = "absent"
    """It was not here; it can't come any more."""
    RUNNING = "running"
    SETTLED = "settled"
    CHANGED = "changed"
    """It is not here at the version that was named; nothing was written."""


class RevokeKind(StrEnum):
    CANCEL = "cancel"
    MOVE = "move"


class StoreMode(StrEnum):
    OPEN = "open"
    PAUSED = "paused"
    """Nothing is claimed; puts are accepted."""
    DRAINING = "draining"
    """Nothing is claimed and no new job accepted."""
    QUARANTINED = "quarantined"
    """The store is not what it was: nothing until reconciled."""


class ControlKind(StrEnum):
    STATE = "state"
    PAUSE = "pause"
    RESUME = "resume"
    PAUSE_LANE = "pause_lane"
    RESUME_LANE = "resume_lane"
    DRAIN = "drain"
    QUARANTINE = "quarantine"
    PURGE_LANE = "purge_lane"


class RebaseKind(StrEnum):
    RAISE = "raise"
    """The job stays: a new epoch in place, its lease, if there was one, given back."""
    REMOVE = "remove"
    """The master knows better: the row goes."""


class SignalKind(StrEnum):
    CANCEL = "cancel"
    """Extend now: one of your jobs was cancelled."""
    QUIET = "quiet"
    STOP = "stop"
    RESUME = "resume"
    SCALE = "scale"
    """Run another number of jobs at a time."""


class RecordKind(StrEnum):
    PLAIN = "plain"
    """History only."""
    EFFECT = "effect"
    """The master has to act on it."""


class Traits(Struct, frozen=True):
    """What a transport does natively. The core asks these, never for a transport's name."""

    durable: bool = True
    """An acknowledged write survives `kill -9` and a power cut."""
    cross_process: bool = True
    """Other processes can open the same store."""
    confirm_by_id: bool = True
    """Outbox records are confirmed one by one (else by cursor)."""
    shared_outbox: str | None = None
    """The outbox's table, where a master in the same database may move its rows server-side."""
    database_key: str | None = None
    """Identifies the database: equal keys mean one database for both tiers."""
    pushes_wakeups: bool = False
    """`wait` hears of other processes' puts at once, not only of this one's."""
    transactional_put: bool = False
    fires_delays: bool = False
    """Delayed jobs become ready by the store's own doing: `promote` counts none of them and knows no next one."""
    parks: bool = True
    """Jobs whose handler nobody here knows can be looked for. Else `park` does nothing, and a claim that meets one
    keeps it from its lane for a while, longer every time."""
    virtual_time: bool = False
    """Store time is the given clock, so tests may move it."""
    restartable: bool = True
    """Closing and opening again finds the same jobs."""
    may_lose: bool = False
    """Somebody else could remove a job from it without a trace, as with a stray acknowledgement: what the master knows
    to be there is looked for now and then."""
    writes_history: bool = False
    """It is a `SharingTransport`: ends of jobs go into the history of a master in the same database with the settle."""
    remembers_ends: bool = False
    """It is a `RememberingTransport`: ends need not be read back from the outbox by the process that settled them."""
    keeps_schema: bool = False
    """It knows the option `migrate`: false makes `open` raise `SchemaOutdated`, and change nothing, where the schema is
    not the one this code works with; `found` is None where there is none yet."""


class HistoryTables(Struct, frozen=True):
    """The master's tables that a transport in the same database writes ends of jobs into, as a `move` would."""

    job: str
    history: str
    run: str


class Extension(Struct, frozen=True, gc=False):
    """Prolong one lease."""

    id: str
    token: int
    started: bool = False
    """Record now that the run has begun (once; later ones change nothing)."""
    progress: int | None = None
    progress_note: str | None = None


class Settlement(Struct, frozen=True, kw_only=True, gc=False):
    """One run's outcome, decided and encoded by the worker."""

    id: str
    token: int
    outcome: RunOutcome
    reason: FailReason | None = None
    """With `failed` only."""
    after_us: int = 0
    """With `retry_at` and `snoozed`: due again this long after store time now."""
    result: bytes | None = None
    error: str | None = None
    detail: bytes | None = None
    attempt: int
    worker: str
    host: str
    started_us: int
    finished_us: int
    progress: int | None = None
    progress_note: str | None = None
    job: Job | None = None
    """As it was claimed, where that is at hand: for a transport with the trait `remembers_ends`."""

    def digest(self) -> int:
        """63 bits that tell this outcome from another one for the same token: what makes a repeated settle
        recognisable. Times are left out, as a repetition may carry others."""
        if self.outcome is RunOutcome.SUCCEEDED and self.reason is None and self.error is None and not self.after_us:
            # Said once: wording it costs as much as hashing it, for every job that succeeds.
            content = _SUCCEEDED + (self.result or b"")
        else:
            content = f"{self.outcome}|{self.reason}|{self.after_us}|{self.error}|".encode() + (self.result or b"")
        return int.from_bytes(blake2b(content, digest_size=8).digest(), "big") >> 1


_SUCCEEDED = f"{RunOutcome.SUCCEEDED}|None|0|None|".encode()


class Release(Struct, frozen=True, gc=False):
    """Give one lease back. The run fields are used only if it was started."""

    id: str
    token: int
    started: bool = False
    worker: str = ""
    host: str = ""
    started_us: int | None = None
    detail: bytes | None = None


class Revoke(Struct, frozen=True, gc=False):
    id: str
    epoch: int
    kind: RevokeKind
    version: int | None = None
    """Only if it is here at that version; None: whatever it is by now."""


class Revocation(Struct, frozen=True, gc=False):
    answer: RevokeAnswer
    was_running: bool = False
    worker: str | None = None
    """Who held the lease, to be signalled."""


class Amendment(Struct, frozen=True, kw_only=True, gc=False):
    """Fields left None stay as they are. `due_us` in store time."""

    id: str
    version: int
    due_us: int | None = None
    priority: int | None = None
    lane: str | None = None
    data: bytes | None = None


class ReapReport(Struct, frozen=True):
    requeued: int = 0
    """Suspects now, ready again."""
    crashed: tuple[str, ...] = ()
    """Ended `failed(crashed)`."""
    more: bool = False
    """The limit was reached."""


class PromoteReport(Struct, frozen=True):
    ready: int = 0
    expired: int = 0
    next_due_us: int | None = None
    """Store time of the next delayed job or expiry, if any."""
    more: bool = False


class ParkReport(Struct, frozen=True):
    parked: Mapping[str, int] = {}
    """Handler → jobs set aside now."""
    unparked: int = 0
    failed: int = 0
    """Ended `failed(unknown_handler)`."""
    more: bool = False


class InventoryItem(Struct, frozen=True, gc=False):
    id: str
    epoch: int
    version: int


class JobFilter(Struct, frozen=True, kw_only=True):
    """All given conditions hold. `since_us` is about `created_us`; metadata values are compared as JSON values."""

    states: frozenset[JobState] = frozenset()
    handler: str | None = None
    lane: str | None = None
    agent: str | None = None
    schedule: str | None = None
    tag: str | None = None
    metadata: Mapping[str, Any] = {}
    since_us: int | None = None


class Page(Struct, frozen=True):
    jobs: list[Job]
    cursor: str | None
    """Give it back for the next page; None: this was the last."""


class LaneStats(Struct, frozen=True, kw_only=True):
    lane: str
    ready: int = 0
    delayed: int = 0
    leased: int = 0
    parked: int = 0
    oldest_ready_us: int | None = None
    """Store time since which the oldest ready job has been due."""
    paused: bool = False


class OutboxRecord(Struct, frozen=True, kw_only=True):
    """One fact for the master, written in the transaction it happened in."""

    seq: int
    kind: RecordKind
    at_us: int
    """Store time."""
    job: Job | None
    """The job as it then stood; None for the revocation of an id never seen."""
    run: Run | None = None
    revoked: Revoke | None = None
    raw: bytes | None = None
    """What was stored, where it could not be read: for the quarantine."""


class WorkerCard(Struct, frozen=True, kw_only=True):
    """A live worker."""

    id: str
    name: str
    host: str
    pid: int
    lanes: tuple[str, ...]
    handlers: tuple[str, ...]
    slots: int
    busy: int = 0
    state: str = "running"
    version: str = ""
    started_us: int
    beat_us: int = 0
    """Store time of the last heartbeat; written by the store."""
    loop_lag_us: int | None = None
    """The longest that its event loop took to answer lately; None where nobody measures it."""
    rss_bytes: int | None = None
    """Resident memory of its process; None where the system does not say."""


class Signal(Struct, frozen=True):
    worker: str
    kind: SignalKind
    job_id: str | None = None
    """With `cancel` the job; with `scale`, at most 36 characters of the core's own, which stores keep as they are."""


class Rebase(Struct, frozen=True, gc=False):
    """What reconciling makes of one row."""

    id: str
    epoch: int
    """As the inventory said; a row at another one is left alone."""
    kind: RebaseKind
    started: bool = False
    """With `raise`: its start is known elsewhere, so that an `at_most_once` job ends and is not run again."""


class Control(Struct, frozen=True):
    kind: ControlKind
    lane: str | None = None
    incarnation: str | None = None
    """With `quarantine`: only if the store is this one; `Refused` otherwise. So nobody who looked a while ago closes a
    store that was reconciled since."""
    mark: int = 0
    """With `quarantine`: the highest outbox sequence known of this store. No record is given one up to that again, so
    that what was read before the store was set back can't be confirmed in the place of something else."""


class StoreState(Struct, frozen=True):
    mode: StoreMode
    paused_lanes: frozenset[str] = frozenset()
    purged: int = 0


class ProbeReport(Struct, frozen=True, kw_only=True):
    """What a store said about itself."""

    incarnation: str
    mode: StoreMode = StoreMode.OPEN
    high_water: int = 0
    """The highest outbox sequence ever given out."""
    joined: bool = True
    """Whether this is the store that this handle insists on; else nothing but looking works until `rejoin`."""
    emptied: bool = False
    """The store's counts speak of jobs where there is none at all: somebody has emptied the table."""
    findings: tuple[str, ...] = ()
    """Worth telling an operator; none of them unsafe."""
    facts: Mapping[str, str] = {}
    """Version, journal mode and the like."""
