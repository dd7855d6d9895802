"""Watching a store and reconciling it: on a master and agents in memory, where faults come when a test says so."""

from typing import Any

import pytest

from jobmaster.contracts.entries import AgentEntry, Placement
from jobmaster.contracts.values import Control, ControlKind, InventoryItem, ProbeReport, RebaseKind, StoreMode
from jobmaster.coordination.hints import Hints, hinting
from jobmaster.coordination.reconciler import Reconciler, decide
from jobmaster.coordination.sentry import Sentry
from jobmaster.model.errors import AgentUnreachable, MasterUnavailable, Refused
from jobmaster.model.job import Job
from jobmaster.model.states import JobState
from jobmaster_agents.memory.store import Store
from tests.unit.coordination.world import World, until_idle


def store_of(world: World) -> Store:
    """What the handles of agent `one` share."""
    store = world.switches["one"]._store._store
    assert isinstance(store, Store)
    return store


async def introduced(world: World) -> AgentEntry:
    report = await world.agent.probe()
    entry = AgentEntry(
        name="one",
        kind="memory",
        fingerprint="f",
        incarnation=report.incarnation,
        high_water=report.high_water,
    )
    await world.master.enter_agent(entry)
    return entry


async def ran(world: World, job: Job) -> None:
    """Put, run to its end, and known to the master."""
    await world.put(job)
    [claimed] = await world.claim()
    await world.agent.settle([world.settlement(claimed)])
    await until_idle(world.syncer().run)


async def mode(world: World) -> StoreMode:
    return (await world.agent.probe()).mode


def known(state: JobState, epoch: int, **fields: Any) -> Job:
    return Job(id="x", handler="work", created_us=1, original_due_us=1, due_us=1, state=state, epoch=epoch, **fields)


@pytest.mark.parametrize(
    ("job", "kind", "started"),
    [
        (None, RebaseKind.RAISE, False),
        (known(JobState.QUEUED, 2), RebaseKind.RAISE, False),
        (known(JobState.RUNNING, 2, first_started_us=5), RebaseKind.RAISE, True),
        (known(JobState.DISPATCHING, 2), RebaseKind.RAISE, False),
        (known(JobState.SUCCEEDED, 2), RebaseKind.REMOVE, False),
        (known(JobState.HELD, 2), RebaseKind.REMOVE, False),
        (known(JobState.QUEUED, 3), RebaseKind.REMOVE, False),
        # It ended, was run again by hand, and is here since: what ended is not what is here.
        (known(JobState.FAILED, 1), RebaseKind.RAISE, False),
    ],
)
def test_what_becomes_of_a_row(job: Job | None, kind: RebaseKind, started: bool) -> None:
    rebase = decide(InventoryItem("x", 2, 1), job)
    assert (rebase.epoch, rebase.kind, rebase.started) == (2, kind, started)


@pytest.mark.asyncio
async def test_a_fallen_mark_closes_the_store_and_reconciling_opens_it() -> None:
    async with World() as world:
        entry = await introduced(world)
        sentry, reconciler = Sentry(world.master, world.agent), Reconciler(world.master, world.agent)
        heard: list[str] = []
        opened: list[bool] = []
        sentry.on_quarantined, sentry.on_open = heard.append, lambda: opened.append(True)
        ended, waiting = world.job(), world.job(agent="one")
        await ran(world, ended)
        await sentry.run()
        [seen] = await world.master.agents()
        assert (seen.high_water, heard) == (1, [])
        await world.put(waiting)
        await world.master.copy("one", [waiting])

        # As from a backup: the ended job is back, the waiting one is not there yet.
        store = store_of(world)
        store.shelf.remove(store.shelf.rows[waiting.id])
        store.tombstones._stones.clear()
        await world.put(ended)
        store.outbox.high_water = 0
        await sentry.run()
        assert await mode(world) is StoreMode.QUARANTINED
        assert await world.claim() == []
        assert len(heard) == 1
        [entry_now] = await world.master.agents()
        assert entry_now.quarantined == heard[0]
        assert (await world.agent.probe()).high_water == 1
        await sentry.run()
        assert len(heard) == 1

        await reconciler.run()
        await sentry.run()
        assert opened == [True]
        report = await world.agent.probe()
        [entry_now] = await world.master.agents()
        assert report.mode is StoreMode.OPEN
        assert report.incarnation == entry_now.incarnation != entry.incarnation
        assert await world.claim() == []
        await until_idle(world.syncer().run)
        job = await world.known(waiting.id)
        assert job is not None
        assert (job.state, job.epoch) == (JobState.HELD, waiting.epoch)
        assert await world.known(ended.id) is not None
        await reconciler.run()
        assert (await world.agent.probe()).incarnation == report.incarnation


