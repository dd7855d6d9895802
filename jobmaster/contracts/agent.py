"""The agent contract: what a transport must do. All that a transport author has to read, with `values.py` beside it.

A transport buffers the jobs of one agent and hands them out. Every verb is a batch, every write may be repeated with
the same ids and tokens, and what can be foreseen is an answer, not an exception. A whole call fails only as `Refused`
(definitely not applied) or `Indeterminate` (may be applied: repeat it). Answers come in the order of the items.

Store time means the store's own clock, in microseconds UTC; the caller's clock never decides about a lease.
`jobmaster.testing` ships the suite that is the specification; a transport passes it unchanged.

Transports are found by entry point, group `jobmaster.agents`, name = URL scheme, value = a class called as
`Transport(url, cluster=…, name=…, clock=…, options=…)`. Construction does no I/O and raises `ConfigurationError`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from jobmaster.contracts.values import (
    AmendAnswer,
    Amendment,
    Control,
    ExtendAnswer,
    Extension,
    HistoryTables,
    InventoryItem,
    JobFilter,
    LaneStats,
    OutboxRecord,
    Page,
    ParkReport,
    ProbeReport,
    PromoteReport,
    PutAnswer,
    ReapReport,
    Rebase,
    Release,
    Revocation,
    Revoke,
    SettleAnswer,
    Settlement,
    Signal,
    StoreState,
    Traits,
    WorkerCard,
)
from jobmaster.model.job import Job


class AgentTransport(Protocol):
    """One named agent's store."""

    name: str
    traits: Traits

    async def open(self) -> ProbeReport:
        """Connect, check and be ready. Unsafe settings raise `UnsafeStore`, an old schema is brought up or raises
        `SchemaOutdated`; both name the thing and the remedy. The incarnation reported here is the one that claim, put,
        extend, settle, release, rebase and adopt insist on from now on. A store without a name, new or emptied, gets
        one. A second call brings up what is missing and reports; what is insisted on stays: see `rejoin`."""
        ...

    async def close(self) -> None:
        """Give everything back. Never raises; a second call does nothing."""
        ...

    def companion(self) -> "AgentTransport":
        """A handle onto the same store for one other event loop in another thread, independent of how busy this one's
        is: the lease keeper's. Closed together with this transport, not by who asked. May be the transport itself
        where its verbs can be awaited on any loop."""
        ...

    async def probe(self) -> ProbeReport:
        """The findings of `open`, fresh, of the store as it is now, be it the one that was opened or not. Changes
        nothing. `SchemaOutdated` where the tables are gone: `open` again."""
        ...

    async def rejoin(self, incarnation: str) -> ProbeReport:
        """Insist on this incarnation from now on, companions included: the caller has judged it, by the report of
        `probe`. `Refused` if the store is yet another one."""
        ...

    async def put(self, jobs: Sequence[Job], put_deadline_us: int) -> list[PutAnswer]:
        """Store jobs durably, `queued`: ready if due, else delayed. `put_deadline_us` is the store time after which
        this epoch may no longer be placed. Repeating a put changes nothing; a put of an ended job resurrects nothing.
        Same id and epoch with other handler or data: conflict. A higher epoch replaces an unleased row. Ids already
        present are answered also by a paused or draining store; a new job on a draining or quarantined one is
        `Refused` as a whole call."""
        ...

    async def claim(
        self, worker: str, quotas: Mapping[str, int], handlers: frozenset[str], limit: int, ttl_us: int
    ) -> list[Job]:
        """Lease up to `limit` ready jobs, at most `quotas[lane]` of each lane, whose handler is in `handlers`, to one
        worker until store time + ttl. In a lane by (priority, order of becoming ready). Each is `running`, `claim_seq`
        and `version` are up by one and `token` is the lease's; `started_us` is None. Two claimers never get one job.
        A paused lane or store yields nothing; an expired job (`expires_us`) is not handed out but ends
        `failed(expired)`. `suspect` and `at_most_once` jobs are handed out like others: the caller records their
        start with `extend(started)` before running them."""
        ...

    async def extend(self, items: Sequence[Extension], ttl_us: int) -> list[ExtendAnswer]:
        """Prolong leases to store time + ttl, recording starts and progress on the way. Held only for the current
        token of a leased job whose lease has not expired: a lost lease is never revived."""
        ...

    async def settle(self, items: Sequence[Settlement]) -> list[SettleAnswer]:
        """Apply outcomes. Accepted if the token is the leased job's current one, expired or not: the job is gone
        (tombstone) or queued again, and its outbox record is written, in one transaction. The same token with the same
        outcome again is accepted; with another one, or a superseded token, stale; an id never seen, unknown."""
        ...

    async def release(self, items: Sequence[Release]) -> list[SettleAnswer]:
        """Give leases back. Not started: ready again at once in its old order, nothing recorded. Started: a run
        `interrupted` is recorded, `interrupts` is up by one (beyond the policy's cap: `failed(exhausted)`), an
        `at_most_once` job ends `failed(crashed)`."""
        ...

    async def reap(self, limit: int, dead: frozenset[str] = frozenset(), expired: bool = True) -> ReapReport:
        """End up to `limit` leases that expired in store time, or are held by a worker in `dead` or one the store
        knows to be dead. With `expired` false only those of dead workers, whatever the time: what a reaper may do
        while it must not trust the store's clock. The job becomes `queued` and `suspect`; a run `lapsed` is recorded
        if its start was. A job that was suspect already when its start was recorded counts a crash; at the policy's
        `max_crashes` it ends `failed(crashed)`, as an `at_most_once` job with a recorded start does at once.
        Conditions are re-checked inside the write."""
        ...

    async def promote(self, limit: int) -> PromoteReport:
        """Make up to `limit` delayed jobs whose time has come ready, in due order and with a new place in line, and
        end up to `limit` waiting ones past `expires_us` as `failed(expired)`."""
        ...

    async def park(self, known: frozenset[str], limit: int) -> ParkReport:
        """Set up to `limit` ready jobs aside whose handler is not in `known`, and put parked ones back whose handler
        is, with their old place in line. They stay `queued`. Of the parked ones, up to `limit` whose policy's
        `unroutable_after` has passed since they were due end `failed(unknown_handler)`."""
        ...

    async def revoke(self, items: Sequence[Revoke]) -> list[Revocation]:
        """Take jobs back, by epoch. `cancel`: a waiting or running job becomes `cancelled`, fenced at once; `move`: a
        waiting one leaves through the outbox as `held`, a leased one answers `running`. An ended or superseded one
        answers `settled`. An id never seen gets a tombstone and an `effect` record all the same, so that a late put
        finds it. A repeated revoke gets the first answer. With a `version` only a job that is here at just that epoch
        and version is taken; any other that has not ended there answers `changed`."""
        ...

    async def amend(self, items: Sequence[Amendment]) -> list[AmendAnswer]:
        """Change waiting jobs whose version is the expected one; leased ones answer `running`."""
        ...

    async def withdraw(self, lane: str | None, limit: int) -> list[str]:
        """`revoke(move)` for up to `limit` waiting jobs of a lane (`None`: all), in id order; their ids."""
        ...

    async def inventory(self, after_id: str, limit: int) -> list[InventoryItem]:
        """What is here, in id order."""
        ...

    async def rebase(self, items: Sequence[Rebase]) -> list[bool]:
        """Reconcile rows of a quarantined store; `Refused` for any other. For each, whether the row was at that epoch,
        and is changed. `raise`: epoch and version up by one in place, so that no token given before settles anything;
        a leased job is given back as by `release` and stands where its due time says, an `at_most_once` one whose
        start is recorded, or `started`, ends `failed(crashed)`. `remove`: gone, with tombstone, without a record."""
        ...

    async def adopt(self, incarnation: str) -> ProbeReport:
        """End a reconciliation: a quarantined store takes this incarnation, counts its jobs anew and is open, in one
        transaction; this handle has rejoined it, all others refuse until they do. A store that is this incarnation
        already is left alone, any other that is not quarantined refuses."""
        ...

    async def find(self, ids: Sequence[str]) -> list[Job | None]:
        """Jobs as they stand: from the jobs here, else the latest unconfirmed outbox record, else None."""
        ...

    async def jobs(self, after_id: str, before_id: str, limit: int, leased_only: bool = False) -> list[Job]:
        """Whole jobs with after_id < id < before_id, in id order: what the audit copier pages through."""
        ...

    async def peek(self, where: JobFilter, cursor: str | None, limit: int) -> Page:
        """Jobs here that match, newest id first, with the cursor of the next page."""
        ...

    async def stats(self) -> list[LaneStats]:
        """Per lane: counts and the age of the oldest ready job. Cheap at a million jobs; never from a full scan."""
        ...

    async def changes(self, limit: int, older_than_us: int = 0) -> list[OutboxRecord]:
        """Outbox records not confirmed, in an order that is safe to confirm, skipping those younger than
        `older_than_us` in store time; fewer than `limit` also where they are large."""
        ...

    async def confirm(self, seqs: Sequence[int]) -> None:
        """These records may be forgotten; tombstones stay."""
        ...

    async def prune(self, limit: int) -> int:
        """Forget up to `limit` tombstones that outlived twice the put window and whose job's last record is
        confirmed; how many."""
        ...

    async def register(self, card: WorkerCard) -> None:
        """Make a worker, or its heartbeat, known on this agent, stamped with store time."""
        ...

    async def deregister(self, worker: str) -> None:
        """A worker has left."""
        ...

    async def workers(self) -> list[WorkerCard]:
        """Those registered here, with the store time of their last beat."""
        ...

    async def store_now_us(self) -> int:
        """Store time."""
        ...

    async def control(self, change: Control) -> StoreState:
        """Pause, resume, drain, quarantine, purge: kept in the store, so it survives restarts and a missing master.
        Gives the state afterwards. Purge cancels the waiting jobs of a lane, each with its outbox record. In a
        quarantined store nothing is claimed, reaped, promoted or parked and nothing new is put, until it is reconciled
        and adopted, or an operator resumes it as it is."""
        ...

    async def signal(self, signals: Sequence[Signal]) -> None:
        """Leave hints for workers. Hints may be lost; truth is in `extend` and `claim`."""
        ...

    async def signals(self, worker: str) -> list[Signal]:
        """Take the hints left for a worker."""
        ...

    async def wait(self, lanes: frozenset[str], seconds: float) -> None:
        """Return early if one of the lanes may have got ready jobs since the last `wait` returned; else after
        `seconds`."""
        ...

    async def watch(self, ids: frozenset[str], seconds: float) -> None:
        """Return early if one of the jobs may have ended; else after `seconds`. Only a hint."""
        ...


