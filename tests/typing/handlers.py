"""Handlers as a type checker sees them. Checked by `tests/typing/test_types.py`, never run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, assert_type

from jobmaster import JobContext, JobHandler, Priority, Retry, job


@dataclass
class Welcome:
    user_id: str


@dataclass
class Invoice:
    number: int


class SendWelcome(JobHandler[Welcome]):
    lane = "mail"
    priority = Priority.HIGH
    retry = Retry.fixed(3)
    timeout = 2.5

    async def execute(self, job: JobContext[Welcome]) -> str:
        assert_type(job.data, Welcome)
        assert_type(job.attempt, int)
        return job.data.user_id


class Bare(JobHandler):
    async def execute(self, job: JobContext) -> None:
        assert_type(job.data, Mapping[str, Any])


class Blocking(JobHandler[Invoice]):
    def execute(self, job: JobContext[Invoice]) -> int:
        assert_type(job.data, Invoice)
        return job.data.number


class WrongData(JobHandler[Welcome]):
    async def execute(self, job: JobContext[Invoice]) -> None:  # type: ignore[override]  # another type than declared
        ...


class WrongOption(JobHandler[Welcome]):
    priority = "high"  # type: ignore[assignment]  # a Priority is expected
    retry = 3  # type: ignore[assignment]  # a Retry is expected

    async def execute(self, job: JobContext[Welcome]) -> None: ...


class Unfinished(JobHandler[Welcome]): ...


@job
async def plain(job: JobContext[Welcome]) -> str:
    assert_type(job.data, Welcome)
    return "x"


@job(lane="money", retry=Retry.never())
async def configured(number: int) -> int:
    return number


async def decorated_functions_keep_their_types() -> None:
    assert_type(await configured(1), int)
    await configured("1")  # type: ignore[arg-type]  # an int is expected


def an_abstract_handler_cannot_be_made() -> None:
    Unfinished()  # type: ignore[abstract]  # it has no `execute`


def an_option_that_does_not_exist_is_an_error() -> None:
    job(lanes="money")  # type: ignore[call-overload]  # the option is called lane
