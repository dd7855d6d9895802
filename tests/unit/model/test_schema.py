"""Declared data types: what goes in comes out equal, and what would not is refused at enqueue with its path."""

import enum
import json
import math
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from types import MappingProxyType
from typing import Annotated, Any, Generic, NotRequired, TypedDict, TypeVar
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import msgspec
import pydantic
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobmaster.model.errors import DataInvalid, DefinitionInvalid
from jobmaster.model.schema import DataSchema
from tests import badinputs

LIMIT = 128 * 1024
NAIVE = datetime(2024, 1, 1)  # noqa: DTZ001 - naive on purpose
AWARE = datetime(2024, 1, 1, tzinfo=UTC)
T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Part:
    name: str
    when: datetime | None = None


class PartStruct(msgspec.Struct):
    when: datetime


@dataclass
class Order:
    user_id: str
    count: int
    price: Decimal
    token: UUID
    blob: bytes
    colour: Colour
    at: datetime
    parts: list[Part]
    by_day: dict[date, float] = field(default_factory=dict)
    ratio: float | None = None
    tags: frozenset[str] = frozenset()
    wait: timedelta = timedelta(0)
    clock: time | None = None
    anything: Any = None


class OrderStruct(msgspec.Struct, rename="camel"):
    user_id: str
    price: Decimal
    parts: list[Part] = []
    at: datetime | None = None


class PartModel(pydantic.BaseModel):
    name: str
    when: datetime | None = None


class OrderModel(pydantic.BaseModel):
    user_id: str
    price: Decimal
    colour: Colour = Colour.RED
    parts: list[PartModel] = []
    at: datetime | None = None
    ratio: float | None = None
    token: UUID | None = None
    count: int = pydantic.Field(default=0, alias="howMany")


class Cat(msgspec.Struct, tag=True):
    name: str


class Dog(msgspec.Struct, tag=True):
    age: int


class OrderDict(TypedDict):
    user_id: str
    count: NotRequired[int]


@dataclass
class Box(Generic[T]):
    content: T


@dataclass
class AllDefaults:
    a: int = 1
    b: list[int] = field(default_factory=list)


awares = st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))]))
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8)
parts = st.builds(Part, name=texts, when=st.none() | awares)
finite = st.floats(allow_nan=False, allow_infinity=False)
whole = st.integers(-(2**63) + 1, 2**63 - 1)
decimals = st.decimals(allow_nan=False, allow_infinity=False)
orders = st.builds(
    Order,
    user_id=texts,
    count=whole,
    price=decimals,
    token=st.uuids(),
    blob=st.binary(max_size=8),
    colour=st.sampled_from(Colour),
    at=awares,
    parts=st.lists(parts, max_size=3),
    by_day=st.dictionaries(st.dates(), finite, max_size=3),
    ratio=st.none() | finite,
    tags=st.frozensets(texts, max_size=3),
    wait=st.timedeltas(timedelta(days=-1000), timedelta(days=1000)),
    clock=st.none() | st.times(),
    anything=st.none() | whole | texts | st.lists(whole, max_size=2),
)
structs = st.builds(
    OrderStruct, user_id=texts, price=decimals, parts=st.lists(parts, max_size=2), at=st.none() | awares
)
models = st.builds(
    OrderModel,
    user_id=texts,
    price=decimals,
    colour=st.sampled_from(Colour),
    parts=st.lists(st.builds(PartModel, name=texts, when=st.none() | awares), max_size=2),
    at=st.none() | awares,
    ratio=st.none() | finite,
    token=st.none() | st.uuids(),
    howMany=whole,
)


@given(orders | structs | models)
def test_an_instance_comes_back_equal(value: Any) -> None:
    schema = DataSchema.of(type(value))
    raw = schema.encode(value, limit=LIMIT)
    assert schema.decode(raw) == value
    assert schema.decode(schema.encode(schema.decode(raw), limit=LIMIT)) == value


@given(orders | structs | models)
def test_what_a_typed_schema_writes_fits_its_own_description(value: Any) -> None:
    schema = DataSchema.of(type(value))
    raw = schema.encode(value, limit=LIMIT)
    described = DataSchema.described(json.loads(json.dumps(schema.json_schema())))
    assert described.fingerprint == schema.fingerprint
    assert described.decode(described.encode(json.loads(raw), limit=LIMIT)) == json.loads(raw)


