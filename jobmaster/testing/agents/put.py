"""Putting: storing is idempotent by (id, epoch), and nothing late brings a job back."""

import pytest

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.values import Control, ControlKind, JobFilter, PutAnswer, Revoke, RevokeKind, SettleAnswer
from jobmaster.model.errors import Refused
from jobmaster.model.job import Job
from jobmaster.model.outcome import RunOutcome
from jobmaster.model.policy import Policy
from jobmaster.model.priority import Priority
from jobmaster.model.retry import Retry
from jobmaster.model.states import JobState
from jobmaster.testing.agents.cases import (
    HOUR_US,
    SHORT,
    SHORT_US,
    AgentCases,
    claim,
    claim_one,
    claimed_new,
    here,
    ids,
    make_job,
    new_job,
    put,
    put_new,
    records,
    release,
    settle,
)
from jobmaster.testing.agents.harness import AgentStore

KIB = 1_024

PAYLOADS = (
    b"null",
    b"true",
    b"0",
    b"-0.0",
    b"9007199254740993",
    b"-9223372036854775807",
    b"1e-7",
    b'""',
    b'"\\u0041\\/"',
    '"Straße, naïve, 日本語, 👩\u200d👩\u200d👧, e\u0301 é"'.encode(),
    b'"\\\\ \\" \\n \\t"',
    b'"%s %(x)s {0} :name ? $1 \'; drop table jobs;--"',
    b"[]",
    b"{}",
    b"[" * 30 + b"]" * 30,
    b'{"b":1,"a":2, "c" :\t[1 ,2]}',
    b'{"__proto__":1,"$ref":"x","":0}',
)


def everything(now_us: int) -> Job:
    """A job with no field left at its default that a put may carry."""
    return make_job(
        now_us,
        handler="shop.mailer",
        lane="mail",
        priority=Priority.CRITICAL,
        epoch=7,
        claim_seq=3,
        version=41,
        created_us=now_us - 5,
        original_due_us=now_us - 4,
        due_us=now_us - 3,
        expires_us=now_us + HOUR_US,
        first_started_us=now_us - 2,
        attempts=2,
        snoozes=5,
        interrupts=6,
        crash_count=1,
        suspect=True,
        schedule="nightly é",
        effects=True,
        worker="w0",
        progress=30,
        progress_note="half ✓",
        data=b'{"a":[1,2]}',
        policy=Policy(retry=Retry(max_attempts=9), at_most_once=False, timeout_us=1).encode(),
        labels=b'{"title":"T","tags":["x"],"metadata":{"k":1}}',
        error="ValueError: earlier",
    )


