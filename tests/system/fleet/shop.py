"""The application that the worker processes of these tests run: `tests.system.fleet.shop:cluster`.

Where its stores are comes from the environment: FLEET_MASTER, and FLEET_AGENTS as JSON, by name. What
a run did is appended to the file FLEET_LOG, as one line `what job-id pid`.
"""

import asyncio
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from jobmaster import Cluster, ClusterBuilder, JobContext, JobEvent, JobHandler, Retry


@dataclass
class Work:
    seconds: float = 0.0
    once: bool = False
    """Takes that time only in its first run."""


def note(what: str, job_id: str | None) -> None:
    """One line of at most a pipe's atomic size, so that processes do not tear each other's."""
    path = os.environ.get("FLEET_LOG")
    if path:
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{what} {job_id} {os.getpid()}\n")


def began_before(job_id: str) -> bool:
    path = Path(os.environ["FLEET_LOG"])
    return path.exists() and f"begins {job_id} " in path.read_text(encoding="utf-8")


class Pack(JobHandler[Work]):
    """Takes its time, gives way."""

    retry = Retry.never()

    async def execute(self, job: JobContext[Work]) -> int:
        again = job.data.once and began_before(job.id)
        note("begins", job.id)
        if job.data.seconds and not again:
            await asyncio.sleep(job.data.seconds)  # the handler's work
        note("ends", job.id)
        return os.getpid()


class Wait(JobHandler[dict[str, str]]):
    """Runs until there is a file at `until`."""

    retry = Retry.never()

    async def execute(self, job: JobContext[dict[str, str]]) -> int:
        note("begins", job.id)
        while not os.path.exists(job.data["until"]):  # noqa: ASYNC110, ASYNC240 - another process opens it
            await asyncio.sleep(0.05)  # the handler's work
        note("ends", job.id)
        return os.getpid()


class Stamp(JobHandler[Work]):
    """Takes its time and gives nothing else of its process a turn."""

    retry = Retry.never()

    async def execute(self, job: JobContext[Work]) -> int:
        note("begins", job.id)
        end = time.monotonic() + job.data.seconds
        while time.monotonic() < end:
            time.sleep(0.01)  # the handler's work  # noqa: ASYNC251
        note("ends", job.id)
        return os.getpid()


class Listen(JobHandler[Work]):
    """Runs until it is cancelled, and notes when that reached it: as a coroutine, in a thread, in its own process."""

    retry = Retry.never()

    async def execute(self, job: JobContext[Work]) -> None:
        note("begins", job.id)
        try:
            await asyncio.Event().wait()
        finally:
            note(f"heard@{time.time()}", job.id)


class ListenInThread(JobHandler[Work]):
    retry = Retry.never()

    def execute(self, job: JobContext[Work]) -> None:
        note("begins", job.id)
        while not job.cancelled:
            time.sleep(0.01)  # the handler's work
        note(f"heard@{time.time()}", job.id)


class ListenInProcess(JobHandler[Work]):
    process = True
    retry = Retry.never()

    def execute(self, job: JobContext[Work]) -> None:
        note("begins", job.id)
        try:
            while True:
                time.sleep(0.01)  # the handler's work
        finally:
            note(f"heard@{time.time()}", job.id)


HANDLERS = (Listen, ListenInThread, ListenInProcess)
"""Those that wait for a cancel."""


class Mail(JobHandler[Work]):
    """In a lane of its own."""

    lane = "mail"

    async def execute(self, job: JobContext[Work]) -> int:
        note("mails", job.id)
        return os.getpid()


def on_late_result(event: JobEvent) -> None:
    note("late", event.job_id)


def build() -> Cluster:
    config = ClusterBuilder("fleet").add_handlers(Pack, Wait, Stamp, Mail, *HANDLERS).on_late_result(on_late_result)
    config.use_master(os.environ["FLEET_MASTER"])
    for name, agent in json.loads(os.environ["FLEET_AGENTS"]).items():
        config.add_agent(name).use_agent(**agent)
    return config.build()


if "FLEET_MASTER" in os.environ:
    cluster = build()
