"""Lists and counts over the master and the agents, and schedules."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobmaster.client.listing import Listing
from jobmaster.contracts.values import JobFilter, Page
from jobmaster.enqueue import Enqueue
from jobmaster.model.errors import (
    AgentUnreachable,
    DataInvalid,
    JobMasterError,
    KeyInvalid,
    NameInvalid,
    OptionInvalid,
    ScheduleNotFound,
)
from jobmaster.model.ids import new_id
from jobmaster.model.job import Job
from jobmaster.model.states import JobState
from jobmaster.scheduler import Scheduler
from jobmaster.views import JobInfo, JobPage
from tests.badinputs import NAMES_TEXT
from tests.unit.scheduler.kit import Plain, SendWelcome, Welcome, opened

asynchronous = pytest.mark.asyncio


async def everything(scheduler: Scheduler, limit: int = 3, **where: Any) -> list[JobInfo]:
    jobs: list[JobInfo] = []
    cursor = None
    for _ in range(1_000):
        page = await scheduler.list(cursor=cursor, limit=limit, **where)
        assert len(page.jobs) <= limit
        jobs += page.jobs
        cursor = page.cursor
        if cursor is None:
            return jobs
    raise AssertionError("the list has no end")


@asynchronous
async def test_a_list_has_every_job_once_newest_first_wherever_it_is() -> None:
    async with opened(("a", "b")) as kit:
        scheduler = kit.scheduler()
        ids = []
        for n in range(40):
            handle = await scheduler.once_after(
                SendWelcome, timedelta(days=1 if n % 4 == 0 else 0), Welcome(str(n)), agent="ab"[n % 2]
            )
            ids.append(handle.id)
        for agent in ("a", "b"):
            for job in (await kit.claim(agent))[:6]:
                await kit.settle(job, agent=agent, result=b"1")
        await kit.sync()
        jobs = await everything(scheduler)
        assert [job.id for job in jobs] == sorted(ids, reverse=True)
        states = [job.state for job in jobs]
        assert {state: states.count(state) for state in set(states)} == {
            JobState.HELD: 10,
            JobState.SUCCEEDED: 12,
            JobState.RUNNING: 18,
        }
        only = await everything(scheduler, state=["succeeded", JobState.HELD])
        assert len(only) == 22
        assert len(await everything(scheduler, agent="a", state="running")) == sum(
            1 for job in jobs if job.agent == "a" and job.state is JobState.RUNNING
        )


@asynchronous
async def test_a_list_is_narrowed_by_what_jobs_carry() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        await scheduler.once_now(SendWelcome, Welcome("1"), tags=["x"], lane="mail")
        await scheduler.once_after(Plain, timedelta(days=1), tags=["x", "y"], metadata={"tenant": 7})
        kit.clock.advance(60)
        late = datetime.fromtimestamp(kit.clock.wall_us() / 1e6, UTC)
        await scheduler.once_now(Plain, metadata={"tenant": "7"})
        counts = {
            "tag x": len(await everything(scheduler, tag="x")),
            "tag y": len(await everything(scheduler, tag="y")),
            "lane": len(await everything(scheduler, lane="mail")),
            "class": len(await everything(scheduler, handler=Plain)),
            "name": len(await everything(scheduler, handler="send-welcome")),
            "tenant": len(await everything(scheduler, metadata={"tenant": 7})),
            "since": len(await everything(scheduler, since=late)),
            "all": len(await everything(scheduler)),
        }
        assert counts == {"tag x": 2, "tag y": 1, "lane": 1, "class": 2, "name": 1, "tenant": 1, "since": 1, "all": 3}


@asynchronous
async def test_the_masters_old_copy_of_a_job_is_shown_as_its_agent_has_it() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        handle = await scheduler.once_now(SendWelcome, Welcome("u"), durability="master")
        await kit.claim()
        assert [job.state for job in await everything(scheduler)] == [JobState.RUNNING]
        assert await everything(scheduler, state="queued") == []
        assert [job.id for job in await everything(scheduler, state="running")] == [handle.id]


@asynchronous
async def test_an_agent_that_does_not_answer_is_named_beside_what_is_known() -> None:
    async with opened(("a", "b")) as kit:
        scheduler = kit.scheduler()
        await scheduler.once_now(SendWelcome, Welcome("u"), agent="a")

        async def away(*_: Any) -> Any:
            raise AgentUnreachable("b", "away")

        kit.transports["b"].peek = kit.transports["b"].stats = away
        page = await scheduler.list()
        assert (len(page.jobs), page.unreachable, page.cursor) == (1, ("b",), None)
        counts = await scheduler.counts()
        assert (counts.total(JobState.QUEUED), counts.unreachable) == (1, ("b",))


@pytest.mark.parametrize("limit", [0, -1, 1_001, 10**9, True, "5", 1.0])
@asynchronous
async def test_a_limit_that_is_none_is_refused(limit: Any) -> None:
    async with opened() as kit:
        with pytest.raises(OptionInvalid, match="limit"):
            await kit.scheduler().list(limit=limit)


@pytest.mark.parametrize("cursor", ["", "x", "e30", "!!!", "A" * 50_000, 5, "eyJsYXN0Ijo1fQ", "\ud800"])
@asynchronous
async def test_a_foreign_cursor_is_refused(cursor: Any) -> None:
    async with opened() as kit:
        with pytest.raises(OptionInvalid, match="cursor"):
            await kit.scheduler().list(cursor=cursor)


@asynchronous
async def test_conditions_that_never_match_are_refused() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        with pytest.raises(OptionInvalid, match="state"):
            await scheduler.list(state="done")
        with pytest.raises(OptionInvalid, match="since"):
            await scheduler.list(since=datetime(2026, 1, 1))  # noqa: DTZ001 - naive on purpose
        with pytest.raises(DataInvalid):
            await scheduler.list(metadata=[1])  # type: ignore[arg-type]
        for text in NAMES_TEXT.values():
            for where in ("lane", "handler", "agent", "state", "cursor"):
                with pytest.raises(JobMasterError) as caught:
                    await scheduler.list(**{where: text})  # type: ignore[arg-type]
                assert len(str(caught.value)) < 1_500


class FakeSource:
    """A store that looks at a few rows per page, of which not all match: its pages are short or empty, and its cursors
    of its own kind."""

    def __init__(self, rows: list[str | None], look_at: int) -> None:
        self._rows = rows
        self._look_at = look_at

    async def page(self, where: JobFilter, cursor: str | None, limit: int) -> Page:
        start = 0 if cursor is None else int(cursor.removeprefix("at:"))
        end = start + min(limit, self._look_at)
        jobs = [job(job_id) for job_id in self._rows[start:end] if job_id is not None]
        return Page(jobs, f"at:{end}" if end < len(self._rows) else None)

    peek = page

    async def find(self, ids: list[str]) -> list[None]:
        return [None] * len(ids)


def job(job_id: str) -> Job:
    return Job(id=job_id, handler="h", state=JobState.HELD, created_us=0, original_due_us=0, due_us=0)


class FakeAgents:
    def __init__(self, sources: dict[str, FakeSource]) -> None:
        self._sources = sources

    def __iter__(self) -> Any:
        return iter(self._sources)

    def __getitem__(self, name: str) -> FakeSource:
        return self._sources[name]

    def __contains__(self, name: object) -> bool:
        return name in self._sources


@asynchronous
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    spread=st.lists(st.sets(st.integers(0, 2)), max_size=60),
    look_at=st.lists(st.integers(1, 4), min_size=3, max_size=3),
    limit=st.integers(1, 7),
)
async def test_whatever_pages_the_stores_give_the_list_is_whole_and_in_order(
    spread: list[set[int]], look_at: list[int], limit: int
) -> None:
    newest_first = sorted((new_id() for _ in spread), reverse=True)
    pairs = list(zip(newest_first, spread, strict=True))
    sources = [FakeSource([job_id if n in where else None for job_id, where in pairs], look_at[n]) for n in range(3)]
    ids = [job_id for job_id, where in pairs if where]
    agents: Any = FakeAgents({"a": sources[1], "b": sources[2]})
    master: Any = sources[0]
    listing = Listing(master, agents, reads=2)
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(5_000):
        page: JobPage = await listing.page(JobFilter(), cursor, limit)
        assert len(page.jobs) <= limit
        seen += [info.id for info in page.jobs]
        cursor = page.cursor
        if cursor is None:
            break
    assert seen == ids


@asynchronous
async def test_counts_take_the_agents_word_for_what_is_there() -> None:
    async with opened(("a", "b")) as kit:
        scheduler = kit.scheduler()
        await scheduler.many(Enqueue(SendWelcome, Welcome(str(n)), agent="ab"[n % 2]) for n in range(10))
        await scheduler.once_now(SendWelcome, Welcome("u"), agent="a", durability="master")
        await scheduler.once_after(Plain, timedelta(days=1))
        await scheduler.once_after(Plain, timedelta(minutes=1), agent="a")
        kit.clock.advance(30)
        first, second, *_ = await kit.claim("b")
        await kit.settle(first, agent="b")
        await kit.sync()
        counts = await scheduler.counts()
        assert {lane: dict(of.states) for lane, of in counts.lanes.items()} == {
            "default": {JobState.QUEUED: 6, JobState.RUNNING: 4, JobState.SUCCEEDED: 1},
            "plain": {JobState.HELD: 1, JobState.QUEUED: 1},
        }
        assert counts.lanes["default"].oldest_ready == timedelta(seconds=30)
        assert counts.lanes["plain"].oldest_ready is None
        assert second.id
        assert not counts.capped


@asynchronous
async def test_a_schedule_is_updated_in_place_and_keeps_its_rhythm() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        begun = datetime.fromtimestamp(kit.clock.wall_us() / 1e6, UTC)
        first = await scheduler.recurring(SendWelcome, timedelta(hours=1), Welcome("u"), key="Kéy:1", tags=["x"])
        assert (first.next_at, first.every, first.handler) == (
            begun + timedelta(hours=1),
            timedelta(hours=1),
            "send-welcome",
        )
        kit.clock.advance(1_000)
        same = await scheduler.recurring(SendWelcome, timedelta(hours=1), Welcome("v"), key="Kéy:1")
        assert (same.next_at, same.data["user_id"], same.tags) == (first.next_at, "v", ())
        edited = await scheduler.recurring(SendWelcome, timedelta(minutes=10), Welcome("v"), key="Kéy:1")
        assert edited.next_at == begun + timedelta(minutes=20)
        assert [schedule.key for schedule in await scheduler.schedules()] == ["Kéy:1"]
        assert (await scheduler.cancel_schedule("Kéy:1")).changed
        assert not (await scheduler.cancel_schedule("Kéy:1")).changed
        with pytest.raises(ScheduleNotFound):
            await scheduler.cancel_schedule("never")


@asynchronous
async def test_a_schedule_without_a_key_is_refused_saying_why() -> None:
    async with opened() as kit:
        with pytest.raises(KeyInvalid, match="second one"):
            await kit.scheduler().recurring(SendWelcome, timedelta(hours=1), Welcome("u"))


@pytest.mark.parametrize(
    "when", [timedelta(0), timedelta(milliseconds=999), timedelta(seconds=-5), timedelta.max, 60, "1 h", None]
)
@asynchronous
async def test_an_interval_that_is_none_is_refused(when: Any) -> None:
    async with opened() as kit:
        with pytest.raises(OptionInvalid, match="expected"):
            await kit.scheduler().recurring(SendWelcome, when, Welcome("u"), key="k")


@asynchronous
async def test_schedules_take_no_option_that_only_one_job_can_have() -> None:
    async with opened() as kit:
        with pytest.raises(OptionInvalid, match="id"):
            await kit.scheduler().recurring(SendWelcome, timedelta(hours=1), Welcome("u"), key="k", id=new_id())  # type: ignore[call-overload]
        with pytest.raises(NameInvalid):
            await kit.scheduler().recurring(SendWelcome, timedelta(hours=1), Welcome("u"), key="k", lane="No Lane")