class PutCases(AgentCases):
    async def test_idempotent_by_job_id(self, agent: AgentTransport) -> None:
        job = await new_job(agent)

        assert await put(agent, job, job) == [PutAnswer.STORED, PutAnswer.DUPLICATE]
        stands = await here(agent, job.id)
        assert await put(agent, job) == [PutAnswer.DUPLICATE]
        claimed = await claim_one(agent)
        assert await put(agent, job) == [PutAnswer.DUPLICATE]

        assert stands.version == job.version
        assert await here(agent, job.id) == claimed
        assert await claim(agent) == []

    async def test_every_field_comes_back_as_it_was_put(self, agent: AgentTransport) -> None:
        job = everything(await agent.store_now_us())

        await put(agent, job)

        stands = await here(agent, job.id)
        for name in Job.__struct_fields__:
            expected = {"state": JobState.QUEUED, "agent": agent.name}.get(name, getattr(job, name))
            assert getattr(stands, name) == expected, name

    async def test_a_dispatching_job_is_queued_by_its_put(self, agent: AgentTransport) -> None:
        job = make_job(await agent.store_now_us(), state=JobState.DISPATCHING, agent=agent.name)

        assert await put(agent, job) == [PutAnswer.STORED]
        assert (await here(agent, job.id)).state is JobState.QUEUED

    async def test_higher_epoch_replaces_only_if_not_running(self, agent: AgentTransport) -> None:
        now_us = await agent.store_now_us()
        first = make_job(now_us)
        second = make_job(now_us, id=first.id, epoch=2, version=5, data=b'"new"')
        third = make_job(now_us, id=first.id, epoch=3, version=9)
        await put(agent, first)

        assert await put(agent, second) == [PutAnswer.STORED]
        leased = await claim_one(agent)
        assert (leased.epoch, leased.data, leased.version) == (2, b'"new"', 6)
        assert await put(agent, third) == [PutAnswer.CONFLICT]
        assert await here(agent, first.id) == leased
        await release(agent, leased)
        assert await put(agent, third) == [PutAnswer.STORED]
        assert ids(await claim(agent)) == [first.id]

    async def test_lower_epoch_ignored(self, agent: AgentTransport) -> None:
        now_us = await agent.store_now_us()
        job = make_job(now_us, epoch=3, data=b'"three"')
        await put(agent, job)

        assert await put(agent, make_job(now_us, id=job.id, epoch=2)) == [PutAnswer.STALE_EPOCH]
        assert (await here(agent, job.id)).data == b'"three"'

    @pytest.mark.parametrize("change", [{"data": b'"other"'}, {"handler": "other"}])
    async def test_same_key_different_payload_is_conflict(self, agent: AgentTransport, change: dict[str, str]) -> None:
        job = await new_job(agent)
        await put(agent, job)
        other = make_job(job.due_us, id=job.id, **change)

        assert await put(agent, other) == [PutAnswer.CONFLICT]
        await claim_one(agent)
        assert await put(agent, other) == [PutAnswer.CONFLICT]
        assert (await here(agent, job.id)).data == job.data

    async def test_conflict_within_one_batch(self, agent: AgentTransport) -> None:
        job = await new_job(agent)
        other = make_job(job.due_us, id=job.id, data=b'"other"')

        assert await put(agent, job, other) == [PutAnswer.STORED, PutAnswer.CONFLICT]
        assert (await here(agent, job.id)).data == job.data

    async def test_keys_differing_in_case_space_accent_are_distinct(self, agent: AgentTransport) -> None:
        now_us = await agent.store_now_us()
        keys = ["Nightly", "nightly", "nightly ", " nightly", "ñightly", "n\u0303ightly", "nightly_", "nightly%"]
        jobs = {key: make_job(now_us, schedule=key) for key in keys}
        await put(agent, *jobs.values())

        for key, job in jobs.items():
            page = await agent.peek(JobFilter(schedule=key), None, 10)
            assert ids(page.jobs) == [job.id], key

    async def test_ids_of_any_uuid_version_are_distinct_and_kept(self, agent: AgentTransport) -> None:
        now_us = await agent.store_now_us()
        names = [
            "00000000-0000-0000-0000-000000000000",
            "0190163d-8694-739b-aea5-966c26f8ad91",
            "9b2d1f8e-6c3a-4b5d-8e7f-0a1b2c3d4e5f",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
        ]

        assert await put(agent, *(make_job(now_us, id=name) for name in names)) == [PutAnswer.STORED] * 4
        assert sorted(ids(await claim(agent))) == names

    @pytest.mark.parametrize("size", [64 * KIB, 1_024 * KIB, 1_024 * KIB + 1], ids=["64KiB", "1MiB", "1MiB+1"])
    async def test_64_kib_1_mib_and_1_mib_plus_1(self, agent: AgentTransport, size: int) -> None:
        data = b'"' + b"x" * (size - 2) + b'"'

        try:
            await put_new(agent, data=data)
        except Refused:
            # A store with a limit of its own says so at once; the core's limit is far below.
            assert size > 64 * KIB
            assert await agent.inventory("", 10) == []
        else:
            assert (await claim_one(agent)).data == data

    async def test_portable_json_corpus_round_trips_byte_equal(self, agent: AgentTransport) -> None:
        now_us = await agent.store_now_us()
        jobs = [make_job(now_us, data=payload) for payload in PAYLOADS]
        await put(agent, *jobs)

        claimed = await claim(agent, len(jobs))

        assert [job.data for job in claimed] == list(PAYLOADS)
        for job in claimed:
            await settle(agent, job, result=job.data)
        assert [record.job.result for record in await records(agent) if record.job] == list(PAYLOADS)

    @pytest.mark.parametrize("ending", ["settled", "cancelled", "moved", "expired"])
    async def test_a_put_of_an_ended_job_resurrects_nothing(
        self, store: AgentStore, agent: AgentTransport, ending: str
    ) -> None:
        now_us = await agent.store_now_us()
        job = make_job(now_us, expires_us=now_us + 1_000 if ending == "expired" else None)
        await put(agent, job)
        if ending == "settled":
            await settle(agent, await claim_one(agent))
        elif ending == "expired":
            await store.advance(SHORT)
            await agent.promote(10)
        else:
            kind = RevokeKind.CANCEL if ending == "cancelled" else RevokeKind.MOVE
            await agent.revoke([Revoke(job.id, job.epoch, kind)])

        assert await put(agent, job) == [PutAnswer.TOMBSTONED]
        await agent.confirm([record.seq for record in await records(agent)])
        assert await put(agent, job) == [PutAnswer.TOMBSTONED]
        assert await claim(agent) == []
        again = make_job(now_us, id=job.id, epoch=job.epoch + 1, version=9)
        assert await put(agent, again) == [PutAnswer.STORED]
        assert (await claim_one(agent)).version == 10

    async def test_a_late_settle_does_not_touch_a_later_epoch(self, agent: AgentTransport) -> None:
        old = await claimed_new(agent)
        await agent.revoke([Revoke(old.id, old.epoch, RevokeKind.CANCEL)])
        await put(agent, make_job(old.due_us, id=old.id, epoch=2, version=9))
        new = await claim_one(agent)

        assert new.token > old.token
        assert await settle(agent, old) is SettleAnswer.STALE
        assert await here(agent, old.id) == new

    async def test_after_its_deadline_an_epoch_cannot_be_placed(self, agent: AgentTransport) -> None:
        job, known = await new_job(agent), await new_job(agent)
        await put(agent, known)
        past_us = await agent.store_now_us() - 1

        assert await agent.put([job, known], past_us) == [PutAnswer.STALE_PUT, PutAnswer.DUPLICATE]
        assert ids(await claim(agent)) == [known.id]

    async def test_a_draining_or_quarantined_store_refuses_new_jobs_whole(self, agent: AgentTransport) -> None:
        known, ended = await put_new(agent, 2)
        await agent.revoke([Revoke(ended.id, ended.epoch, RevokeKind.CANCEL)])
        new = await new_job(agent)

        for kind in (ControlKind.DRAIN, ControlKind.QUARANTINE):
            await agent.control(Control(kind))
            with pytest.raises(Refused, match=agent.name):
                await put(agent, known, new)
            assert await put(agent, known, ended) == [PutAnswer.DUPLICATE, PutAnswer.TOMBSTONED]
        await agent.control(Control(ControlKind.RESUME))

        assert [item.id for item in await agent.inventory("", 10)] == [known.id]

    async def test_a_paused_store_takes_new_jobs(self, agent: AgentTransport) -> None:
        await agent.control(Control(ControlKind.PAUSE))

        await put_new(agent)

    @pytest.mark.parametrize("size", [1, 500, 5_000])
    async def test_a_put_repeated_whole_changes_nothing(self, agent: AgentTransport, size: int) -> None:
        jobs = await put_new(agent, size)

        assert await put(agent, *jobs) == [PutAnswer.DUPLICATE] * size
        [stats] = await agent.stats()
        assert stats.ready == size

    async def test_an_empty_batch_is_nothing(self, agent: AgentTransport) -> None:
        assert await put(agent) == []
        assert await agent.settle([]) == []
        assert await agent.extend([], SHORT_US) == []
        assert await agent.release([]) == []
        assert await agent.revoke([]) == []
        assert await agent.amend([]) == []
        assert await agent.find([]) == []
        await agent.confirm([])
        await agent.signal([])

    async def test_a_retried_job_put_again_is_a_duplicate(self, agent: AgentTransport) -> None:
        job = await claimed_new(agent)
        await settle(agent, job, RunOutcome.RETRY_AT, after_us=HOUR_US)

        assert await put(agent, job) == [PutAnswer.DUPLICATE]
        assert (await here(agent, job.id)).attempts == 1
