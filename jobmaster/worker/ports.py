"""What the worker asks of a registry: just this, so that it runs without knowing how handlers are declared."""

from collections.abc import Awaitable
from typing import Any, Protocol

from jobmaster.worker.context import JobContext


class Schema(Protocol):
    """How stored data becomes what a handler takes."""

    def decode(self, raw: bytes, /) -> Any:
        """The data. Any exception means that it can't be read as that."""
        ...


class RegisteredHandler(Protocol):
    """One handler, ready to be called."""

    @property
    def schema(self) -> Schema: ...

    @property
    def version(self) -> int:
        """Of the data that it knows."""
        ...

    def read(self, raw: bytes, version: int, /) -> Any:
        """Stored data of an earlier version, as `schema.decode` of its own."""
        ...

    @property
    def blocking(self) -> bool:
        """It runs in a thread, and can't be cancelled."""
        ...

    def invoke(self, context: JobContext[Any], /) -> Awaitable[Any]:
        """One attempt. Closes what it opened, however the attempt ends."""
        ...


class Handlers(Protocol):
    """The handlers this process has, by stored name."""

    @property
    def names(self) -> frozenset[str]: ...

    def get(self, name: str, /) -> RegisteredHandler | None: ...
