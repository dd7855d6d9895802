"""Taking back ticks that were planned ahead, from the agents that have their jobs already.

The master has withdrawn them in the transaction of the edit; here their agents are told, as well as may be. A job that
runs is left alone, and its tick counts as run.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jobmaster.agents_open import Agents
from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.master import MasterStore
from jobmaster.contracts.scheduling import Taken
from jobmaster.contracts.values import Revoke, RevokeAnswer, RevokeKind
from jobmaster.model.errors import StoreError
from jobmaster.model.states import TERMINAL, JobState


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """What became of ticks that were to be taken back."""

    withdrawn: tuple[Taken, ...] = ()
    ran: tuple[Taken, ...] = ()
    """Too late: their jobs run, or have run."""
    unknown: tuple[Taken, ...] = ()
    """Their agent did not answer: they may run yet."""


async def take_back(master: MasterStore, agents: Agents, taken: Sequence[Taken]) -> Withdrawal:
    """Revoke the jobs of these ticks. Raises what the master raises."""
    withdrawn = [item for item in taken if item.agent is None]
    ran: list[Taken] = []
    unknown: list[Taken] = []
    by_agent: dict[str, list[Taken]] = {}
    for item in taken:
        if item.agent is not None:
            by_agent.setdefault(item.agent, []).append(item)
    for name, items in by_agent.items():
        if name not in agents:
            unknown += items
            continue
        try:
            late = await _revoke(agents[name], items)
        except StoreError:
            unknown += items
            continue
        ran += [item for item in items if item.job_id in late]
        withdrawn += [item for item in items if item.job_id not in late]
    if ran:
        await master.tick_ran([(item.schedule, item.tick_us) for item in ran])
    return Withdrawal(tuple(withdrawn), tuple(ran), tuple(unknown))


async def _revoke(agent: AgentTransport, items: Sequence[Taken]) -> set[str]:
    """The ids of the jobs for which it was too late."""
    found = dict(zip((item.job_id for item in items), await agent.find([item.job_id for item in items]), strict=True))
    late: set[str] = set()
    revokes: list[Revoke] = []
    for item in items:
        job = found[item.job_id]
        if job is not None and job.epoch > item.epoch:
            # Wanted again, and planned again, in the meantime.
            continue
        if job is not None and (job.state is JobState.RUNNING or job.state in TERMINAL):
            late.add(item.job_id)
        else:
            revokes.append(Revoke(item.job_id, item.epoch, RevokeKind.CANCEL))
    answers = await agent.revoke(revokes) if revokes else []
    late |= {
        revoke.id
        for revoke, revocation in zip(revokes, answers, strict=True)
        if revocation.answer in (RevokeAnswer.SETTLED, RevokeAnswer.RUNNING)
    }
    return late
