"""Listeners: who is told what, and that none of them can hurt."""

import asyncio
import threading
from typing import Any

import pytest
from structlog.testing import capture_logs

from jobmaster import listeners as module
from jobmaster.listeners import EventKind, JobEvent, Listeners, callbacks_of
from jobmaster.model.errors import DefinitionInvalid
from tests.support import eventually


def event(number: int = 0, kind: EventKind = EventKind.SUCCEEDED) -> JobEvent:
    return JobEvent(kind=kind, job_id=str(number))


@pytest.mark.asyncio
async def test_async_and_plain_listeners_hear_each_event_of_their_kind_in_order() -> None:
    plain: list[str | None] = []
    asynchronous: list[str | None] = []

    async def on_succeeded(heard: JobEvent) -> None:
        asynchronous.append(heard.job_id)

    listeners = Listeners({EventKind.SUCCEEDED: [lambda heard: plain.append(heard.job_id), on_succeeded]})
    listeners.start()
    for number in range(1_000):
        listeners.emit(event(number))
        listeners.emit(event(number, EventKind.FAILED))
    await listeners.stop()

    assert plain == asynchronous == [str(number) for number in range(1_000)]


@pytest.mark.asyncio
async def test_what_was_emitted_before_the_start_is_delivered() -> None:
    heard: list[JobEvent] = []
    listeners = Listeners({EventKind.SUCCEEDED: [heard.append]})

    listeners.emit(event())
    listeners.start()

    await eventually(lambda: len(heard) == 1)
    await listeners.stop()


@pytest.mark.asyncio
async def test_later_events_wake_the_delivery_again() -> None:
    heard: list[JobEvent] = []
    listeners = Listeners({EventKind.SUCCEEDED: [heard.append]})
    listeners.start()
    for number in range(1, 4):
        listeners.emit(event(number))
        await eventually(lambda expected=number: len(heard) == expected)  # type: ignore[misc]  # bound per round
    await listeners.stop()


@pytest.mark.asyncio
async def test_plain_listeners_run_outside_the_loop() -> None:
    threads: list[int] = []
    listeners = Listeners({EventKind.SUCCEEDED: [lambda _: threads.append(threading.get_ident())]})
    listeners.start()
    listeners.emit(event())
    await listeners.stop()

    assert threads
    assert threads[0] != threading.get_ident()


@pytest.mark.asyncio
async def test_events_may_come_from_any_thread() -> None:
    heard: list[str | None] = []
    listeners = Listeners({EventKind.SUCCEEDED: [lambda one: heard.append(one.job_id)]})
    listeners.start()

    def emit() -> None:
        for number in range(100):
            listeners.emit(event(number))

    threads = [threading.Thread(target=emit) for _ in range(4)]
    for thread in threads:
        thread.start()
    await eventually(lambda: len(heard) == 400)
    for thread in threads:
        thread.join()
    await listeners.stop()


@pytest.mark.asyncio
async def test_a_plain_function_that_gives_a_coroutine_is_awaited() -> None:
    heard: list[JobEvent] = []

    async def later(one: JobEvent) -> None:
        heard.append(one)

    listeners = Listeners({EventKind.SUCCEEDED: [lambda one: later(one)]})
    listeners.start()
    listeners.emit(event())
    await listeners.stop()

    assert heard == [event()]


@pytest.mark.asyncio
@pytest.mark.parametrize("error", [ValueError, SystemExit])
async def test_a_raising_listener_is_logged_and_the_next_one_still_hears(error: type[BaseException]) -> None:
    heard: list[JobEvent] = []

    def plain(_: JobEvent) -> None:
        raise error("plain")

    async def asynchronous(_: JobEvent) -> None:
        raise error("async")

    listeners = Listeners({EventKind.SUCCEEDED: [plain, asynchronous, heard.append]})
    with capture_logs() as logs:
        listeners.start()
        listeners.emit(event(1))
        listeners.emit(event(2))
        await listeners.stop()

    assert [one.job_id for one in heard] == ["1", "2"]
    failures = [entry for entry in logs if entry["event"] == "listener failed"]
    assert len(failures) == 4
    assert {entry["job_id"] for entry in failures} == {"1", "2"}


@pytest.mark.asyncio
async def test_a_full_queue_drops_counts_and_says_so_once() -> None:
    listeners = Listeners({EventKind.SUCCEEDED: [lambda _: None]})
    with capture_logs() as logs:
        for number in range(module.QUEUE_SIZE + 50):
            listeners.emit(event(number))

    assert listeners.dropped == 50
    assert len([entry for entry in logs if "dropped" in entry["event"]]) == 1


@pytest.mark.asyncio
async def test_a_slow_listener_is_warned_about_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLOW_SECONDS", -1.0)

    def dawdle(_: JobEvent) -> None: ...

    listeners = Listeners({EventKind.SUCCEEDED: [dawdle]})
    with capture_logs() as logs:
        listeners.start()
        listeners.emit(event())
        await eventually(lambda: bool(logs))
    await listeners.stop(5)

    assert logs[0]["event"] == "listener is slow"
    assert "dawdle" in logs[0]["listener"]


@pytest.mark.asyncio
async def test_an_async_listener_that_never_ends_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLOW_SECONDS", 0.01)
    heard: list[JobEvent] = []

    async def hang(_: JobEvent) -> None:
        await asyncio.Event().wait()

    async def hear(one: JobEvent) -> None:
        heard.append(one)

    listeners = Listeners({EventKind.SUCCEEDED: [hang, hear]})
    with capture_logs():
        listeners.start()
        listeners.emit(event())
        await eventually(lambda: len(heard) == 1)
        await listeners.stop(5)


@pytest.mark.asyncio
async def test_stopping_does_not_wait_for_ever() -> None:
    async def hang(_: JobEvent) -> None:
        await asyncio.Event().wait()

    listeners = Listeners({EventKind.SUCCEEDED: [hang]})
    listeners.start()
    listeners.emit(event())
    with capture_logs() as logs:
        await listeners.stop(0.02)
        await listeners.stop()

    assert logs[0]["event"] == "listeners did not finish in time"


@pytest.mark.asyncio
async def test_without_listeners_nothing_is_started_or_kept() -> None:
    listeners = Listeners()
    before = asyncio.all_tasks()
    listeners.start()
    listeners.emit(event())

    assert asyncio.all_tasks() == before
    assert not listeners.wants(EventKind.SUCCEEDED)
    await listeners.stop()


def test_emitting_to_a_closed_loop_does_not_raise() -> None:
    listeners = Listeners({EventKind.SUCCEEDED: [lambda _: None]})

    async def start_only() -> None:
        listeners.start()

    asyncio.run(start_only())
    listeners.emit(event())


def test_the_methods_of_a_listener_are_found() -> None:
    class Watch:
        def on_failed(self, event: JobEvent) -> None: ...

        async def on_retry(self, event: JobEvent) -> None: ...

    assert set(callbacks_of(Watch())) == {EventKind.FAILED, EventKind.RETRY}


class Typo:
    def on_fail(self, event: JobEvent) -> None: ...


class Empty: ...


class NotCallable:
    on_failed = 3


@pytest.mark.parametrize(
    ("listener", "message"),
    [
        (Typo(), "nothing calls 'on_fail'"),
        (Empty(), "no method to call"),
        (NotCallable(), "on_failed is not callable"),
        (Typo, "it is a class"),
    ],
)
def test_what_nobody_would_call_is_refused(listener: Any, message: str) -> None:
    with pytest.raises(DefinitionInvalid, match=message):
        callbacks_of(listener)
