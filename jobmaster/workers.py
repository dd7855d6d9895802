"""Workers: who runs jobs, on all agents, and telling them what to do, wherever they are.

They are told through their agent, so the master need not be there. What they did about it, their next heartbeat shows,
which follows at once; that is waited for.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from msgspec import Struct

from jobmaster.actor import this_process
from jobmaster.agents_open import Agents
from jobmaster.client.times import from_us
from jobmaster.contracts.entries import Event
from jobmaster.contracts.master import MasterStore
from jobmaster.contracts.values import Signal, SignalKind
from jobmaster.model.errors import OptionInvalid, StoreError, WorkerNotFound
from jobmaster.model.ids import new_id
from jobmaster.worker.scaling import MOST_SLOTS, scale_signal

POLL_SECONDS = 0.05
PATIENCE_SECONDS = 5.0
"""How long a change is waited for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """A worker as its agent knows it."""

    id: str
    name: str
    agent: str
    host: str
    pid: int
    lanes: tuple[str, ...]
    handlers: tuple[str, ...]
    slots: int
    busy: int
    state: str
    version: str
    started_at: datetime
    seen_at: datetime
    alive: bool
    """Heard of lately, by the agent's clock."""
    loop_lag: timedelta | None
    """The longest that its event loop took to answer in the last ten seconds before it was seen: what blocks it delays
    claims, settles and heartbeats alike."""
    rss_bytes: int | None
    """Resident memory of its process, shared by all workers in it; None where the system does not say."""


class _Order(Struct, frozen=True):
    """Something workers are told, and how it is seen that they did it."""

    word: str
    signal: Callable[[str], Signal]
    seen: Callable[[WorkerInfo | None], bool]


class Workers:
    """`scheduler.workers`. A worker is named by its id, or by its name, which several may have: then all of them are
    meant. Changes give those that were meant as they were seen last, those without the wished state included, since a
    worker may be too busy to answer; they raise `WorkerNotFound`."""

    def __init__(
        self,
        master: MasterStore,
        agents: Agents,
        dead_after_us: int,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._master = master
        self._agents = agents
        self._dead_after_us = dead_after_us
        self._sleep = sleep

    async def list(self) -> tuple[WorkerInfo, ...]:
        """Those registered on the agents that answer, by agent and name."""
        answers, _ = await self._agents.ask(self._agents.names, lambda agent: agent.workers())
        return tuple(
            WorkerInfo(
                id=card.id,
                name=card.name,
                agent=agent,
                host=card.host,
                pid=card.pid,
                lanes=card.lanes,
                handlers=card.handlers,
                slots=card.slots,
                busy=card.busy,
                state=card.state,
                version=card.version,
                started_at=from_us(card.started_us),
                seen_at=from_us(card.beat_us),
                alive=self._agents.time(agent).now_us() - card.beat_us < self._dead_after_us,
                loop_lag=None if card.loop_lag_us is None else timedelta(microseconds=card.loop_lag_us),
                rss_bytes=card.rss_bytes,
            )
            for agent, cards in answers.items()
            for card in sorted(cards, key=lambda card: (card.name, card.id))
        )

    async def get(self, worker: str) -> tuple[WorkerInfo, ...]:
        """Those of that id or name. Raises `WorkerNotFound`."""
        known = await self.list()
        found = tuple(info for info in known if worker in (info.id, info.name))
        if not found:
            raise WorkerNotFound(worker, sorted({name for info in known for name in (info.id, info.name)}))
        return found

    async def quiet(self, worker: str, *, who: str | None = None) -> tuple[WorkerInfo, ...]:
        """Have it claim nothing more; what it has is run."""
        return await self._order(worker, _plain("quiet", SignalKind.QUIET, "quiet"), who)

    async def resume(self, worker: str, *, who: str | None = None) -> tuple[WorkerInfo, ...]:
        """Have it claim again."""
        return await self._order(worker, _plain("resumed", SignalKind.RESUME, "running"), who)

    async def stop(self, worker: str, *, who: str | None = None) -> tuple[WorkerInfo, ...]:
        """Have its process drain and end, with all workers in it. Those that are given are still at it."""
        order = _Order(
            "stopped", lambda name: Signal(name, SignalKind.STOP), lambda info: info is None or info.state == "stopping"
        )
        return await self._order(worker, order, who)

    async def scale(
        self, worker: str, slots: int, *, lane: str | None = None, who: str | None = None
    ) -> tuple[WorkerInfo, ...]:
        """Have it run that many jobs at a time: of `lane`, if that has slots of its own there, else of the lanes that
        share them. It holds until the worker ends. Raises `OptionInvalid`."""
        if isinstance(slots, bool) or not isinstance(slots, int) or not 1 <= slots <= MOST_SLOTS:
            raise OptionInvalid("slots", slots, f"a number from 1 to {MOST_SLOTS:,}; quiet the worker for none")
        for info in await self.get(worker):
            if lane is not None and lane not in info.lanes:
                raise OptionInvalid("lane", lane, f"one that worker {info.id} serves: {', '.join(info.lanes)}")
        before = {info.id: info for info in await self.get(worker)}

        def seen(info: WorkerInfo | None) -> bool:
            if info is None or info.id not in before:
                return True
            known = before[info.id]
            # One that has that many already shows no change.
            same = lane is None and known.slots == slots and info.seen_at > known.seen_at
            return info.slots != known.slots or same

        return await self._order(worker, _Order("scaled", lambda name: scale_signal(name, slots, lane), seen), who)

    async def _order(self, worker: str, order: _Order, who: str | None) -> tuple[WorkerInfo, ...]:
        meant = {info.id: info for info in await self.get(worker)}
        by_agent: dict[str, list[Signal]] = {}
        for info in meant.values():
            by_agent.setdefault(info.agent, []).append(order.signal(info.id))
        for agent, signals in by_agent.items():
            await self._agents[agent].signal(signals)
        await self._note(f"worker.{order.word}", sorted(meant), who)
        return await self._until(order, meant)

    async def _until(self, order: _Order, meant: Mapping[str, WorkerInfo]) -> tuple[WorkerInfo, ...]:
        waited = 0.0
        while True:
            now = {info.id: info for info in await self.list() if info.id in meant}
            left = [one for one, info in meant.items() if info.alive and not order.seen(now.get(one))]
            if not left or waited >= PATIENCE_SECONDS:
                return tuple(now.values())
            await self._sleep(POLL_SECONDS)
            waited += POLL_SECONDS

    async def _note(self, kind: str, subjects: Sequence[str], who: str | None) -> None:
        """For the record, as far as the master is there: workers are steered without it."""
        events = [Event(id=new_id(), kind=kind, subject=subject, who=who or this_process()) for subject in subjects]
        try:
            await self._master.record(events)
        except StoreError:
            return


def _plain(word: str, kind: SignalKind, state: str) -> _Order:
    return _Order(word, lambda name: Signal(name, kind), lambda info: info is None or info.state == state)
