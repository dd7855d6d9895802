"""Placement: which agent a job goes to, and whether it goes there now. Pure.

An agent is drawn once per job, before the first `put`, and then pinned: two agents must never both hold one job. So
another agent is allowed only after every `put` so far was refused; whoever calls this keeps that count.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from random import Random
from typing import Protocol


class Destination(StrEnum):
    """Where a new job is written first."""

    AGENT = "agent"
    """Straight to an agent: ready, or delayed there."""
    HAND_OFF = "hand_off"
    """To the master as `dispatching`, then at once to an agent."""
    HELD = "held"
    """To the master, until it is due soon."""


class Attached(Protocol):
    """What is asked about a worker."""

    @property
    def agent(self) -> str: ...
    @property
    def lanes(self) -> Iterable[str]: ...


def agents_by_lane(workers: Iterable[Attached]) -> dict[str, tuple[str, ...]]:
    """The agents that have a worker with the lane. A lane that is not named is served by none of these workers, and its
    jobs may go to any agent."""
    serving: dict[str, tuple[str, ...]] = {}
    for worker in workers:
        for lane in worker.lanes:
            there = serving.get(lane, ())
            if worker.agent not in there:
                serving[lane] = (*there, worker.agent)
    return serving


def destination(due_us: int, now_us: int, threshold_us: int, through_master: bool) -> Destination:
    """Jobs due within the threshold go to an agent; later ones are held."""
    if due_us - now_us > threshold_us:
        return Destination.HELD
    return Destination.HAND_OFF if through_master else Destination.AGENT


def choose_agent(candidates: Sequence[str], backlog: Mapping[str, int], rng: Random) -> str | None:
    """The less loaded of two drawn at random: nearly as even as asking all, and no stampede onto the emptiest.

    Agents that `backlog` does not know are taken only if it knows none of the candidates: not to know an agent's
    backlog means it did not answer. `None` if there is no candidate.
    """
    known = [name for name in candidates if name in backlog] or list(candidates)
    if not known:
        return None
    if len(known) == 1:
        return known[0]
    one, other = rng.sample(known, 2)
    return one if backlog.get(one, 0) <= backlog.get(other, 0) else other
