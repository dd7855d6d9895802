"""How lanes divide claims: by weight, strictly, and never so that one of them gets nothing."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobmaster.worker.sharing import Sharing
from tests.unit.worker.test_slots import Bench

LANES = ("a", "b", "c")


@given(
    weights=st.dictionaries(st.sampled_from(LANES), st.integers(1, 100)),
    limits=st.lists(st.integers(1, 50), min_size=1, max_size=60),
    strict=st.booleans(),
)
def test_quotas_are_the_whole_claim_and_shares_hold_over_time(
    weights: dict[str, int], limits: list[int], strict: bool
) -> None:
    sharing = Sharing(LANES, weights, strict=strict)
    got: Counter[str] = Counter()
    for limit in limits:
        quotas = sharing.divide(limit, LANES)
        assert sum(quotas.values()) == limit
        assert min(quotas.values()) > 0
        got.update(quotas)
    shares = sharing._shares(list(LANES))
    for lane, share in shares.items():
        assert abs(got[lane] - share * sum(limits)) <= len(LANES)


@pytest.mark.parametrize("limit", [1, 2, 7, 100])
def test_strict_order_serves_the_first_and_starves_nobody(limit: int) -> None:
    sharing = Sharing(LANES, {}, strict=True)
    got: Counter[str] = Counter()
    for _ in range(160):
        got.update(sharing.divide(limit, LANES))
    total = 160 * limit
    assert abs(got["a"] - total * 7 / 8) <= 3
    assert abs(got["b"] - total / 16) <= 3
    assert abs(got["c"] - total / 16) <= 3


def test_a_lane_that_has_nothing_is_no_reason_to_wait() -> None:
    sharing = Sharing(LANES, {"a": 8}, strict=False)
    for _ in range(10):
        assert sharing.divide(10, ["b"]) == {"b": 10}
    assert sharing.divide(10, LANES)["a"] >= 7


def test_a_pool_goes_by_its_sharing_and_still_asks_those_that_were_empty() -> None:
    bench = Bench(8, lanes=LANES, sharing=Sharing(LANES, {"a": 6}, strict=False))
    pool = bench.pool
    first = pool.quotas(80)
    assert first == {"a": 60, "b": 10, "c": 10}
    pool.claimed(first, {"a": 60, "b": 3})
    second = pool.quotas(80)
    assert second == {"a": 70, "b": 5, "c": 5}
    pool.claimed(second, {})
    assert pool.starved


def test_a_pool_too_small_for_all_its_lanes_is_starved_once_it_has_asked_each() -> None:
    for sharing in (None, Sharing(LANES, {"a": 2}, strict=False)):
        pool = Bench(1, lanes=LANES, sharing=sharing).pool
        asked = set[str]()
        for _ in range(len(LANES) + 3):
            quotas = pool.quotas(1)
            assert sum(quotas.values()) == 1
            asked |= quotas.keys()
            pool.claimed(quotas, {})
            if pool.starved:
                break
        assert pool.starved
        assert asked == set(LANES)


def test_shares_hold_from_the_first_claim_after_an_idle_time() -> None:
    """However often nothing was found before, and whichever lane's turn it was to be asked."""
    for idle in range(12):
        pool = Bench(
            1, lanes=("bulk", "default"), sharing=Sharing(("default", "bulk"), {"default": 3}, strict=False)
        ).pool
        for _ in range(idle):
            while not pool.starved:
                pool.claimed(pool.quotas(1), {})
            pool.starved = False
        got: Counter[str] = Counter()
        for _ in range(80):
            quotas = pool.quotas(1)
            pool.claimed(quotas, quotas)
            got.update(quotas)
        assert 58 <= got["default"] <= 62, (idle, got)


def test_each_lane_is_asked_again_whenever_something_may_have_come() -> None:
    for sharing in (None, Sharing(LANES, {"a": 2}, strict=False)):
        pool = Bench(1, lanes=LANES, sharing=sharing).pool
        for _ in range(5):
            asked = set[str]()
            pool.starved = False
            while not pool.starved:
                quotas = pool.quotas(1)
                asked |= quotas.keys()
                pool.claimed(quotas, {})
            assert asked == set(LANES)
