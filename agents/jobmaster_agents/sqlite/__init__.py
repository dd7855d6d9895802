"""The SQLite transport."""

from jobmaster_agents.sqlite.agent import SqliteAgent

__all__ = ["SqliteAgent"]
