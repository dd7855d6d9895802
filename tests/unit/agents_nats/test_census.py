"""Which jobs stand in the stream: spans of one list, which is not made anew for every page of it."""

from typing import Any, cast

import pytest

from jobmaster_agents.nats import census
from jobmaster_agents.nats.census import Census, Span
from jobmaster_agents.nats.store import Store
from jobmaster_agents.nats.subjects import Subjects

SUBJECTS = Subjects("c", "a")


def test_a_span_tells_its_ids_from_either_end_and_none_beside_them() -> None:
    span = Span(["a", "b", "c", "d", "e"], 1, 4)

    assert len(span) == 3
    assert [span.first(0, 2), span.first(2, 2), span.first(3, 2)] == [["b", "c"], ["d"], []]
    assert [span.last(0, 2), span.last(2, 2), span.last(3, 2)] == [["d", "c"], ["b"], []]
    assert len(Span(["a", "b"], 2, 1)) == 0


class Listing(Census):
    """Of subjects told here, with the seconds that a list takes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        store: Any = type("Bare", (), {"subjects": SUBJECTS})()
        super().__init__(cast("Store", store))
        self.found: list[str] = []
        self.seconds = 0.0
        self.now = 0.0
        self.made = 0
        monkeypatch.setattr(census, "monotonic", lambda: self.now)

    async def _subjects(self, pattern: str) -> list[str]:
        self.made += 1
        self.now += self.seconds
        return list(self.found)


@pytest.mark.asyncio
async def test_a_job_that_stands_twice_is_told_once_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    listing = Listing(monkeypatch)
    listing.found = [
        SUBJECTS.job("b", 2, "2", 0),
        SUBJECTS.waiting("a", 2, "1", 0),
        SUBJECTS.job("b", 2, "1", 1),
        SUBJECTS.job("b", 2, "3", 0),
    ]

    assert (await listing.between("")).first(0, 9) == ["1", "2", "3"]
    assert (await listing.between("1", "3")).first(0, 9) == ["2"]
    assert await listing.of_lane("a") == ["1"]
    assert await listing.of_lane(None) == ["1", "2", "3"]


@pytest.mark.asyncio
async def test_a_list_that_took_long_serves_for_twenty_times_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    listing = Listing(monkeypatch)
    await listing.between("")
    await listing.between("")
    assert listing.made == 2

    listing.seconds = 0.01
    await listing.between("")
    listing.now += 0.18
    await listing.between("")
    assert listing.made == 3
    listing.now += 0.02
    await listing.between("")
    await listing.between("", anew=True)
    assert listing.made == 5
