"""The portable-JSON gate: what passes comes back exactly, what does not is named by path, and text is made storable."""

import json
import math
from collections import OrderedDict, defaultdict, namedtuple
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobmaster.model.errors import DataInvalid
from jobmaster.model.portable import check, decode, encode, sanitize_text, screen
from tests import badinputs

LIMIT = 128 * 1024

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
    | st.sampled_from(["\\u0000", "\\", '"', "\u2028"])
)
portable_values = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=30)
any_leaves = leaves | st.floats() | st.integers() | st.text() | st.binary() | st.dates() | st.uuids() | st.decimals()
any_values = st.recursive(
    any_leaves,
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.sets(st.integers()),
    max_leaves=15,
)


@given(portable_values)
def test_a_portable_value_comes_back_equal_and_its_bytes_pass_the_gate(value: Any) -> None:
    raw = encode(value, limit=LIMIT)
    assert decode(raw) == value
    assert check(raw, limit=LIMIT) is raw
    assert screen(raw, limit=LIMIT) is raw
    assert encode(decode(raw), limit=LIMIT) == raw
    assert json.loads(raw) == value


@given(any_values)
def test_whatever_is_given_is_refused_with_paths_or_comes_back_equal(value: Any) -> None:
    raw = refusal = None
    try:
        raw = encode(value, limit=LIMIT)
    except DataInvalid as refused:
        refusal = refused
    if raw is not None:
        assert decode(raw) == value
    else:
        assert refusal is not None
        assert all(problem.path.startswith("$") and problem.message for problem in refusal.problems)
        str(refusal).encode()


@given(portable_values, st.integers(0, 3))
def test_the_standard_library_s_way_of_writing_json_passes_unchanged(value: Any, indent: int) -> None:
    raw = json.dumps(value, indent=indent).encode()
    assert check(raw, limit=LIMIT) is raw


@given(st.binary() | st.binary().map(lambda tail: b'{"a":' + tail))
def test_any_bytes_are_refused_or_really_are_json(raw: bytes) -> None:
    try:
        check(raw, limit=LIMIT)
    except DataInvalid as refused:
        str(refused).encode()
    else:
        assert json.loads(raw) == decode(raw)


@pytest.mark.parametrize("raw", badinputs.RAW_REFUSED.values(), ids=badinputs.RAW_REFUSED.keys())
def test_hostile_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(DataInvalid, match=r"^result is not valid") as refused:
        check(raw, limit=2**20, what="result")
    assert len(str(refused.value)) < 1_000


@pytest.mark.parametrize("raw", badinputs.RAW_ALLOWED.values(), ids=badinputs.RAW_ALLOWED.keys())
def test_odd_but_sound_bytes_are_kept(raw: bytes) -> None:
    assert check(raw, limit=LIMIT) is raw
    assert decode(raw) == json.loads(raw)


@pytest.mark.parametrize(("value", "path"), badinputs.VALUES_REFUSED.values(), ids=badinputs.VALUES_REFUSED.keys())
def test_a_value_json_does_not_have_is_refused_at_its_path(value: Any, path: str) -> None:
    with pytest.raises(DataInvalid, match=r"^metadata is not valid") as refused:
        encode(value, limit=LIMIT, what="metadata")
    assert refused.value.problems[0].path == path
    assert len(str(refused.value)) < 10_000
    str(refused.value).encode()


@pytest.mark.parametrize("value", badinputs.VALUES_ALLOWED.values(), ids=badinputs.VALUES_ALLOWED.keys())
def test_an_odd_but_sound_value_comes_back_equal(value: Any) -> None:
    assert decode(encode(value, limit=LIMIT)) == value


@pytest.mark.parametrize(
    ("raw", "path", "words"),
    [
        (b'{"user":{"tags":["a","b\\u0000"]}}', "$.user.tags[1]", "NUL"),
        (b'{"a b":{"x":1e400}}', '$["a b"].x', "inf"),
        (b'{"a":[{"b":"\\ud800"}]}', "$.a[0].b", "lone surrogate, which is not text"),
        (b'{"a":[{"b":1,"c":{"d":1,"d":2}}]}', "$.a[0].c.d", "twice"),
        (b'{"a":9223372036854775808}', "$.a", "2**63"),
        (b'{"a":"\xff"}', "$", "byte 6"),
        (b'{"a":1', "$", "not JSON"),
    ],
)
def test_a_refusal_names_the_path_and_the_fault(raw: bytes, path: str, words: str) -> None:
    with pytest.raises(DataInvalid) as refused:
        check(raw, limit=LIMIT)
    assert [problem.path for problem in refused.value.problems] == [path]
    assert words in refused.value.problems[0].message


