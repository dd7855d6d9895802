"""The master contract: what a master store must do. The source of truth for definitions, topology, held jobs and
history.

Cut like the agent contract: batches in, values out, in the order of the items; a call fails only as `Refused` or
`Indeterminate`; every write may be repeated. A job is written only if the copy's (epoch, version) is greater than what
is known of it, in the live table *and* in the history; a run only if its (job, token) is new.
"""

from collections.abc import Sequence
from typing import Protocol

from jobmaster.contracts.entries import (
    AgentEntry,
    ApplyAnswer,
    DefinitionEntry,
    Dispatch,
    HeldAnswer,
    MoveReport,
    Occurrence,
    Placement,
    QuarantineEntry,
    Schedule,
    StateCount,
)
from jobmaster.contracts.values import (
    AmendAnswer,
    Amendment,
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

    async def apply(self, agent: str, records: Sequence[OutboxRecord]) -> list[ApplyAnswer]:
        """Fold outbox records into jobs, history and runs, with their effects, in one transaction. On an error the
        batch is halved until the bad record is alone and quarantined; the others are applied. Terminal records end in
        history, others in the live table; a revoked one (`move`) becomes `held`; the revocation of an id the agent
        never saw is applied to a row that is dispatching or queued at exactly that epoch."""
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
        """Jobs per state and lane; history counts stop at `cap` per state and lane."""
        ...

    async def cancel(self, ids: Sequence[str]) -> list[HeldAnswer]:
        """awaiting | held → cancelled, into history. `elsewhere` if dispatching or on an agent."""
        ...

    async def amend(self, items: Sequence[Amendment]) -> list[AmendAnswer]:
        """Change held or awaiting jobs whose version is the expected one; any other that is not running: conflict."""
        ...

    async def redrive(self, ids: Sequence[str], due_us: int, fresh: bool) -> list[HeldAnswer]:
        """failed | cancelled → held, due then, version up by one; `fresh` sets the counters of attempts, crashes,
        snoozes and interrupts to zero."""
        ...

    async def delete(self, ids: Sequence[str]) -> list[HeldAnswer]:
        """Remove terminal jobs and their runs."""
        ...

    async def prune(self, before_us: int, limit: int) -> int:
        """Remove up to `limit` terminal jobs that finished before that instant, runs included, and about as many
        occurrences as old, and workers silent since then; how many jobs."""
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
        """Make an agent known, or refresh what is; gives what was known before, else the entry itself. An entry with
        another fingerprint than the known one changes nothing, so the caller compares the two and refuses to start."""
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

    async def save_schedule(self, schedule: Schedule) -> Schedule:
        """Insert, or update in place by key: while it is active and its interval stays, it keeps anchor and watermark;
        else it takes the given ones. Gives what is stored now."""
        ...

    async def schedules(self) -> list[Schedule]:
        """All of them, by key."""
        ...

    async def due_schedules(self, before_us: int, limit: int) -> list[Schedule]:
        """Active ones whose next tick is not later than that, soonest first."""
        ...

    async def end_schedule(self, key: str) -> bool:
        """No tick of it is planned any more; whether it was there and not ended yet."""
        ...

    async def plan(self, occurrences: Sequence[Occurrence]) -> list[bool]:
        """For each, in one transaction: the watermark moves by compare-and-set from `watermark_us` to `next_us`, the
        occurrence row is inserted, and its job, as `dispatching`. False where another planner was first; then nothing
        of it is written. False also for a tick that has its job already: then only the watermark moves."""
        ...

    async def ticks(self, key: str, limit: int) -> list[tuple[int, str]]:
        """(tick, job id) of a schedule's planned occurrences, newest first."""
        ...
