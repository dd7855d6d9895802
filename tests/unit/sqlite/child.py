"""Another process on the same file, for the tests: `python -m tests.unit.sqlite.child FILE VERB`.

Prints one line of JSON when the verb is done; with `hold`, `claim` and `lock` it then waits for its standard input to
close.
"""

import asyncio
import itertools
import json
import os
import socket
import sqlite3
import sys
import time

from jobmaster.contracts.values import Release, Settlement, WorkerCard
from jobmaster.model.ids import new_id
from jobmaster.model.job import Job
from jobmaster.model.outcome import RunOutcome
from jobmaster.sqlite.lock import FileLock
from jobmaster_agents.sqlite import SqliteAgent

TTL_US = 60_000_000
NEVER_US = 1 << 60
HANDLERS = frozenset({"send-welcome"})


def open_agent(file: str) -> SqliteAgent:
    return SqliteAgent(f"sqlite:///{file}", cluster="test", name="transport-1")


def make_job(due_in_us: int = 0) -> Job:
    now_us = time.time_ns() // 1_000
    due_us = now_us + due_in_us
    return Job(id=new_id(), handler="send-welcome", created_us=now_us, original_due_us=due_us, due_us=due_us)


def card(worker: str, pid: int) -> WorkerCard:
    return WorkerCard(
        id=worker,
        name="worker",
        host=socket.gethostname(),
        pid=pid,
        lanes=("default",),
        handlers=tuple(HANDLERS),
        slots=1,
        started_us=0,
    )


def success(job: Job) -> Settlement:
    return Settlement(
        id=job.id,
        token=job.token,
        outcome=RunOutcome.SUCCEEDED,
        attempt=1,
        worker="w",
        host="h",
        started_us=job.created_us,
        finished_us=job.created_us,
    )


async def main(file: str, verb: str) -> None:
    agent = open_agent(file)
    await agent.open()
    match verb:
        case "put":
            job = make_job()
            await agent.put([job], NEVER_US)
            tell([job.id])
        case "drain":
            tell("ready")
            done: list[str] = []
            while jobs := await agent.claim("drainer", {"default": 7}, HANDLERS, 7, TTL_US):
                await agent.settle([success(job) for job in jobs])
                done += [job.id for job in jobs]
            tell(done)
        case "claim":
            await agent.register(card("holder", os.getpid()))
            jobs = await agent.claim("holder", {"default": 1}, HANDLERS, 1, TTL_US)
            tell([job.id for job in jobs])
            sys.stdin.read()
        case "settle" | "release":
            [job] = await agent.claim("w", {"default": 1}, HANDLERS, 1, TTL_US)
            tell([job.id, job.token])
            await (agent.settle([success(job)]) if verb == "settle" else agent.release([Release(job.id, job.token)]))
        case _:
            raise ValueError(verb)
    await agent.close()


def tell(value: object) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    path, what = sys.argv[1:]
    if what == "hold":
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        tell("held")
        sys.stdin.read()
    elif what == "hog":
        # A writer that is never idle: it lets go of the lock for microseconds only.
        lock = FileLock(f"{path}.lock")
        parent = os.getppid()
        for number in itertools.count():
            if os.getppid() != parent:
                break
            lock.acquire(60.0)
            if number == 20:
                tell("hogging")
            deadline = time.monotonic() + 0.003
            while time.monotonic() < deadline:
                pass
            lock.release()
    elif what == "lock":
        FileLock(f"{path}.lock").acquire(5.0)
        tell("locked")
        sys.stdin.read()
    else:
        asyncio.run(main(path, what))