def test_all_faults_of_a_value_are_named_at_once_up_to_a_bound() -> None:
    with pytest.raises(DataInvalid) as refused:
        encode({"a": {1}, "b": [b"x", math.nan]}, limit=LIMIT)
    assert [problem.path for problem in refused.value.problems] == ["$.a", "$.b[0]", "$.b[1]"]
    with pytest.raises(DataInvalid) as refused:
        encode([{1}] * 1_000, limit=LIMIT)
    assert len(refused.value.problems) == 20


@pytest.mark.parametrize("size", [131_072, 131_073])
def test_the_limit_is_exact_in_bytes(size: int) -> None:
    value = {"a": "x" * (size - 8)}
    raw = json.dumps(value, separators=(",", ":")).encode()
    assert len(raw) == size
    if size <= LIMIT:
        assert encode(value, limit=LIMIT) == check(raw, limit=LIMIT) == screen(raw, limit=LIMIT) == raw
    else:
        words = r"131,073 bytes as JSON, at most 131,072"
        with pytest.raises(DataInvalid, match=words):
            encode(value, limit=LIMIT)
        with pytest.raises(DataInvalid, match=words):
            check(raw, limit=LIMIT)
        with pytest.raises(DataInvalid, match=words):
            screen(raw, limit=LIMIT)


class Text(str):
    __slots__ = ()


class Number(int):
    pass


class Fraction(float):
    pass


def test_subclasses_of_plain_types_are_kept_as_plain_values() -> None:
    pair = namedtuple("pair", "a b")  # noqa: PYI024 - the untyped form is the one under test
    given_value = OrderedDict(
        a=Text("x"), b=Number(5), c=Fraction(2.5), d=pair(1, 2), e=defaultdict(int, y=1), f=MappingProxyType({"z": 1})
    )
    raw = encode(given_value, limit=LIMIT)
    assert raw == b'{"a":"x","b":5,"c":2.5,"d":[1,2],"e":{"y":1},"f":{"z":1}}'


@pytest.mark.parametrize("raw", [badinputs.RAW_REFUSED[name] for name in ("escaped nul", "two to the 63", "depth 31")])
def test_the_screen_for_typed_values_finds_what_types_leave_open(raw: bytes) -> None:
    with pytest.raises(DataInvalid):
        screen(raw, limit=LIMIT)


@pytest.mark.parametrize("raw", [b"{", b"\xff", b"[" * 100_000, b'"\\ud800"'])
def test_stored_bytes_that_cannot_be_read_are_refused(raw: bytes) -> None:
    with pytest.raises(DataInvalid):
        decode(raw)


@given(st.text(), st.integers(0, 300), st.booleans())
def test_sanitized_text_is_storable_and_within_its_limit(text: str, limit: int, keep_end: bool) -> None:
    clean = sanitize_text(text * 5, limit, keep_end=keep_end)
    assert len(clean.encode()) <= limit
    assert "\x00" not in clean


@given(texts)
def test_short_clean_text_is_kept_unchanged(text: str) -> None:
    assert sanitize_text(text, len(text.encode())) == text


def test_a_cut_says_how_much_was_kept_and_keeps_the_end_that_matters() -> None:
    text = "é" * 50_000 + "the end"
    head = sanitize_text(text, 1_000)
    assert head.startswith("éé")
    assert head.endswith("of 100,007 bytes]")
    kept = head.split("… [cut: kept ")[0]
    assert f"kept {len(kept.encode()):,} of" in head
    tail = sanitize_text(text, 1_000, keep_end=True)
    assert tail.startswith("[cut: kept ")
    assert tail.endswith("the end")


def test_text_that_cannot_be_made_is_named_by_its_type() -> None:
    class BrokenError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    assert sanitize_text(BrokenError(), 100) == "<BrokenError whose text cannot be made>"
    assert sanitize_text("a\x00b\ud800c", 100) == "a�b�c"
