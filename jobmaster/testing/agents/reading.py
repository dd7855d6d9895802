"""Questions: find, page, count. Cheap, complete, and harmless."""

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.values import Control, ControlKind, InventoryItem, JobFilter, LaneStats
from jobmaster.model.ids import new_id
from jobmaster.model.outcome import RunOutcome
from jobmaster.model.policy import Labels
from jobmaster.model.states import JobState
from jobmaster.testing.agents.cases import (
    HANDLERS,
    HOUR_US,
    LANE,
    AgentCases,
    claim,
    claim_one,
    claimed_new,
    found,
    here,
    ids,
    make_job,
    put,
    put_new,
    records,
    settle,
)

LAST_ID = "ffffffff-ffff-ffff-ffff-ffffffffffff"


class ReadingCases(AgentCases):
    async def test_find_gives_the_job_here_else_its_last_record(self, agent: AgentTransport) -> None:
        ended, retried = await put_new(agent, 2)
        first, second = await claim(agent, 2)
        await settle(agent, first)
        await settle(agent, second, RunOutcome.RETRY_AT)

        jobs = await agent.find([retried.id, new_id(), ended.id, retried.id])

        assert [job and job.state for job in jobs] == [JobState.QUEUED, None, JobState.SUCCEEDED, JobState.QUEUED]
        await agent.confirm([record.seq for record in await records(agent)])
        assert await found(agent, ended.id) is None
        assert (await here(agent, retried.id)).attempts == 1

    async def test_inventory_pages_in_id_order(self, agent: AgentTransport) -> None:
        jobs = sorted(await put_new(agent, 7, epoch=2, version=3), key=lambda job: job.id)
        await claim_one(agent)
        pages = []
        after = ""
        while page := await agent.inventory(after, 3):
            pages.append(page)
            after = page[-1].id

        assert [len(page) for page in pages] == [3, 3, 1]
        listed = [item for page in pages for item in page]
        assert [item.id for item in listed] == ids(jobs)
        assert sorted(item.version for item in listed) == [3] * 6 + [4]
        assert listed[-1] == InventoryItem(jobs[-1].id, 2, 3)

    async def test_jobs_pages_between_two_ids(self, agent: AgentTransport) -> None:
        jobs = await put_new(agent, 6)
        names = ids(jobs)
        leased = await claim(agent, 2)

        assert ids(await agent.jobs(names[0], names[4], 10)) == names[1:4]
        assert ids(await agent.jobs("", LAST_ID, 4)) == names[:4]
        assert await agent.jobs("", LAST_ID, 10, leased_only=True) == leased
        assert await agent.jobs(names[-1], LAST_ID, 10) == []

    async def test_peek_pages_from_the_newest_id(self, agent: AgentTransport) -> None:
        names = ids(await put_new(agent, 7))
        listed, cursor, pages = [], None, 0
        while True:
            page = await agent.peek(JobFilter(), cursor, 3)
            listed += ids(page.jobs)
            pages += 1
            cursor = page.cursor
            if cursor is None:
                break
            # What comes or goes between two pages moves nothing that stands behind the cursor.
            await put_new(agent)

        assert listed == names[::-1]
        assert pages == 3

    async def test_peek_filters(self, agent: AgentTransport) -> None:
        now_us = await agent.store_now_us()
        labels = Labels(tags=("red", "Blue"), metadata={"user": 7, "paid": True, "name": "Zoë"}).encode()
        plain = make_job(now_us, created_us=now_us - 1_000)
        labelled = make_job(now_us, labels=labels, lane="mail", handler="mailer")
        delayed = make_job(now_us, due_us=now_us + HOUR_US, schedule="nightly")
        await put(agent, plain, labelled, delayed)
        running = await claim_one(agent)
        cases = [
            (JobFilter(states=frozenset({JobState.RUNNING})), [running]),
            (JobFilter(states=frozenset({JobState.QUEUED})), [delayed, labelled]),
            (JobFilter(states=frozenset({JobState.SUCCEEDED})), []),
            (JobFilter(handler="mailer"), [labelled]),
            (JobFilter(lane="mail"), [labelled]),
            (JobFilter(lane="mai"), []),
            (JobFilter(agent=agent.name), [delayed, labelled, plain]),
            (JobFilter(agent="another"), []),
            (JobFilter(schedule="nightly"), [delayed]),
            (JobFilter(tag="red"), [labelled]),
            (JobFilter(tag="blue"), []),
            (JobFilter(tag="re"), []),
            (JobFilter(metadata={"user": 7, "name": "Zoë"}), [labelled]),
            (JobFilter(metadata={"user": "7"}), []),
            (JobFilter(metadata={"paid": 1}), []),
            (JobFilter(metadata={"missing": None}), []),
            (JobFilter(since_us=now_us), [delayed, labelled]),
            (JobFilter(lane="mail", handler="send-welcome"), []),
        ]

        for where, expected in cases:
            page = await agent.peek(where, None, 10)
            assert ids(page.jobs) == ids(expected), where
            assert page.cursor is None

    async def test_peek_pages_through_what_matches(self, agent: AgentTransport) -> None:
        wanted = []
        for _ in range(5):
            await put_new(agent, 2, lane="other")
            wanted += ids(await put_new(agent))
        where = JobFilter(lane=LANE)

        first = await agent.peek(where, None, 3)
        rest = await agent.peek(where, first.cursor, 3)

        assert ids(first.jobs) + ids(rest.jobs) == wanted[::-1]
        assert rest.cursor is None

    async def test_reading_changes_nothing(self, agent: AgentTransport) -> None:
        [job] = await put_new(agent)
        await agent.find([job.id])
        await agent.peek(JobFilter(), None, 10)
        await agent.jobs("", LAST_ID, 10)
        await agent.inventory("", 10)
        await agent.stats()
        await agent.probe()

        assert (await here(agent, job.id)).version == 1
        assert await records(agent) == []
        assert ids(await claim(agent)) == [job.id]

    async def test_stats_count_every_place(self, agent: AgentTransport) -> None:
        now_us = await agent.store_now_us()
        await claimed_new(agent)
        await put(
            agent,
            make_job(now_us, due_us=now_us - 5_000),
            make_job(now_us, due_us=now_us - 9_000, priority=4),
            make_job(now_us, due_us=now_us + HOUR_US),
            make_job(now_us, due_us=now_us - 70_000, handler="nobodys"),
            make_job(now_us, lane="other"),
        )
        await agent.park(HANDLERS, 10)

        stats = {lane.lane: lane for lane in await agent.stats()}

        parked, oldest_us = (1, now_us - 9_000) if agent.traits.parks else (0, now_us - 70_000)
        assert stats[LANE] == LaneStats(
            lane=LANE, ready=3 - parked, delayed=1, leased=1, parked=parked, oldest_ready_us=oldest_us
        )
        assert stats["other"] == LaneStats(lane="other", ready=1, oldest_ready_us=now_us)

    async def test_stats_follow_every_move(self, agent: AgentTransport) -> None:
        job = await claimed_new(agent)
        await settle(agent, job, RunOutcome.RETRY_AT, after_us=HOUR_US)
        [delayed] = await agent.stats()
        await agent.withdraw(None, 10)

        assert (delayed.ready, delayed.delayed, delayed.leased) == (0, 1, 0)
        assert delayed.oldest_ready_us is None
        assert [lane for lane in await agent.stats() if lane.delayed or lane.ready or lane.leased] == []

    async def test_a_paused_lane_shows_though_it_is_empty(self, agent: AgentTransport) -> None:
        await agent.control(Control(ControlKind.PAUSE_LANE, "quiet"))

        assert await agent.stats() == [LaneStats(lane="quiet", paused=True)]