@pytest.mark.asyncio
@pytest.mark.parametrize("lost", ["renew_agent", "get", "on_agent"])
async def test_a_reconciliation_that_was_cut_short_is_repeated_by_anybody(lost: str) -> None:
    async with World() as world:
        await introduced(world)
        jobs = [world.job() for _ in range(3)]
        await world.put(*jobs)
        await world.agent.control(Control(ControlKind.QUARANTINE))
        world.master.lost = {lost}
        with pytest.raises(MasterUnavailable):
            await Reconciler(world.master, world.agent).run()
        assert await mode(world) is StoreMode.QUARANTINED

        await Reconciler(world.master, world.agent).run()

        report = await world.agent.probe()
        [entry] = await world.master.agents()
        assert (report.mode, report.incarnation) == (StoreMode.OPEN, entry.incarnation)
        assert sorted(job.id for job in await world.claim()) == sorted(job.id for job in jobs)


@pytest.mark.asyncio
async def test_an_adoption_whose_answer_was_lost_is_found_done() -> None:
    async with World() as world:
        await introduced(world)
        await world.agent.control(Control(ControlKind.QUARANTINE))
        world.switches["one"].lost = {"adopt"}
        with pytest.raises(AgentUnreachable):
            await Reconciler(world.master, world.agent).run()
        sentry = Sentry(world.master, world.agent)
        await sentry.run()
        [entry] = await world.master.agents()
        report = await world.agent.probe()
        assert (report.mode, report.incarnation) == (StoreMode.OPEN, entry.incarnation)


@pytest.mark.asyncio
async def test_a_row_that_the_master_holds_goes_and_one_it_never_heard_of_stays() -> None:
    async with World() as world:
        await introduced(world)
        held, only_here = world.held(), world.job()
        await world.hold(held)
        await world.put(world.job(id=held.id, epoch=held.epoch), only_here)
        await world.agent.control(Control(ControlKind.QUARANTINE))
        await Reconciler(world.master, world.agent).run()
        [left] = await world.agent.inventory("", 10)
        assert (left.id, left.epoch) == (only_here.id, only_here.epoch + 1)
        assert await world.known(held.id) == held


@pytest.mark.asyncio
async def test_a_job_on_its_way_is_barred_and_placed_again() -> None:
    async with World() as world:
        await introduced(world)
        item = Placement(world.job(agent="one", state=JobState.DISPATCHING), None, 0)
        await world.master.insert([item])
        await world.agent.control(Control(ControlKind.QUARANTINE))
        await Reconciler(world.master, world.agent).run()
        await until_idle(world.syncer().run)
        job = await world.known(item.job.id)
        assert job is not None
        assert job.state is JobState.HELD


@pytest.mark.asyncio
async def test_without_the_master_a_process_goes_by_what_it_saw_itself() -> None:
    async with World() as world:
        await introduced(world)
        sentry = Sentry(world.master, world.agent)
        world.master.away = True
        await ran_without_master(world)
        await sentry.run()
        assert await mode(world) is StoreMode.OPEN
        store_of(world).incarnation = "another"
        await sentry.run()
        assert await mode(world) is StoreMode.OPEN
        with pytest.raises(Refused, match="another"):
            await world.claim()
        world.master.away = False
        await sentry.run()
        assert await mode(world) is StoreMode.QUARANTINED
        world.master.away = True
        with pytest.raises(MasterUnavailable):
            await Reconciler(world.master, world.agent).run()
        assert await mode(world) is StoreMode.QUARANTINED


async def ran_without_master(world: World) -> None:
    await world.put(world.job())
    [claimed] = await world.claim()
    await world.agent.settle([world.settlement(claimed)])


@pytest.mark.asyncio
async def test_after_a_lost_connection_a_set_back_store_hands_out_nothing() -> None:
    async with World() as world:
        await introduced(world)
        sentry, hints = Sentry(world.master, world.agent), Hints()
        agent = hinting(world.agent, hints, world.clock)
        hints.recheck = sentry.recheck
        await ran_without_master(world)
        await sentry.run()
        await world.put(world.job())
        world.master.away = True

        world.switches["one"].away = True
        with pytest.raises(AgentUnreachable):
            await agent.claim("w1", {"default": 1}, frozenset({"work"}), 1, 1_000_000)
        store_of(world).outbox.high_water = 0
        world.switches["one"].away = False

        assert await agent.claim("w1", {"default": 1}, frozenset({"work"}), 1, 1_000_000) == []
        assert await mode(world) is StoreMode.QUARANTINED
        assert isinstance(await agent.probe(), ProbeReport)
