"""The memory transport's two orders, against sorted lists."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobmaster_agents.memory.line import Line
from jobmaster_agents.memory.order import Order

names = st.integers(0, 60).map(lambda number: f"{number:03}")


@given(st.lists(st.tuples(names, st.one_of(st.none(), st.integers(0, 9))), max_size=400))
def test_a_line_is_a_sorted_map(steps: list[tuple[str, int | None]]) -> None:
    line: Line[int] = Line()
    model: dict[str, int] = {}
    for name, key in steps:
        if key is None:
            line.discard(name)
            model.pop(name, None)
        else:
            line.put(key, name)
            model[name] = key
        assert len(line) == len(model)
        assert line.first() == min(((key, name) for name, key in model.items()), default=None)


def test_a_line_forgets_its_dead() -> None:
    line: Line[int] = Line()
    for number in range(10_000):
        line.put(number, "a")

    assert len(line._heap) < 200
    assert line.first() == (9_999, "a")


@pytest.mark.parametrize("seed", range(5))
def test_an_order_is_a_sorted_set(seed: int) -> None:
    rng = random.Random(seed)
    names = [f"{number:05}" for number in rng.sample(range(10_000), 3_000)]
    order = Order()
    for name in names:
        order.add(name)
    for name in names[::3]:
        order.remove(name)
    everything = sorted(set(names) - set(names[::3]))

    assert list(order.after("")) == everything
    assert list(order.before(None)) == everything[::-1]
    for probe in ("00000", "02500", everything[len(everything) // 2], "99999"):
        assert list(order.after(probe)) == [name for name in everything if name > probe]
        assert list(order.before(probe)) == [name for name in everything[::-1] if name < probe]


def test_an_order_empties() -> None:
    order = Order()
    for _ in range(2):
        order.add("a")
        order.remove("a")
        assert list(order.after("")) == list(order.before(None)) == []
