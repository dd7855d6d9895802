"""What is wrong with a value that is not portable JSON: every fault with its path and remedy.

The slow half of `portable`: it runs only when a fast check said no, and either finds the faults or gives the plain copy
(an `OrderedDict` as dict, a subclass of str as str) that the fast check was too strict for.
"""

import enum
import json
import math
import re
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from jobmaster.model.errors import DataInvalid, Problem, quoted

MOST_DEPTH = 30
MOST_FAULTS = 20
INTEGER_LIMIT = 2**63

_PLAIN_KEY = re.compile(r"[^\W\d]\w{0,79}")
_SURROGATE = re.compile("[\ud800-\udfff]")
_TYPED = "or declare a typed model as the handler's data"
_REMEDIES: tuple[tuple[type | tuple[type, ...], str], ...] = (
    ((datetime, date, time), f"convert with .isoformat(), {_TYPED}"),
    (timedelta, f"convert with .total_seconds(), {_TYPED}"),
    ((UUID, Decimal), f"convert with str(), {_TYPED}"),
    ((bytes, bytearray, memoryview), f"decode it or encode as base64 text, {_TYPED}"),
    (enum.Enum, f"pass its .value, {_TYPED}"),
    ((set, frozenset), f"convert with sorted() or list(), {_TYPED}"),
)


def child(path: str, key: str | int) -> str:
    """The path of an element: `$.user`, `$.user[3]`, `$["odd key"]`."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}" if _PLAIN_KEY.fullmatch(key) and key.isascii() else f"{path}[{json.dumps(key[:80])}]"


def plain_copy(value: object, *, limit: int, what: str) -> Any:
    """The value in exact built-in types; raises `DataInvalid` with up to 20 faults, all of them if there are fewer.

    `limit` is the number of bytes the value may take as JSON; a value of more elements is refused as too large without
    being walked to its end, so a circle or a structure that doubles with each level costs no more than an honest one.
    """
    walk = _Walk(limit, what)
    copy = walk.value(value, "$", 1)
    if walk.faults:
        raise DataInvalid(walk.faults, what)
    return copy


def too_large(size: int | str, limit: int, what: str) -> DataInvalid:
    """The error for more bytes than the limit."""
    taken = f"{size:,}" if isinstance(size, int) else size
    return DataInvalid(
        (
            Problem(
                "$", f"takes {taken} bytes as JSON, at most {limit:,} are allowed; store it elsewhere, pass its key"
            ),
        ),
        what,
    )


class _Walk:
    def __init__(self, limit: int, what: str) -> None:
        self.limit = limit
        self.what = what
        self.visited = 0
        self.faults: list[Problem] = []

    def value(self, value: object, path: str, depth: int) -> Any:
        if len(self.faults) >= MOST_FAULTS:
            return None
        if isinstance(value, enum.Enum):
            return self.refuse(value, path)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self.text(value, path)
        if isinstance(value, int):
            return self.integer(int.__index__(value), path)
        if isinstance(value, float):
            if not math.isfinite(value):
                self.fault(path, f"is {float(value)}, which JSON does not have; pass None or text")
            return float.__float__(value)
        if isinstance(value, (list, tuple, Mapping)):
            return self.container(value, path, depth)
        return self.refuse(value, path)

    def container(self, value: list[Any] | tuple[Any, ...] | Mapping[Any, Any], path: str, depth: int) -> Any:
        if depth > MOST_DEPTH:
            return self.fault(path, f"is nested deeper than {MOST_DEPTH} levels; flatten it, and look for a circle")
        self.visited += len(value)
        if self.visited > self.limit:
            raise too_large("too many", self.limit, self.what)
        if not isinstance(value, Mapping):
            return [self.value(item, child(path, index), depth + 1) for index, item in enumerate(value)]
        copy = {}
        for key, item in value.items():
            if not isinstance(key, str) or isinstance(key, enum.Enum):
                self.fault(
                    path, f"has the key {quoted(key)} of type {type(key).__name__}; keys must be text, use str()"
                )
                continue
            below = child(path, key)
            copy[self.text(key, below)] = self.value(item, below, depth + 1)
        return copy

    def text(self, value: str, path: str) -> str:
        if "\x00" in value:
            self.fault(path, "holds a NUL character, which not every store keeps; remove it")
        elif _SURROGATE.search(value):
            self.fault(path, "holds a lone surrogate, which is not text; decode the original bytes properly")
        return str.__str__(value)

    def integer(self, value: int, path: str) -> int:
        if not -INTEGER_LIMIT < value < INTEGER_LIMIT:
            self.fault(path, "is a whole number of 2**63 or more (or -2**63 or less); pass it as text")
        return value

    def refuse(self, value: object, path: str) -> None:
        name = type(value).__name__
        for types, remedy in _REMEDIES:
            if isinstance(value, types):
                return self.fault(path, f"is a {name}, which JSON does not have; {remedy}")
        return self.fault(path, f"is a {name}, which JSON does not have; convert it, {_TYPED}")

    def fault(self, path: str, message: str) -> None:
        if len(self.faults) < MOST_FAULTS:
            self.faults.append(Problem(path, message))


def duplicate_keys(text: str) -> list[Problem]:
    """Every key that occurs twice in one object of this JSON text, which must be valid and of sane depth."""
    faults: list[Problem] = []
    _find_duplicates(json.loads(text, object_pairs_hook=_Pairs), "$", faults)
    return faults


class _Pairs(list[tuple[str, Any]]):
    """An object as it stood in the text, duplicates included."""


def _find_duplicates(value: object, path: str, faults: list[Problem]) -> None:
    if isinstance(value, _Pairs):
        seen: set[str] = set()
        for key, item in value:
            below = child(path, key)
            if key in seen and len(faults) < MOST_FAULTS:
                faults.append(Problem(below, "is there twice; keep one"))
            seen.add(key)
            _find_duplicates(item, below, faults)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _find_duplicates(item, child(path, index), faults)
