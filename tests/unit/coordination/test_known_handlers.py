"""What the live workers of an agent know."""

from jobmaster.contracts.values import WorkerCard
from jobmaster.coordination.router import known_handlers


def card(beat_us: int, *handlers: str) -> WorkerCard:
    return WorkerCard(
        id=f"w{beat_us}", name="w", host="h", pid=1, lanes=(), handlers=handlers, slots=1, started_us=0, beat_us=beat_us
    )


def test_it_is_the_union_over_those_that_live() -> None:
    cards = [card(100, "a"), card(95, "a", "b"), card(10, "gone")]
    assert known_handlers(cards, now_us=101, dead_after_us=15) == frozenset({"a", "b"})


def test_without_a_live_worker_nobody_can_judge() -> None:
    assert known_handlers([card(10, "gone")], now_us=101, dead_after_us=15) is None
    assert known_handlers([], now_us=101, dead_after_us=15) is None
