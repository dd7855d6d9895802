"""An application for the command to work on: `tests.surface.shop:cluster` with its file in the current folder."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from jobmaster import ClusterBuilder, JobContext, JobHandler, Reject, Scheduler
from jobmaster.cluster import Cluster
from jobmaster.enqueue import Enqueue

T = TypeVar("T")

HOSTILE = "\x1b[2J\x1b]0;owned\x07[bold]\u202egnp.exe[/] :smile: \\"
"""Clears a terminal, renames it, is markup, runs backwards, and ends in the sign that escapes."""


@dataclass
class Order:
    number: int
    text: str = ""


class Ship(JobHandler[Order]):
    async def execute(self, job: JobContext[Order]) -> str:
        job.log.info("packing", text=job.data.text)
        return f"shipped {job.data.number}"


class Lose(JobHandler[Order]):
    """Fails at once, for good."""

    async def execute(self, job: JobContext[Order]) -> None:
        raise Reject(f"order {job.data.number} is lost {job.data.text}")


class Wait(JobHandler[Order]):
    """Runs until it is stopped."""

    lane = "slow"

    async def execute(self, job: JobContext[Order]) -> None:
        print(f"waiting with order {job.data.number}", flush=True)
        await asyncio.Event().wait()


def build() -> Cluster:
    config = ClusterBuilder("shop").use_master(os.environ.get("SHOP_DATABASE", "sqlite:///shop.db"))
    config.add_handlers(Ship, Lose, Wait).shutdown(20.0).add_worker("clerk").lanes("default", "slow")
    return config.build()


cluster = build()


async def _hostile() -> list[str]:
    async with build().run() as runtime:
        scheduler = runtime.scheduler
        lost = await scheduler.once_now(Lose, Order(1, HOSTILE))
        shipped = await scheduler.once_now(Ship, Order(2, HOSTILE), title="[red] :smile: \\")
        await asyncio.gather(*(job.result(timeout=20) for job in (lost, shipped)), return_exceptions=True)
        return [lost.id, shipped.id]


def fill_hostile() -> list[str]:
    """Like `fill`, with jobs of hostile text: one that failed and one that succeeded."""
    return asyncio.run(_hostile())


async def _filled() -> list[str]:
    async with build().run() as runtime:
        scheduler = runtime.scheduler
        shipped = await scheduler.once_now(Ship, Order(1), title="first order", tags=["express"])
        lost = await scheduler.once_now(Lose, Order(2), title="second order")
        later = await scheduler.once_after(Ship, timedelta(days=1), Order(3))
        await asyncio.gather(*(job.result(timeout=20) for job in (shipped, lost)), return_exceptions=True)
        return [shipped.id, lost.id, later.id]


def fill() -> list[str]:
    """Run the shop for a moment: the ids of a job that succeeded, one that failed, and one due tomorrow."""
    return asyncio.run(_filled())


def ask(question: Callable[[Scheduler], Awaitable[T]]) -> T:
    """What a program that only connects is told."""

    async def connected() -> T:
        async with build().connect() as scheduler:
            return await question(scheduler)

    return asyncio.run(connected())


def enqueue(handler: str, *orders: Order) -> list[str]:
    """Enqueue without running anything."""

    async def many(scheduler: Scheduler) -> list[str]:
        return list((await scheduler.many(Enqueue(handler, order) for order in orders)).ids)

    return ask(many)
