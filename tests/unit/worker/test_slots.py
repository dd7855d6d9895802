"""Slots: quotas, prefetch, the one suspect, and what waits too long."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobmaster.model.job import Job
from jobmaster.worker.lease import Lease
from jobmaster.worker.sharing import Sharing
from jobmaster.worker.slots import PREFETCH_CLAIMS, SHORT_RUN_PREFETCH, SlotPool, SuspectGate


class Still:
    worker_id = "w"

    def mono(self) -> float:
        return 0.0

    def progressed(self, lease: Lease) -> None:
        pass


def a_lease(at: float = 0.0, **fields: Any) -> Lease:
    job = Job(id="0" * 36, handler="h", claim_seq=1, created_us=0, original_due_us=0, due_us=0, **fields)
    return Lease(job, Still(), at, at + 12.5)


class Bench:
    """A pool whose runs are ended by hand."""

    def __init__(
        self,
        slots: int,
        *,
        lanes: tuple[str, ...] = ("default",),
        ceiling: int | None = None,
        sharing: Sharing | None = None,
    ) -> None:
        self.gate = SuspectGate()
        self.running: list[Lease] = []
        self.pool = SlotPool(
            lanes, slots, ceiling, lambda _, lease: self.running.append(lease), lambda _: None, self.gate, sharing
        )

    def end(self, lease: Lease, seconds: float = 0.001) -> None:
        self.running.remove(lease)
        self.pool.freed(lease, seconds)


def test_no_more_run_than_there_are_slots() -> None:
    bench = Bench(2)
    leases = [a_lease() for _ in range(5)]

    bench.pool.add(leases)

    assert bench.running == leases[:2]
    bench.end(leases[0])
    assert bench.running == leases[1:3]


def test_only_one_suspect_runs_and_it_holds_nobody_up() -> None:
    bench = Bench(3)
    first, second = a_lease(suspect=True), a_lease(suspect=True)
    plain = [a_lease(), a_lease(), a_lease()]

    bench.pool.add([first, second, *plain])

    assert bench.running == [first, *plain[:2]]
    bench.end(plain[0])
    assert second not in bench.running
    bench.end(first)
    assert second in bench.running


def test_suspects_of_two_workers_of_a_process_run_one_at_a_time() -> None:
    gate, ran = SuspectGate(), []
    pools = [
        SlotPool(("default",), 1, None, lambda _, lease: ran.append(lease), lambda _: None, gate) for _ in range(2)
    ]
    first, second = a_lease(suspect=True), a_lease(suspect=True)

    pools[0].add([first])
    pools[1].add([second])

    assert ran == [first]
    pools[0].freed(first, 1.0)
    pools[1].fill()
    assert ran == [first, second]


def test_waiting_suspects_take_no_room_from_others() -> None:
    bench = Bench(10)

    bench.pool.add([a_lease(suspect=True) for _ in range(8)])

    assert bench.pool.room == 9


def test_suspects_without_end_do_take_room() -> None:
    bench = Bench(10)

    bench.pool.add([a_lease(suspect=True) for _ in range(100)])

    assert bench.pool.room == 0


def test_an_idle_pool_wants_its_slots_and_nothing_more() -> None:
    bench = Bench(10)
    bench.pool.measure(0.0)

    assert bench.pool.room == 10
    assert bench.pool.hungry


def test_long_jobs_are_not_prefetched() -> None:
    bench = Bench(10)
    bench.pool.measure(0.0)
    bench.pool.add([a_lease() for _ in range(10)])
    bench.pool.measure(5.0)

    assert bench.pool.prefetch == 0
    assert bench.pool.room == 0
    assert not bench.pool.hungry


def run_for(bench: Bench, seconds: float, starts: int) -> None:
    """Keep the pool busy for so long, with so many starts."""
    steps = 20
    bench.pool.measure(0.0)
    for step in range(1, steps + 1):
        for _ in range(starts // steps):
            bench.pool.add([a_lease()])
            bench.end(bench.running[0], seconds * bench.pool.slots / starts)
        bench.pool.measure(seconds * step / steps)


def test_short_jobs_are_prefetched_fifty_milliseconds_ahead() -> None:
    bench = Bench(10)

    run_for(bench, 1.0, 2_000)

    assert bench.pool.prefetch == pytest.approx(100, abs=5)


def test_a_worker_that_was_idle_is_soon_up_to_speed() -> None:
    bench = Bench(10)
    bench.pool.measure(0.0)
    bench.pool.measure(3_600.0)

    for _ in range(200):
        bench.pool.add([a_lease()])
        bench.end(bench.running[0], 0.0025)
    bench.pool.measure(3_600.05)

    assert bench.pool.prefetch > 50


def test_short_jobs_are_prefetched_for_as_long_as_some_claims_take() -> None:
    bench = Bench(10)
    for _ in range(50):
        bench.pool.claimed({"default": 10}, {"default": 10}, 0.05)

    run_for(bench, 1.0, 2_000)

    assert bench.pool.prefetch == pytest.approx(2_000 * PREFETCH_CLAIMS * 0.05, abs=10)


def test_slow_claims_are_no_reason_to_prefetch_longer_jobs() -> None:
    bench = Bench(10)
    for _ in range(50):
        bench.pool.claimed({"default": 10}, {"default": 10}, 3.0)

    run_for(bench, 1.0, 500)

    assert bench.pool.prefetch == pytest.approx(20, abs=5)


def test_very_short_jobs_are_prefetched_up_to_the_ceiling() -> None:
    bench = Bench(10)

    run_for(bench, 1.0, 40_000)

    assert bench.pool.prefetch == SHORT_RUN_PREFETCH


def test_the_setting_is_a_ceiling() -> None:
    bench = Bench(10, ceiling=20)

    run_for(bench, 1.0, 40_000)

    assert bench.pool.prefetch == 20


def test_jobs_of_ten_milliseconds_and_more_are_prefetched_twice_the_slots() -> None:
    bench = Bench(100)

    run_for(bench, 1.0, 8_000)

    assert bench.pool.prefetch == 200


def test_prefetch_fades_when_the_slots_are_blocked() -> None:
    bench = Bench(10)
    run_for(bench, 1.0, 4_000)

    bench.pool.add([a_lease() for _ in range(50)])
    bench.pool.measure(4.0)

    assert bench.pool.prefetch == 0


def test_claims_that_wait_too_long_are_taken_out() -> None:
    bench = Bench(1)
    old, young = a_lease(0.0), a_lease(3.0)
    bench.pool.add([a_lease(0.0), old, young])
    bench.pool.add([a_lease(0.0, suspect=True)])

    taken = bench.pool.overdue(2.0, -1.0)

    assert taken == [old]
    assert bench.pool.next_overdue(1.0, 5.0) == 4.0
    assert len(bench.pool.clear()) == 2
    assert bench.pool.next_overdue(1.0, 5.0) == float("inf")


def test_a_single_lane_gets_the_whole_quota() -> None:
    assert Bench(10).pool.quotas(7) == {"default": 7}


LANES = ("a", "b", "c")


def test_lanes_that_had_less_are_asked_for_a_little() -> None:
    pool = Bench(100, lanes=LANES).pool
    pool.claimed(pool.quotas(90), {"a": 30})

    quotas = pool.quotas(96)

    assert quotas["a"] > 80
    assert min(quotas.values()) >= 1
    assert sum(quotas.values()) == 96


def test_a_lane_that_has_something_again_gets_its_share_back() -> None:
    pool = Bench(100, lanes=LANES).pool
    pool.claimed(pool.quotas(90), {"a": 30})
    quotas = pool.quotas(96)
    pool.claimed(quotas, quotas)

    assert set(pool.quotas(90).values()) == {30}


def test_fewer_places_than_lanes_go_round() -> None:
    pool = Bench(100, lanes=LANES).pool

    asked = {lane for _ in range(3) for lane in pool.quotas(1)}

    assert asked == set(LANES)


@given(limit=st.integers(1, 600), full=st.sets(st.sampled_from(LANES)), rounds=st.integers(1, 4))
def test_quotas_never_exceed_the_limit_and_never_waste_it(limit: int, full: set[str], rounds: int) -> None:
    pool = Bench(100, lanes=LANES).pool
    for _ in range(rounds):
        quotas = pool.quotas(limit)
        pool.claimed(quotas, {lane: quota for lane, quota in quotas.items() if lane in full})

        assert sum(quotas.values()) == limit
        assert min(quotas.values()) >= 1
        assert len(quotas) == min(limit, len(LANES))


def test_a_claim_that_filled_no_lane_leaves_the_pool_starved() -> None:
    pool = Bench(100, lanes=LANES).pool
    pool.claimed(pool.quotas(90), {"a": 3})
    assert pool.starved

    pool.claimed(pool.quotas(90), {"a": 90})
    assert not pool.starved


def test_a_saturation_is_told_once_with_its_duration() -> None:
    bench = Bench(1)
    pool, lease, queued = bench.pool, a_lease(), a_lease()
    pool.add([lease, queued])
    assert pool.saturation(1.0) is None
    assert pool.saturation(3.0) is None

    bench.end(lease)
    assert pool.saturation(4.0) is None
    bench.end(queued)
    pool.claimed({"default": 1}, {})

    assert pool.saturation(5.0) == 4.0
    assert pool.saturation(6.0) is None
