"""The loop: passes, pauses, wake-ups, errors, start and stop."""

import asyncio
import random
import threading
from collections.abc import Awaitable, Callable

import pytest
import structlog

from jobmaster.loop import BACKOFF_CAP, Loop
from jobmaster.model.errors import MasterUnavailable
from jobmaster.testing.clock import ManualClock
from tests.support import eventually


class Counting:
    """A duty that counts its passes and answers from a script, its last answer for ever."""

    def __init__(self, *answers: float | BaseException) -> None:
        self.passes = 0
        self.answers = list(answers)

    async def __call__(self) -> float:
        self.passes += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer


def make(duty: Callable[[], Awaitable[float]], clock: ManualClock, idle: float = 1.0) -> Loop:
    return Loop("testing", duty, clock=clock, rng=random.Random(7), idle=idle)


async def asleep(clock: ManualClock) -> float:
    """Wait until somebody sleeps on the clock; for how much longer."""
    await eventually(lambda: clock.next_wake_us() is not None, what="a sleeper on the clock")
    due = clock.next_wake_us()
    assert due is not None
    return (due - clock.wall_us()) / 1e6


async def another_pass(duty: Counting, passes: int) -> None:
    await eventually(lambda: duty.passes > passes)


@pytest.mark.asyncio
async def test_the_first_pass_follows_start_at_once_and_later_ones_wait_as_asked() -> None:
    clock, duty = ManualClock(), Counting(0.5)
    loop = make(duty, clock)
    loop.start()
    assert await asleep(clock) == pytest.approx(0.5)
    assert duty.passes == 1
    clock.advance(0.5)
    await eventually(lambda: duty.passes == 2)
    await loop.stop()


@pytest.mark.asyncio
async def test_zero_means_at_once_without_sleeping() -> None:
    clock, duty = ManualClock(), Counting(0, 0, 0, 0.5)
    loop = make(duty, clock)
    loop.start()
    await asleep(clock)
    assert duty.passes == 4
    await loop.stop()


@pytest.mark.asyncio
async def test_an_idle_sleep_is_jittered_by_a_quarter_and_never_longer_than_idle() -> None:
    clock, duty = ManualClock(), Counting(1_000)
    loop = make(duty, clock, idle=4.0)
    loop.start()
    sleeps = set()
    for _ in range(20):
        sleep = await asleep(clock)
        sleeps.add(sleep)
        passes = duty.passes
        clock.advance(sleep)
        await another_pass(duty, passes)
    assert all(3.0 <= sleep <= 5.0 for sleep in sleeps)
    assert len(sleeps) > 10
    await loop.stop()


@pytest.mark.asyncio
async def test_a_wake_up_ends_the_sleep_from_any_thread() -> None:
    clock, duty = ManualClock(), Counting(0.9)
    loop = make(duty, clock)
    loop.start()
    await asleep(clock)
    loop.wake()
    await eventually(lambda: duty.passes == 2)
    thread = threading.Thread(target=loop.wake)
    thread.start()
    await eventually(lambda: duty.passes == 3)
    thread.join()
    await loop.stop()


@pytest.mark.asyncio
async def test_a_wake_up_during_a_pass_leads_to_another_pass() -> None:
    clock = ManualClock()
    entered, go_on = asyncio.Event(), asyncio.Event()
    passes = 0

    async def duty() -> float:
        nonlocal passes
        passes += 1
        entered.set()
        await go_on.wait()
        return 0.9

    loop = make(duty, clock)
    loop.start()
    await entered.wait()
    loop.wake()
    go_on.set()
    await eventually(lambda: passes == 2)
    await asleep(clock)
    assert passes == 2
    await loop.stop()


