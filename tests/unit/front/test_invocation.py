"""How an attempt reaches the handler: instances, threads, factories, and what is closed after it."""

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from jobmaster import DefinitionInvalid, JobContext, JobHandler
from jobmaster.invocation import HandlerFactory
from jobmaster.registry import Handler, build_registry
from jobmaster.settings import Defaults
from tests.support import eventually
from tests.unit.front.contexts import context
from tests.unit.front.shop import CountLines, Mailer, SendWelcome, Welcome, add, send_invoice


def handler(reference: object, factory: HandlerFactory | None = None) -> Handler:
    registry, faults = build_registry([reference], Defaults(), factory)
    assert faults == []
    return registry.resolve(reference)


def call(reference: Handler, *arguments: Any, **keywords: Any) -> JobContext[Any]:
    raw = reference.schema.encode(reference.bind(arguments, keywords), limit=1000)
    return context(reference.schema.decode(raw))


class Service(JobHandler):
    """Needs something, so that only a factory can build it."""

    def __init__(self, log: list[str]) -> None:
        self.log = log

    async def execute(self, job: JobContext) -> str:
        self.log.append("run")
        return "done"


class Slow(Service):
    async def execute(self, job: JobContext) -> str:
        self.log.append("run")
        await asyncio.Event().wait()
        return "never"


@pytest.mark.asyncio
async def test_every_attempt_gets_a_fresh_instance() -> None:
    seen: list[int] = []

    class Remember(JobHandler):
        def __init__(self) -> None:
            self.runs = 0

        async def execute(self, job: JobContext) -> None:
            self.runs += 1
            seen.append(self.runs)

    once = handler(Remember)
    await once.invoke(context())
    await once.invoke(context())

    assert seen == [1, 1]


@pytest.mark.asyncio
async def test_nothing_stands_between_the_worker_and_a_coroutine_function() -> None:
    running = handler(send_invoice).invoke(context(Welcome("u")))
    assert inspect.iscoroutine(running)
    assert running.cr_code is send_invoice.__code__
    running.close()
    assert await handler(SendWelcome).invoke(context(Welcome("u"))) == "welcome, u"


@pytest.mark.asyncio
async def test_a_plain_handler_runs_in_another_thread() -> None:
    class Where(JobHandler):
        def execute(self, job: JobContext) -> int:
            return threading.get_ident()

    where = handler(Where)

    assert where.blocking
    assert await where.invoke(context()) != threading.get_ident()
    assert await handler(CountLines).invoke(context(Welcome("four"))) == 4


@pytest.mark.asyncio
async def test_plain_handlers_are_not_limited_to_the_default_number_of_threads() -> None:
    together = threading.Barrier(60, timeout=20)

    class Meet(JobHandler):
        def execute(self, job: JobContext) -> None:
            together.wait()

    meet = handler(Meet)
    await asyncio.gather(*(meet.invoke(context()) for _ in range(60)))


@pytest.mark.asyncio
@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, StopIteration])
async def test_what_a_thread_raises_arrives_and_the_loop_lives(error: type[BaseException]) -> None:
    class Fail(JobHandler):
        def execute(self, job: JobContext) -> None:
            raise error("in the thread")

    # A coroutine can't raise StopIteration: Python makes a RuntimeError of it.
    with pytest.raises(RuntimeError if error is StopIteration else error, match=r"StopIteration|in the thread"):
        await handler(Fail).invoke(context())


@pytest.mark.asyncio
async def test_a_plain_function_that_gives_a_coroutine_is_awaited() -> None:
    async def inner() -> str:
        return "inner"

    class Hidden(JobHandler):
        def execute(self, job: JobContext) -> Any:
            return inner()

    assert await handler(Hidden).invoke(context()) == "inner"


@pytest.mark.asyncio
async def test_a_thread_is_waited_for_on_the_first_cancellation_and_its_result_counts() -> None:
    started, release = threading.Event(), threading.Event()
    log: list[str] = []

    class Finish(JobHandler):
        def execute(self, job: JobContext) -> str:
            started.set()
            release.wait(20)
            log.append("ended")
            return "finished all the same"

    @contextmanager
    def factory(cls: type[Any]) -> Iterator[Any]:
        yield cls()
        log.append("closed")

    task = asyncio.ensure_future(handler(Finish, factory).invoke(context()))
    await eventually(started.is_set)
    task.cancel()
    await asyncio.wait({task}, timeout=0.05)
    assert not task.done()
    release.set()

    assert await task == "finished all the same"
    assert log == ["ended", "closed"]


@pytest.mark.asyncio
async def test_a_thread_is_left_behind_on_the_second_cancellation() -> None:
    started, release = threading.Event(), threading.Event()

    class Stuck(JobHandler):
        def execute(self, job: JobContext) -> None:
            started.set()
            release.wait(20)

    task = asyncio.ensure_future(handler(Stuck).invoke(context()))
    await eventually(started.is_set)
    task.cancel()
    await asyncio.wait({task}, timeout=0.05)
    task.cancel()
    try:
        with pytest.raises(asyncio.CancelledError):
            await task
    finally:
        release.set()


