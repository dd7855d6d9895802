"""Monitoring: what only a server's HTTP monitoring tells, namely whether it syncs what it acknowledges."""

import asyncio
import urllib.request
from collections.abc import Sequence
from typing import Any

import msgspec

from jobmaster.model.errors import AgentUnreachable

PATIENCE = 5.0

_decode = msgspec.json.Decoder(dict[str, Any]).decode


async def syncs(agent: str, monitors: Sequence[str]) -> dict[str, bool]:
    """By server name, whether each syncs every write before it answers. Raises `AgentUnreachable` if one of these
    addresses does not answer as a NATS server's monitoring does."""
    found: dict[str, bool] = {}
    for address in monitors:
        try:
            said = await asyncio.to_thread(_ask, address)
            found[str(said["server_name"])] = bool(said["jetstream"]["config"].get("sync_always", False))
        except (OSError, KeyError, TypeError, ValueError) as error:
            problem = f"its monitoring at {address} does not answer ({type(error).__name__}: {error})"
            raise AgentUnreachable(agent, problem, "set monitor to the http address of each server") from error
    return found


def _ask(address: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{address.rstrip('/')}/varz", timeout=PATIENCE) as answer:  # noqa: S310 - checked
        body: bytes = answer.read()
    return _decode(body)
