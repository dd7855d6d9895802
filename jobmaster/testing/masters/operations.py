"""The master contract: what operators asked for."""

import asyncio

import pytest
from msgspec.structs import replace

from jobmaster.contracts.operating import Operation, OperationKind, OperationState, OperationTerms
from jobmaster.contracts.values import JobFilter
from jobmaster.model.ids import new_id
from jobmaster.model.states import JobState
from jobmaster.testing.masters.harness import SECOND, MasterHarness

MINUTE_US = 60 * SECOND
TERMS = OperationTerms(
    where=JobFilter(lane="mails", metadata={"customer": 7}, states=frozenset({JobState.FAILED})), per_second=0.5
)


def operation(**fields: object) -> Operation:
    return Operation(id=new_id(), kind=OperationKind.RETRY, terms=TERMS, who="ada@host-1", **fields)  # type: ignore[arg-type]


class OperationCases:
    @pytest.mark.asyncio
    async def test_an_operation_is_kept_once_and_stamped(self, store: MasterHarness) -> None:
        master = await store.open()
        now_us = await master.store_now_us()
        first, record = operation(total=3, capped=True), operation(state=OperationState.DONE, note="at once")
        begun = await master.begin_operation(first)
        assert replace(begun, created_us=0) == first
        assert begun.created_us >= now_us
        assert await master.begin_operation(replace(first, who="eve")) == begun
        kept = await master.begin_operation(record)
        assert kept.finished_us == kept.created_us
        assert await master.operation(first.id) == begun
        assert await master.operation(new_id()) is None
        assert await master.operations(None, 10) == [kept, begun]
        assert await master.operations(kept.id, 10) == [begun]
        assert await master.operations(None, 1) == [kept]

    @pytest.mark.asyncio
    async def test_an_operation_is_one_nodes_until_its_time_is_over(self, store: MasterHarness) -> None:
        one, two = await store.open(), await store.open()
        assert await one.take_operation("node-1", MINUTE_US) is None
        await one.begin_operation(operation(state=OperationState.DONE))
        first = await one.begin_operation(operation())
        taken = await asyncio.gather(one.take_operation("a", MINUTE_US), two.take_operation("b", MINUTE_US))
        assert sorted(taken, key=lambda found: found is None) == [first, None]
        winner, loser = ("a", "b") if taken[0] is not None else ("b", "a")
        assert await two.take_operation(winner, MINUTE_US) == first
        assert await two.take_operation(loser, MINUTE_US) is None
        further = replace(first, cursor="here", seen=5, changed=3, skipped=2)
        assert await two.save_operation(further, winner) == further
        assert await two.save_operation(replace(further, seen=9), loser) is None
        await store.advance(61)
        assert await two.take_operation(loser, MINUTE_US) == further
        assert await one.save_operation(further, winner) is None

    @pytest.mark.asyncio
    async def test_an_operation_ends_once(self, store: MasterHarness) -> None:
        master = await store.open()
        done, stopped = await master.begin_operation(operation()), await master.begin_operation(operation())
        assert await master.take_operation("a", MINUTE_US) == done
        ended = await master.save_operation(replace(done, state=OperationState.DONE, seen=1), "a")
        assert ended is not None
        assert (ended.state, ended.seen) == (OperationState.DONE, 1)
        assert ended.finished_us is not None
        assert await master.stop_operation(done.id) == ended
        assert await master.take_operation("a", MINUTE_US) == stopped
        halted = await master.stop_operation(stopped.id)
        assert halted is not None
        assert halted.state is OperationState.STOPPED
        late = await master.save_operation(replace(stopped, seen=7, state=OperationState.DONE), "a")
        assert late == replace(halted, seen=7)
        assert await master.take_operation("a", MINUTE_US) is None
        assert await master.stop_operation(new_id()) is None

    @pytest.mark.asyncio
    async def test_operations_that_ended_are_forgotten_with_the_history(self, store: MasterHarness) -> None:
        master = await store.open()
        running = await master.begin_operation(operation())
        await master.begin_operation(operation(state=OperationState.DONE))
        await master.prune(await master.store_now_us() - 3600 * SECOND, 10)
        assert len(await master.operations(None, 10)) == 2
        await master.prune(await master.store_now_us() + 3600 * SECOND, 10)
        assert await master.operations(None, 10) == [running]
