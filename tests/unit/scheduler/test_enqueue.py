"""Enqueueing: what is stored where, and what is refused."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from jobmaster.client.drafting import Route
from jobmaster.contracts.values import PutAnswer
from jobmaster.enqueue import Enqueue
from jobmaster.listeners import EventKind, JobEvent, Listeners
from jobmaster.model.errors import (
    DataInvalid,
    HandlerUnknown,
    JobConflict,
    JobMasterError,
    NameInvalid,
    OptionInvalid,
)
from jobmaster.model.job import Job
from jobmaster.model.policy import decode_policy
from jobmaster.model.priority import Priority
from jobmaster.model.retry import Retry
from jobmaster.model.states import JobState
from jobmaster.settings import WorkerSettings
from tests.badinputs import NAMES_TEXT
from tests.unit.scheduler.kit import Kit, Mailer, Plain, SendWelcome, Unregistered, Welcome, opened

pytestmark = pytest.mark.asyncio
OWN_ID = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"


async def stored(kit: Kit, job_id: str, agent: str = "a") -> Any:
    (job,) = await kit.transports[agent].find([job_id])
    return job


async def fault_of(enqueue: Awaitable[object]) -> JobMasterError | None:
    try:
        await enqueue
    except JobMasterError as error:
        return error
    return None


async def test_a_job_that_is_due_now_is_ready_on_its_agent_and_nowhere_else() -> None:
    async with opened() as kit:
        handle = await kit.scheduler().once_now(SendWelcome, Welcome("u"))
        job = await stored(kit, handle.id)
        assert (job.state, job.handler, job.lane, job.agent) == (JobState.QUEUED, "send-welcome", "default", "a")
        assert msgspec.json.decode(job.data) == {"user_id": "u", "copies": 1}
        assert handle.agent == "a"
        assert [claimed.id for claimed in await kit.claim()] == [handle.id]
        assert await kit.master.get([handle.id]) == [None]


async def test_a_job_of_soon_is_delayed_on_its_agent() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        handle = await scheduler.once_after(SendWelcome, timedelta(minutes=9), Welcome("u"))
        at = await scheduler.once_at(
            SendWelcome, datetime.fromtimestamp(kit.clock.wall_us() / 1e6 + 60, UTC), {"user_id": "u"}
        )
        assert (await stored(kit, handle.id)).due_us == kit.clock.wall_us() + 540_000_000
        assert (await stored(kit, at.id)).due_us == kit.clock.wall_us() + 60_000_000
        assert await kit.claim() == []


async def test_a_job_of_later_is_held_on_the_master_and_the_duties_are_woken() -> None:
    async with opened() as kit:
        handle = await kit.scheduler().once_after(SendWelcome, timedelta(hours=1), Welcome("u"))
        (job,) = await kit.master.get([handle.id])
        assert (job.state, job.epoch, job.due_us) == (JobState.HELD, 0, kit.clock.wall_us() + 3_600_000_000)
        assert await stored(kit, handle.id) is None
        assert handle.agent is None
        assert kit.woken == 1


@pytest.mark.parametrize(
    "when",
    [
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))),
        datetime(1969, 12, 31, tzinfo=UTC),
        datetime(2020, 1, 1, tzinfo=timezone(timedelta(hours=-12))),
    ],
)
async def test_the_past_means_now(when: datetime) -> None:
    async with opened() as kit:
        handle = await kit.scheduler().once_at(SendWelcome, when, Welcome("u"))
        job = await stored(kit, handle.id)
        assert job.due_us == job.original_due_us == kit.clock.wall_us()
        assert len(await kit.claim()) == 1


@pytest.mark.parametrize(
    "when", [datetime.max.replace(tzinfo=UTC), datetime.max.replace(tzinfo=timezone(timedelta(hours=-12)))]
)
async def test_the_end_of_time_is_a_time_and_can_be_cancelled(when: datetime) -> None:
    async with opened() as kit:
        handle = await kit.scheduler().once_at(SendWelcome, when, Welcome("u"))
        assert (await handle.refresh()).due_at == datetime.max.replace(tzinfo=UTC)
        assert (await handle.cancel()).cancelled


@pytest.mark.parametrize("when", [datetime(2030, 1, 1), "2030-01-01", None, 1.5])  # noqa: DTZ001 - naive on purpose
async def test_a_time_that_is_no_instant_is_refused_saying_how(when: Any) -> None:
    async with opened() as kit:
        with pytest.raises(OptionInvalid, match="time zone"):
            await kit.scheduler().once_at(SendWelcome, when, Welcome("u"))


@pytest.mark.parametrize("delay", [5, 5.0, "5 min", timedelta(seconds=-1), timedelta.max, None])
async def test_a_delay_that_is_none_is_refused(delay: Any) -> None:
    async with opened() as kit:
        with pytest.raises(OptionInvalid, match=r"timedelta|before the year"):
            await kit.scheduler().once_after(SendWelcome, delay, Welcome("u"))


async def test_options_reach_the_job() -> None:
    async with opened() as kit:
        expires = datetime.fromtimestamp(kit.clock.wall_us() / 1e6 + 60, UTC)
        handle = await kit.scheduler().once_now(
            SendWelcome,
            Welcome("u"),
            priority="high",
            lane="mail",
            agent="a",
            timeout=2.5,
            retry=Retry.fixed(1, max_attempts=7),
            title="hello",
            tags=["x", "y"],
            metadata={"tenant": 7},
            id=OWN_ID.upper(),
            expires_at=expires,
        )
        info = await handle.refresh()
        policy = decode_policy((await stored(kit, OWN_ID)).policy)
        assert (info.id, info.priority, info.lane) == (OWN_ID, Priority.HIGH, "mail")
        assert (policy.timeout_us, policy.retry.max_attempts) == (2_500_000, 7)
        assert (info.title, info.tags, info.metadata) == ("hello", ("x", "y"), {"tenant": 7})
        assert info.expires_at == expires


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("priority", "urgent"),
        ("priority", 1),
        ("priority", True),
        ("priority", 2**31),
        ("priority", -(2**31)),
        ("priority", []),
        ("timeout", 0),
        ("timeout", -1),
        ("timeout", float("nan")),
        ("timeout", float("inf")),
        ("timeout", 10**400),
        ("timeout", 1e12),
        ("timeout", True),
        ("timeout", "5"),
        ("timeout", timedelta(0)),
        ("timeout", timedelta.max),
        ("retry", 3),
        ("retry", []),
        ("tags", "one"),
        ("tags", ""),
        ("tags", 0),
        ("tags", ["x"] * 3 + [str(n) for n in range(10)]),
        ("expires_at", datetime(2030, 1, 1)),  # noqa: DTZ001 - naive on purpose
        ("expires_at", datetime(2000, 1, 1, tzinfo=UTC)),
        ("expires_at", "tomorrow"),
        ("durability", "both"),
        ("durability", []),
        ("agent", "b"),
        ("lnae", "mail"),
        ("max_attempts", 10**9),
        ("state", "succeeded"),
    ],
)
async def test_an_option_without_a_meaning_is_refused_by_name(option: str, value: Any) -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        # Good ones first, so that nothing cached lets a bad one pass.
        await scheduler.once_now(SendWelcome, Welcome("u"), priority=Priority.HIGH)
        await scheduler.once_now(SendWelcome, Welcome("u"), timeout=1)
        with pytest.raises(OptionInvalid) as caught:
            await scheduler.once_now(SendWelcome, Welcome("u"), **{option: value})
        assert option in str(caught.value)
        assert len(str(caught.value)) < 1_000
        assert len(await kit.claim()) == 2


async def test_an_option_of_a_schedule_only_or_a_misspelt_one_is_named_with_the_nearest() -> None:
    async with opened() as kit:
        with pytest.raises(OptionInvalid, match="'lane'"):
            await kit.scheduler().once_now(SendWelcome, Welcome("u"), lnae="x")  # type: ignore[call-overload]


@pytest.mark.parametrize("text", NAMES_TEXT.values(), ids=NAMES_TEXT.keys())
async def test_hostile_text_is_refused_shortly_or_given_back_intact(text: str) -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        for option in ("lane", "agent", "id", "priority"):
            with pytest.raises((NameInvalid, OptionInvalid)) as caught:
                await scheduler.once_now(SendWelcome, Welcome("u"), **{option: text})  # type: ignore[call-overload]
            assert len(str(caught.value)) < 1_500
        with pytest.raises(NameInvalid) as caught:
            await scheduler.once_now(text)
        assert len(str(caught.value)) < 1_500
        labels: list[Any] = [{"title": text}, {"tags": [text]}, {"metadata": {text: text}}]
        for label in labels:
            own_id = str(uuid4())
            fault = await fault_of(scheduler.once_now(SendWelcome, Welcome("u"), id=own_id, **label))
            if fault is not None:
                assert len(str(fault)) < 1_500
                continue
            info = await scheduler.get(own_id)
            # An empty title is none.
            assert label in ({"title": info.title or ""}, {"tags": [*info.tags]}, {"metadata": info.metadata})


async def test_a_wrong_mapping_is_refused_with_the_path_of_the_field() -> None:
    async with opened() as kit:
        with pytest.raises(DataInvalid, match=r"\$\.copies"):
            await kit.scheduler().once_now(SendWelcome, {"user_id": "u", "copies": "two"})
        with pytest.raises(DataInvalid, match="user_id"):
            await kit.scheduler().once_now(SendWelcome, {})
        assert await kit.claim() == []


async def test_data_beyond_the_limit_are_refused() -> None:
    async with opened() as kit:
        with pytest.raises(DataInvalid):
            await kit.scheduler().once_now(Plain, {"x": "y" * 140_000})


async def test_an_unregistered_class_is_refused_with_the_line_to_add() -> None:
    async with opened() as kit:
        with pytest.raises(HandlerUnknown, match=r"add_handlers\(Unregistered\)"):
            await kit.scheduler().once_now(Unregistered, Welcome("u"))


async def test_a_call_is_checked_against_the_signature() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        handle = await scheduler.call(Mailer.send, to="a@example.org")
        assert (await handle.refresh()).handler == "mailer.send"
        assert (await handle.refresh()).data["to"] == "a@example.org"
        with pytest.raises(DataInvalid):
            await scheduler.call(Mailer.send, too="a@example.org")


async def test_the_same_id_again_changes_nothing_and_other_content_is_a_conflict() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        first = await scheduler.once_now(SendWelcome, Welcome("u"), id=OWN_ID)
        again = await scheduler.once_now(SendWelcome, Welcome("u"), id=UUID(OWN_ID))
        assert first == again
        with pytest.raises(JobConflict, match=OWN_ID):
            await scheduler.once_now(SendWelcome, Welcome("v"), id=OWN_ID)
        assert len(await kit.claim()) == 1


async def test_an_own_id_needs_something_that_binds_it_to_one_place() -> None:
    lanes = WorkerSettings(agent="b", lanes={"mail": None})
    async with opened(("a", "b"), [lanes, WorkerSettings(agent="a"), WorkerSettings(agent="b")]) as kit:
        scheduler = kit.scheduler()
        with pytest.raises(OptionInvalid, match="durability='master'"):
            await scheduler.once_now(SendWelcome, Welcome("u"), id=OWN_ID)
        bound = await scheduler.once_now(SendWelcome, Welcome("u"), id=OWN_ID, agent="a")
        lane = await scheduler.once_now(SendWelcome, Welcome("u"), id=OWN_ID[:-1] + "0", lane="mail")
        master = await scheduler.once_now(SendWelcome, Welcome("u"), id=OWN_ID[:-1] + "1", durability="master")
        assert (bound.agent, lane.agent) == ("a", "b")
        assert master.agent in ("a", "b")


async def test_a_durable_job_is_on_the_master_and_on_its_agent_and_its_hand_off_is_complete() -> None:
    async with opened() as kit:
        handle = await kit.scheduler().once_now(SendWelcome, Welcome("u"), durability="master")
        (on_master,) = await kit.master.get([handle.id])
        on_agent = await stored(kit, handle.id)
        assert (on_master.state, on_agent.state) == (JobState.QUEUED, JobState.QUEUED)
        assert (on_master.epoch, on_master.version) == (on_agent.epoch, on_agent.version) == (1, 1)


async def test_a_handler_known_by_name_only_takes_the_definition_of_the_master() -> None:
    async with opened() as kit:
        entry = kit.registry.resolve(SendWelcome).definition()
        await kit.master.define([msgspec.structs.replace(entry, name="elsewhere", lane="far", priority=0)])
        scheduler = kit.scheduler()
        info = await (await scheduler.once_now("elsewhere", {"user_id": "u"})).refresh()
        assert (info.handler, info.lane, info.priority) == ("elsewhere", "far", Priority.CRITICAL)
        with pytest.raises(DataInvalid):
            await scheduler.once_now("elsewhere", {"user": "u"})


async def test_a_name_nobody_knows_is_taken_with_portable_data_only() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        info = await (await scheduler.once_now("nobody.knows", {"x": [1, None]})).refresh()
        assert (info.handler, info.data) == ("nobody.knows", {"x": [1, None]})
        with pytest.raises(DataInvalid):
            await scheduler.once_now("nobody.knows", {"x": float("nan")})


async def test_many_are_stored_in_chunks_and_handles_come_in_order() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        handles = await scheduler.many(
            Enqueue(SendWelcome, Welcome(str(n)), tags=["odd"] if n % 2 else None, lane=None if n % 3 else "third")
            for n in range(5_001)
        )
        assert len(handles) == 5_001
        assert [(await handles[n].refresh()).data["user_id"] for n in (0, 1, 2, 4_999, -1)] == [
            "0",
            "1",
            "2",
            "4999",
            "5000",
        ]
        assert len(set(handles.ids)) == 5_001
        assert [handle.agent for handle in handles[:2]] == ["a", "a"]


async def test_many_takes_an_async_source_and_each_item_its_own_time() -> None:
    async with opened() as kit:

        async def items() -> AsyncIterator[Enqueue]:
            yield Enqueue(SendWelcome, Welcome("now"))
            yield Enqueue(SendWelcome, Welcome("soon"), when=timedelta(seconds=5))
            yield Enqueue(SendWelcome, Welcome("later"), when=timedelta(minutes=11))

        now, soon, later = await kit.scheduler().many(items())
        assert [job.id for job in await kit.claim()] == [now.id]
        assert (await soon.refresh()).state is JobState.QUEUED
        assert (await later.refresh()).state is JobState.HELD


async def test_each_item_of_many_has_its_own_handler_and_options() -> None:
    async with opened() as kit:
        handles = await kit.scheduler().many(
            [
                Enqueue(SendWelcome, Welcome("u"), lane="mail", priority="low"),
                Enqueue(SendWelcome, Welcome("u")),
                Enqueue(Plain),
                Enqueue(Mailer.send, {"to": "you"}),
                Enqueue(SendWelcome, Welcome("u"), lane="mail"),
            ]
        )
        infos = [await handle.refresh() for handle in handles]
        assert [(info.handler, info.lane, info.priority) for info in infos] == [
            ("send-welcome", "mail", Priority.LOW),
            ("send-welcome", "default", Priority.MEDIUM),
            ("plain", "plain", Priority.MEDIUM),
            ("mailer.send", "default", Priority.MEDIUM),
            ("send-welcome", "mail", Priority.MEDIUM),
        ]


@pytest.mark.parametrize("ahead", [True, False])
async def test_a_bulk_is_drafted_while_the_chunk_before_is_written(
    monkeypatch: pytest.MonkeyPatch, ahead: bool
) -> None:
    monkeypatch.setattr("jobmaster.client.writing.CHUNK", 2)
    done: list[str] = []

    def items() -> Iterator[Enqueue]:
        for number in range(6):
            done.append(f"item {number}")
            yield Enqueue(SendWelcome, Welcome("u"))

    async with opened() as kit:
        writing = kit.scheduler()._writing

        async def write(route: Route, jobs: Sequence[Job], now_us: int) -> dict[str, str]:
            for _ in range(20):
                await asyncio.sleep(0)
            done.append(f"{len(jobs)} written")
            return dict.fromkeys((job.id for job in jobs), "transport-1")

        if ahead:
            monkeypatch.setattr(writing, "_write", write)
        else:
            writing = writing.by_way_of(write)
        assert [len(ids) async for ids, _ in writing.many(items())] == [2, 2, 2]
    assert done.index("2 written") == (4 if ahead else 2)
    assert done.count("2 written") == 3


async def test_a_bad_item_of_many_says_how_many_before_it_are_stored() -> None:
    async with opened() as kit:
        bad = [*(Enqueue(SendWelcome, Welcome("u")) for _ in range(4_500)), Enqueue(SendWelcome, {"no": 1})]
        with pytest.raises(DataInvalid) as caught:
            await kit.scheduler().many(bad)
        assert "4,000 items before it are stored" in "".join(caught.value.__notes__)
        with pytest.raises(OptionInvalid, match="Enqueue"):
            await kit.scheduler().many([SendWelcome])  # type: ignore[list-item]


async def test_no_agent_at_all_is_said_plainly() -> None:
    async with opened(()) as kit:
        with pytest.raises(JobMasterError, match="add_agent"):
            await kit.scheduler().once_now(SendWelcome, Welcome("u"))


async def test_a_bulk_holds_one_chunk_and_the_ids_but_never_all_jobs() -> None:
    async with opened() as kit:

        async def forget(jobs: Sequence[Job], put_deadline_us: int) -> list[PutAnswer]:
            return [PutAnswer.STORED] * len(jobs)

        kit.transports["a"].put = forget
        scheduler = kit.scheduler()
        await scheduler.once_now(SendWelcome, Welcome("u"))
        tracemalloc.start()
        try:
            handles = await scheduler.many(Enqueue(SendWelcome, Welcome(str(n))) for n in range(20_000))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert len(handles) == 20_000
        # A fifth of what a hundred thousand may take, 40 MB.
        assert peak < 8_000_000


async def test_listeners_hear_of_jobs_once_they_are_stored_and_of_cancels() -> None:
    async with opened() as kit:
        events: list[JobEvent] = []
        kit.listeners = Listeners({kind: [events.append] for kind in (EventKind.ENQUEUED, EventKind.CANCELLED)})
        kit.listeners.start()
        scheduler = kit.scheduler()
        with pytest.raises(DataInvalid):
            await scheduler.once_now(SendWelcome, {})
        now = await scheduler.once_now(SendWelcome, Welcome("u"))
        held = await scheduler.once_after(Plain, timedelta(days=1))
        await now.cancel()
        await now.cancel()
        await kit.listeners.stop()
        assert [(event.kind, event.job_id, event.handler, event.lane, event.agent) for event in events] == [
            (EventKind.ENQUEUED, now.id, "send-welcome", "default", "a"),
            (EventKind.ENQUEUED, held.id, "plain", "plain", None),
            (EventKind.CANCELLED, now.id, "send-welcome", "default", "a"),
        ]
