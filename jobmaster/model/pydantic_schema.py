"""Data declared as a pydantic model or pydantic dataclass. Imported only when a handler declares one."""

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from jobmaster.model.data_faults import child
from jobmaster.model.errors import DataInvalid, DefinitionInvalid, Problem
from jobmaster.model.schema import TypedSchema


class PydanticSchema(TypedSchema):
    """Validates as the model is configured to: its coercions, aliases and validators are the user's own choice."""

    def __init__(self, tp: Any) -> None:
        try:
            self._adapter: TypeAdapter[Any] = TypeAdapter(tp)
            described = self._adapter.json_schema()
        except Exception as error:
            fault = str(error).splitlines()[0]
            raise DefinitionInvalid(
                f"data type {tp.__name__}", fault, "give its fields types JSON can carry"
            ) from error
        if described.get("type", "object") != "object":
            fault = f"is a JSON {described['type']}, not an object"
            raise DefinitionInvalid(f"data type {tp.__name__}", fault, "use a model with fields")
        super().__init__(tp, described)

    def is_instance(self, value: object) -> bool:
        return isinstance(value, self.tp)

    def convert(self, mapping: dict[str, Any]) -> object:
        return self._adapter.validate_python(mapping)

    def write(self, instance: object, limit: int, what: str) -> bytes:
        try:
            return self._adapter.dump_json(instance, by_alias=True, warnings="error")
        except (PydanticSerializationError, ValueError, TypeError) as error:
            raise DataInvalid((Problem("$", f"cannot be written as JSON: {error}"),), what) from error

    def read(self, raw: bytes) -> object:
        return self._adapter.validate_json(raw)

    def explain(self, error: Exception, mapping: Mapping[str, Any] | None) -> list[Problem]:
        if not isinstance(error, ValidationError):
            return [Problem("$", f"is not valid: {type(error).__name__}: {error}")]
        problems = []
        for fault in error.errors(include_url=False, include_context=False, include_input=False):
            path = "$"
            for step in fault["loc"]:
                path = child(path, step)
            problems.append(Problem(path, "is required" if fault["type"] == "missing" else fault["msg"]))
        return problems
