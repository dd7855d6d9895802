"""Probing: may this server be worked with, and is everything there as it was made?"""

from collections.abc import Mapping
from typing import Any

from jobmaster.contracts.server_settings import refuse_unless
from jobmaster.contracts.values import ProbeReport
from jobmaster.model.errors import SchemaOutdated
from jobmaster_agents.nats import api, damaged
from jobmaster_agents.nats.api import ApiError
from jobmaster_agents.nats.monitoring import syncs
from jobmaster_agents.nats.records import StoreSettings
from jobmaster_agents.nats.safety import Server, faults, findings
from jobmaster_agents.nats.store import Store, facts
from jobmaster_agents.nats.streams import MESSAGE_BYTES, drifts, stream_configs

SOME = 10
"""Lanes that a finding names."""


async def check(store: Store) -> tuple[str, ...]:
    """What was accepted of the servers. Raises `UnsafeStore` for what was not; the streams must be there."""
    options = store.options
    client = store.link.client
    version = client.connected_server_version
    info = await _stream(store, store.subjects.out_stream)
    cluster = info.get("cluster") or {}
    names = [cluster.get("leader"), *(peer["name"] for peer in cluster.get("replicas") or ())]
    server = Server(
        version=(version.major, version.minor, version.patch),
        max_payload=client.max_payload,
        jetstream=True,
        nodes=frozenset(name for name in names if name) if cluster.get("name") else frozenset(),
        replicas=info["config"]["num_replicas"],
        syncs=await syncs(store.name, options.monitors),
    )
    store.publisher.grouped = server.synced is True or server.replicas > 1
    lazy = options.accept_lazy_fsync
    found = faults(server, needed_payload=MESSAGE_BYTES, lazy=lazy)
    accepted = refuse_unless(f"agent {store.name!r} (NATS)", list(found), accept_unsafe=options.accept_unsafe)
    return (*accepted, *findings(server, lazy=lazy))


async def probe(store: Store) -> ProbeReport:
    settings, _ = await store.reader.settings()
    options = store.options
    told = list(store.accepted)
    states = {}
    for config in stream_configs(store.subjects, replicas=options.replicas, retention=options.retention):
        name = config["name"]
        info = await _stream(store, name)
        states[name] = info["state"]
        told += [
            f"stream {name}: {setting} is {found!r}, {remedy}; else {otherwise}"
            for setting, found, remedy, otherwise in drifts(config, info["config"])
        ]
    told += await _exhausted(store)
    told += await damaged.found(store)
    out = states[store.subjects.out_stream]
    # Read after the stream: whoever prunes says so before it is done.
    confirmed, _ = await store.reader.confirmed()
    incarnation = settings.incarnation if settings is not None else ""
    return ProbeReport(
        incarnation=incarnation,
        mode=(settings or StoreSettings("")).mode,
        high_water=confirmed.base + int(out["last_seq"]),
        joined=incarnation == store.shared.incarnation,
        # Of ours nobody removes what is above the floor: the fences and tombstones are gone with it.
        emptied=confirmed.floor is not None and removed_up_to(out) > confirmed.floor,
        findings=tuple(told),
        facts=facts(
            kind="nats",
            server=str(store.link.client.connected_server_version).strip("<>").rpartition(" v")[2],
            replicas=options.replicas,
        ),
    )


def removed_up_to(state: Mapping[str, Any]) -> int:
    """The last sequence that is gone from a stream."""
    return max(int(state["first_seq"]) - 1, 0)


async def _stream(store: Store, name: str) -> dict[str, Any]:
    try:
        return await api.call(store.link, f"STREAM.INFO.{name}")
    except ApiError as error:
        if error.code != api.NOT_FOUND:
            raise
        remedy = "somebody has removed it: open the agent again"
        raise SchemaOutdated(f"agent {store.name!r}: stream {name}", None, "the stream", remedy) from error


async def _exhausted(store: Store) -> list[str]:
    """Lanes of which nothing more is handed out, because too much of it was never acknowledged."""
    full = sorted(
        info["name"]
        for info in await store.reader.consumers()
        if info["num_ack_pending"] >= info["config"].get("max_ack_pending", 1_000)
    )
    if not full:
        return []
    names, stream = ", ".join(full[:SOME]), store.subjects.jobs_stream
    why = "as many deliveries as max_ack_pending allows wait for their outcome; start fewer jobs at once, or raise it"
    return [f"nothing more is handed out by consumers {names} of stream {stream}: {why}"]
