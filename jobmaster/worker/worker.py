"""The worker: owns intake, slots, executor, settlement and lease keeper, and the order in which they start and stop.

    starting → running ⇄ quiet → stopping → stopped

Stopping is a ladder, `_LADDER` below: each step may take its time unless the stop is a hard one, that is, a second
call while the first is under way.
"""

import asyncio
import os
import random
import socket
from collections.abc import Callable, Coroutine
from enum import StrEnum
from typing import TYPE_CHECKING, Any, assert_never

import structlog

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.clock import Clock, SystemClock
from jobmaster.contracts.values import Signal, SignalKind, WorkerCard
from jobmaster.listeners import EventKind, JobEvent, Listeners
from jobmaster.model.errors import OptionInvalid
from jobmaster.model.priority import LaneOrder
from jobmaster.store_time import StoreTime
from jobmaster.worker.executor import Executor
from jobmaster.worker.intake import Intake
from jobmaster.worker.keeper import LeaseKeeper, exit_process
from jobmaster.worker.lease import Ending, Lease
from jobmaster.worker.newer import NewerData
from jobmaster.worker.ports import Handlers
from jobmaster.worker.scaling import MOST_SLOTS, Scale, read_scale
from jobmaster.worker.settlement import OnSettled, Settler
from jobmaster.worker.sharing import Sharing
from jobmaster.worker.slots import SlotPool, SuspectGate
from jobmaster.worker.starts import StartRecorder
from jobmaster.worker.vitals import resident_bytes

if TYPE_CHECKING:
    from jobmaster.settings import Limits, Timings, WorkerSettings

INTERRUPT_SECONDS = 5.0
"""How long interrupted handlers may take to end before the worker leaves them behind."""
FLUSH_SECONDS = 10.0
"""How long the last outcomes may wait for an answer of the store."""
HARD_SECONDS = 0.5
"""Both, once somebody insists."""

_PROCESS_GATE = SuspectGate()
_log = structlog.get_logger("jobmaster.worker")


def _nothing() -> None:
    return


class WorkerState(StrEnum):
    STARTING = "starting"
    RUNNING = "running"
    QUIET = "quiet"
    """It finishes what it has and claims nothing."""
    STOPPING = "stopping"
    STOPPED = "stopped"


