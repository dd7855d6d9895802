"""Whether typed data survives its trip: what a handler would get, compared with what the caller gave.

Type libraries are generous where a job queue must not be: they drop unknown fields, write NaN as null, keep a datetime
in an untyped field as text, and let a naive datetime pass, which means another instant on every host that reads it.
"""

import dataclasses
import enum
import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from jobmaster.model.data_faults import child
from jobmaster.model.errors import Problem, quoted

_SIMPLE = frozenset({str, int, bool, type(None)})
_ROWS = (list, tuple)


def losses(given: object, kept: object) -> list[Problem]:
    """What differs between a value and its decoded twin; empty if the handler gets what was given."""
    faults: list[Problem] = []
    _compare(given, kept, None, faults)
    return faults


def unknown_fields(given: object, built: object) -> list[Problem]:
    """The keys of a mapping, and of mappings in it, that have no field in the instance built from it."""
    faults: list[Problem] = []
    _find_unknown(given, built, None, faults)
    return faults


def unknown_field(path: str, key: object, known: Iterable[str]) -> Problem:
    """The fault of a key without a field."""
    names = sorted(known)
    listed = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return Problem(child(path, str(key)), f"is not a field; expected one of: {listed}" if names else "is not a field")


# This runs for every typed job that is enqueued, so a place is a chain of pairs, worded only when there is a fault.
_Place = tuple["_Place | None", str | int]


def _path(place: _Place | None) -> str:
    return "$" if place is None else child(_path(place[0]), place[1])


def _compare(given: Any, kept: Any, place: _Place | None, faults: list[Problem]) -> None:
    kind = type(given)
    if kind is not type(kept):
        _compare_kinds(given, kept, place, faults)
    elif kind in _SIMPLE:
        if given != kept:
            faults.append(_changed(given, kept, place))
    elif kind is float:
        if not math.isfinite(given):
            faults.append(Problem(_path(place), f"is {given}, which JSON does not have; use None or text"))
    elif isinstance(given, datetime):
        if given.tzinfo is None:
            message = "is a datetime without a zone; give it one, for example with tzinfo=datetime.UTC"
            faults.append(Problem(_path(place), message))
        elif given is not kept and _moved(given, kept):
            message = f"would come back as {kept.isoformat()}; its offset has seconds, convert to UTC"
            faults.append(Problem(_path(place), message))
    elif isinstance(given, _ROWS):
        _compare_rows(given, kept, place, faults)
    elif isinstance(given, dict):
        _compare_dicts(given, kept, place, faults)
    elif isinstance(given, (set, frozenset)):
        for item in given:
            # An element has no partner to be compared with, but it may still be a naive datetime.
            _compare(item, item, place, faults)
        if given != kept:
            faults.append(_changed(given, kept, place))
    elif _attributes(kind):
        for name in _FIELDS[kind]:
            one, other = getattr(given, name, None), getattr(kept, name, None)
            if type(one) is not type(other) or type(one) not in _SIMPLE or one != other:
                _compare(one, other, (place, name), faults)
    elif given != kept:
        faults.append(_changed(given, kept, place))


def _compare_rows(given: Any, kept: Any, place: _Place | None, faults: list[Problem]) -> None:
    for index, (one, other) in enumerate(zip(given, kept, strict=False)):
        if type(one) is not type(other) or type(one) not in _SIMPLE or one != other:
            _compare(one, other, (place, index), faults)


def _compare_dicts(given: Any, kept: Any, place: _Place | None, faults: list[Problem]) -> None:
    for key, one in given.items():
        below = (place, str(key))
        if key not in kept:
            faults.append(Problem(_path(below), f"has a key of type {type(key).__name__} that would come back as text"))
            continue
        if type(key) is not str:
            _compare(key, key, below, faults)
        _compare(one, kept[key], below, faults)


