"""Names and keys: what may be called how, checked before any store sees it.

Names (cluster, agent, lane, worker, handler, profile) end up in table names, subjects, URLs, metric labels and shells,
so their alphabet is small and a refused name comes with the nearest allowed one. Keys, tags and titles belong to the
user: any text a store can keep and compare byte by byte.
"""

import re
import unicodedata
from collections.abc import Iterable
from typing import Literal

from jobmaster.model.errors import KeyInvalid, NameInvalid, OptionInvalid

NameKind = Literal["cluster", "agent", "lane", "worker", "handler", "profile"]

SHORT_NAME = 48
LONG_NAME = 64
KEY_BYTES = 255
TITLE_CHARACTERS = 200
TAG_CHARACTERS = 64
MOST_TAGS = 10

_SHORT = re.compile(rf"[a-z0-9][a-z0-9_-]{{0,{SHORT_NAME - 1}}}")
# A dot only between other characters: `..`, a leading and a trailing dot mean something to paths and subjects.
_LONG = re.compile(rf"(?=.{{1,{LONG_NAME}}}\Z)[a-z0-9][a-z0-9_-]*(?:\.[a-z0-9_-]+)*")
_UNSTORABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_WORD_STARTS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def check_name(kind: NameKind, value: object) -> str:
    """The value unchanged if it is a name of that kind; raises `NameInvalid` with a proposal otherwise."""
    dotted = kind in ("handler", "profile")
    if isinstance(value, str) and (_LONG if dotted else _SHORT).fullmatch(value):
        return value
    expected = (
        f"1 to {LONG_NAME} of a-z, 0-9, '_', '-', and single '.' between them, starting with a letter or digit"
        if dotted
        else f"1 to {SHORT_NAME} of a-z, 0-9, '_', '-', starting with a letter or digit"
    )
    raise NameInvalid(kind, value, expected, propose_name(value, dotted=dotted))


def propose_name(value: object, *, dotted: bool) -> str:
    """The nearest allowed name, or an empty string where nothing sensible is left or the name is simply too long."""
    longest = LONG_NAME if dotted else SHORT_NAME
    if not isinstance(value, str) or len(value) > 2 * longest:
        return ""
    plain = unicodedata.normalize("NFKD", kebab_case(value)).encode("ascii", "ignore").decode()
    name = re.sub(r"[^a-z0-9_.-]+" if dotted else r"[^a-z0-9_-]+", "-", plain.lower())
    name = re.sub(r"[_.-]*\.[_.-]*", ".", re.sub(r"-{2,}", "-", name)).strip("_.-")
    # Cutting a long name would propose one name for many, so it is left to its author.
    return name if (_LONG if dotted else _SHORT).fullmatch(name) else ""


def kebab_case(class_name: str) -> str:
    """The stored name of a class or function: `SendWelcome` gives `send-welcome`, `HTTPFetch2` gives `http-fetch2`."""
    return _WORD_STARTS.sub("-", class_name).lower().replace("_", "-").strip("-")


def check_key(kind: str, value: object) -> str:
    """The value unchanged if any store can keep it as a key; raises `KeyInvalid` otherwise."""
    # Length before search and search before encode: neither a long value nor a lone surrogate gets to the next step.
    if (
        isinstance(value, str)
        and 0 < len(value) <= KEY_BYTES
        and not _UNSTORABLE.search(value)
        and len(value.encode()) <= KEY_BYTES
    ):
        return value
    raise KeyInvalid(kind, value, f"1 to {KEY_BYTES} bytes of UTF-8 text without control characters")


def check_title(value: object) -> str:
    """The value unchanged if it is a title; raises `KeyInvalid` otherwise."""
    if isinstance(value, str) and len(value) <= TITLE_CHARACTERS and not _UNSTORABLE.search(value):
        return value
    raise KeyInvalid("title", value, f"at most {TITLE_CHARACTERS} characters of text on one line")


def check_tags(values: object) -> tuple[str, ...]:
    """The tags in their order, each once; raises `KeyInvalid` for a bad one and `OptionInvalid` for a bad list."""
    expected = f"a list of at most {MOST_TAGS} texts"
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise OptionInvalid("tags", values, expected)
    tags: dict[str, None] = {}
    for value in values:
        if not isinstance(value, str) or not 0 < len(value) <= TAG_CHARACTERS or _UNSTORABLE.search(value):
            raise KeyInvalid("tag", value, f"1 to {TAG_CHARACTERS} characters without control characters")
        tags[value] = None
        if len(tags) > MOST_TAGS:
            raise OptionInvalid("tags", list(tags), expected)
    return tuple(tags)