@given(st.datetimes(datetime(1900, 1, 1), timezones=st.just(ZoneInfo("Europe/Berlin"))))  # noqa: DTZ001 - a bound
@example(datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin")))
@example(datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")))
@example(datetime(2024, 3, 31, 2, 30, tzinfo=ZoneInfo("Europe/Berlin")))
def test_a_zoned_time_keeps_its_instant_even_in_a_repeated_hour(when: datetime) -> None:
    for tp in (Part, PartModel):
        schema = DataSchema.of(tp)
        kept = schema.decode(schema.encode(tp(name="a", when=when), limit=LIMIT)).when
        assert kept.astimezone(UTC) == when.astimezone(UTC)


def order(**changes: Any) -> Order:
    values: dict[str, Any] = {
        "user_id": "u",
        "count": 1,
        "price": Decimal("1.10"),
        "token": uuid4(),
        "blob": b"x",
        "colour": Colour.RED,
        "at": AWARE,
        "parts": [],
    }
    return Order(**values | changes)


@pytest.mark.parametrize(
    ("changes", "path", "words"),
    [
        ({"at": NAIVE}, "$.at", "without a zone"),
        ({"parts": [Part("a", AWARE), Part("b", NAIVE)]}, "$.parts[1].when", "without a zone"),
        ({"ratio": math.nan}, "$.ratio", "nan"),
        ({"ratio": math.inf}, "$.ratio", "inf"),
        ({"by_day": {date(2024, 1, 1): math.nan}}, "$.by_day", ""),
        ({"count": "5"}, "$.count", "Expected int"),
        ({"count": 2**63}, "$.count", "2**63"),
        ({"user_id": None}, "$.user_id", "Expected str"),
        ({"user_id": "a\x00"}, "$.user_id", "NUL"),
        ({"parts": [Part("\ud800")]}, "$.parts[0].name", "surrogate"),
        ({"at": datetime(1890, 1, 1, tzinfo=ZoneInfo("Europe/Berlin"))}, "$.at", "convert to UTC"),
        ({"anything": AWARE}, "$.anything", "come back as a str"),
        ({"anything": {"a": [b"x"]}}, "$.anything.a[0]", "come back as a str"),
        ({"anything": [AWARE]}, "$.anything[0]", "come back as a str"),
        ({"anything": {5: "x"}}, "$.anything", "come back as text"),
        ({"anything": {1, 2}}, "$.anything", "come back as a list"),
        ({"anything": Colour.RED}, "$.anything", "come back as a str"),
        ({"anything": object()}, "$", "object"),
        ({"anything": badinputs.VALUES_REFUSED["depth 31"][0]}, "$.anything", "deeper"),
    ],
)
def test_an_instance_that_would_not_come_back_is_refused_at_its_path(
    changes: dict[str, Any], path: str, words: str
) -> None:
    with pytest.raises(DataInvalid, match=r"^job data is not valid") as refused:
        DataSchema.of(Order).encode(order(**changes), limit=LIMIT, what="job data")
    problem = refused.value.problems[0]
    assert problem.path.startswith(path)
    assert words in problem.message


@pytest.mark.parametrize("tp", [Order, OrderStruct, OrderModel], ids=lambda tp: tp.__name__)
def test_a_mapping_is_validated_into_the_type(tp: Any) -> None:
    values: dict[str, Any] = {"user_id": "u", "price": "1.10", "parts": [{"name": "a", "when": "2024-01-01T00:00:00Z"}]}
    if tp is OrderStruct:
        values["userId"] = values.pop("user_id")
    if tp is Order:
        values |= {"count": 1, "token": str(uuid4()), "blob": "eA==", "colour": "red", "at": AWARE}
    schema = DataSchema.of(tp)
    built = schema.decode(schema.encode(MappingProxyType(values), limit=LIMIT))
    assert type(built) is tp
    assert (built.user_id, built.price, built.parts[0].when) == ("u", Decimal("1.10"), AWARE)


@pytest.mark.parametrize("tp", [Part, PartModel], ids=lambda tp: tp.__name__)
@pytest.mark.parametrize(
    ("value", "paths"),
    [
        ({}, ["$.name"]),
        ({"name": "a", "state": "x", "token": 1}, ["$.state", "$.token"]),
        ({"nam": "a"}, ["$.name", "$.nam"]),
        ({"name": 5}, ["$.name"]),
        ({"name": "a", "when": "2024-01-01T00:00:00"}, ["$.when"]),
        ({"name": "a", "when": "infinity"}, ["$.when"]),
        ({"name": "a", "when": "2024-01-01T00:00:00+25:00"}, ["$.when"]),
        ({"name": "a", "when": "10000-01-01T00:00:00Z"}, ["$.when"]),
        (None, ["$.name"]),
        (5, ["$"]),
        ("name", ["$"]),
        ([["name", "a"]], ["$"]),
        (AllDefaults(), ["$"]),
    ],
    ids=repr,
)
def test_a_wrong_mapping_is_refused_with_every_path(tp: Any, value: object, paths: list[str]) -> None:
    with pytest.raises(DataInvalid) as refused:
        DataSchema.of(tp).encode(value, limit=LIMIT)
    found = [problem.path for problem in refused.value.problems]
    # pydantic drops an unknown key before it can be named when a required field is missing as well.
    assert found == paths or (tp is PartModel and found == paths[:1])


def test_a_refused_mapping_names_the_fields_there_are() -> None:
    with pytest.raises(DataInvalid, match=r"\$\.nmae: is not a field; expected one of: name, when"):
        DataSchema.of(Part).encode({"nmae": "a"}, limit=LIMIT)


@pytest.mark.parametrize("tp", [Order, OrderModel], ids=lambda tp: tp.__name__)
def test_unknown_fields_are_found_in_nested_mappings(tp: Any) -> None:
    values: dict[str, Any] = {"user_id": "u", "price": "1", "parts": [{"name": "a"}, {"name": "b", "role": "admin"}]}
    if tp is Order:
        values |= {"count": 1, "token": str(uuid4()), "blob": "", "colour": "red", "at": AWARE}
    with pytest.raises(DataInvalid) as refused:
        DataSchema.of(tp).encode(values, limit=LIMIT)
    assert [problem.path for problem in refused.value.problems] == ["$.parts[1].role"]


def test_none_stands_for_a_type_whose_fields_all_have_defaults() -> None:
    schema = DataSchema.of(AllDefaults)
    assert schema.decode(schema.encode(None, limit=LIMIT)) == AllDefaults()
    assert schema.decode(b"null") == AllDefaults()


def test_a_typed_dict_gives_a_dict() -> None:
    schema = DataSchema.of(OrderDict)
    assert schema.decode(schema.encode({"user_id": "u"}, limit=LIMIT)) == {"user_id": "u"}
    with pytest.raises(DataInvalid, match=r"\$\.usr"):
        schema.encode({"user_id": "u", "usr": 1}, limit=LIMIT)
    with pytest.raises(DataInvalid, match="expected OrderDict"):
        schema.encode(5, limit=LIMIT)


def test_a_typed_mapping_is_checked_value_by_value() -> None:
    schema = DataSchema.of(dict[str, int])
    assert schema.decode(schema.encode({"a": 1}, limit=LIMIT)) == {"a": 1}
    with pytest.raises(DataInvalid):
        schema.encode({"a": "x"}, limit=LIMIT)


def test_a_bad_key_of_a_typed_mapping_is_refused_where_it_stands() -> None:
    with pytest.raises(DataInvalid) as refused:
        DataSchema.of(Order).decode(b'{"by_day":{"soon":1}}')
    assert refused.value.problems[0].path == "$.by_day"


def test_a_tagged_union_of_structs_is_told_apart_by_its_tag() -> None:
    schema = DataSchema.of(Cat | Dog)
    assert schema.decode(schema.encode(Cat("a"), limit=LIMIT)) == Cat("a")
    assert schema.decode(schema.encode({"type": "Dog", "age": 3}, limit=LIMIT)) == Dog(3)
    with pytest.raises(DataInvalid):
        schema.encode({"type": "Cow"}, limit=LIMIT)
    with pytest.raises(DataInvalid):
        schema.encode(AllDefaults(), limit=LIMIT)


def test_none_is_a_value_where_the_type_says_so() -> None:
    schema = DataSchema.of(Part | None)
    assert schema.decode(schema.encode(None, limit=LIMIT)) is None
    assert schema.decode(schema.encode({"name": "a"}, limit=LIMIT)) == Part("a")


def test_an_annotated_type_takes_instances_of_what_it_annotates() -> None:
    schema = DataSchema.of(Annotated[Part, "note"])
    assert schema.decode(schema.encode(Part("a"), limit=LIMIT)) == Part("a")


def test_a_generic_dataclass_is_validated_with_its_parameter() -> None:
    schema = DataSchema.of(Box[int])
    assert schema.decode(schema.encode(Box(5), limit=LIMIT)) == Box(5)
    with pytest.raises(DataInvalid, match=r"\$\.content"):
        schema.encode(Box("x"), limit=LIMIT)


def test_a_subclass_with_more_fields_is_refused() -> None:
    @dataclass
    class Special(Part):
        more: int = 0

    with pytest.raises(DataInvalid, match="Special"):
        DataSchema.of(Part).encode(Special("a"), limit=LIMIT)


@pytest.mark.parametrize(
    "tp",
    [None, type(None), Any, dict, Mapping, dict[str, Any], Mapping[str, Any], MutableMapping[str, object], T],
    ids=str,
)
def test_no_type_means_a_mapping_of_portable_json(tp: Any) -> None:
    schema = DataSchema.of(tp)
    assert schema.json_schema() == {"type": "object"}
    assert schema.decode(schema.encode({"a": [1]}, limit=LIMIT)) == {"a": [1]}
    assert schema.decode(schema.encode(None, limit=LIMIT)) == {}
    for wrong in ([1], "x", 5, Part("a")):
        with pytest.raises(DataInvalid, match="pass a mapping"):
            schema.encode(wrong, limit=LIMIT)
    with pytest.raises(DataInvalid, match=r"\$\.a"):
        schema.encode({"a": AWARE}, limit=LIMIT)
    with pytest.raises(DataInvalid, match="expected an object"):
        schema.decode(b"[1]")


@dataclass
class HoldsComplex:
    number: complex


@dataclass
class HoldsModel:
    model: PartModel


@dataclass
class HoldsUndefined:
    part: "NoSuchName"  # type: ignore[name-defined]  # noqa: F821  # undefined on purpose


class HoldsCallable(pydantic.BaseModel):
    call: Callable[[], int]


@pytest.mark.parametrize(
    "tp",
    [HoldsComplex, HoldsModel, HoldsUndefined, HoldsCallable, int, list[int], str, pydantic.RootModel[list[int]]],
    ids=str,
)
def test_a_type_that_cannot_be_json_objects_is_refused_when_declared(tp: Any) -> None:
    with pytest.raises(DefinitionInvalid, match="data type"):
        DataSchema.of(tp)


@pytest.mark.parametrize("tp", [Part, PartModel, OrderDict], ids=lambda tp: tp.__name__)
@pytest.mark.parametrize(
    "raw", [b"{", b"[]", b"5", b'{"name":5,"user_id":5}', b"\xff", b"[" * 100_000, b'{"name":"\\ud800"}']
)
def test_stored_bytes_that_do_not_fit_are_refused(tp: Any, raw: bytes) -> None:
    with pytest.raises(DataInvalid, match="stored data"):
        DataSchema.of(tp).decode(raw, what="stored data")


@dataclass
class Times:
    rows: list[Part]
    more: dict[str, list[datetime]]
    pair: tuple[int, datetime | None]
    either: PartStruct | list[datetime] | None


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"rows": [{"name": "a", "when": "2024-01-01T00:00:00"}]}, "$.rows[0].when"),
        ({"more": {"x": ["2024-01-01T00:00:00"]}}, "$.more.x[0]"),
        ({"pair": [1, "2024-01-01T00:00:00"]}, "$.pair[1]"),
        ({"either": {"when": "2024-01-01T00:00:00"}}, "$.either.when"),
        ({"either": ["2024-01-01T00:00:00"]}, "$.either[0]"),
    ],
    ids=repr,
)
def test_a_time_without_a_zone_is_found_wherever_it_stands(changes: dict[str, Any], path: str) -> None:
    schema = DataSchema.of(Times)
    values = {"rows": [], "more": {}, "pair": [1, None], "either": None} | changes
    for refuse in (schema, DataSchema.described(schema.json_schema())):
        with pytest.raises(DataInvalid) as refused:
            refuse.encode(values, limit=LIMIT)
        assert [problem.path for problem in refused.value.problems] == [path]
    with pytest.raises(DataInvalid) as refused:
        schema.decode(json.dumps(values).encode())
    assert [problem.path for problem in refused.value.problems] == [path]


