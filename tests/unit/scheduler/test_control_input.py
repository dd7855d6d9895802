"""What nobody can mean is refused by the verbs that steer, and by name: hostile text reaches no store."""

from typing import Any

import pytest

from jobmaster.handle import JobHandle
from jobmaster.model.errors import JobMasterError, KeyInvalid, NameInvalid, OptionInvalid, WorkerNotFound
from jobmaster.model.states import JobState
from jobmaster.scheduler import Scheduler
from tests.badinputs import NAMES_TEXT
from tests.unit.scheduler.kit import Plain, opened

pytestmark = pytest.mark.asyncio


async def test_text_that_is_no_name_is_refused() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        job = await scheduler.once_now(Plain)
        for text in NAMES_TEXT.values():
            await refused(scheduler, job, text)
        assert (await job.refresh()).state is JobState.QUEUED
        assert await scheduler.bulk.list() == ()


async def refused(scheduler: Scheduler, job: JobHandle, text: str) -> None:
    refusals: list[tuple[Any, type[JobMasterError]]] = [
        (lambda: scheduler.lanes.pause(text), NameInvalid),
        (lambda: scheduler.lanes.move("plain", text), NameInvalid),
        (lambda: scheduler.lanes.pause("plain", agent=text), NameInvalid),
        (lambda: scheduler.workers.quiet(text), WorkerNotFound),
        (lambda: scheduler.workers.scale(text, 3), WorkerNotFound),
        (lambda: scheduler.bulk.cancel(lane=text), NameInvalid),
        (lambda: scheduler.bulk.cancel(agent=text), NameInvalid),
        (lambda: scheduler.bulk.retry(fingerprint=text), OptionInvalid),
        (lambda: scheduler.bulk.retry(reason=text), OptionInvalid),
        (lambda: scheduler.bulk.cancel(state=text), OptionInvalid),
        (lambda: scheduler.bulk.get(text), NameInvalid),
        (lambda: scheduler.bulk.stop(text), NameInvalid),
        (lambda: scheduler.update(job.id, lane=text), NameInvalid),
        (lambda: scheduler.update(job.id, priority=text), OptionInvalid),
        (lambda: scheduler.cancel(job.id, expected_state=text), OptionInvalid),
    ]
    for verb, kind in refusals:
        with pytest.raises(kind) as caught:
            await verb()
        message = str(caught.value)
        assert message.isprintable(), text[:50]
        assert len(message) < 2_000, text[:50]


async def test_values_that_are_no_counts_are_refused() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        job = await scheduler.once_now(Plain)
        values: list[Any] = [True, 1.5, "2", b"x", None, [], {}, float("nan"), -1, 0, 10**9]
        for value in values:
            await no_count(scheduler, job, value)
        assert (await job.refresh()).state is JobState.QUEUED


async def no_count(scheduler: Scheduler, job: JobHandle, value: Any) -> None:
    with pytest.raises((OptionInvalid, WorkerNotFound)):
        await scheduler.workers.scale("nobody", value)
    if value is not None and value != 10**9:
        with pytest.raises(OptionInvalid):
            await scheduler.cancel(job.id, expected_version=value)
    if value is not None and value not in (1.5, 10**9):
        with pytest.raises(OptionInvalid):
            await scheduler.bulk.retry(lane="plain", per_second=value)
    with pytest.raises(OptionInvalid):
        await scheduler.bulk.list(**_any(limit=value))
    for options in (_any(tag=value), _any(schedule=value)):
        if value not in (None, "2"):
            with pytest.raises((KeyInvalid, OptionInvalid, NameInvalid)):
                await scheduler.bulk.cancel(**options)


def _any(**options: Any) -> dict[str, Any]:
    """Options whose types nobody has looked at."""
    return options
