"""The seam between the master's statements and a database: run a synchronous function in one transaction.

Every verb is written once, as `fn(connection)` on SQLAlchemy Core. On SQLite it runs on the writer thread that the
file's agent uses too; elsewhere through `AsyncConnection.run_sync`.
"""

from collections.abc import Callable
from typing import Protocol, TypeVar

from sqlalchemy import Connection

T = TypeVar("T")


class Engine(Protocol):
    """One database."""

    key: str | None
    """What an agent in the same database calls it in `traits.database_key`."""
    store: str
    """The database as messages name it."""
    remote: bool
    """It is a server, not a file."""
    serial: bool
    """Whether writers take turns, so that what one has read stays true until it commits."""

    async def open(self, create: bool = True) -> bool:
        """Connect. False, and nothing opened, where the database would have to be created and `create` is false.
        Raises `UnsafeStore` or `MasterUnavailable`."""
        ...

    async def close(self) -> None:
        """Never raises; a second call does nothing."""
        ...

    async def write(
        self,
        fn: Callable[[Connection], T],
        *,
        before_commit: str | None = None,
        after_commit: str | None = None,
    ) -> T:
        """Run it in a transaction and commit; the two names are failpoints. `fn` may be run again if nothing of it was
        applied. Raises `Refused`, or `Indeterminate` where the commit was not answered."""
        ...

    async def read(self, fn: Callable[[Connection], T], *, at_once: bool = False) -> T:
        """Run it, all of it at one moment of the database; nothing it writes is kept. `at_once`: it is one statement,
        so it needs no transaction, which on a server saves two round trips of three. Raises `Refused`."""
        ...

    async def change_schema(self, fn: Callable[[Connection], T]) -> T:
        """As `write`, however long it takes, and one caller at a time: in this process, and among all that share the
        database."""
        ...

    async def check(self) -> None:
        """Look at what the database is set to, anew. Raises `UnsafeStore`."""
        ...

    def now_us(self, connection: Connection) -> int:
        """Store time."""
        ...

    def facts(self) -> dict[str, str]: ...

    def findings(self) -> tuple[str, ...]: ...
