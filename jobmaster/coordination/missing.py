"""Jobs that the master believes to be at an agent and that are not: found, and taken back, so that they are placed
anew."""

from collections.abc import Sequence

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.values import InventoryItem, Revoke, RevokeAnswer, RevokeKind


async def missing_of(agent: AgentTransport, page: Sequence[InventoryItem]) -> list[InventoryItem]:
    """Those of which the agent knows nothing. Known is also what has left and is still in the outbox: its record will
    tell."""
    found = await agent.find([item.id for item in page])
    return [item for item, job in zip(page, found, strict=True) if job is None]


async def place_anew(agent: AgentTransport, missing: Sequence[InventoryItem]) -> int:
    """Bar them at the epoch they were believed to be there in: the record of that makes each `held`, and the hand-off
    places it anew. How many; those that turn out to have ended are left alone."""
    if not missing:
        return 0
    answers = await agent.revoke([Revoke(item.id, item.epoch, RevokeKind.MOVE) for item in missing])
    return sum(answer.answer is RevokeAnswer.ABSENT for answer in answers)
