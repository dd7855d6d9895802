"""Credentials of a decentralised account of NATS let a client in, and none, or another operator's, do not."""

from collections.abc import Callable
from pathlib import Path

import pytest

from jobmaster.model.errors import AgentUnreachable, ConfigurationError
from jobmaster.testing.agents.cases import claimed_new, settle
from jobmaster_agents.nats import NatsAgent, connection, options
from tests.servers import Nats

pytestmark = pytest.mark.asyncio


async def test_credentials_let_a_client_in(
    own_nats: Callable[..., Nats], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("nkeys", reason="credentials need the package nkeys, of the extra [nats]")
    from tests.servers.operator import signed

    (tmp_path / "other").mkdir()
    made, other = signed(tmp_path), signed(tmp_path / "other")
    server = own_nats(settings=made.settings)

    def agent(**given: str) -> NatsAgent:
        return NatsAgent(server.url, cluster="c", name="a", options={"monitor": server.monitor, **given})

    inside = agent(creds=made.credentials)
    await inside.open()
    try:
        assert await settle(inside, await claimed_new(inside)) == "accepted"
    finally:
        await inside.close()
    # Whoever is not let in gives up soon.
    monkeypatch.setattr(connection, "OPENING_SECONDS", 1.5)
    for outside in (agent(), agent(creds=other.credentials)):
        with pytest.raises(AgentUnreachable, match=r"(?i)authorization"):
            await outside.open()


async def test_credentials_without_what_they_need_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "find_spec", lambda _: None)

    with pytest.raises(ConfigurationError, match="nkeys"):
        NatsAgent("nats://localhost", cluster="c", name="a", options={"creds": "worker.creds"})
