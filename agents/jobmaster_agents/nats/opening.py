"""Opening: streams made or checked, and the store named."""

from uuid import uuid4

from msgspec import structs

from jobmaster_agents.nats.frames import header_block
from jobmaster_agents.nats.probing import check, removed_up_to
from jobmaster_agents.nats.publisher import EXPECTED
from jobmaster_agents.nats.records import StoreSettings, encode
from jobmaster_agents.nats.store import Store
from jobmaster_agents.nats.streams import ensure_streams, stream_configs


async def bring_up(store: Store) -> None:
    """Streams as they have to be, on servers that are safe, and a store without a name gets one."""
    options = store.options
    await ensure_streams(
        store.link, stream_configs(store.subjects, replicas=options.replicas, retention=options.retention)
    )
    store.accepted = await check(store)
    store.consumers.forget()
    await store.consumers.ensure_expiry()
    settings, _ = await store.reader.settings()
    if settings is None:
        headers = header_block((EXPECTED, "0"))
        await store.link.ask(store.subjects.state, encode(StoreSettings(uuid4().hex)), headers=headers)
    removed = removed_up_to(await store.reader.state())
    await store.change_confirmed(lambda now: now if now.floor is not None else structs.replace(now, floor=removed))
