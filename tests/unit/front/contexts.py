"""A context for a handler, without a worker."""

from types import SimpleNamespace
from typing import Any, cast

from jobmaster.worker.context import JobContext


def context(data: Any = None) -> JobContext[Any]:
    lease = SimpleNamespace(id="0190a000-0000-7000-8000-000000000000", job=SimpleNamespace(handler="x", attempts=0))
    return JobContext(cast("Any", lease), data, cast("Any", None))