class TransactionalTransport(AgentTransport, Protocol):
    """What a transport with the trait `transactional_put` does besides."""

    async def put_in(self, connection: Any, jobs: Sequence[Job], put_deadline_us: int) -> list[PutAnswer]:
        """As `put`, but inside the transaction that is open on the caller's connection to the same database, which the
        caller commits or rolls back; nobody is woken. An error leaves that transaction failed. Raises `OptionInvalid`
        for a connection of a kind that the transport doesn't know, or one to another database."""
        ...

    async def settle_in(self, connection: Any, item: Settlement) -> SettleAnswer:
        """As `settle` of one success, inside the transaction that is open on the caller's connection: it holds if and
        when the caller commits. Raises as `put_in`."""
        ...

    async def hint(self, lanes: frozenset[str]) -> None:
        """Jobs of these lanes may have become ready: wake those who wait for them, in every process. Never raises."""
        ...


class SharingTransport(AgentTransport, Protocol):
    """What a transport with the trait `writes_history` does besides."""

    def write_history(self, tables: HistoryTables) -> None:
        """The master is in this database. From now on `settle` may write an end that concerns nobody else there, in the
        transaction of the settle and instead of an outbox record: by the rules of `MasterStore.move`, and as what came
        of it. Where that can't be done the record goes through the outbox as ever. Before `open` or after it."""
        ...


class RememberingTransport(AgentTransport, Protocol):
    """What a transport with the trait `remembers_ends` does besides."""

    def remembered(self, limit: int) -> list[OutboxRecord]:
        """Up to `limit` outbox records that this handle's `settle` wrote and has in memory still, each given once, the
        oldest first; from the first call on. Only a short cut: whatever is not given here, or not confirmed
        afterwards, is in `changes`."""
        ...
