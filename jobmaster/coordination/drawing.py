"""Drawing the agent of a job that goes from the master to one, and what its hand-off carries."""

from random import Random
from typing import Any

from jobmaster.agents_open import Agents
from jobmaster.contracts.entries import Routes
from jobmaster.contracts.scheduling import Planning
from jobmaster.contracts.values import PUT_WINDOW_US
from jobmaster.placement import choose_agent

DRAWS = 16
"""Agents drawn for one batch of ticks or of held jobs; they take turns."""


async def draw_agent(agents: Agents, bound: str | None, lane: str | None, rng: Random) -> str | None:
    """The agent a job is bound to, or that takes its place, else one with little backlog, of those with workers for its
    lane if one is given. None leaves. `None` where this process does not serve it."""
    if bound is not None:
        bound = agents.instead(bound)
    if bound is not None:
        return bound if bound in agents else None
    staying = [name for name in agents.names if name not in agents.leaving]
    for_lane = staying if lane is None else [name for name in agents.by_lane.get(lane, ()) if name in staying]
    return choose_agent(for_lane or staying, await agents.backlog(), rng)


async def put_deadline_us(agents: Agents, name: str) -> int:
    """Until when, in the agent's store time, an epoch first tried now may be placed. Needs no answer of the agent."""
    return await agents.time(name).fresh_us() + PUT_WINDOW_US


async def routes_for(agents: Agents, rng: Random) -> Routes:
    """Where held jobs may go, as far as this process serves it."""
    return Routes(
        agents={name: await put_deadline_us(agents, name) for name in agents.names if name not in agents.leaving},
        instead={name: agents.instead(name) for name in agents.leaving},
        draws=await _draws(agents, None, rng),
        lane_draws={lane: await _draws(agents, lane, rng) for lane in agents.by_lane},
    )


async def planning_for(agents: Agents, rng: Random, **fields: Any) -> Planning:
    """What a planning needs to know of the agents that this process serves."""
    return Planning(
        agents={name: await put_deadline_us(agents, name) for name in agents.names},
        instead={
            name: drawn
            for name in agents.leaving
            if (drawn := await draw_agent(agents, name, None, rng)) is not None and drawn in agents
        },
        draws=await _draws(agents, None, rng),
        lane_draws={lane: await _draws(agents, lane, rng) for lane in agents.by_lane},
        **fields,
    )


async def _draws(agents: Agents, lane: str | None, rng: Random) -> tuple[str, ...]:
    candidates = agents.names if lane is None else agents.by_lane[lane]
    drawn = [await draw_agent(agents, None, lane, rng) for _ in range(DRAWS if len(candidates) > 1 else 1)]
    return tuple(name for name in drawn if name is not None)
