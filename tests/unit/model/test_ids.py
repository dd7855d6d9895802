"""Ids: strictly increasing, unique across threads and forks, ordered by time, canonical."""

import os
import random
import threading
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobmaster.model.errors import NameInvalid, OptionInvalid
from jobmaster.model.ids import IdFactory, floor_id, id_time_us, new_id, occurrence_id, parse_id

MOST_MS = (1 << 48) - 2


def test_an_id_is_a_canonical_uuid7_of_now() -> None:
    made = new_id()
    parsed = uuid.UUID(made)
    assert str(parsed) == made
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert parse_id(made) is made


@given(st.lists(st.integers(0, MOST_MS), min_size=1, max_size=30))
def test_ids_strictly_increase_whatever_the_clock_does(clock: list[int]) -> None:
    factory = IdFactory(iter(clock).__next__, random.Random(1))
    made = [factory.new() for _ in clock]
    assert made == sorted(set(made))
    assert [uuid.UUID(item).version for item in made] == [7] * len(made)


def test_ids_strictly_increase_beyond_the_counter_of_one_millisecond() -> None:
    factory = IdFactory(lambda: 1_000, random.Random(1))
    made = [factory.new() for _ in range(10_000)]
    assert made == sorted(set(made))
    assert id_time_us(made[4_095]) == 1_000_000
    assert id_time_us(made[4_096]) == 1_001_000


@given(st.integers(0, MOST_MS))
def test_an_id_tells_its_millisecond_and_is_not_below_its_floor(ms: int) -> None:
    made = IdFactory(lambda: ms).new()
    assert id_time_us(made) == ms * 1_000
    assert floor_id(ms * 1_000) <= floor_id(ms * 1_000 + 999) <= made < floor_id((ms + 1) * 1_000)


def test_a_floor_stays_inside_the_range_of_ids() -> None:
    assert uuid.UUID(floor_id(-5)).version == 7
    assert floor_id(1 << 80) > floor_id(0) == floor_id(-1)


def test_equal_clocks_and_seeds_give_equal_ids() -> None:
    first, second = (IdFactory(lambda: 5, random.Random(9)) for _ in range(2))
    assert [first.new() for _ in range(5)] == [second.new() for _ in range(5)]


def test_threads_never_get_the_same_id_and_each_sees_them_increase() -> None:
    factory = IdFactory(lambda: 5)
    made: list[list[str]] = []

    def make() -> None:
        made.append([factory.new() for _ in range(5_000)])

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(ids == sorted(ids) for ids in made)
    heads = [item[:18] for ids in made for item in ids]
    assert len(set(heads)) == 20_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_forked_child_makes_ids_with_random_bits_of_its_own() -> None:
    new_id()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, "".join(new_id() for _ in range(20)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    theirs = {text[at : at + 36][19:] for at in range(0, len(text), 36)}
    ours = {new_id()[19:] for _ in range(20)}
    assert len(theirs) == 20
    assert not theirs & ours


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(0, MOST_MS * 1_000))
def test_an_occurrence_id_is_a_deterministic_uuid8_ordered_by_its_tick(schedule: str, tick_us: int) -> None:
    made = occurrence_id(schedule, tick_us)
    parsed = uuid.UUID(made)
    assert str(parsed) == made
    assert (parsed.version, parsed.variant) == (8, uuid.RFC_4122)
    assert made == occurrence_id(schedule, tick_us)
    assert made != occurrence_id(schedule, tick_us + 1)
    assert made != occurrence_id(schedule + "x", tick_us)
    assert made < occurrence_id(schedule, tick_us + 1_000)
    assert id_time_us(made) == tick_us // 1_000 * 1_000


def test_an_occurrence_id_never_changes_between_releases() -> None:
    assert occurrence_id("nightly-welcome", 1_700_000_000_000_000) == "018bcfe5-6800-802b-9015-e1b9f777cfb3"


@pytest.mark.parametrize("tick_us", [-1, 1 << 63])
def test_a_tick_outside_the_range_is_refused(tick_us: int) -> None:
    with pytest.raises(OptionInvalid, match="tick_us"):
        occurrence_id("s", tick_us)


@given(st.uuids())
def test_every_text_form_of_a_uuid_is_accepted_and_made_canonical(value: uuid.UUID) -> None:
    for form in (str(value), str(value).upper(), value.hex, f"{{{value}}}", value.urn, value.urn.upper()):
        assert parse_id(form) == str(value)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "42",
        "0190163d-8694-739b-aea5-966c26f8ad9",
        "0190163d-8694-739b-aea5-966c26f8ad91\n",
        "0190163d86-94-739b-aea5-966c26f8ad91",
        "{0190163d-8694-739b-aea5-966c26f8ad91",
        "0190163d_8694_739b_aea5_966c26f8ad91",
        "+190163d8694739baea5966c26f8ad91",
        "0190163d-8694-739b-aea5-966c26f8ad9g",
        "\u0660190163d-8694-739b-aea5-966c26f8ad91",
        "x" * 1_000_000,
        5,
        None,
        b"0190163d-8694-739b-aea5-966c26f8ad91",
        uuid.UUID(int=5),
    ],
)
def test_what_is_not_a_uuid_text_is_refused_naming_the_value(value: object) -> None:
    with pytest.raises(NameInvalid, match="job id") as refused:
        parse_id(value)
    assert refused.value.value is value
    assert len(str(refused.value)) < 400


def test_a_version_without_a_time_has_none() -> None:
    assert id_time_us(str(uuid.uuid4())) is None
