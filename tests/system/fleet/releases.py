"""Two releases of one application: the first knows people by one name, the second by two, and has a handler more.

`tests.system.fleet.releases:first` and `:second` are their clusters, with the stores of FLEET_MASTER and FLEET_AGENTS.
What ran is noted as in `shop`: `first` or `second` is the release of the code, followed by the id.
"""

import asyncio
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobmaster import Cluster, ClusterBuilder, JobContext, JobHandler
from tests.system.fleet.shop import note

WORK_SECONDS = 0.005


@dataclass
class OneName:
    name: str


@dataclass
class TwoNames:
    first: str
    last: str


class GreetFirst(JobHandler[OneName]):
    name = "greet"

    async def execute(self, job: JobContext[OneName]) -> str:
        await asyncio.sleep(WORK_SECONDS)  # the handler's work
        note("first", job.id)
        return job.data.name


class GreetSecond(JobHandler[TwoNames]):
    name = "greet"
    version = 2

    @classmethod
    def upcast(cls, data: Any, from_version: int) -> TwoNames:
        first, _, last = data["name"].partition(" ")
        return TwoNames(first, last)

    async def execute(self, job: JobContext[TwoNames]) -> str:
        await asyncio.sleep(WORK_SECONDS)  # the handler's work
        note("second", job.id)
        return f"{job.data.first} {job.data.last}"


class Farewell(JobHandler):
    """Only in the second release."""

    async def execute(self, job: JobContext[Mapping[str, Any]]) -> None:
        note("second", job.id)


def build(master: str, agents: Mapping[str, str], *handlers: type[JobHandler[Any]]) -> Cluster:
    config = ClusterBuilder("fleet").add_handlers(*handlers).use_master(master).log(level="warning")
    for name, url in agents.items():
        config.add_agent(name).use_agent(url)
    return config.build()


def _built(*handlers: type[JobHandler[Any]]) -> Cluster:
    agents = {name: agent["url"] for name, agent in json.loads(os.environ["FLEET_AGENTS"]).items()}
    return build(os.environ["FLEET_MASTER"], agents, *handlers)


def first() -> Cluster:
    return _built(GreetFirst)


def second() -> Cluster:
    return _built(GreetSecond, Farewell)
