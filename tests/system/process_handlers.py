"""Handlers that run in processes of their own."""

import asyncio
import ctypes
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobmaster import JobContext, JobHandler, Reject, Retry, Snooze, job
from jobmaster.model.errors import RetryAfter


@dataclass
class Note:
    file: str = ""
    text: str = ""


def note(path: str, text: str) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"{text} {os.getpid()} {time.time()}\n")


class SoldOutError(LookupError):
    pass


class Tell(JobHandler[Note]):
    process = True

    def execute(self, job: JobContext[Note]) -> dict[str, Any]:
        job.progress(40, "half of it")
        job.log.info("at work", text=job.data.text)
        assert job.lease_valid
        return {"pid": os.getpid(), "text": job.data.text, "attempt": job.attempt, "id": job.id}


class Ask(JobHandler[Note]):
    """The same, as a coroutine."""

    process = True

    async def execute(self, job: JobContext[Note]) -> int:
        await asyncio.sleep(0)
        return os.getpid()


@job(process=True, retry=Retry.never())
def multiply(number: int, by: int = 2) -> int:
    return number * by


class Spin(JobHandler[Note]):
    """Holds the interpreter, and says when it was told to end."""

    process = True
    retry = Retry.never()

    def execute(self, job: JobContext[Note]) -> None:
        note(job.data.file, "begins")
        try:
            while True:
                pass
        finally:
            note(job.data.file, f"ends {job.cancelled}")


class Deaf(JobHandler[Note]):
    """In a call that nothing but a kill ends, with a child of its own."""

    process = True
    grace = 1.0
    retry = Retry.never()

    def execute(self, job: JobContext[Note]) -> None:
        with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as child:  # the handler's work
            note(job.data.file, f"child-{child.pid}")
            note(job.data.file, "begins")
            while True:
                # Interrupted system calls are begun again: the interpreter never gets to see the signal.
                ctypes.PyDLL(None).sleep(600)  # the handler's work


class Wait(JobHandler[Note]):
    process = True
    retry = Retry.never()

    async def execute(self, job: JobContext[Note]) -> None:
        note(job.data.file, "begins")
        try:
            await asyncio.Event().wait()
        finally:
            note(job.data.file, f"ends {job.cancelled}")


class End(JobHandler[Note]):
    """Ends in the way that its data say."""

    process = True
    retry = Retry.fixed(0.01, max_attempts=2, never_on=[SoldOutError])

    def execute(self, job: JobContext[Note]) -> object:
        match job.data.text:
            case "value":
                raise ValueError("no such number")
            case "sold":
                raise SoldOutError("the last one")
            case "reject":
                raise Reject("never")
            case "snooze" if not Path(job.data.file).exists():
                note(job.data.file, "snoozed")
                raise Snooze(0.01)
            case "after" if job.attempt == 1:
                raise RetryAfter(0.01)
            case "exit":
                os._exit(3)
            case "kill":
                os.kill(os.getpid(), 9)
            case "thing":
                return object()
            case "system":
                raise SystemExit(4)
        return job.data.text
