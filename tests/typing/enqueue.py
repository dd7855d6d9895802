"""Enqueuing as a type checker sees it. Checked by `tests/typing/test_types.py`, never run."""

from datetime import UTC, datetime, timedelta
from typing import assert_type

from jobmaster import ClusterBuilder, JobHandle, Priority, Scheduler
from jobmaster.builder_sections import AgentSection, WorkerSection
from tests.typing.handlers import Bare, Invoice, SendWelcome, Welcome, configured, plain


async def classes(scheduler: Scheduler) -> None:
    assert_type(await scheduler.once_now(SendWelcome, Welcome("a")), JobHandle)
    await scheduler.once_now(SendWelcome, {"user_id": "a"}, priority=Priority.HIGH)
    await scheduler.once_now(SendWelcome)
    await scheduler.once_at(SendWelcome, datetime.now(UTC), Welcome("a"))
    await scheduler.once_after(SendWelcome, timedelta(minutes=5), Welcome("a"))
    await scheduler.recurring(SendWelcome, timedelta(hours=1), Welcome("a"), key="k")
    await scheduler.once_now(Bare, {"any": "thing"})


async def wrong_data_is_an_error(scheduler: Scheduler) -> None:
    await scheduler.once_now(SendWelcome, Invoice(1))  # type: ignore[misc]  # a Welcome is expected
    await scheduler.once_at(SendWelcome, datetime.now(UTC), Invoice(1))  # type: ignore[misc]  # likewise
    await scheduler.once_after(SendWelcome, timedelta(1), Invoice(1))  # type: ignore[misc]  # likewise
    await scheduler.recurring(SendWelcome, timedelta(1), Invoice(1), key="k")  # type: ignore[misc]  # likewise
    await scheduler.once_now(plain, Invoice(1))  # type: ignore[arg-type]  # likewise
    await scheduler.once_now(Bare, Invoice(1))  # type: ignore[misc]  # it declares no type: a mapping


async def functions_and_names(scheduler: Scheduler) -> None:
    await scheduler.once_now(plain, Welcome("a"))
    await scheduler.once_now(plain, {"user_id": "a"})
    await scheduler.once_now("send-welcome", {"user_id": "a"})
    await scheduler.call(configured, number=1)


async def wrong_options_are_errors(scheduler: Scheduler) -> None:
    await scheduler.once_now(SendWelcome, Welcome("a"), lanes="x")  # type: ignore[call-overload]  # no such option
    await scheduler.once_now(SendWelcome, Welcome("a"), timeout="1")  # type: ignore[call-overload]  # no duration


def the_builder_keeps_its_types() -> None:
    assert_type(ClusterBuilder("a").add_handlers(SendWelcome, plain).timeout(3), ClusterBuilder)
    assert_type(ClusterBuilder("a").add_agent("b").use_memory_for_agent(), AgentSection)
    assert_type(ClusterBuilder("a").add_worker().slots(3), WorkerSection)
    ClusterBuilder("a").add_handlers(3)  # type: ignore[arg-type]  # not a handler
