"""Names, keys, titles and tags: what is refused, with which proposal, and what is kept unchanged."""

from itertools import count
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobmaster.model.errors import KeyInvalid, NameInvalid, OptionInvalid
from jobmaster.model.names import NameKind, check_key, check_name, check_tags, check_title, kebab_case, propose_name
from tests import badinputs

KINDS: tuple[NameKind, ...] = get_args(NameKind)
DOTTED: tuple[NameKind, ...] = ("handler", "profile")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", badinputs.NAMES_TEXT.values(), ids=badinputs.NAMES_TEXT.keys())
def test_a_hostile_name_is_refused_shortly_and_inertly(kind: NameKind, value: str) -> None:
    with pytest.raises(NameInvalid) as refused:
        check_name(kind, value)
    text = str(refused.value)
    assert text.startswith(kind)
    assert len(text) < 600
    assert text.isprintable()
    text.encode()


@pytest.mark.parametrize("value", badinputs.NAMES_NOT_TEXT, ids=lambda value: type(value).__name__)
def test_a_name_that_is_not_text_is_refused(value: object) -> None:
    with pytest.raises(NameInvalid, match="lane"):
        check_name("lane", value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", badinputs.NAMES_ODD_BUT_ALLOWED)
def test_a_reserved_word_elsewhere_is_a_name_here(kind: NameKind, value: str) -> None:
    assert check_name(kind, value) is value


@pytest.mark.parametrize("value", badinputs.NAMES_DOTTED_ONLY)
def test_dots_and_64_characters_are_for_handlers_and_profiles_alone(value: str) -> None:
    for kind in DOTTED:
        assert check_name(kind, value) is value
    for kind in set(KINDS) - set(DOTTED):
        with pytest.raises(NameInvalid):
            check_name(kind, value)


@pytest.mark.parametrize(
    ("kind", "value", "proposal"),
    [
        ("agent", "Transport-1", "transport-1"),
        ("agent", "transport 1", "transport-1"),
        ("agent", "TransportOne", "transport-one"),
        ("lane", " mail ", "mail"),
        ("lane", "a.b", "a-b"),
        ("lane", "-a", "a"),
        ("lane", "caf\u00e9", "cafe"),
        ("lane", "***", ""),
        ("lane", "\u65e5\u672c", ""),
        ("lane", "x" * 49, ""),
        ("lane", "", ""),
        ("lane", None, ""),
        ("handler", "SendWelcome", "send-welcome"),
        ("handler", "shop..Mail.", "shop.mail"),
        ("handler", "../../etc/passwd", "etc-passwd"),
    ],
)
def test_a_refusal_proposes_the_fixed_form(kind: NameKind, value: object, proposal: str) -> None:
    with pytest.raises(NameInvalid) as refused:
        check_name(kind, value)
    assert refused.value.proposal == proposal
    assert ("did you mean" in str(refused.value)) == bool(proposal)


@given(st.sampled_from(KINDS), st.text(max_size=150) | st.text("aZ9._- ", max_size=70))
def test_a_proposal_is_always_a_name_of_its_kind(kind: NameKind, value: str) -> None:
    proposal = propose_name(value, dotted=kind in DOTTED)
    if proposal:
        assert check_name(kind, proposal) == proposal


@given(st.from_regex(r"[a-z0-9][a-z0-9_-]{0,47}", fullmatch=True))
def test_every_name_of_the_alphabet_is_kept(value: str) -> None:
    for kind in KINDS:
        assert check_name(kind, value) is value


@pytest.mark.parametrize(
    ("class_name", "stored"),
    [
        ("SendWelcome", "send-welcome"),
        ("HTTPFetch2", "http-fetch2"),
        ("V2Job", "v2-job"),
        ("Job", "job"),
        ("X", "x"),
        ("sendEmail", "send-email"),
        ("send_invoice", "send-invoice"),
        ("_Private", "private"),
        ("Send_Welcome", "send-welcome"),
    ],
)
def test_a_class_name_is_stored_in_kebab_case(class_name: str, stored: str) -> None:
    assert kebab_case(class_name) == stored


@given(st.from_regex(r"[A-Z][A-Za-z0-9]{0,20}", fullmatch=True))
def test_kebab_case_of_a_class_name_is_a_handler_name(class_name: str) -> None:
    assert check_name("handler", kebab_case(class_name)).replace("-", "") == class_name.lower()


@pytest.mark.parametrize("value", badinputs.KEYS_REFUSED.values(), ids=badinputs.KEYS_REFUSED.keys())
def test_a_key_no_store_could_keep_is_refused(value: object) -> None:
    with pytest.raises(KeyInvalid, match="unique key") as refused:
        check_key("unique key", value)
    assert len(str(refused.value)) < 600
    str(refused.value).encode()


@pytest.mark.parametrize("value", badinputs.KEYS_ALLOWED.values(), ids=badinputs.KEYS_ALLOWED.keys())
def test_any_other_text_is_a_key_and_kept_unchanged(value: str) -> None:
    assert check_key("schedule key", value) is value


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1))
def test_a_key_is_measured_in_bytes(value: str) -> None:
    if len(value.encode()) <= 255:
        assert check_key("key", value) is value
    else:
        with pytest.raises(KeyInvalid):
            check_key("key", value)


def test_a_title_has_at_most_200_characters_and_no_control_characters() -> None:
    assert check_title("\u00e9" * 200) == "\u00e9" * 200
    for value in ("x" * 201, "a\nb", "a\x00", "\ud800", None):
        with pytest.raises(KeyInvalid, match="title"):
            check_title(value)


def test_tags_keep_their_order_and_count_once() -> None:
    assert check_tags(["b", "a", "b"]) == ("b", "a")
    assert check_tags(str(n) for n in range(10)) == tuple("0123456789")
    assert check_tags(()) == ()


@pytest.mark.parametrize("values", ["abc", b"abc", None, 5, [str(n) for n in range(11)], map(str, count())])
def test_what_is_not_a_short_list_of_tags_is_refused(values: object) -> None:
    with pytest.raises(OptionInvalid, match="tags"):
        check_tags(values)


@pytest.mark.parametrize("tag", ["", "x" * 65, "a\nb", "a\x00", "\ud800", None, 5])
def test_a_bad_tag_is_refused(tag: object) -> None:
    with pytest.raises(KeyInvalid, match="tag"):
        check_tags(["good", tag])
