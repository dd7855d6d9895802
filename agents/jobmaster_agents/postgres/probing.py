"""What a server must be set to, and what is worth telling of it. What that is, is in `contracts.server_settings`."""

from collections.abc import Mapping

from jobmaster.contracts.server_settings import (
    POSTGRES_QUESTION,
    postgres_facts,
    postgres_faults,
    postgres_findings,
    refuse_unless,
)
from jobmaster_agents.postgres.store import Store


async def check(store: Store, *, accept_unsafe: bool) -> None:
    """Raise `UnsafeStore` for a setting under which a promise would not hold. The tables need not be there yet."""
    settings = await _settings(store)
    name = f"agent {store.agent!r} at {store.database.address.shown}"
    refuse_unless(name, postgres_faults(settings), accept_unsafe=accept_unsafe)


async def probe(store: Store) -> tuple[tuple[str, ...], Mapping[str, str]]:
    """Findings and facts. A fault is a finding here: it was accepted, or came while the store was open, and who asks
    wants to know and not to be refused."""
    settings = await _settings(store)
    findings = [*(fault.finding for fault in postgres_faults(settings)), *postgres_findings(settings)]
    if store.database.pooled:
        findings.append(
            "it is reached through a pooler that gives each transaction another session: jobs that other processes "
            "enqueue are found by polling, up to a second later, and time limits of the server's own are left to it; "
            "connect to the server itself to be told at once"
        )
    return tuple(findings), postgres_facts(settings)


async def _settings(store: Store) -> dict[str, str]:
    return {str(name): str(value) for name, value in await store.database.ask(POSTGRES_QUESTION)}
