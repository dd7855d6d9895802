"""The declared type of a handler's data: validated when a job is enqueued, and again when it is run.

A dataclass, msgspec Struct, TypedDict or pydantic model; anything msgspec and pydantic carry may be in it (datetime,
UUID, Decimal, bytes, enum, nested models). No type, `Any` or a bare mapping means untyped: portable JSON and nothing
more. Encoding always decodes again, because that is the only proof that the handler will get what the caller gave.

Unknown fields are refused when a caller gives them and ignored when a worker reads them, so that a deployment that
adds a field does not fail the jobs its older workers pick up.
"""

import hashlib
import typing
from abc import ABC, abstractmethod
from collections.abc import Mapping, MutableMapping
from types import NoneType
from typing import Any, TypeVar

import msgspec

from jobmaster.model import portable
from jobmaster.model.data_faults import MOST_FAULTS
from jobmaster.model.described import validate_against
from jobmaster.model.errors import DataInvalid, Problem
from jobmaster.model.fidelity import losses, unknown_fields

_MAPPINGS: tuple[object, ...] = (dict, Mapping, MutableMapping)
_NOTHING = (None, NoneType, Any, object)


class DataSchema(ABC):
    """How one handler's data becomes bytes and back."""

    def __init__(self, type_name: str, json_schema: dict[str, Any]) -> None:
        self.type_name = type_name
        self._json_schema = json_schema
        text = msgspec.json.encode(json_schema, order="deterministic")
        self.fingerprint = hashlib.sha256(text).hexdigest()[:16]
        """Equal for equal schemas, in every process."""

    @staticmethod
    def of(tp: Any) -> "DataSchema":
        """The schema of a declared type; raises `DefinitionInvalid` for one whose values are no JSON objects."""
        if _is_untyped(tp):
            return UntypedSchema()
        if hasattr(tp, "__pydantic_validator__"):
            # Imported here: pydantic costs more at import than all the rest, and most processes never need it.
            from jobmaster.model.pydantic_schema import PydanticSchema

            return PydanticSchema(tp)
        from jobmaster.model.msgspec_schema import MsgspecSchema

        return MsgspecSchema(tp)

    @staticmethod
    def described(json_schema: dict[str, Any]) -> "DataSchema":
        """The schema of a handler known only by its stored JSON schema; takes and gives mappings."""
        return DescribedSchema(json_schema)

    def json_schema(self) -> dict[str, Any]:
        """JSON Schema (2020-12) of the encoded data, as a definition stores it."""
        return self._json_schema

    @abstractmethod
    def encode(self, value: object, *, limit: int, what: str = "data") -> bytes:
        """Portable JSON of at most `limit` bytes, which `decode` is known to take.

        `value` is an instance of the type, a mapping of its fields, or `None` if every field has a default. Equal
        values give equal bytes, except for sets, whose order differs between processes. Raises `DataInvalid` with a
        path for every fault found.
        """

    @abstractmethod
    def decode(self, raw: bytes, *, what: str = "data") -> Any:
        """The instance a handler gets; raises `DataInvalid` for bytes that are not one."""


class UntypedSchema(DataSchema):
    """Any mapping of portable JSON."""

    def __init__(self, json_schema: dict[str, Any] | None = None) -> None:
        super().__init__("Mapping[str, Any]", json_schema or {"type": "object"})

    def encode(self, value: object, *, limit: int, what: str = "data") -> bytes:
        if value is None:
            return b"null"
        if not isinstance(value, Mapping):
            raise DataInvalid(
                (
                    Problem(
                        "$",
                        f"is a {type(value).__name__}; this handler declares no data type, so pass a mapping, "
                        f"or declare JobHandler[{type(value).__name__}]",
                    ),
                ),
                what,
            )
        return portable.encode(value, limit=limit, what=what)

    def decode(self, raw: bytes, *, what: str = "data") -> Any:
        value = portable.decode(raw, what=what)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise DataInvalid((Problem("$", f"is a {type(value).__name__}, expected an object"),), what)
        return value


class DescribedSchema(UntypedSchema):
    """A mapping that is checked against a JSON schema, without the type it came from."""

    def encode(self, value: object, *, limit: int, what: str = "data") -> bytes:
        raw = super().encode({} if value is None else value, limit=limit, what=what)
        validate_against(self._json_schema, raw, what=what)
        return raw


class TypedSchema(DataSchema):
    """What typed schemas share: build, write, read back, compare."""

    optional = False
    """Whether `None` is a value of the type, and not short for a mapping without keys."""

    def __init__(self, tp: Any, json_schema: dict[str, Any]) -> None:
        super().__init__(getattr(tp, "__name__", str(tp)), json_schema)
        self.tp = tp
        self._has_times = "date-time" in str(json_schema)

    def encode(self, value: object, *, limit: int, what: str = "data") -> bytes:
        if self.is_instance(value):
            instance = value
        elif value is None or isinstance(value, Mapping):
            mapping = value or {}
            instance = self.build(mapping, what)
            faults = unknown_fields(mapping, instance)
            if faults:
                raise DataInvalid(faults[:MOST_FAULTS], what)
        else:
            message = f"is a {type(value).__name__}, expected {self.type_name} or a mapping of its fields"
            raise DataInvalid((Problem("$", message),), what)
        raw = portable.screen(self.write(instance, limit, what), limit=limit, what=what)
        faults = losses(instance, self._load(raw, what))
        if faults:
            raise DataInvalid(faults[:MOST_FAULTS], what)
        return raw

    def decode(self, raw: bytes, *, what: str = "data") -> Any:
        instance = self._load(raw, what)
        if self._has_times:
            # Compared with itself, an instance can only be at fault for datetimes without a zone.
            faults = losses(instance, instance)
            if faults:
                raise DataInvalid(faults[:MOST_FAULTS], what)
        return instance

    def _load(self, raw: bytes, what: str) -> object:
        try:
            return self.read(b"{}" if raw == b"null" and not self.optional else raw)
        except Exception as error:  # a model's own validators may raise anything
            raise DataInvalid(self.explain(error, None), what) from _worth_chaining(error)

    def build(self, mapping: Mapping[str, Any], what: str) -> object:
        """An instance from a mapping of its fields; raises `DataInvalid`."""
        try:
            return self.convert(mapping if isinstance(mapping, dict) else dict(mapping))
        except Exception as error:  # a model's own validators may raise anything
            raise DataInvalid(self.explain(error, mapping)[:MOST_FAULTS], what) from _worth_chaining(error)

    @abstractmethod
    def is_instance(self, value: object) -> bool: ...

    @abstractmethod
    def convert(self, mapping: dict[str, Any]) -> object: ...

    @abstractmethod
    def write(self, instance: object, limit: int, what: str) -> bytes: ...

    @abstractmethod
    def read(self, raw: bytes) -> object: ...

    @abstractmethod
    def explain(self, error: Exception, mapping: Mapping[str, Any] | None) -> list[Problem]: ...


def _worth_chaining(error: Exception) -> Exception | None:
    """The error, unless it is one of the libraries' own: those say nothing more, and pydantic's quote the data."""
    return None if isinstance(error, ValueError) else error


def _is_untyped(tp: Any) -> bool:
    if tp in _NOTHING or tp in _MAPPINGS or isinstance(tp, TypeVar):
        return True
    return typing.get_origin(tp) in _MAPPINGS and typing.get_args(tp)[1] in (Any, object)