@pytest.mark.asyncio
async def test_the_factory_is_called_once_per_attempt_with_the_class() -> None:
    asked: list[type[Any]] = []

    def factory(cls: type[Any]) -> Any:
        asked.append(cls)
        return cls([])

    service = handler(Service, factory)
    await service.invoke(context())
    await service.invoke(context())

    assert asked == [Service, Service]


@pytest.mark.asyncio
async def test_an_async_factory_is_awaited() -> None:
    async def factory(cls: type[Any]) -> Any:
        return cls([])

    assert await handler(Service, factory).invoke(context()) == "done"


def opened(log: list[str]) -> dict[str, HandlerFactory]:
    @contextmanager
    def plain(cls: type[Any]) -> Iterator[Any]:
        log.append("open")
        try:
            yield cls(log)
        finally:
            log.append("close")

    @asynccontextmanager
    async def asynchronous(cls: type[Any]) -> AsyncIterator[Any]:
        log.append("open")
        try:
            yield cls(log)
        finally:
            log.append("close")

    return {"plain": plain, "async": asynchronous}


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_a_context_manager_is_entered_before_the_run_and_closed_after_it(kind: str) -> None:
    log: list[str] = []

    assert await handler(Service, opened(log)[kind]).invoke(context()) == "done"
    assert log == ["open", "run", "close"]


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_a_context_manager_is_closed_when_the_run_is_cancelled(kind: str) -> None:
    log: list[str] = []
    task = asyncio.ensure_future(handler(Slow, opened(log)[kind]).invoke(context()))
    await eventually(lambda: "run" in log)

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert log == ["open", "run", "close"]


@pytest.mark.asyncio
async def test_a_context_manager_sees_the_error_and_is_closed() -> None:
    seen: list[str] = []

    class Fail(JobHandler):
        async def execute(self, job: JobContext) -> None:
            raise ValueError("no")

    @asynccontextmanager
    async def factory(cls: type[Any]) -> AsyncIterator[Any]:
        try:
            yield cls()
        except ValueError as error:
            seen.append(str(error))
            raise

    with pytest.raises(ValueError, match="no"):
        await handler(Fail, factory).invoke(context())
    assert seen == ["no"]


@pytest.mark.asyncio
async def test_an_instance_that_is_a_context_manager_itself_is_not_entered() -> None:
    class Own(JobHandler):
        def __enter__(self) -> str:
            raise AssertionError("entered")

        def __exit__(self, *_: object) -> None: ...

        async def execute(self, job: JobContext) -> str:
            return "run"

    assert await handler(Own, lambda cls: cls()).invoke(context()) == "run"


@pytest.mark.asyncio
async def test_a_factory_may_give_a_stand_in() -> None:
    class Fake:
        async def execute(self, job: JobContext) -> str:
            return "fake"

    assert await handler(Service, lambda _: Fake()).invoke(context()) == "fake"


@pytest.mark.asyncio
async def test_a_factory_that_forgot_its_decorator_is_told_so() -> None:
    def factory(cls: type[Any]) -> Iterator[Any]:
        yield cls([])

    with pytest.raises(DefinitionInvalid, match=r"generator for Service; .*contextlib\.contextmanager"):
        await handler(Service, factory).invoke(context())


@pytest.mark.asyncio
async def test_a_method_is_called_on_an_instance_with_its_stored_arguments() -> None:
    send = handler(Mailer.send)

    assert await send.invoke(call(send, "a@b")) == "nobody to a@b, None"
    assert await send.invoke(call(send, to="a@b", copies=["c"])) == "nobody to a@b, ['c']"


@pytest.mark.asyncio
async def test_the_factory_builds_the_instance_of_a_method() -> None:
    def factory(cls: type[Any]) -> Any:
        return cls("post office")

    send = handler(Mailer.send, factory)
    receive = handler(Mailer.receive, factory)

    assert await send.invoke(call(send, "a@b")) == "post office to a@b, None"
    assert await receive.invoke(context(Welcome("you"))) == "post office from you"


@pytest.mark.asyncio
async def test_class_and_static_methods_need_no_instance() -> None:
    def factory(cls: type[Any]) -> Any:
        raise AssertionError("nothing is to be built")

    forward, count = handler(Mailer.forward, factory), handler(Mailer.count, factory)

    assert await forward.invoke(call(forward, "a@b")) == "Mailer to a@b"
    assert await count.invoke(call(count, ["a", "b"])) == 2


@pytest.mark.asyncio
async def test_a_call_may_ask_for_the_context_and_uses_the_functions_own_defaults() -> None:
    plus = handler(add)

    assert await plus.invoke(call(plus, 1)) == 3
    assert await plus.invoke(call(plus, 1, b=5)) == 6
