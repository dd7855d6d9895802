"""The estimate of a store's time."""

import asyncio

import pytest

from jobmaster.model.errors import Refused
from jobmaster.store_time import FRESH_SECONDS, RETRY_SECONDS, StoreTime
from jobmaster.testing.clock import ManualClock

AHEAD_US = 5_000_000


class Store:
    """A store whose clock is ahead by five seconds, and whose answers take a while."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.asked = 0
        self.away = False
        self.ahead_us = AHEAD_US
        self.way_back = 0.0

    async def now_us(self) -> int:
        self.asked += 1
        if self.away:
            raise Refused("away")
        said = self.clock.wall_us() + self.ahead_us
        self.clock.advance(self.way_back)
        return said


@pytest.mark.asyncio
async def test_the_estimate_follows_the_store_and_is_never_ahead_of_it() -> None:
    clock = ManualClock()
    store = Store(clock)
    store.way_back = 0.2
    time = StoreTime(clock, store.now_us)
    await time.measure()
    clock.advance(10)
    assert time.now_us() == clock.wall_us() + AHEAD_US - 200_000


def test_before_any_measurement_it_is_the_wall_time() -> None:
    clock = ManualClock()
    assert StoreTime(clock, Store(clock).now_us).now_us() == clock.wall_us()


@pytest.mark.asyncio
async def test_it_asks_again_only_when_the_measurement_is_old() -> None:
    clock = ManualClock()
    store = Store(clock)
    time = StoreTime(clock, store.now_us)
    await time.fresh_us()
    await time.fresh_us()
    assert store.asked == 1
    store.ahead_us = 0
    clock.advance(FRESH_SECONDS + 1)
    assert await time.fresh_us() == clock.wall_us()
    assert store.asked == 2


@pytest.mark.asyncio
async def test_a_store_that_is_away_leaves_the_old_estimate_in_force() -> None:
    clock = ManualClock()
    store = Store(clock)
    time = StoreTime(clock, store.now_us)
    await time.measure()
    store.away = True
    clock.advance(FRESH_SECONDS + 1)
    assert await time.fresh_us() == clock.wall_us() + AHEAD_US


@pytest.mark.asyncio
async def test_a_store_that_is_away_is_not_asked_each_time() -> None:
    clock = ManualClock()
    store = Store(clock)
    store.away = True
    time = StoreTime(clock, store.now_us)
    for _ in range(10):
        await time.fresh_us()
    assert store.asked == 1
    clock.advance(RETRY_SECONDS)
    store.away = False
    assert await time.fresh_us() == clock.wall_us() + AHEAD_US


@pytest.mark.asyncio
async def test_a_store_that_hangs_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobmaster.store_time.PATIENCE_SECONDS", 0.02)
    clock = ManualClock()

    async def hang() -> int:
        await asyncio.Event().wait()
        return 0

    assert await asyncio.wait_for(StoreTime(clock, hang).fresh_us(), 5) == clock.wall_us()
