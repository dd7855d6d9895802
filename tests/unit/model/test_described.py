"""Data given by a handler's name alone, checked against the description its definition stores."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import pydantic
import pytest

from jobmaster.model.errors import DataInvalid
from jobmaster.model.schema import DataSchema

LIMIT = 128 * 1024


@dataclass
class Part:
    name: str
    when: datetime | None = None


class PartModel(pydantic.BaseModel):
    name: str
    when: datetime | None = None


@pytest.mark.parametrize("tp", [Part, PartModel], ids=lambda tp: tp.__name__)
@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({}, "$.name"),
        (None, "$.name"),
        ({"name": "a", "role": "admin"}, "$.role"),
        ({"name": 5}, "$.name"),
        ({"name": None}, "$.name"),
        ({"name": "a", "when": "2024-01-01T00:00:00"}, "$.when"),
        ({"name": "a", "when": "soon"}, "$.when"),
        ({"name": "a", "when": 5}, "$.when"),
    ],
    ids=repr,
)
def test_data_given_by_handler_name_is_checked_against_its_description(tp: Any, value: Any, path: str) -> None:
    described = DataSchema.described(DataSchema.of(tp).json_schema())
    with pytest.raises(DataInvalid) as refused:
        described.encode(value, limit=LIMIT)
    assert [problem.path for problem in refused.value.problems] == [path]


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "object"}, {"a": [1]}, None),
        ({"properties": {"a": {"type": "integer"}}}, {"a": 5.0}, {"a": 5.5}),
        ({"properties": {"a": {"type": "integer"}}}, {"a": 5}, {"a": True}),
        ({"properties": {"a": {"type": ["number", "null"]}}}, {"a": None}, {"a": "x"}),
        ({"properties": {"a": {"const": "x"}}}, {"a": "x"}, {"a": "y"}),
        ({"properties": {"a": {"enum": ["x", 1]}}}, {"a": 1}, {"a": 2}),
        ({"properties": {"a": {"type": "string", "format": "uuid"}}}, {"a": str(UUID(int=1))}, {"a": "x"}),
        ({"properties": {"a": {"items": {"type": "boolean"}}}}, {"a": [True]}, {"a": [1]}),
        ({"properties": {"a": {"prefixItems": [{"type": "null"}]}}}, {"a": [None, 1]}, {"a": [1]}),
        ({"additionalProperties": {"type": "string"}}, {"b": "x"}, {"b": 1}),
        ({"properties": {}, "additionalProperties": False}, {}, {"b": 1}),
        ({"properties": {"a": True}, "additionalProperties": True}, {"a": 1, "b": 1}, None),
        ({"allOf": [{"required": ["a"]}, {"required": ["b"]}]}, {"a": 1, "b": 1}, {"a": 1}),
        ({"$ref": "#/$defs/X", "$defs": {"X": {"required": ["a"]}}}, {"a": 1}, {}),
        ({"$ref": "#/$defs/X", "$defs": {"X": {"$ref": "#/$defs/X"}}}, {"a": 1}, None),
        ({"$ref": "#/nowhere/at/all"}, {"a": 1}, None),
        ({"type": "something newer"}, {"a": 1}, None),
    ],
    ids=str,
)
def test_a_description_is_read_as_far_as_it_concerns_fields(
    schema: dict[str, Any], good: dict[str, Any], bad: dict[str, Any] | None
) -> None:
    described = DataSchema.described(schema)
    assert json.loads(described.encode(good, limit=LIMIT)) == good
    if bad is not None:
        with pytest.raises(DataInvalid):
            described.encode(bad, limit=LIMIT)
