"""What the MySQL transport's statements do: told by EXPLAIN, and by the counters the server keeps of a session."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial

from jobmaster_agents.mysql import MysqlAgent
from jobmaster_agents.mysql.connection import Database
from jobmaster_agents.mysql.session import Result, Session
from jobmaster_agents.mysql.tables import Tables

ENOUGH = 100
"""Rows that are allowed beyond what a batch needs, read or sorted."""
PER_ROW = 12
"""Rows and index entries read for each row of a batch, in all statements of a verb."""

_READS = ("first", "key", "last", "next", "prev", "rnd", "rnd_next", "retry")
_COUNTERS = ("Sort_rows", *(f"Handler_read_{name}" for name in _READS))
_NAMES = ", ".join(f"'{name}'" for name in _COUNTERS)
_EXPLAINED = (b"SELECT", b"UPDATE", b"DELETE")


class Watched:
    """An agent on one connection, whose statements are looked at."""

    def __init__(self, agent: MysqlAgent, tables: Tables) -> None:
        self.agent = agent
        self._large = (tables.job, tables.outbox, tables.tombstone)
        self._texts: list[bytes] = []

    @classmethod
    async def of(cls, agent: MysqlAgent, tables: Tables) -> "Watched":
        """From here on."""
        watched = cls(agent, tables)
        under = agent.verbs.store.database
        database = Recorded(under, agent.name, watched._texts)
        await database.open()
        agent.verbs.store.database = database
        await under.close()
        return watched

    @asynccontextmanager
    async def complaints(self, rows: int, sorts: int) -> AsyncIterator[list[str]]:
        """Fills the list with what the statements inside should not have done, where `rows` rows were asked for, and
        so many may be sorted."""
        found: list[str] = []
        first = await self._counters()
        before = await self._counters()
        self._texts.clear()
        yield found
        texts = list(self._texts)
        assert texts
        after = await self._counters()
        # Asking for the counters counts, too.
        done = {name: (after[name] - before[name]) - (before[name] - first[name]) for name in _COUNTERS}
        read = sum(done.values()) - done["Sort_rows"]
        if read > PER_ROW * rows + ENOUGH:
            found.append(f"reads {read} rows for {rows}: {done}")
        if done["Sort_rows"] > sorts:
            found.append(f"sorts {done['Sort_rows']} rows for {rows}, not {sorts}")
        for text in texts:
            found += [f"{words}: {text[:200]!r}" async for words in self._wrong(text)]

    async def _counters(self) -> dict[str, int]:
        found = await self.agent.verbs.store.database.ask(f"SHOW SESSION STATUS WHERE Variable_name IN ({_NAMES})")
        return {str(name): int(value) for name, value in found}

    async def _wrong(self, text: bytes) -> AsyncIterator[str]:
        for statement in _statements(text):
            [plan] = await self.agent.verbs.store.database.read(partial(_explained, statement))
            for row in plan.rows:
                # MySQL has two columns more than MariaDB.
                table, kind, extra = row[2], row[3 if len(row) == 10 else 4], str(row[-1])
                if self._is_large(table, statement):
                    if kind == "ALL":
                        yield f"reads {table} from one end to the other"
                    if "filesort" in extra and b"SKIP LOCKED" in statement and b"ORDER BY j.id" not in statement:
                        yield f"locks all of {table} that may be meant, to sort it"

    def _is_large(self, table: str | None, statement: bytes) -> bool:
        """By its name or its alias."""
        return any(
            table == large or f"{large} AS {table} ".encode() in statement + b" " for large in self._large if table
        )


class Recorded(Database):
    """One connection, so that its counters tell of everything."""

    def __init__(self, under: Database, agent: str, texts: list[bytes]) -> None:
        super().__init__(under.address, agent, size=1)
        self._texts = texts

    async def _connect(self) -> Session:
        session = await super()._connect()
        run = session._run

        async def recording(text: bytes, skipped: int) -> list[Result]:
            self._texts.append(text)
            return await run(text, skipped)

        session._run = recording  # type: ignore[method-assign]
        return session


def _statements(text: bytes) -> Iterator[bytes]:
    parts = (part.strip() for part in text.split(b"; "))
    return (part for part in parts if part.startswith(_EXPLAINED) or (part.startswith(b"INSERT") and b"SELECT" in part))


async def _explained(statement: bytes, session: Session) -> list[Result]:
    return await session.script(b"EXPLAIN " + statement)
