"""The Postgres transport."""

from jobmaster_agents.postgres.agent import PostgresAgent

__all__ = ["PostgresAgent"]
