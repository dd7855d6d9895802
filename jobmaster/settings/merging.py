"""One source of settings over another: nested tables, and lists whose elements may be numbered.

Before anything is checked, so values of the wrong kind pass through for the check to find.
"""

from collections.abc import Mapping
from typing import Any

Tree = dict[str, Any]

WHOLE = frozenset({"options", "lanes"})
"""Tables that replace each other: half of one source's options with half of another's is what nobody wrote."""


def merge(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> Tree:
    """`upper` over `lower`, table by table. A table of numbers, as the environment has it, stands for those elements of
    a list, whichever of the two is on top."""
    merged = dict(lower)
    for key, value in upper.items():
        under = merged.get(key)
        if key in WHOLE:
            merged[key] = value
        elif isinstance(value, Mapping) and isinstance(under, Mapping):
            merged[key] = merge(under, value)
        elif isinstance(value, Mapping) and isinstance(under, (list, tuple)) and all_digits(value):
            merged[key] = merge_list(under, value)
        elif isinstance(value, (list, tuple)) and isinstance(under, Mapping) and all_digits(under):
            merged[key] = [
                merge(table_of(under.get(str(number))), one) if isinstance(one, Mapping) else one
                for number, one in enumerate(value)
            ]
        else:
            merged[key] = value
    return merged


def merge_list(lower: list[Any] | tuple[Any, ...], upper: Mapping[str, Any]) -> list[Any]:
    """The list with the numbered elements changed; a number beyond its end adds one."""
    elements = list(lower)
    for number, value in sorted(upper.items(), key=lambda item: int(item[0])):
        position = int(number)
        if position < len(elements):
            under = elements[position]
            elements[position] = merge(under, value) if isinstance(under, Mapping) else value
        else:
            elements.append(value)
    return elements


def table_of(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def all_digits(value: Mapping[str, Any]) -> bool:
    return bool(value) and all(key.isdecimal() and key.isascii() and len(key) < 5 for key in value)