@pytest.mark.asyncio
async def test_errors_back_off_to_a_cap_and_never_end_the_loop() -> None:
    clock, duty = ManualClock(), Counting(*[ValueError("no")] * 9, 0.5)
    loop = make(duty, clock)
    pauses = []
    with structlog.testing.capture_logs() as logs:
        loop.start()
        for _ in range(9):
            pauses.append(pause := await asleep(clock))
            passes = duty.passes
            clock.advance(pause)
            await another_pass(duty, passes)
        await asleep(clock)
    assert pauses[0] <= 0.125
    assert BACKOFF_CAP * 0.75 <= pauses[-1] <= BACKOFF_CAP * 1.25
    assert loop.health.failures == 0
    assert loop.health.errors == 9
    assert loop.health.last_success == clock.mono()
    assert [entry["event"] for entry in logs] == ["loop.failed"] * 9 + ["loop.recovered"]
    assert {entry["duty"] for entry in logs} == {"testing"}
    await loop.stop()


@pytest.mark.asyncio
async def test_hints_cut_no_pause_after_a_failure_short_but_a_recovery_does() -> None:
    clock = ManualClock()
    passes = 0

    async def duty() -> float:
        nonlocal passes
        passes += 1
        if passes <= 2:
            # As settles do, while the master they would be recorded on is away.
            loop.wake()
            raise MasterUnavailable("away")
        return 0.9

    loop = make(duty, clock)
    loop.start()
    pause = await asleep(clock)
    loop.wake()
    for _ in range(20):
        await asyncio.sleep(0)
    assert passes == 1
    clock.advance(pause)
    await eventually(lambda: passes == 2)
    await asleep(clock)
    loop.try_again()
    await eventually(lambda: passes == 3)
    await asleep(clock)
    loop.wake()
    await eventually(lambda: passes == 4)
    await loop.stop()


@pytest.mark.asyncio
async def test_an_outage_of_a_store_is_said_once_and_its_end_too() -> None:
    gone = MasterUnavailable("nobody answers")
    clock, duty = ManualClock(), Counting(gone, gone, gone, 0.5)
    loop = make(duty, clock)
    with structlog.testing.capture_logs() as logs:
        loop.start()
        while duty.passes < 4:
            clock.advance(await asleep(clock))
            await asyncio.sleep(0)
        await asleep(clock)
    assert [entry["event"] for entry in logs] == ["loop.store_trouble", "loop.recovered"]
    await loop.stop()


@pytest.mark.asyncio
async def test_a_cancellation_that_leaks_out_of_a_duty_is_an_error_like_others() -> None:
    clock, duty = ManualClock(), Counting(asyncio.CancelledError(), 0.5)
    loop = make(duty, clock)
    loop.start()
    clock.advance(await asleep(clock))
    await eventually(lambda: duty.passes == 2)
    assert loop.health.errors == 1
    await loop.stop()


@pytest.mark.asyncio
async def test_stop_tolerates_a_loop_never_started_and_a_second_call() -> None:
    never = make(Counting(1), ManualClock())
    await never.stop()
    with pytest.raises(RuntimeError, match="testing"):
        never.start()
    clock = ManualClock()
    loop = make(Counting(0.5), clock)
    loop.start()
    with pytest.raises(RuntimeError, match="testing"):
        loop.start()
    await loop.stop()
    await loop.stop()
    assert not loop.running


@pytest.mark.asyncio
async def test_stop_lets_a_pass_finish() -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()
    finished = False

    async def duty() -> float:
        nonlocal finished
        entered.set()
        await go_on.wait()
        finished = True
        return 0

    loop = make(duty, ManualClock())
    loop.start()
    await entered.wait()
    stopping = asyncio.create_task(loop.stop())
    await asyncio.sleep(0)
    assert not stopping.done()
    go_on.set()
    await stopping
    assert finished


@pytest.mark.asyncio
async def test_stop_cancels_a_pass_that_outlasts_the_grace() -> None:
    entered = asyncio.Event()

    async def duty() -> float:
        entered.set()
        await asyncio.Event().wait()
        return 0

    loop = make(duty, ManualClock())
    loop.start()
    await entered.wait()
    await loop.stop(grace=0.01)
    assert not loop.running
