"""What a connection of the caller's tells of the end of its transaction."""

import sys
from collections.abc import Callable
from typing import Any

KEY = "jobmaster.after_commit"

Waiting = list[tuple[Callable[[], None], Callable[[], None]]]


def when_ended(connection: Any, committed: Callable[[], None], rolled_back: Callable[[], None]) -> None:
    """Have one of the two called when the present transaction of a SQLAlchemy `AsyncSession` has ended. Other
    connections tell of nothing: an `AsyncConnection` has an event before its commit only, the drivers have none."""
    # A session can only be had by who has imported the module.
    module = sys.modules.get("sqlalchemy.ext.asyncio")
    if module is None:
        return
    if isinstance(connection, module.async_scoped_session):
        connection = connection()
    if isinstance(connection, module.AsyncSession):
        _waiting(connection.sync_session).append((committed, rolled_back))


def _waiting(session: Any) -> Waiting:
    """Those who wait for a session. It is listened to once and for all: a listener can't be removed while it is
    called."""
    known: Waiting | None = session.info.get(KEY)
    if known is not None:
        return known
    from sqlalchemy import event

    waiting: Waiting = []
    session.info[KEY] = waiting

    def after_commit(_: Any) -> None:
        # A savepoint's release is told of, too.
        if not session.in_nested_transaction():
            _tell(waiting, 0)

    def after_rollback(_: Any, transaction: Any) -> None:
        if transaction.parent is None:
            _tell(waiting, 1)

    event.listen(session, "after_commit", after_commit)
    event.listen(session, "after_soft_rollback", after_rollback)
    return waiting


def _tell(waiting: Waiting, which: int) -> None:
    told = waiting[:]
    waiting.clear()
    for pair in told:
        pair[which]()