class Worker:
    """One running executor, attached to one agent. All methods belong to the event loop that called `start`, except
    `wake` and `signalled`, which may be called from any thread."""

    def __init__(
        self,
        settings: "WorkerSettings",
        timings: "Timings",
        limits: "Limits",
        *,
        agent: AgentTransport,
        registry: Handlers,
        listeners: Listeners,
        clock: Clock,
        rng: random.Random,
        on_settled: OnSettled | None = None,
        on_stop: Callable[[], None] | None = None,
        on_change: Callable[[], None] | None = None,
        on_unresponsive: Callable[[], None] = exit_process,
        threaded: bool | None = None,
        version: str = "",
    ) -> None:
        """`on_settled` hears of outcomes the store accepted, `on_stop` of a stop asked for through a signal (unless
        given, the worker stops itself), `on_change` of anything else it did because of one. `threaded`: leases are kept
        on a thread; unless given, where time is real."""
        self.settings = settings
        self.host = socket.gethostname()
        self.name = settings.name or self.host
        self.id = f"{self.name}-{os.getpid()}-{rng.getrandbits(24):06x}"
        self.state = WorkerState.STARTING
        self._timings = timings
        self._listeners = listeners
        self._clock = clock
        self._handlers = registry.names
        self._version = version
        self._on_stop = on_stop
        self._on_change = on_change or _nothing
        self._scaled: Scale | None = None
        self._started_us = clock.wall_us()
        self._hard = asyncio.Event()
        self._stopped: asyncio.Future[None] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        real_time = isinstance(clock, SystemClock)
        self._keeper = LeaseKeeper(
            self.id,
            agent=agent.companion(),
            ttl=timings.lease_ttl,
            beat=timings.lease_beat,
            margin=timings.lease_margin,
            end=self._end,
            command=self._obey,
            clock=clock,
            rng=rng,
            threaded=real_time if threaded is None else threaded,
            on_unresponsive=on_unresponsive,
        )
        self._settler = Settler(
            agent=agent,
            keeper=self._keeper,
            listeners=listeners,
            host=self.host,
            on_settled=on_settled,
            on_relief=self.wake,
            clock=clock,
            rng=rng,
        )
        newer = NewerData(agent, registry.names, clock)
        self._executor = Executor(
            handlers=registry,
            settler=self._settler,
            starts=StartRecorder(agent, self._keeper, clock),
            newer=newer,
            listeners=listeners,
            store_time=StoreTime(clock, agent.store_now_us),
            clock=clock,
            rng=rng,
            result_bytes=limits.result_bytes,
            error_bytes=limits.error_bytes,
        )
        self._pools = self._make_pools()
        self._intake = Intake(
            self.id,
            self._pools,
            agent=agent,
            newer=newer,
            keeper=self._keeper,
            settler=self._settler,
            saturated=self._saturated,
            poll_seconds=timings.poll,
            clock=clock,
            rng=rng,
        )

    async def start(self) -> None:
        """Claims and runs jobs once this returns. May be called once."""
        assert self.state is WorkerState.STARTING, self.state
        self._loop = asyncio.get_running_loop()
        self._keeper.start()
        self._executor.start()
        self._intake.start()
        self.state = WorkerState.RUNNING
        _log.info("worker.started", worker=self.id, slots=self.slots, lanes=sorted(self.settings.lanes))

    async def stop(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - a step of the ladder has it, not the call
        """Running jobs may finish for `timeout` seconds (the setting `shutdown` unless given), then they are
        interrupted, which burns no attempt; jobs not started go back. A second call while one is under way stops hard:
        what runs is interrupted now. Returns when all is over; tolerates never-started, and again."""
        if self._stopped is not None:
            self._hard.set()
            await asyncio.shield(self._stopped)
            return
        self._stopped = asyncio.get_running_loop().create_future()
        seconds = self._timings.shutdown if timeout is None else timeout
        try:
            if self.state is not WorkerState.STARTING:
                self.state = WorkerState.STOPPING
                for step in self._LADDER:
                    await step(self, seconds)
        finally:
            self.state = WorkerState.STOPPED
            self._stopped.set_result(None)

    def quiet(self) -> None:
        """Claim nothing more; what is here is run. No effect on a stopping worker."""
        if self.state is WorkerState.RUNNING:
            self.state = WorkerState.QUIET
            self._intake.quiet()

    def resume(self) -> None:
        """Claim again after `quiet`."""
        if self.state is WorkerState.QUIET:
            self.state = WorkerState.RUNNING
            self._intake.resume()

    def wake(self) -> None:
        """There may be jobs: look now. From any thread."""
        loop = self._loop
        if loop is not None and self.state is WorkerState.RUNNING:
            try:
                loop.call_soon_threadsafe(self._intake.look)
            except RuntimeError:  # the loop is closed, and the worker with it
                return

    def signalled(self) -> None:
        """There are signals for this worker: read them now instead of at the next look. From any thread."""
        self._keeper.call()

    @property
    def slots(self) -> int:
        return sum(pool.slots for pool in self._pools)

    @property
    def busy(self) -> int:
        """Slots in use."""
        return len(self._executor.running)

    @property
    def held(self) -> int:
        """Leases it is answerable for: waiting, running, and not yet acknowledged as settled."""
        return self._keeper.held

    @property
    def abandoned(self) -> int:
        """Handlers that ignored the end of their run and are still at it, threads included."""
        return len(self._executor.abandoned)

    def card(self) -> WorkerCard:
        """What the heartbeat tells the agent and the master."""
        lag = self._keeper.loop_lag
        return WorkerCard(
            id=self.id,
            name=self.name,
            host=self.host,
            pid=os.getpid(),
            lanes=tuple(sorted(self.settings.lanes)),
            handlers=tuple(sorted(self._handlers)),
            slots=self.slots,
            busy=self.busy,
            state=str(self.state),
            version=self._version,
            started_us=self._started_us,
            loop_lag_us=None if lag is None else round(lag * 1e6),
            rss_bytes=resident_bytes(),
        )

    def _make_pools(self) -> list[SlotPool]:
        shared = tuple(sorted(lane for lane, own in self.settings.lanes.items() if own is None))
        shapes: list[tuple[tuple[str, ...], int]] = [(shared, self.settings.slots)] if shared else []
        shapes += [((lane,), own) for lane, own in sorted(self.settings.lanes.items()) if own is not None]
        return [
            SlotPool(
                lanes,
                slots,
                self.settings.prefetch,
                self._executor.run,
                self._freed,
                _PROCESS_GATE,
                self._sharing(lanes),
            )
            for lanes, slots in shapes
        ]

    def _sharing(self, lanes: tuple[str, ...]) -> Sharing | None:
        strict = self.settings.lane_order is LaneOrder.STRICT
        weights = {lane: weight for lane, weight in self.settings.weights.items() if lane in lanes}
        if len(lanes) == 1 or not (strict or weights):
            return None
        # In the order in which they were named, which a strict one goes by.
        return Sharing([lane for lane in self.settings.lanes if lane in lanes], weights, strict=strict)

    def _freed(self, pool: SlotPool) -> None:
        self._intake.wake_if_hungry(pool)

    def _end(self, lease: Lease, ending: Ending) -> None:
        self._executor.end(lease, ending)

    def scale(self, slots: int, lane: str | None = None) -> None:
        """Run that many jobs at a time: of `lane`, which has slots of its own, or of the lanes that share theirs. What
        runs beyond a smaller number ends as it would; what waits beyond it goes back. Raises `OptionInvalid`."""
        if isinstance(slots, bool) or not isinstance(slots, int) or not 1 <= slots <= MOST_SLOTS:
            raise OptionInvalid("slots", slots, f"a number from 1 to {MOST_SLOTS:,}; `quiet` for none")
        for pool in self._pools:
            own = len(pool.lanes) == 1 and self.settings.lanes[pool.lanes[0]] is not None
            if own == (lane is not None) and (lane is None or lane in pool.lanes):
                pool.slots = slots
                pool.fill()
                self._intake.look()
                _log.info("worker.scaled", worker=self.id, slots=slots, lane=lane)
                return
        known = ", ".join(sorted(name for name, own in self.settings.lanes.items() if own is not None)) or "none"
        raise OptionInvalid("lane", lane, f"one that has slots of its own here: {known}")

    def _obey(self, signal: Signal) -> None:
        match signal.kind:
            case SignalKind.SCALE:
                self._obey_scale(signal)
            case SignalKind.QUIET:
                self.quiet()
            case SignalKind.RESUME:
                self.resume()
            case SignalKind.STOP:
                self._told_to_stop()
            case SignalKind.CANCEL:
                return  # the keeper has asked the store about it already
            case _:
                assert_never(signal.kind)
        self._on_change()

    def _obey_scale(self, signal: Signal) -> None:
        wanted = read_scale(signal)
        if wanted is None or (self._scaled is not None and wanted < self._scaled):
            return
        self._scaled = wanted
        # A lane that this worker has no slots for is refused like one that does not exist.
        lane = next((lane for lane in self.settings.lanes if wanted.of(lane)), wanted.lane or None)
        try:
            self.scale(wanted.slots, lane)
        except OptionInvalid as error:
            _log.warning("worker.not_scaled", worker=self.id, problem=str(error))

    def _told_to_stop(self) -> None:
        if self._on_stop is not None:
            self._on_stop()
        elif self._loop is not None and self._stopping is None:
            self._stopping = self._loop.create_task(self.stop(), name="jobmaster:worker.stop")

    def _saturated(self, seconds: float) -> None:
        self._listeners.emit(JobEvent(kind=EventKind.SATURATED, worker=self.id, duration_seconds=seconds))

    async def _claim_no_more(self, seconds: float) -> None:
        await self._intake.stop()

    async def _return_unstarted(self, seconds: float) -> None:
        for pool in self._pools:
            for lease in pool.clear():
                self._settler.give_back(lease)
        self._settler.hurry()

    async def _let_finish(self, seconds: float) -> None:
        await self._within(seconds, self._executor.idle.wait(), hard_seconds=0.0)

    async def _interrupt(self, seconds: float) -> None:
        for lease in tuple(self._executor.running):
            self._executor.end(lease, Ending.STOPPING)
        await self._within(INTERRUPT_SECONDS, self._executor.idle.wait(), hard_seconds=HARD_SECONDS)
        left = self._executor.leave_behind()
        if left:
            _log.warning("worker.handlers_left_behind", handlers=left, then="their leases lapse")

    async def _flush(self, seconds: float) -> None:
        await self._within(FLUSH_SECONDS, self._settler.drain(), hard_seconds=HARD_SECONDS)

    async def _close(self, seconds: float) -> None:
        await self._settler.stop()
        await self._executor.stop()
        await self._keeper.stop()
        _log.info("worker.stopped", worker=self.id)

    _LADDER = (_claim_no_more, _return_unstarted, _let_finish, _interrupt, _flush, _close)

    async def _within(self, seconds: float, fact: Coroutine[Any, Any, object], *, hard_seconds: float) -> None:
        """Wait for it, no longer than that, and hardly at all once the stop is a hard one."""
        waiting = asyncio.ensure_future(fact)
        others = asyncio.ensure_future(self._clock.sleep(seconds)), asyncio.ensure_future(self._hard.wait())
        try:
            await asyncio.wait((waiting, *others), return_when=asyncio.FIRST_COMPLETED)
            if self._hard.is_set() and not waiting.done():
                await asyncio.wait((waiting,), timeout=hard_seconds)
        finally:
            for one in (waiting, *others):
                one.cancel()
            await asyncio.gather(waiting, *others, return_exceptions=True)
