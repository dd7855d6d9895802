"""Router: jobs whose handler no live worker knows are set aside, visibly, so that they never stand in others' way."""

from collections.abc import Callable, Mapping

import structlog

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.values import JobFilter, WorkerCard
from jobmaster.model.states import JobState
from jobmaster.telemetry.gauges import gauge

BATCH = 1_000
POLL_SECONDS = 30.0

OnUnroutable = Callable[[str, str, int], None]
"""Called with handler, lane and how many jobs."""

_log = structlog.get_logger("jobmaster.router")


def known_handlers(cards: list[WorkerCard], now_us: int, dead_after_us: int) -> frozenset[str] | None:
    """What the live workers of an agent know; None where there are none, so that nobody could judge."""
    live = [card for card in cards if now_us - card.beat_us <= dead_after_us]
    return frozenset(name for card in live for name in card.handlers) if live else None


class Router:
    """Parks and unparks one agent's jobs: every 30 s, and at once when woken because a worker came."""

    def __init__(self, agent: AgentTransport, *, dead_after_us: int, on_unroutable: OnUnroutable) -> None:
        self._agent = agent
        self._dead_after_us = dead_after_us
        self._on_unroutable = on_unroutable
        self._warned: set[str] = set()

    async def run(self) -> float:
        """One pass."""
        now_us = await self._agent.store_now_us()
        cards = await self._agent.workers()
        known = known_handlers(cards, now_us, self._dead_after_us)
        await self._warn_of_lanes([card for card in cards if now_us - card.beat_us <= self._dead_after_us])
        if known is None:
            return POLL_SECONDS
        report = await self._agent.park(known, BATCH)
        if report.unparked:
            _log.info("router.routable_again", agent=self._agent.name, jobs=report.unparked)
        if report.failed:
            _log.warning("router.given_up", agent=self._agent.name, jobs=report.failed, reason="unknown_handler")
        await self._tell(report.parked)
        return 0 if report.more else POLL_SECONDS

    async def _warn_of_lanes(self, live: list[WorkerCard]) -> None:
        """Of those in which jobs are ready and that no live worker serves: once, until one does. The gauge tells all
        the time."""
        served = {lane for card in live for lane in card.lanes}
        unserved: dict[str, int] = {}
        for counts in await self._agent.stats():
            jobs = 0 if counts.lane in served else counts.ready + counts.parked
            gauge("unserved_jobs", jobs, self._agent.name, counts.lane)
            if jobs:
                unserved[counts.lane] = jobs
        for lane in sorted(unserved.keys() - self._warned):
            _log.warning(
                "router.lane_unserved",
                agent=self._agent.name,
                lane=lane,
                jobs=unserved[lane],
                remedy=f"start a worker with --lanes {lane}, or move them: jobmaster lanes move {lane} TO",
            )
        self._warned = set(unserved)

    async def _tell(self, parked: Mapping[str, int]) -> None:
        for handler, count in parked.items():
            where = JobFilter(states=frozenset({JobState.QUEUED}), handler=handler)
            examples = (await self._agent.peek(where, None, 1)).jobs
            lane = examples[0].lane if examples else ""
            _log.warning(
                "router.unroutable",
                agent=self._agent.name,
                handler=handler,
                lane=lane,
                jobs=count,
                remedy="start a worker that has this handler; the jobs wait",
            )
            self._on_unroutable(handler, lane, count)
