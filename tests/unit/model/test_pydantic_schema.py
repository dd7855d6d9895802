"""Data declared as a pydantic model: all faults at once, no silent loss, and no import for those who use none."""

import math
import subprocess
import sys
from datetime import datetime
from decimal import Decimal

import pydantic
import pydantic.dataclasses
import pytest

from jobmaster.model.errors import DataInvalid
from jobmaster.model.schema import DataSchema

LIMIT = 128 * 1024
NAIVE = datetime(2024, 1, 1)  # noqa: DTZ001 - naive on purpose


class PartModel(pydantic.BaseModel):
    name: str
    when: datetime | None = None


class OrderModel(pydantic.BaseModel):
    user_id: str
    price: Decimal
    parts: list[PartModel] = []
    at: datetime | None = None
    ratio: float | None = None
    count: int = pydantic.Field(default=0, alias="howMany")


def test_pydantic_s_faults_are_all_named() -> None:
    with pytest.raises(DataInvalid) as refused:
        DataSchema.of(OrderModel).encode({"price": "x", "parts": [{}], "ratio": "y"}, limit=LIMIT)
    assert [problem.path for problem in refused.value.problems] == [
        "$.user_id",
        "$.price",
        "$.parts[0].name",
        "$.ratio",
    ]


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (OrderModel(user_id="u", price=Decimal(1), at=NAIVE), "$.at"),
        (OrderModel(user_id="u", price=Decimal(1), ratio=math.nan), "$.ratio"),
        (OrderModel.model_construct(user_id=5, price=Decimal(1)), "$"),
        (OrderModel(user_id="a\x00", price=Decimal(1)), "$.user_id"),
    ],
    ids=["naive", "nan", "wrong type", "nul"],
)
def test_a_pydantic_instance_that_would_not_come_back_is_refused(value: OrderModel, path: str) -> None:
    with pytest.raises(DataInvalid) as refused:
        DataSchema.of(OrderModel).encode(value, limit=LIMIT)
    assert refused.value.problems[0].path == path


def test_a_secret_is_refused_since_it_would_be_stored_as_stars() -> None:
    class Login(pydantic.BaseModel):
        password: pydantic.SecretStr

    with pytest.raises(DataInvalid, match=r"\$\.password") as refused:
        DataSchema.of(Login).encode(Login(password=pydantic.SecretStr("hunter2")), limit=LIMIT)
    assert "hunter2" not in str(refused.value)


def test_a_model_that_allows_extra_fields_keeps_them() -> None:
    class Open(pydantic.BaseModel, extra="allow"):
        name: str

    schema = DataSchema.of(Open)
    raw = schema.encode({"name": "a", "more": 1}, limit=LIMIT)
    assert schema.decode(raw) == Open.model_validate({"name": "a", "more": 1})


def test_a_pydantic_dataclass_is_validated_by_pydantic() -> None:
    @pydantic.dataclasses.dataclass
    class Even:
        number: int

        @pydantic.field_validator("number")
        @classmethod
        def is_even(cls, value: int) -> int:
            if value % 2:
                raise ValueError("must be even")
            return value

    schema = DataSchema.of(Even)
    assert schema.decode(schema.encode({"number": 2}, limit=LIMIT)) == Even(2)
    with pytest.raises(DataInvalid, match="must be even"):
        schema.encode({"number": 3}, limit=LIMIT)


def test_pydantic_is_imported_only_for_those_who_use_it() -> None:
    code = (
        "import sys; from dataclasses import dataclass; from jobmaster.model.schema import DataSchema\n"
        "A = dataclass(type('A', (), {'__annotations__': {'x': int}}))\n"
        "assert DataSchema.of(A).encode({'x': 1}, limit=99) == b'{\"x\":1}'\n"
        "assert not [name for name in sys.modules if name.startswith('pydantic')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_a_field_may_be_given_by_its_alias_and_is_stored_under_it() -> None:
    schema = DataSchema.of(OrderModel)
    raw = schema.encode({"user_id": "u", "price": 1, "howMany": 3}, limit=LIMIT)
    assert schema.decode(raw).count == 3
    assert b'"howMany":3' in raw


def test_an_error_of_validation_does_not_quote_the_data_in_its_cause() -> None:
    with pytest.raises(DataInvalid) as refused:
        DataSchema.of(OrderModel).encode({"user_id": ["hunter2"], "price": "hunter2"}, limit=LIMIT)
    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None
