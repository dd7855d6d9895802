"""SQLAlchemy Core on the writer's connection: for the master's statements and for migrations.

The transaction is the writer's. So the engine made here never begins, commits or rolls back by itself; what a block
does becomes durable with the writer's COMMIT, or is undone with it.
"""

import sqlite3

from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import StaticPool


def core_engine(connection: sqlite3.Connection) -> Engine:
    """An engine whose only connection is the given one; use and dispose of it on the writer's thread."""
    engine = create_engine(
        "sqlite://",
        creator=lambda: connection,
        poolclass=StaticPool,
        pool_reset_on_return=None,
    )
    for transactional in ("do_begin", "do_commit", "do_rollback", "do_close", "do_terminate"):
        setattr(engine.dialect, transactional, _nothing)
    return engine


def _nothing(_connection: object) -> None:
    """The writer decides."""
