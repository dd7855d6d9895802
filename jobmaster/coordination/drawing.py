"""Drawing the agent of a job that goes from the master to one, and what its hand-off carries."""

from random import Random

from jobmaster.agents_open import Agents
from jobmaster.contracts.values import PUT_WINDOW_US
from jobmaster.placement import choose_agent


async def draw_agent(agents: Agents, bound: str | None, rng: Random) -> str | None:
    """The agent a job is bound to, else one with little backlog. `None` where this process does not serve it."""
    if bound is not None:
        return bound if bound in agents else None
    return choose_agent(agents.names, await agents.backlog(), rng)


async def put_deadline_us(agents: Agents, name: str) -> int:
    """Until when, in the agent's store time, an epoch first tried now may be placed. Needs no answer of the agent."""
    return await agents.time(name).fresh_us() + PUT_WINDOW_US
