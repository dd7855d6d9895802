"""Plans of the Postgres transport's statements as they run, nested ones too, told by auto_explain."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from jobmaster_agents.postgres import PostgresAgent
from jobmaster_agents.postgres.connection import Connection, Database
from jobmaster_agents.postgres.tables import Tables

EXPLAINING = {
    "session_preload_libraries": "auto_explain",
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_analyze": "on",
    "auto_explain.log_buffers": "on",
    "auto_explain.log_timing": "off",
    "auto_explain.log_nested_statements": "on",
    "auto_explain.log_format": "json",
    "client_min_messages": "log",
}
ENOUGH = 50
"""Rows and sorted rows that are allowed beyond what a batch needs."""


class Explained(Database):
    """A database whose connections tell how each statement was run. One connection, so that order is kept."""

    def __init__(self, under: Database, agent: str) -> None:
        super().__init__(under.address, agent, size=1)
        self.plans: list[dict[str, Any]] = []

    def settings(self) -> dict[str, Any]:
        settings = super().settings()
        settings["server_settings"] |= EXPLAINING
        return settings

    @asynccontextmanager
    async def _session(self, *, writes: bool, since: float) -> AsyncIterator[Connection]:
        async with super()._session(writes=writes, since=since) as connection:
            connection.add_log_listener(self._listen)
            try:
                yield connection
                # What has arrived is handed over by the loop.
                await asyncio.sleep(0)
            finally:
                connection.remove_log_listener(self._listen)

    def _listen(self, _: object, message: Any) -> None:
        _, found, text = str(message.message).partition("plan:\n")
        if found:
            self.plans.append(json.loads(text))


class Watched:
    """What an agent's statements did, since `forget`."""

    def __init__(self, agent: PostgresAgent, tables: Tables, database: Explained) -> None:
        self.agent = agent
        self.tables = tables
        self._database = database

    @classmethod
    async def of(cls, agent: PostgresAgent, tables: Tables) -> "Watched":
        """Its statements are explained from here on."""
        under = agent.verbs.store.database
        database = Explained(under, agent.name)
        await database.open()
        agent.verbs.store.database = database
        await under.close()
        return cls(agent, tables, database)

    @contextmanager
    def complaints(self, rows: int) -> Iterator[list[str]]:
        """Fills the list with what the statements inside should not have done, where `rows` rows were asked for."""
        found: list[str] = []
        self._database.plans.clear()
        yield found
        assert self._database.plans
        for plan in self._database.plans:
            text = " ".join(str(plan.get("Query Text", "")).split())[:200]
            found += [f"{words}: {text}" for words in self._wrong(plan["Plan"], rows)]

    @property
    def pages(self) -> int:
        """Pages looked at by the statements since, cached or not."""
        return sum(
            plan["Plan"].get("Shared Hit Blocks", 0) + plan["Plan"].get("Shared Read Blocks", 0)
            for plan in self._database.plans
        )

    def forget(self) -> None:
        self._database.plans.clear()

    def _wrong(self, plan: dict[str, Any], rows: int) -> Iterator[str]:
        large = (self.tables.job, self.tables.outbox, self.tables.tombstone)
        read = 0
        for node in _nodes(plan):
            kind, relation = node["Node Type"], node.get("Relation Name")
            passed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
            touched = round((node.get("Actual Rows", 0) + passed) * node.get("Actual Loops", 1))
            if kind == "Seq Scan" and relation in large:
                yield f"reads {relation} from one end to the other ({touched} rows)"
            elif relation in large and kind != "ModifyTable":
                read += touched
            if "Sort" in kind and touched > rows + ENOUGH:
                yield f"sorts {touched} rows for {rows}"
        if read > 4 * rows + ENOUGH:
            yield f"reads {read} rows for {rows}"


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)
