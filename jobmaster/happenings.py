"""What happens to the topology without anybody deciding it on the master, told to it for the history."""

from collections.abc import Mapping
from typing import Any

import msgspec
import structlog

from jobmaster.actor import this_process
from jobmaster.contracts.entries import Event
from jobmaster.contracts.master import MasterStore
from jobmaster.model.errors import StoreError
from jobmaster.model.ids import new_id

_log = structlog.get_logger("jobmaster.topology")


async def note(master: MasterStore, kind: str, subject: str, detail: Mapping[str, Any] | None = None) -> None:
    """Keep it, if the master answers. Raises nothing: nothing may depend on it."""
    raw = msgspec.json.encode(detail) if detail else None
    event = Event(id=new_id(), kind=kind, subject=subject, who=this_process(), detail=raw)
    try:
        await master.record([event])
    except StoreError as error:
        _log.info("topology.not_recorded", kind=kind, subject=subject, error=str(error))
