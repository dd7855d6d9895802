"""The master contract: what a master store must do. The source of truth for definitions, topology, held jobs and
history.

Cut like the agent contract: batches in, values out, in the order of the items; a call fails only as `Refused` or
`Indeterminate`; every write may be repeated. A job is written only if the copy's (epoch, version) is greater than what
is known of it, in the live table *and* in the history; a run only if its (job, token) is new.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from jobmaster.contracts.entries import (
    EVERYTHING,
    AgentEntry,
    AgentState,
    ApplyAnswer,
    DefinitionEntry,
    Dispatch,
    Event,
    Expiry,
    Forgotten,
    HandedOff,
    HeldAnswer,
    MoveReport,
    Placement,
    QuarantineEntry,
    Routes,
    StateCount,
)
from jobmaster.contracts.operating import Operation
from jobmaster.contracts.scheduling import (
    OccurrenceEntry,
    Planning,
    PlanReport,
    Saved,
    Schedule,
    ScheduleState,
    Soonest,
    Synced,
    Taken,
    Term,
)
from jobmaster.contracts.values import (
    AmendAnswer,
    Amendment,
    HistoryTables,
    InventoryItem,
    JobFilter,
    OutboxRecord,
    Page,
    ProbeReport,
    PutAnswer,
    WorkerCard,
)
from jobmaster.model.job import Job, Run


class MasterStore(Protocol):
    """One cluster's master database."""

    database_key: str | None
    """Equal to an agent's `traits.database_key` where both live in one database."""
    history_tables: HistoryTables | None
    """What an agent there may write ends of jobs into by itself; None: nothing."""
    remote: bool
    """Something lies in between that can keep a call waiting. Such a store asks `attempt.may_commit` before a commit,
    and at `open` raises `MasterUnavailable` only for what may mend itself."""

    async def open(self) -> ProbeReport:
        """Connect, check, bring the schema up where allowed. Raises `UnsafeStore`, `SchemaOutdated`, or
        `MasterUnavailable`."""
        ...

    async def close(self) -> None:
        """Give everything back. Never raises; a second call does nothing."""
        ...

    async def probe(self) -> ProbeReport:
        """The findings of `open`, fresh. Changes nothing."""
        ...

    async def store_now_us(self) -> int:
        """Store time."""
        ...

    async def insert(self, placements: Sequence[Placement]) -> list[PutAnswer]:
        """New jobs, `held`, `awaiting` or already `dispatching`, in one transaction. An id known here, live or in
        history, is a duplicate if handler and data are the same, else a conflict."""
        ...

    async def due(self, before_us: int, limit: int) -> list[Job]:
        """Held jobs due at that instant or before, soonest first."""
        ...

    async def hand_off(self, before_us: int, limit: int, routes: Routes) -> HandedOff:
        """`due` and `dispatch` at once, committed: of up to `limit` held jobs due by then, soonest first, those that
        have a route are dispatching now. Several coordinators don't wait for each other: what one looks at, the others
        pass over."""
        ...

    async def dispatch(self, moves: Sequence[Dispatch]) -> list[Placement | None]:
        """held → dispatching: epoch and version up by one, agent and deadlines set, committed. None where the job was
        not held at the expected version any more."""
        ...

    async def overdue(self, agent: str, limit: int) -> list[Placement]:
        """Take over dispatching jobs of one agent whose `dispatch_until_us` has passed in store time: each is given to
        one caller, its `dispatch_until_us` set anew, same epoch, same agent."""
        ...

    async def dispatched(self, ids: Sequence[tuple[str, int]]) -> int:
        """(id, epoch): dispatching → queued, version unchanged; how many rows still were. None is normal."""
        ...

    async def apply(self, agent: str, records: Sequence[OutboxRecord], after: int | None = None) -> list[ApplyAnswer]:
        """Fold outbox records into jobs, history and runs, with their effects, in one transaction. On an error the
        batch is halved until the bad record is alone and quarantined; the others are applied. Terminal records end in
        history, others in the live table; a revoked one (`move`) becomes `held`; the revocation of an id the agent
        never saw is applied to a row that is dispatching or queued at exactly that epoch.

        With `after`, that same transaction moves the agent's cursor from there to the last record's sequence; if the
        cursor is elsewhere, somebody else took records in meanwhile: nothing is applied and the answer is empty."""
        ...

    async def cursor(self, agent: str) -> int:
        """How far an agent's outbox was taken in by `apply` with `after`; 0 before the first time."""
        ...

    async def move(self, agent: str, outbox: str, limit: int) -> MoveReport:
        """In a shared database: up to `limit` plain records of the outbox table `outbox`, oldest first, move into
        history and runs server-side and leave the outbox, in one transaction. Effect records stay and are counted."""
        ...

    async def copy(self, agent: str, jobs: Sequence[Job]) -> int:
        """Copies of jobs still in flight, upserted where newer; how many were written."""
        ...

    async def sweep(self, limit: int) -> int:
        """Delete live rows whose history row has an (epoch, version) at least as high; how many."""
        ...

    async def get(self, ids: Sequence[str]) -> list[Job | None]:
        """Jobs as the master knows them, history first."""
        ...

    async def runs(self, job_id: str) -> list[Run]:
        """All recorded runs of a job, by token."""
        ...

    async def page(self, where: JobFilter, cursor: str | None, limit: int) -> Page:
        """Jobs that match, newest id first; keyset, so page 1,000 costs what page 1 costs."""
        ...

    async def counts(self, cap: int) -> list[StateCount]:
        """Jobs per state and lane; each count stops at `cap`."""
        ...

    async def cancel(self, ids: Sequence[str], versions: Sequence[int] | None = None) -> list[HeldAnswer]:
        """awaiting | held → cancelled, into history. `elsewhere` if dispatching or on an agent. With `versions`, here
        as in `redrive` and `delete`, only those that are at just that one; the others are `refused`."""
        ...

    async def amend(self, items: Sequence[Amendment]) -> list[AmendAnswer]:
        """Change held or awaiting jobs whose version is the expected one; any other that is not running: conflict."""
        ...

    async def redrive(
        self, ids: Sequence[str], due_us: int, fresh: bool, versions: Sequence[int] | None = None
    ) -> list[HeldAnswer]:
        """failed | cancelled → held, due then, version up by one; `fresh` sets the counters of attempts, crashes,
        snoozes and interrupts to zero."""
        ...

    async def delete(self, ids: Sequence[str], versions: Sequence[int] | None = None) -> list[HeldAnswer]:
        """Remove terminal jobs and their runs."""
        ...

    async def forget(self, kept: Sequence[tuple[Expiry, int]]) -> Forgotten:
        """Where the store keeps its history in parts by time: do the next thing about them, which is to drop what is
        not to be kept for so many us since its end any more, where that is a whole part but for little. Nothing that is
        to be kept goes. Gives what `prune` is to be asked for."""
        ...

    async def prune(self, before_us: int, limit: int, which: Expiry = EVERYTHING, below: str | None = None) -> int:
        """Remove up to `limit` terminal jobs that finished before that instant, runs included; how many. With
        `EVERYTHING` also about as many occurrences and events as old, and workers silent since then. `below`: leave
        alone what `forget` will drop."""
        ...

    async def quarantined(self, limit: int) -> list[QuarantineEntry]:
        """Records that could not be applied, newest first."""
        ...

    async def define(self, definitions: Sequence[DefinitionEntry]) -> None:
        """Make handler definitions known; the last writer wins."""
        ...

    async def definitions(self) -> list[DefinitionEntry]:
        """All of them, by name."""
        ...

    async def enter_agent(self, entry: AgentEntry) -> AgentEntry:
        """Make an agent known, or let the mark of the known store rise; gives what was known before, else the entry
        itself. An entry with another fingerprint or incarnation than the known one changes nothing: the caller compares
        the two, and refuses to start, or has the store reconciled."""
        ...

    async def renew_agent(self, known: AgentEntry, entry: AgentEntry) -> AgentEntry:
        """Replace what is known of an agent, if fingerprint and incarnation still are those of `known`; it is not in
        quarantine then. Gives what is stored afterwards: of several who do so at once, all get one answer. An agent
        nobody knows is entered."""
        ...

    async def note_quarantine(self, name: str, why: str | None) -> None:
        """Keep why an agent is in quarantine; None: it is not."""
        ...

    async def turn_agent(
        self, name: str, state: AgentState, target: str | None, who: str, unless: frozenset[AgentState] = frozenset()
    ) -> AgentEntry | None:
        """Put an agent into that state and record who did it, in one transaction, unless it is in one of `unless` or
        in this state already; what is known of it afterwards. None: the master knows no such agent."""
        ...

    async def record(self, events: Sequence[Event]) -> None:
        """Keep these, stamped with store time; an id that is kept already is left alone."""
        ...

    async def events(self, subject: str | None, before_id: str | None, limit: int) -> list[Event]:
        """What happened, to one subject or to all, newest first."""
        ...

    async def on_agent(self, agent: str, after_id: str, limit: int) -> list[InventoryItem]:
        """Live jobs that are dispatching, queued or running at this agent as far as the master knows, by id: what its
        inventory is compared with."""
        ...

    async def agents(self) -> list[AgentEntry]:
        """All of them, by name."""
        ...

    async def beat(self, agent: str, card: WorkerCard) -> None:
        """Upsert a worker, stamped with store time."""
        ...

    async def leave(self, worker: str) -> None:
        """The worker stopped in order."""
        ...

    async def workers(self) -> list[tuple[str, WorkerCard]]:
        """(agent, worker), those known here."""
        ...

    async def save_schedule(self, schedule: Schedule) -> Saved:
        """Insert, or update in place by key. A new one, and one that had ended, begin with the first tick after now; an
        edit keeps the created and anchor instants, the pause, and a tick that is due, and backfills nothing. Ticks to
        come that were planned already are withdrawn in the same transaction, and the watermark goes back before them.
        What is stored already, or belongs to another profile or to none, is left as it is: `changed` is false."""
        ...

    async def turn_schedule(self, key: str, state: ScheduleState) -> Saved | None:
        """Pause, resume (with the first tick after now: a pause never replays) or end, and withdraw as `save_schedule`
        does; of one that ends also the ticks that wait. An ended one stays so. None: there is no such schedule."""
        ...

    async def schedules(self) -> list[Schedule]:
        """All of them, by key."""
        ...

    async def schedule(self, key: str) -> Schedule | None:
        """One of them."""
        ...

    async def soonest(self, agents: Sequence[str]) -> Soonest:
        """When the next schedule has to be looked at of those bound to one of these agents or to none."""
        ...

    async def plan(self, planning: Planning) -> PlanReport:
        """Look at the schedules whose time for it has come, in one transaction: for each due tick, as its terms say,
        insert the occurrence and its job, `dispatching`, or a skipped occurrence, and move the watermark. A tick that
        has its job gets no second one, whoever plans, and however often; a withdrawn one gets the same id again, one
        epoch later. Nothing is planned if store time is not within the planning's bounds."""
        ...

    async def backfill(self, key: str, ticks: Sequence[int], planning: Planning) -> PlanReport:
        """Plan these ticks of the past now, but those that have their job; in one transaction, the watermark aside."""
        ...

    async def occurrences(self, key: str, before_us: int | None, limit: int) -> list[OccurrenceEntry]:
        """A schedule's ticks before that instant, latest first, each with its job as far as the master knows it."""
        ...

    async def tick_ran(self, ticks: Sequence[tuple[str, int]]) -> int:
        """(schedule, tick): withdrawn → planned, for what could not be taken back after all; how many were."""
        ...

    async def sync_profiles(
        self, declared: Mapping[str, Sequence[Schedule]], grace_us: int, *, dry: bool = False
    ) -> Synced:
        """Reconcile the schedules of these profiles with what they declare now, in one transaction, one process after
        the other. What is not declared any more ends after the grace; what is again goes on under its old id. If a key
        belongs to somebody else, nothing is changed. `dry` only tells."""
        ...

    async def retire(self, alive: Sequence[str], grace_us: int) -> list[Taken]:
        """Note that these profiles are in use; end the schedules whose time to retire has come, and those of profiles
        that nobody has used for the grace."""
        ...

    async def lead(self, duty: str, node: str, ttl_us: int) -> Term:
        """Take or prolong the term of a duty if it is free, run out, or this node's; whose it is now."""
        ...

    async def resign(self, duty: str, node: str) -> None:
        """End the term if it is this node's."""
        ...

    async def begin_operation(self, operation: Operation) -> Operation:
        """Keep it, stamped with store time; one whose id is known already is left as it is. Gives what is stored."""
        ...

    async def take_operation(self, node: str, ttl_us: int) -> Operation | None:
        """The running one that was longest not taken and is nobody else's now, for this node until store time + ttl;
        None: there is none. Each is one node's at a time."""
        ...

    async def save_operation(self, operation: Operation, node: str) -> Operation | None:
        """Keep how far it is, and that it has ended, if it still is this node's.
        One that was stopped meanwhile keeps that state. Gives what is stored; None: it is not this node's."""
        ...

    async def stop_operation(self, operation_id: str) -> Operation | None:
        """running → stopped; one that has ended stays as it is. Gives what is stored; None: there is no such."""
        ...

    async def operations(self, before_id: str | None, limit: int) -> list[Operation]:
        """Newest first, below that id."""
        ...

    async def operation(self, operation_id: str) -> Operation | None:
        """One of them."""
        ...
