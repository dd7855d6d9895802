"""Changes of many jobs at once, by one call to each store that has some of them. Jobs that are just on their way from
one store to another are left to `Interventions`, one by one."""

import asyncio
from collections.abc import Iterable, Sequence

from jobmaster.agents_open import Agents
from jobmaster.client.expectation import Expectation
from jobmaster.client.interventions import Changes, Interventions
from jobmaster.client.listing import Listing
from jobmaster.client.lookup import WITH_AGENT, Lookup
from jobmaster.contracts.entries import HeldAnswer
from jobmaster.contracts.master import MasterStore
from jobmaster.contracts.operating import ALLOWED, Operation, OperationKind
from jobmaster.contracts.values import AmendAnswer, Amendment, Revoke, RevokeAnswer, RevokeKind, Signal, SignalKind
from jobmaster.model.errors import AgentUnreachable, JobConflict, JobNotFound
from jobmaster.model.job import Job
from jobmaster.model.states import JobState

AT_ONCE = 25
"""Jobs that are looked for at the same time, after a crash."""


class Batches:
    """What operations do. Each verb gives how many of the jobs it changed; raises what the stores raise, and may be
    repeated then."""

    def __init__(
        self, master: MasterStore, agents: Agents, lookup: Lookup, listing: Listing, interventions: Interventions
    ) -> None:
        self.read = listing.read
        self._lookup = lookup
        self._master = master
        self._agents = agents
        self._interventions = interventions

    async def carry_out(self, operation: Operation, jobs: Sequence[Job], now_us: int) -> int:
        terms = operation.terms
        match operation.kind:
            case OperationKind.CANCEL:
                states = terms.where.states or ALLOWED[OperationKind.CANCEL]
                return await self.cancel(jobs, states)
            case OperationKind.RETRY:
                return _changed(await self._master.redrive([job.id for job in jobs], now_us, terms.fresh))
            case OperationKind.DELETE:
                return _changed(await self._master.delete([job.id for job in jobs]))
            case OperationKind.EDIT:
                return await self.edit(jobs, Changes(lane=terms.lane, priority=terms.priority))

    async def carried_out(self, operation: Operation) -> set[str]:
        """Those of its pending jobs that are now what it makes of them. Raises where a store can't be asked."""
        done: set[str] = set()
        for begin in range(0, len(operation.pending), AT_ONCE):
            chunk = operation.pending[begin : begin + AT_ONCE]
            found = await asyncio.gather(*(self._found(job_id) for job_id, _ in chunk))
            done.update(
                job_id for (job_id, version), job in zip(chunk, found, strict=True) if _made_of(operation, version, job)
            )
        return done

    async def _found(self, job_id: str) -> Job | None:
        try:
            return await self._lookup.find(job_id)
        except JobNotFound:
            return None

    async def cancel(self, jobs: Sequence[Job], states: frozenset[JobState]) -> int:
        """Only jobs that are in one of these states. Where running ones are not meant, each is cancelled at the version
        it was seen at, so that none is that was started between the look and the cancel."""
        exactly = JobState.RUNNING not in states
        held = [job for job in jobs if job.state not in WITH_AGENT]
        done = set[str]()
        if held:
            gone = await self._master.cancel([job.id for job in held])
            done |= {job.id for job, answer in zip(held, gone, strict=True) if answer is HeldAnswer.CHANGED}
        for agent, there in self._by_agent(job for job in jobs if job.state in (JobState.QUEUED, JobState.RUNNING)):
            done |= await self._revoke(agent, there, exactly=exactly)
        self._interventions.tell_cancelled(job for job in jobs if job.id in done)
        left = [job for job in jobs if job.id not in done]
        return len(done) + sum([await self._cancel_one(job, states) for job in left])

    async def edit(self, jobs: Sequence[Job], changes: Changes) -> int:
        given = [
            Amendment(id=job.id, version=job.version, lane=changes.lane, priority=changes.priority) for job in jobs
        ]
        answers = await self._amend(jobs, given)
        changed = [job for job in jobs if answers.get(job.id) is AmendAnswer.CHANGED]
        left = [job for job in jobs if answers.get(job.id) in (None, AmendAnswer.CONFLICT, AmendAnswer.UNKNOWN)]
        return len(changed) + sum([await self._edit_one(job, changes) for job in left])

    async def _amend(self, jobs: Sequence[Job], amendments: Sequence[Amendment]) -> dict[str, AmendAnswer]:
        """The answers by id; none for those on their way to an agent."""
        asked = {amendment.id: amendment for amendment in amendments}
        answers: dict[str, AmendAnswer] = {}
        held = [asked[job.id] for job in jobs if job.state not in WITH_AGENT]
        if held:
            answers |= zip((item.id for item in held), await self._master.amend(held), strict=True)
        for agent, there in self._by_agent(job for job in jobs if job.state is JobState.QUEUED):
            items = [asked[job.id] for job in there]
            answers |= zip((item.id for item in items), await self._agents[agent].amend(items), strict=True)
        return answers

    async def _revoke(self, agent: str, jobs: Sequence[Job], *, exactly: bool) -> set[str]:
        """Those that are cancelled, `exactly`: at the version they were seen at; who ran one of them is told."""
        revokes = [Revoke(job.id, job.epoch, RevokeKind.CANCEL, job.version if exactly else None) for job in jobs]
        revocations = await self._agents[agent].revoke(revokes)
        signals = [
            Signal(revocation.worker, SignalKind.CANCEL, revoke.id)
            for revoke, revocation in zip(revokes, revocations, strict=True)
            if revocation.was_running and revocation.worker is not None
        ]
        await self._interventions.tell_workers(agent, signals)
        return {
            revoke.id
            for revoke, revocation in zip(revokes, revocations, strict=True)
            if revocation.answer is RevokeAnswer.REVOKED
        }

    async def _cancel_one(self, job: Job, states: frozenset[JobState]) -> bool:
        try:
            return (await self._interventions.cancel(job.id, Expectation(states))).cancelled
        except (JobConflict, JobNotFound):
            return False

    async def _edit_one(self, job: Job, changes: Changes) -> bool:
        try:
            await self._interventions.change(job.id, changes)
        except (JobConflict, JobNotFound):
            return False
        return True

    def _by_agent(self, jobs: Iterable[Job]) -> list[tuple[str, list[Job]]]:
        """In order of id, as every store wants them."""
        found: dict[str, list[Job]] = {}
        for job in sorted(jobs, key=lambda job: job.id):
            if job.agent is None or job.agent not in self._agents:
                raise AgentUnreachable(str(job.agent), "this process has no such agent", "let a process that has it")
            found.setdefault(job.agent, []).append(job)
        return list(found.items())


def _made_of(operation: Operation, version: int, job: Job | None) -> bool:
    """Whether a job that was at that version when its turn came has had it."""
    if operation.kind is OperationKind.DELETE or job is None:
        return operation.kind is OperationKind.DELETE and job is None
    if job.version <= version:
        return False
    match operation.kind:
        case OperationKind.CANCEL:
            return job.state is JobState.CANCELLED
        case OperationKind.RETRY:
            return True
        case OperationKind.EDIT:
            lane, priority = operation.terms.lane, operation.terms.priority
            return lane in (None, job.lane) and priority in (None, job.priority)


def _changed(answers: Sequence[HeldAnswer]) -> int:
    return answers.count(HeldAnswer.CHANGED)
