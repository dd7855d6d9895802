"""The other process of a test: has the handlers, runs one worker on the given SQLite file, and ends with its input."""

import asyncio
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from jobmaster import ClusterBuilder, JobContext, JobHandler, Retry


@dataclass
class Greeting:
    to: str
    times: int = 1


class Greet(JobHandler[Greeting]):
    lane = "greetings"

    async def execute(self, job: JobContext[Greeting]) -> dict[str, object]:
        return {"text": f"hello, {job.data.to}" * job.data.times}


class Stumble(JobHandler):
    retry = Retry.fixed(timedelta(milliseconds=1), max_attempts=2)

    async def execute(self, job: JobContext) -> None:
        raise LookupError("no such thing")


class Endless(JobHandler):
    async def execute(self, job: JobContext) -> None:
        job.progress(30, "under way")
        try:
            await asyncio.Event().wait()
        finally:
            Path(job.data["mark"]).touch()  # noqa: ASYNC240 - a moment, at the very end


async def main(url: str) -> None:
    config = ClusterBuilder("two-processes").add_handlers(Greet, Stumble, Endless).use_master(url)
    config.add_agent("file").use_agent(url)
    config.add_worker().agent("file").lanes("default", "greetings")
    async with config.build().run():
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
