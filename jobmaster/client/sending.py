"""Sending drafted jobs to where they belong: an agent, the master, or a transaction of the caller's own."""

from collections.abc import Callable, Sequence
from typing import Any, cast

from msgspec.structs import replace

from jobmaster.agents_open import Agents
from jobmaster.client.after_commit import when_ended
from jobmaster.client.drafting import Route
from jobmaster.client.placing import Placing, check_answers
from jobmaster.contracts.agent import TransactionalTransport
from jobmaster.contracts.values import PUT_WINDOW_US
from jobmaster.listeners import EventKind, JobEvent, Listeners
from jobmaster.model.errors import OptionInvalid
from jobmaster.model.job import Job
from jobmaster.placement import Destination, destination


class Sending:
    """Jobs due soon go to an agent, later ones and those that ask for it to the master."""

    def __init__(self, placing: Placing, listeners: Listeners, threshold_us: int) -> None:
        self._placing = placing
        self._listeners = listeners
        self._threshold_us = threshold_us

    async def write(self, route: Route, jobs: Sequence[Job], now_us: int) -> dict[str, str]:
        """Where each went, by id; those held on the master are left out."""
        placed: dict[str, str] = {}
        horizon_us = now_us + self._threshold_us
        far = [job for job in jobs if job.due_us > horizon_us]
        near = [job for job in jobs if job.due_us <= horizon_us] if far else jobs
        for part in (near, far):
            if not part:
                continue
            match destination(part[0].due_us, now_us, self._threshold_us, route.through_master):
                case Destination.AGENT:
                    placed |= await self._placing.put(route, part)
                case Destination.HAND_OFF:
                    placed |= await self._placing.through_master(route, part)
                case Destination.HELD:
                    await self._placing.hold(part)
            _tell(self._listeners, part, placed)
        return placed


class TransactionSending:
    """Jobs go to one agent's tables by a connection of the caller's, whenever they are due: the master may be another
    database, and what one transaction writes must not be in two."""

    def __init__(self, connection: Any, agents: Agents, listeners: Listeners, wake: Callable[[], None]) -> None:
        """`wake` is called after a commit that the connection tells of."""
        self._connection = connection
        self._agents = agents
        self._listeners = listeners
        self._wake = wake
        self._sent: list[tuple[str, Sequence[Job]]] = []

    async def write(self, route: Route, jobs: Sequence[Job], now_us: int) -> dict[str, str]:
        """Raises `OptionInvalid` where no agent, or more than one, could take them."""
        if route.through_master:
            raise OptionInvalid("durability", "master", "none in a transaction: its jobs are written to their agent")
        agent = self._agent(route)
        mine = [job if job.agent == agent else replace(job, agent=agent) for job in jobs]
        deadline_us = await self._agents.time(agent).fresh_us() + PUT_WINDOW_US
        check_answers(await self._transport(agent).put_in(self._connection, mine, deadline_us), mine)
        if not self._sent:
            when_ended(self._connection, self._wake, self._sent.clear)
        self._sent.append((agent, mine))
        return dict.fromkeys((job.id for job in mine), agent)

    async def committed(self) -> None:
        """The transaction was committed: wake those who wait for its jobs, and tell the listeners."""
        sent = self._sent[:]
        self._sent.clear()
        lanes: dict[str, set[str]] = {}
        for agent, jobs in sent:
            lanes.setdefault(agent, set()).update(job.lane for job in jobs)
            _tell(self._listeners, jobs, dict.fromkeys((job.id for job in jobs), agent))
        for agent, names in lanes.items():
            await self._transport(agent).hint(frozenset(names))

    def _agent(self, route: Route) -> str:
        able = [name for name in route.candidates if self._agents[name].traits.transactional_put]
        if len(able) == 1:
            return able[0]
        names = ", ".join(able or route.candidates) or "(none)"
        if able:
            raise OptionInvalid("agent", None, f"one of {names}: the one whose database this connection is to")
        raise OptionInvalid(
            "connection",
            type(self._connection).__name__,
            f"no transaction here, as no agent for these jobs can take part in one (there is {names}); "
            "an agent on Postgres, MySQL or MariaDB can",
        )

    def _transport(self, agent: str) -> TransactionalTransport:
        return cast("TransactionalTransport", self._agents[agent])


def _tell(listeners: Listeners, jobs: Sequence[Job], placed: dict[str, str]) -> None:
    if listeners.wants(EventKind.ENQUEUED):
        for job in jobs:
            listeners.emit(
                JobEvent(
                    kind=EventKind.ENQUEUED,
                    job_id=job.id,
                    handler=job.handler,
                    lane=job.lane,
                    agent=placed.get(job.id),
                )
            )
