"""Pruning: old outcomes go from the front of their stream, never from behind the floor.

The floor is the first record that is still needed: one the master has not got, one that is not a day old (a late put
can't be told from a new one without it), or the last word on a job that is still here. The last kind would pin the
floor for as long as a job waits. So a record of a waiting job is written once more, at the end; nobody holds such a
job, so no fence breaks. A lease pins the floor until it ends.
"""

from msgspec import structs

from jobmaster_agents.nats import api
from jobmaster_agents.nats.publisher import Write
from jobmaster_agents.nats.reader import NONE, Last, Stored
from jobmaster_agents.nats.records import new_nonce
from jobmaster_agents.nats.store import Store

PAGE = 1_000


async def prune(store: Store, limit: int) -> int:
    """Forget up to `limit` records of jobs that are gone, and whatever is older; how many."""
    confirmed, _ = await store.reader.confirmed()
    before_us = await store.now_us() - store.options.keep_us
    stream, outs = store.subjects.out_stream, store.subjects.outs
    forgotten, floor, start = 0, 0, 1
    while forgotten < limit:
        found, more = await store.reader.page(stream, outs, start, min(PAGE, limit))
        old = [stored for stored in found if stored.seq <= confirmed.cursor and stored.at_us < before_us]
        passed, gone, pinned = await _pass(store, old, limit - forgotten)
        forgotten += gone
        floor = max(floor, passed)
        if pinned or not more or len(old) < len(found):
            break
        start = found[-1].seq + 1
    if floor:
        # Said first: what is gone above the floor was removed by somebody else.
        await store.change_confirmed(lambda now: structs.replace(now, floor=max(now.floor or 0, floor)))
        await api.call(store.link, f"STREAM.PURGE.{stream}", seq=floor + 1)
    return forgotten


async def _pass(store: Store, old: list[Stored], limit: int) -> tuple[int, int, bool]:
    """How far the floor may rise through these, how many of them were the last word on a job that is gone, and whether
    it ends there."""
    lasts = await store.reader.lasts([_job_id(stored) for stored in old])
    kept = await _written_again(store, old, lasts)
    passed = gone = 0
    for stored in old:
        last = lasts.get(_job_id(stored), NONE)
        if last.seq == stored.seq and last.record is not None:
            if last.record.gone:
                if gone == limit:
                    return passed, gone, True
                gone += 1
            elif stored.seq not in kept:
                return passed, gone, True
        passed = stored.seq
    return passed, gone, False


async def _written_again(store: Store, old: list[Stored], lasts: dict[str, Last]) -> set[int]:
    """The sequences of records of waiting jobs that stand at the end now."""
    writes = []
    for stored in old:
        last = lasts.get(_job_id(stored), NONE)
        if last.seq == stored.seq and last.record is not None and not last.record.gone and not last.record.leased:
            # The master has it: the copy is no fact, only the fence.
            copy = structs.replace(last.record, nonce=new_nonce(), kind="")
            writes.append(Write(_job_id(stored), copy, last.seq))
    accepted = await store.publisher.commit(writes)
    # One that somebody else was quicker to write has a later record, too.
    return {write.expected for write, _ in zip(writes, accepted, strict=True)}


def _job_id(stored: Stored) -> str:
    return stored.subject.rpartition(".")[2]