@pytest.mark.parametrize("tp", [Part, PartModel], ids=lambda tp: tp.__name__)
def test_a_worker_ignores_a_field_it_does_not_know_yet(tp: Any) -> None:
    assert DataSchema.of(tp).decode(b'{"name":"a","added_later":1}') == tp(name="a")


@pytest.mark.parametrize("tp", [Part, PartModel, dict], ids=lambda tp: tp.__name__)
def test_the_size_limit_holds_for_every_kind_of_schema(tp: Any) -> None:
    with pytest.raises(DataInvalid, match="at most 50"):
        DataSchema.of(tp).encode({"name": "x" * 50}, limit=50)


def test_whatever_a_model_s_own_code_raises_is_data_invalid() -> None:
    @dataclass
    class Odd:
        name: str

        def __post_init__(self) -> None:
            raise KeyError("no")

    with pytest.raises(DataInvalid, match="is not valid: KeyError"):
        DataSchema.of(Odd).encode({"name": "a"}, limit=LIMIT)


def test_the_fingerprint_tells_types_apart_and_is_stable() -> None:
    assert DataSchema.of(Part).fingerprint == DataSchema.of(Part).fingerprint
    assert len({DataSchema.of(tp).fingerprint for tp in (None, Part, PartModel, Order, OrderDict)}) == 5
