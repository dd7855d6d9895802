"""Data declared as a dataclass, msgspec Struct, TypedDict or typed mapping."""

import re
import typing
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any

import msgspec
from msgspec import inspect

from jobmaster.model.data_faults import child, plain_copy
from jobmaster.model.errors import DataInvalid, DefinitionInvalid, Problem
from jobmaster.model.fidelity import unknown_field
from jobmaster.model.schema import TypedSchema

_MISSING = re.compile(r"Object missing required field `(.+)`")
_LOCATED = re.compile(r"(.*) - at (?:`key` in )?`(\$.*)`", re.DOTALL)


class MsgspecSchema(TypedSchema):
    """Dataclasses, Structs, TypedDicts and typed mappings, through msgspec."""

    def __init__(self, tp: Any) -> None:
        name = getattr(tp, "__name__", str(tp))
        try:
            described = msgspec.json.schema(tp)
            _mark_times(msgspec.inspect.type_info(tp), described, described, set())
            self._decoder = msgspec.json.Decoder(tp)
        except Exception as error:
            remedy = "give its fields types that JSON can carry, or declare a pydantic model"
            raise DefinitionInvalid(f"data type {name}", str(error).splitlines()[-1], remedy) from error
        root = _resolve(described, described)
        if root.get("type", "object") != "object":
            fault = f"is a JSON {root['type']}, not an object"
            raise DefinitionInvalid(f"data type {name}", fault, "wrap it in a dataclass with one field")
        super().__init__(tp, described)
        self._encoder = msgspec.json.Encoder()
        self._classes = _classes(tp)
        self.optional = NoneType in self._classes
        self._fields: Mapping[str, Any] = root.get("properties", {})
        self._required: tuple[str, ...] = tuple(root.get("required", ()))

    def is_instance(self, value: object) -> bool:
        return isinstance(value, self._classes)

    def convert(self, mapping: dict[str, Any]) -> object:
        return msgspec.convert(mapping, self.tp)

    def write(self, instance: object, limit: int, what: str) -> bytes:
        try:
            return self._encoder.encode(instance)
        except UnicodeEncodeError:
            # msgspec does not say where; the walk does, since text is text on either side.
            plain_copy(msgspec.to_builtins(instance), limit=limit, what=what)
            raise
        except (TypeError, ValueError, RecursionError) as error:
            raise DataInvalid((Problem("$", f"cannot be written as JSON: {error}"),), what) from error

    def read(self, raw: bytes) -> object:
        return self._decoder.decode(raw)

    def explain(self, error: Exception, mapping: Mapping[str, Any] | None) -> list[Problem]:
        located = _LOCATED.fullmatch(str(error))
        message, path = located.groups() if located else (str(error), "$")
        missing = _MISSING.fullmatch(message)
        if missing:
            path, message = child(path, missing[1]), "is required"
        elif not isinstance(error, msgspec.DecodeError):
            message = f"is not valid: {type(error).__name__}: {error}"
        problems = [Problem(path, message.replace("`", ""))]
        if mapping is not None and self._fields:
            # msgspec stops at the first fault; for the outermost fields the rest is known from the schema.
            absent = [Problem(child("$", name), "is required") for name in self._required if name not in mapping]
            unknown = [unknown_field("$", key, self._fields) for key in mapping if key not in self._fields]
            problems += [problem for problem in (*absent, *unknown) if problem not in problems]
        return problems


def _classes(tp: Any) -> tuple[type, ...]:
    """The classes whose instances are values of the type.

    Mappings are not among them: of a dict `isinstance` says nothing, so those are always built from their keys.
    """
    origin = typing.get_origin(tp)
    if origin in (typing.Union, UnionType):
        return tuple(cls for part in typing.get_args(tp) for cls in _classes(part))
    if origin is typing.Annotated:
        return _classes(typing.get_args(tp)[0])
    cls = origin or tp
    return () if not isinstance(cls, type) or typing.is_typeddict(cls) or issubclass(cls, Mapping) else (cls,)


def _resolve(node: Any, root: dict[str, Any]) -> Any:
    reference = node.get("$ref") if isinstance(node, dict) else None
    return root["$defs"][reference.rsplit("/", 1)[-1]] if reference else node


def _mark_times(info: object, node: Any, root: dict[str, Any], seen: set[object]) -> None:
    """Write `format: date-time` where msgspec, which says it only of zoned times, leaves a plain string."""
    node = _resolve(node, root)
    if not isinstance(node, dict):
        return
    match info:
        case inspect.DateTimeType():
            node.setdefault("format", "date-time")
        case inspect.UnionType(types=types):
            # A union holds at most one type that JSON writes as text, so the one string among them is the time.
            for one in types:
                for choice in node.get("anyOf", ()):
                    kind = _resolve(choice, root).get("type")
                    if kind == _JSON_KINDS.get(type(one)):
                        _mark_times(one, choice, root, seen)
        case inspect.ListType(item_type=item) | inspect.SetType(item_type=item) | inspect.FrozenSetType(item_type=item):
            _mark_times(item, node.get("items"), root, seen)
        case inspect.VarTupleType(item_type=item):
            _mark_times(item, node.get("items"), root, seen)
        case inspect.TupleType(item_types=items):
            for item, below in zip(items, node.get("prefixItems", ()), strict=False):
                _mark_times(item, below, root, seen)
        case inspect.DictType(value_type=value):
            _mark_times(value, node.get("additionalProperties"), root, seen)
        case inspect.StructType() | inspect.DataclassType() | inspect.TypedDictType() | inspect.NamedTupleType():
            if info.cls not in seen:
                seen.add(info.cls)
                for field in info.fields:
                    _mark_times(field.type, node.get("properties", {}).get(field.encode_name), root, seen)
        case _:
            pass


_JSON_KINDS: dict[type, str] = {
    inspect.DateTimeType: "string",
    inspect.ListType: "array",
    inspect.VarTupleType: "array",
    inspect.TupleType: "array",
    inspect.DictType: "object",
    inspect.StructType: "object",
    inspect.DataclassType: "object",
    inspect.TypedDictType: "object",
}
