"""A session: one connection, and whether a transaction is open on it."""

import asyncio
import time
from contextlib import suppress
from typing import Any, NamedTuple

import pymysql

from jobmaster.contracts.mysql_text import chunks, sql
from jobmaster_agents.mysql.dialect import Dialect

ANSWER_SECONDS = 10.0
"""What the server may take to answer."""

_BEGIN = b"BEGIN; "
_SNAPSHOT = b"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY; "


class Result(NamedTuple):
    """What one statement gave."""

    rows: list[tuple[Any, ...]]
    affected: int
    """Rows it was about, changed or not."""


class Session:
    """Wraps a connection of aiomysql's. Outside of a transaction each statement is one of its own."""

    def __init__(self, raw: Any) -> None:
        self.born = time.monotonic()
        self.dialect = Dialect.of(raw.get_server_info())
        self._raw = raw
        self._opening = b""
        """What goes before the next statement, as it needs no answer of its own."""
        self._skipped = 0
        self._open = False

    async def prepare(self, settings: str, seconds: float, isolation: str) -> None:
        """Set what holds for the session, and look whether it does."""
        await self.script(
            f"{settings}, {self.dialect.settings(seconds)}".encode(),
            f"SET SESSION TRANSACTION ISOLATION LEVEL {isolation.replace('-', ' ')}".encode(),
        )
        [(found,)] = await self.fetch(f"SELECT {self.dialect.isolation}")
        if found != isolation:
            raise pymysql.err.NotSupportedError(
                0, f"the session's isolation is {found} and can't be set to {isolation}"
            )

    @property
    def alive(self) -> bool:
        """Whether the server has not closed it, as far as is known without asking."""
        raw = self._raw
        return not raw.closed and not raw._reader.at_eof() and raw._reader.exception() is None  # noqa: SLF001 - as aiomysql's own pool does

    @property
    def dirty(self) -> bool:
        """Whether a transaction may be open."""
        return self._open

    def begin(self, *, snapshot: bool = False) -> None:
        """From the next statement on, a transaction."""
        self._opening = _SNAPSHOT if snapshot else _BEGIN
        self._skipped = self._opening.count(b";")

    async def commit(self) -> None:
        """End the transaction, if one was begun."""
        self._opening = b""
        if self._open:
            await self._run(b"COMMIT", 0)
            self._open = False

    async def rollback(self) -> None:
        """Undo it."""
        self._opening = b""
        await self._run(b"ROLLBACK", 0)
        self._open = False

    async def script(self, *statements: bytes) -> list[Result]:
        """Several statements in one round trip, or as few as packets allow; the first that fails is the last that was
        done."""
        skipped, opening = (self._skipped, self._opening) if self._opening else (0, b"")
        self._opening = b""
        if opening:
            self._open = True
        results: list[Result] = []
        for together in chunks(statements):
            results += await self._run(opening + b"; ".join(together), skipped)
            opening, skipped = b"", 0
        return results

    async def fetch(self, text: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of one statement; each `?` in the text is a value."""
        return (await self.script(sql(text, *values)))[0].rows

    async def execute(self, text: str, *values: Any) -> int:
        """How many rows a statement was about."""
        return (await self.script(sql(text, *values)))[0].affected

    async def _run(self, text: bytes, skipped: int) -> list[Result]:
        results: list[Result] = []
        raw = self._raw
        async with asyncio.timeout(ANSWER_SECONDS):
            await raw.query(text)
            while True:
                result = raw._result  # noqa: SLF001 - a cursor would copy it
                if skipped:
                    skipped -= 1
                else:
                    results.append(Result(list(result.rows or ()), result.affected_rows))
                if not result.has_next:
                    return results
                await raw.next_result()

    async def leave(self) -> None:
        """Say good-bye, if that is quick."""
        with suppress(Exception):
            async with asyncio.timeout(1.0):
                await self._raw.ensure_closed()
        self.end()

    def end(self) -> None:
        """Don't talk to it again."""
        with suppress(Exception):
            self._raw.abort()