def _compare_kinds(given: Any, kept: Any, place: _Place | None, faults: list[Problem]) -> None:
    if isinstance(given, _ROWS) and isinstance(kept, _ROWS):
        _compare_rows(given, kept, place, faults)
    elif isinstance(given, dict) and isinstance(kept, dict):
        _compare_dicts(given, kept, place, faults)
    elif isinstance(given, float) and not math.isfinite(given):
        _compare(float(given), 0.0, place, faults)
    elif isinstance(given, datetime) and isinstance(kept, datetime):
        _compare(given, given, place, faults)
    elif isinstance(given, (bool, enum.Enum)) or not isinstance(given, (str, int, float)) or given != kept:
        faults.append(_changed(given, kept, place))


def _moved(given: datetime, kept: datetime) -> bool:
    """Whether the instant changed. Never by `==`, which says unequal of every time in a repeated hour."""
    if given.utcoffset() == kept.utcoffset():
        return given.replace(tzinfo=None) != kept.replace(tzinfo=None)
    return bool(given - kept)


def _changed(given: object, kept: object, place: _Place | None) -> Problem:
    was, becomes = type(given).__name__, type(kept).__name__
    how = f"as a {becomes}" if was != becomes else f"as {quoted(kept)}"
    message = f"is a {was} that would come back {how}; declare the field's type, or convert the value"
    return Problem(_path(place), message)


def _find_unknown(given: object, built: object, place: _Place | None, faults: list[Problem]) -> None:
    if type(given) in _SIMPLE:
        return
    if isinstance(given, _ROWS):
        if isinstance(built, _ROWS):
            for index, (one, other) in enumerate(zip(given, built, strict=False)):
                _find_unknown(one, other, (place, index), faults)
    elif not isinstance(given, Mapping):
        return
    elif isinstance(built, Mapping):
        if len(given) == len(built):
            for (key, one), other in zip(given.items(), built.values(), strict=True):
                _find_unknown(one, other, (place, str(key)), faults)
        else:
            faults.extend(unknown_field(_path(place), key, map(str, built)) for key in given if key not in built)
    elif names := _attributes(type(built)):
        for key, one in given.items():
            if key in names:
                _find_unknown(one, getattr(built, names[key], None), (place, str(key)), faults)
            elif not _takes_extra(type(built)):
                faults.append(unknown_field(_path(place), key, names))


def _attributes(kind: type) -> dict[str, str]:
    """The attribute behind each name a mapping may use for it; empty for what is not a model."""
    found = _ATTRIBUTES.get(kind)
    if found is None:
        found = _find_attributes(kind)
        _FIELDS[kind] = tuple(dict.fromkeys(found.values()))
        _ATTRIBUTES[kind] = found
    return found


_ATTRIBUTES: dict[type, dict[str, str]] = {}
_FIELDS: dict[type, tuple[str, ...]] = {}


def _find_attributes(kind: Any) -> dict[str, str]:
    if hasattr(kind, "__struct_fields__"):
        names = dict(zip(kind.__struct_encode_fields__, kind.__struct_fields__, strict=True))
        tag_field = kind.__struct_config__.tag_field
        return names | {tag_field: tag_field} if tag_field else names
    if hasattr(kind, "__pydantic_fields__"):
        names = {}
        for name, field in kind.__pydantic_fields__.items():
            names[name] = name
            for alias in (field.alias, field.validation_alias, field.serialization_alias):
                if isinstance(alias, str):
                    names[alias] = name
        return names
    if dataclasses.is_dataclass(kind):
        return {field.name: field.name for field in dataclasses.fields(kind)}
    return {}


def _takes_extra(kind: Any) -> bool:
    """Whether a pydantic model keeps unknown fields, or has aliases that only pydantic can follow."""
    config = getattr(kind, "model_config", None) or getattr(kind, "__pydantic_config__", None) or {}
    fields = getattr(kind, "__pydantic_fields__", {})
    paths = any(
        field.validation_alias is not None and not isinstance(field.validation_alias, str) for field in fields.values()
    )
    return config.get("extra") == "allow" or paths
