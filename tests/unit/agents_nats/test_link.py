"""The link to a NATS server, where the connection is lost."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from jobmaster.model.errors import AgentUnreachable
from jobmaster_agents.nats import connection
from jobmaster_agents.nats.connection import Link


@pytest.mark.asyncio
async def test_who_tries_again_at_once_lets_the_client_say_that_the_connection_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "MOMENT", 0.01)
    link = Link("transport-1", ["nats://127.0.0.1:1"], {})
    # After a loss that was made good, and another that the client has not told of yet: its task must run for that.
    monkeypatch.setattr(link, "client", SimpleNamespace(is_closed=False, is_connected=False))
    monkeypatch.setattr(link, "_inbox", "inbox")
    await link._whole()
    told = asyncio.create_task(asyncio.sleep(0))

    with pytest.raises(AgentUnreachable, match="made anew"):
        await link.check()

    assert told.done()


@pytest.mark.asyncio
async def test_opening_ends_in_time_though_the_client_does_not_hear_the_first_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "OPENING_SECONDS", 0.01)
    monkeypatch.setattr(connection, "_AGAIN_SECONDS", 0.01)
    heard = 0

    async def connect(**_: Any) -> None:
        nonlocal heard
        while heard < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                heard += 1
        raise ConnectionResetError

    async def close() -> None:
        pass

    link = Link("transport-1", ["nats://127.0.0.1:1"], {})
    monkeypatch.setattr(link, "client", SimpleNamespace(connect=connect, close=close))
    await link._noted(PermissionError("no"))
    await link._noted(ValueError("turned away"))
    await link._noted(ConnectionResetError())

    async with asyncio.timeout(10):
        with pytest.raises(AgentUnreachable, match="turned away"):
            await link.open()
