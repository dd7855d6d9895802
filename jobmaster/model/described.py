"""Checking data against a handler's stored JSON schema, for a caller that does not have the handler's code.

Not a JSON-schema validator: it reads what msgspec and pydantic write for fields (types, required, properties, items,
references, unions, constants, formats of time and UUID) and ignores the rest, since the worker, which has the real
type, validates again. Unlike the standard it refuses unknown fields wherever properties are listed.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from jobmaster.model import portable
from jobmaster.model.data_faults import MOST_FAULTS, child
from jobmaster.model.errors import DataInvalid, Problem, quoted
from jobmaster.model.fidelity import unknown_field

_REFERENCES = 50


def validate_against(json_schema: Mapping[str, Any], raw: bytes, *, what: str = "data") -> None:
    """Raise `DataInvalid` with every fault found if these portable-JSON bytes do not fit the schema."""
    check = _Check(json_schema)
    check.value(json_schema, portable.decode(raw, what=what), "$")
    if check.faults:
        raise DataInvalid(check.faults[:MOST_FAULTS], what)


class _Check:
    def __init__(self, root: Mapping[str, Any]) -> None:
        self.root = root
        self.faults: list[Problem] = []

    def value(self, schema: Any, value: Any, path: str) -> None:
        schema = self.resolve(schema)
        if not schema:
            return
        for part in schema.get("allOf", ()):
            self.value(part, value, path)
        choices = schema.get("anyOf") or schema.get("oneOf")
        if choices:
            self.choice(choices, value, path)
        if "const" in schema and value != schema["const"]:
            self.faults.append(Problem(path, f"is {quoted(value)}, expected {quoted(schema['const'])}"))
        if "enum" in schema and value not in schema["enum"]:
            allowed = ", ".join(quoted(item) for item in schema["enum"][:12])
            self.faults.append(Problem(path, f"is {quoted(value)}, expected one of {allowed}"))
        kinds = schema.get("type", ())
        kinds = (kinds,) if isinstance(kinds, str) else kinds
        if kinds and not any(_is_of(value, kind) for kind in kinds):
            self.faults.append(Problem(path, f"is {_kind_of(value)}, expected {' or '.join(kinds)}"))
        elif isinstance(value, dict):
            self.fields(schema, value, path)
        elif isinstance(value, list):
            self.items(schema, value, path)
        elif isinstance(value, str):
            self.text(schema.get("format"), value, path)

    def fields(self, schema: Mapping[str, Any], value: dict[str, Any], path: str) -> None:
        properties = schema.get("properties")
        others = schema.get("additionalProperties", properties is None or "patternProperties" in schema)
        self.faults += [
            Problem(child(path, name), "is required") for name in schema.get("required", ()) if name not in value
        ]
        for key, item in value.items():
            if properties and key in properties:
                self.value(properties[key], item, child(path, key))
            elif others is False:
                self.faults.append(unknown_field(path, key, properties or ()))
            else:
                self.value(others, item, child(path, key))

    def items(self, schema: Mapping[str, Any], value: list[Any], path: str) -> None:
        first = schema.get("prefixItems", ())
        for index, item in enumerate(value):
            self.value(first[index] if index < len(first) else schema.get("items"), item, child(path, index))

    def text(self, form: object, value: str, path: str) -> None:
        if form == "date-time":
            try:
                if datetime.fromisoformat(value).tzinfo is None:
                    self.faults.append(Problem(path, f"is {quoted(value)}, a time without a zone; add one, such as Z"))
            except ValueError:
                self.faults.append(Problem(path, f"is {quoted(value)}, expected a time such as 2024-05-01T12:00:00Z"))
        elif form == "uuid":
            try:
                UUID(value)
            except ValueError:
                self.faults.append(Problem(path, f"is {quoted(value)}, expected a UUID"))

    def choice(self, choices: list[Any], value: Any, path: str) -> None:
        refusals = []
        for choice in choices:
            trial = _Check(self.root)
            trial.value(choice, value, path)
            if not trial.faults:
                return
            refusals.append(trial.faults)
        # The alternative that fails deepest is the one that was meant: null fails at once for an object.
        self.faults += max(refusals, key=lambda faults: max(len(fault.path) for fault in faults))

    def resolve(self, schema: Any) -> Mapping[str, Any]:
        for _ in range(_REFERENCES):
            if not isinstance(schema, Mapping):
                return {}
            reference = schema.get("$ref")
            if not isinstance(reference, str) or not reference.startswith("#/"):
                return schema
            schema = self.root
            for step in reference[2:].split("/"):
                schema = schema.get(step.replace("~1", "/").replace("~0", "~"), {}) if schema else {}
        return {}


def _is_of(value: object, kind: str) -> bool:
    match kind:
        case "integer":
            return (isinstance(value, int) and not isinstance(value, bool)) or (
                isinstance(value, float) and value.is_integer()
            )
        case "number":
            return isinstance(value, (int, float)) and not isinstance(value, bool)
        case _:
            # A type this code does not know is for the worker to judge.
            return kind not in _KINDS.values() or _kind_of(value) == kind


_KINDS = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}


def _kind_of(value: object) -> str:
    return _KINDS.get(type(value), "number")
