"""A table that cannot be changed any more, as the settings around it cannot. Unlike the standard library's proxy it can
be copied and pickled."""

from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


class FrozenTable(Mapping[str, Value], Generic[Value]):
    """A read-only copy of a mapping; equal to any mapping with the same content."""

    __slots__ = ("_content",)

    def __init__(self, content: Mapping[str, Value] | None = None) -> None:
        self._content: dict[str, Value] = dict(content or {})

    def __getitem__(self, key: str) -> Value:
        return self._content[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._content)

    def __len__(self) -> int:
        return len(self._content)

    def __repr__(self) -> str:
        return repr(self._content)

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenTable, (self._content,)
