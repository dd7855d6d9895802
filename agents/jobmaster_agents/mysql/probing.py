"""What a server must be set to, and what is worth telling of it. What that is, is in `contracts.mysql_settings`."""

from collections.abc import Mapping

from jobmaster.contracts.mysql_settings import MYSQL_QUESTIONS, mysql_facts, mysql_faults
from jobmaster.contracts.server_settings import SettingFault, refuse_unless
from jobmaster_agents.mysql.store import Store


async def check(store: Store, *, accept_unsafe: bool) -> None:
    """Raise `UnsafeStore` for a setting under which a promise would not hold. The tables need not be there yet."""
    name = f"agent {store.agent!r} at {store.database.address.shown}"
    refuse_unless(name, await _faults(store, await _settings(store)), accept_unsafe=accept_unsafe)


async def probe(store: Store) -> tuple[tuple[str, ...], Mapping[str, str]]:
    """Findings and facts. A fault is a finding here: it was accepted, or came while the store was open, and who asks
    wants to know and not to be refused."""
    settings = await _settings(store)
    return tuple(fault.finding for fault in await _faults(store, settings)), mysql_facts(settings)


async def _faults(store: Store, settings: Mapping[str, str]) -> list[SettingFault]:
    faults = mysql_faults(settings)
    others = await store.database.ask(
        "SELECT table_name, engine FROM information_schema.tables WHERE table_schema = DATABASE() "
        "AND table_name LIKE ? AND engine <> 'InnoDB' ORDER BY table_name",
        store.tables.prefix.replace("_", "\\_") + "%",
    )
    for table, engine in others:
        faults.append(
            SettingFault(
                f"engine of {table}",
                str(engine),
                f"convert it: ALTER TABLE {table} ENGINE = InnoDB",
                "nothing is undone or locked row by row there, so jobs could be lost or run twice",
            )
        )
    return faults


async def _settings(store: Store) -> dict[str, str]:
    found: dict[str, str] = {}
    for question in MYSQL_QUESTIONS:
        found |= {str(name): str(value) for name, value in await store.database.ask(question)}
    return found
