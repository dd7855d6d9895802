"""A module of handlers, as an application has one: what scanning it finds, and what not."""

from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from jobmaster import JobContext, JobHandler, Priority, Retry, job
from tests.unit.front.elsewhere import Tick

Data = TypeVar("Data")

__all__ = ["Tick"]


@dataclass
class Welcome:
    user_id: str
    language: str = "en"


class SendWelcome(JobHandler[Welcome]):
    lane = "mail"
    priority = Priority.HIGH
    timeout = timedelta(minutes=1)
    grace = 2.5
    retry = Retry.fixed(3)
    at_most_once = True
    max_crashes = 1
    title = "Welcome"

    async def execute(self, job: JobContext[Welcome]) -> str:
        return f"welcome, {job.data.user_id}"


class Audited(JobHandler[Data]):
    """A generic base without `execute`."""


class CountLines(Audited[Welcome]):
    def execute(self, job: JobContext[Welcome]) -> int:
        return len(job.data.user_id)


@job(name="invoice", lane="money")
async def send_invoice(job: JobContext[Welcome]) -> str:
    return job.data.user_id


@job
def add(a: int, b: int = 2, *, job: JobContext) -> int:
    assert job is not None
    return a + b


def helper(job: JobContext) -> None:
    """Not marked, so not found."""


class Mailer:
    def __init__(self, sender: str = "nobody") -> None:
        self.sender = sender

    @job
    async def send(self, to: str, copies: list[str] | None = None) -> str:
        return f"{self.sender} to {to}, {copies}"

    @job
    def receive(self, job: JobContext[Welcome]) -> str:
        return f"{self.sender} from {job.data.user_id}"

    @classmethod
    async def forward(cls, to: str) -> str:
        return f"{cls.__name__} to {to}"

    @staticmethod
    def count(words: list[str]) -> int:
        return len(words)
