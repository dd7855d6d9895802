"""Whatever a payload holds, it comes back byte for byte, and never passes for something else."""

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobmaster.contracts.values import PutAnswer
from jobmaster.model.ids import new_id
from jobmaster.model.job import Job
from jobmaster_agents.sqlite import SqliteAgent
from jobmaster_agents.sqlite.rows import unpack
from tests.unit.sqlite.child import HANDLERS, NEVER_US, TTL_US, make_job, open_agent

NASTY = (
    b"",
    b" ",
    b" {} ",
    b"null",
    b"\x00",
    b'{"a":"\x00"}',
    b"\xff\xfe",
    b"1,2",
    b'1],["evil","default",0,"send-welcome",1,1,1,1,1,1,4,null',
    b'"open',
    b"[1",
    b"{}]",
    b'{"n":1.0,"n":1e400,"u":"\\ud800"}',
    b"%s%d%n",
    "ß\u2028👩".encode(),
    b"x" * 200_000,
)

PAYLOADS = st.one_of(
    st.sampled_from(NASTY), st.binary(max_size=40), st.text("[]{},\"'0 \\", max_size=12).map(str.encode)
)
JOBS = st.lists(st.tuples(PAYLOADS, PAYLOADS, st.one_of(st.none(), PAYLOADS), st.integers(0, 3)), max_size=6)


async def there_and_back(agent: SqliteAgent, jobs: list[Job]) -> list[Job]:
    assert await agent.put(jobs, NEVER_US) == [PutAnswer.STORED] * len(jobs)
    return await agent.claim("w", {"default": 100}, HANDLERS, 100, TTL_US)


def claimed_form(job: Job) -> Job:
    return msgspec.structs.replace(
        job, state="running", agent="transport-1", worker="w", claim_seq=job.claim_seq + 1, version=job.version + 1
    )


@settings(max_examples=60, deadline=None)
@given(JOBS)
def test_every_payload_comes_back_as_it_was(payloads: list[tuple[bytes, bytes, bytes | None, int]]) -> None:
    jobs = [
        msgspec.structs.replace(make_job(), data=data, policy=policy, labels=labels, attempts=attempts)
        for data, policy, labels, attempts in payloads
    ]

    async def run(file: str) -> list[Job]:
        agent = open_agent(file)
        await agent.open()
        try:
            return await there_and_back(agent, jobs)
        finally:
            await agent.close()

    with TemporaryDirectory() as folder:
        found = asyncio.run(run(f"{folder}/jobs.db"))
    assert found == [claimed_form(job) for job in jobs]


@pytest.mark.asyncio
async def test_every_field_of_a_job_survives_put_and_claim(tmp_path: Path) -> None:
    agent = open_agent(f"{tmp_path}/jobs.db")
    await agent.open()
    now_us = await agent.store_now_us()
    job = Job(
        id=new_id(),
        handler="send-welcome",
        priority=0,
        epoch=3,
        claim_seq=4,
        version=9,
        created_us=1,
        original_due_us=2,
        due_us=3,
        expires_us=now_us + 10**12,
        first_started_us=4,
        attempts=1,
        snoozes=2,
        interrupts=3,
        crash_count=1,
        suspect=True,
        schedule='nightly "quoted" ☂',
        effects=True,
        worker="before",
        progress=7,
        progress_note="\\ \" ' ]",
        data=b"{}",
        policy=b'{"max_crashes":9}',
        labels=b'{"title":"t"}',
        error="Boom: \x1b ☃",
    )
    [found] = await there_and_back(agent, [job])
    assert found == claimed_form(job)
    # The slow way of reading says the same as the quick one.
    assert await agent.find([job.id]) == [found]
    await agent.close()


def test_an_array_that_does_not_add_up_is_not_believed() -> None:
    good = b'["id","default",2,"h",1,1,1,1,1,1,4,null]'
    assert unpack(b"[%s]" % good, "a", "w") is not None
    for bad in (b"[", b"[%s]" % good.replace(b"4,null", b"3,null"), b"[%s,1,,null,[]]" % good[:-1], b"[[]]"):
        assert unpack(bad, "a", "w") is None
