"""What may be registered, under which name, with which definition; and what is refused, saying why."""

import asyncio
import functools
import types
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from jobmaster import DataInvalid, DefinitionInvalid, HandlerUnknown, JobContext, JobHandler, Priority, Retry, job
from jobmaster.model.policy import SECOND, Policy, decode_policy
from jobmaster.registry import Registry, build_registry
from jobmaster.settings import Defaults
from tests.unit.front import shop
from tests.unit.front.shop import CountLines, Mailer, SendWelcome, Welcome, add, send_invoice


def registry(*references: object, defaults: Defaults | None = None) -> Registry:
    built, faults = build_registry(references, defaults or Defaults())
    assert faults == []
    return built


def fault(*references: object) -> str:
    _, faults = build_registry(references, Defaults())
    assert len(faults) == 1, faults
    return faults[0]


class Bare(JobHandler):
    async def execute(self, job: JobContext) -> None: ...


def test_a_class_is_stored_under_its_kebab_case_name() -> None:
    assert registry(SendWelcome).names == {"send-welcome"}


def test_an_explicit_name_wins() -> None:
    class Renamed(SendWelcome):
        name = "welcome.v2"

    assert registry(Renamed, send_invoice).names == {"welcome.v2", "invoice"}


def test_methods_are_stored_under_class_and_method() -> None:
    assert registry(Mailer.send, Mailer.forward, Mailer.count).names == {
        "mailer.send",
        "mailer.forward",
        "mailer.count",
    }


def test_class_attributes_make_the_definition() -> None:
    handler = registry(SendWelcome).resolve("send-welcome")

    assert (handler.lane, handler.priority, handler.title, handler.agent) == ("mail", Priority.HIGH, "Welcome", None)
    assert handler.policy == Policy(
        timeout_us=60 * SECOND,
        grace_us=2_500_000,
        retry=Retry.fixed(3),
        at_most_once=True,
        max_crashes=1,
    )


def test_what_a_handler_leaves_out_comes_from_the_cluster() -> None:
    defaults = Defaults(timeout=7.0, max_snoozes=3)

    policy = registry(Bare, defaults=defaults).resolve(Bare).policy

    assert (policy.timeout_us, policy.max_snoozes, policy.retry) == (7 * SECOND, 3, Retry())


def test_the_definition_tells_other_processes_all_they_need() -> None:
    entry = registry(SendWelcome).resolve("send-welcome").definition()

    assert (entry.name, entry.lane, entry.priority) == ("send-welcome", "mail", 1)
    assert decode_policy(entry.policy).max_crashes == 1
    assert entry.data_schema is not None
    assert b"user_id" in entry.data_schema


def test_a_plain_handler_has_an_empty_policy_and_no_schema() -> None:
    entry = registry(Bare).resolve(Bare).definition()

    assert (entry.policy, entry.data_schema) == (b"{}", None)


@pytest.mark.parametrize(
    ("reference", "data"),
    [
        (SendWelcome, Welcome),
        (CountLines, Welcome),
        (send_invoice, Welcome),
        (Mailer.receive, Welcome),
    ],
)
def test_the_data_type_is_taken_from_the_code(reference: object, data: type[Any]) -> None:
    handler = registry(reference).resolve(reference)

    assert handler.schema.decode(b'{"user_id": "u"}') == data("u")


def test_a_handler_that_names_no_type_takes_a_mapping() -> None:
    assert registry(Bare).resolve(Bare).schema.decode(b'{"a": 1}') == {"a": 1}


def test_the_annotation_of_execute_is_enough() -> None:
    class Annotated(JobHandler[Any]):
        async def execute(self, job: JobContext[Welcome]) -> None: ...

    class ByAnnotation(JobHandler):
        async def execute(self, job: JobContext[Welcome]) -> None: ...  # type: ignore[override]  # wider than the base

    assert registry(ByAnnotation).resolve(ByAnnotation).schema.type_name == "Welcome"
    assert registry(Annotated).resolve(Annotated).schema.decode(b'{"a": 1}') == {"a": 1}


def test_a_quoted_data_type_is_resolved_in_its_module() -> None:
    class Quoted(JobHandler["Welcome"]):
        async def execute(self, job: "JobContext[Welcome]") -> None: ...

    assert registry(Quoted).resolve(Quoted).schema.type_name == "Welcome"


def test_scanning_a_module_finds_what_is_defined_in_it_and_nothing_it_imported() -> None:
    assert registry(shop).names == {
        "send-welcome",
        "count-lines",
        "invoice",
        "add",
        "mailer.send",
        "mailer.receive",
    }


def test_registering_the_same_thing_twice_is_no_fault() -> None:
    assert registry(shop, SendWelcome, Mailer.send, Mailer.forward, Mailer.forward).names >= {"send-welcome"}


def test_two_classes_with_one_name_are_a_fault_that_names_both() -> None:
    class Other(SendWelcome):
        name = "send-welcome"

    text = fault(SendWelcome, Other)

    assert "shop.SendWelcome" in text
    assert "test_registry.Other" in text
    assert "both stored as 'send-welcome'" in text


def test_a_module_without_handlers_is_a_fault() -> None:
    assert "module types defines no handler" in fault(types)


class Nothing(JobHandler[Welcome]):
    pass


class Wrong(JobHandler[Welcome]):
    async def execute(self) -> None:  # type: ignore[override]  # the mistake under test
        ...


class Unfinished(SendWelcome):
    async def execute(self, job: JobContext[Welcome]) -> Any:
        yield "a"


class NeedsHelp(SendWelcome):
    def __init__(self, smtp: str) -> None:
        self.smtp = smtp


def takes_anything(*words: str) -> None: ...


def takes_a_service(smtp: Mailer) -> None: ...


def two_jobs(first: JobContext, second: JobContext) -> None: ...


def logged(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*arguments: Any, **keywords: Any) -> Any:
        return function(*arguments, **keywords)

    return wrapper


@logged
def decorated(number: int) -> int:
    return number + 1


def make_closure() -> Any:
    seen: list[int] = []

    def remember(number: int) -> None:
        seen.append(number)

    return remember


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        (Nothing, ["Nothing", "has no `execute`", "async def execute"]),
        (JobHandler, ["JobHandler", "has no `execute`"]),
        (Wrong, ["Wrong", "cannot be called with a job", "execute(self, job)"]),
        (Unfinished, ["Unfinished", "generator", "return"]),
        (NeedsHelp, ["NeedsHelp", "cannot be built", "smtp", ".handler_factory(...)"]),
        (SendWelcome(), ["SendWelcome(...)", "it is an instance", "pass the class"]),
        (Mailer, ["Mailer", "not a JobHandler", "class Mailer(JobHandler[...])"]),
        (Mailer().send, ["Mailer.send", "instance would not be stored", "handler factory"]),
        (lambda: None, ["lambda", "no name"]),
        (make_closure(), ["remember", "captured would not be stored"]),
        (functools.partial(add, 1), ["partial", "arguments would not be stored"]),
        (print, ["print", "cannot be looked into"]),
        (takes_anything, ["takes_anything", "*words", "one by one"]),
        (two_jobs, ["two_jobs", "twice"]),
        (takes_a_service, ["takes_a_service", "Mailer", "cannot be stored", "JobContext[Model]"]),
        (42, ["42", "no handler"]),
        ("send-welcome", ["'send-welcome'", "no handler"]),
    ],
)
def test_what_cannot_be_a_handler_is_refused_with_the_reason(reference: object, parts: list[str]) -> None:
    text = fault(reference)

    assert [part for part in parts if part not in text] == [], text


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("name", "Send Welcome", "send-welcome"),
        ("lane", "Mail", "mail"),
        ("agent", "A B", "a-b"),
        ("timeout", timedelta(0), "more than 0"),
        ("timeout", "soon", "number with a unit"),
        ("timeout", float("nan"), "duration"),
        ("grace", -1, "duration"),
        ("retry", 3, "Retry.fixed"),
        ("priority", 9, "Priority.HIGH"),
        ("priority", "high", "Priority.HIGH"),
        ("priority", True, "Priority.HIGH"),
        ("at_most_once", 1, "True or False"),
        ("max_crashes", 0, "1 to"),
        ("max_snoozes", True, "0 to"),
        ("max_interrupts", 1.5, "0 to"),
        ("title", "x" * 201, "200"),
        ("unroutable_after", 0, "more than 0"),
    ],
)
def test_an_option_without_meaning_is_refused_naming_class_and_option(
    option: str, value: object, expected: str
) -> None:
    handler = type("Mistaken", (SendWelcome,), {option: value})

    text = fault(handler)

    assert "Mistaken" in text
    assert option in text or option == "name"
    assert expected in text


def test_all_faults_of_several_handlers_are_found() -> None:
    _, faults = build_registry([Nothing, Wrong, SendWelcome, 42], Defaults())

    assert len(faults) == 3


def test_an_unregistered_class_is_named_with_the_line_to_add() -> None:
    with pytest.raises(HandlerUnknown, match=r"'count-lines' is not registered; add \.add_handlers\(CountLines\)"):
        registry(SendWelcome).resolve(CountLines)


def test_an_unregistered_method_is_named_with_the_line_to_add() -> None:
    with pytest.raises(HandlerUnknown, match=r"add \.add_handlers\(Mailer\.send\)"):
        registry(SendWelcome).resolve(Mailer.send)


def test_an_unknown_name_proposes_the_nearest() -> None:
    with pytest.raises(HandlerUnknown, match="did you mean 'send-welcome'"):
        registry(SendWelcome).resolve("send-welcom")


@pytest.mark.parametrize("reference", [SendWelcome(), lambda: None, 42, Nothing, [], {}])
def test_what_can_never_be_registered_says_so_to_the_caller(reference: object) -> None:
    with pytest.raises(DefinitionInvalid):
        registry(SendWelcome).resolve(reference)


@pytest.mark.parametrize("reference", [SendWelcome, send_invoice, add, Mailer.send, Mailer.forward, Mailer.count])
def test_what_was_registered_is_found_by_itself(reference: object) -> None:
    built = registry(reference)

    (handler,) = built
    assert built.resolve(reference) is handler
    assert built.get(handler.name) is handler
    assert len(built) == 1


def test_two_registries_know_nothing_of_each_other() -> None:
    first, second = registry(SendWelcome), registry(CountLines)

    assert first.get("count-lines") is None
    assert second.get("send-welcome") is None


@pytest.mark.parametrize(
    ("arguments", "keywords", "stored"),
    [
        ((1,), {}, {"a": 1}),
        ((1, 3), {}, {"a": 1, "b": 3}),
        ((), {"a": 1, "b": 3}, {"a": 1, "b": 3}),
    ],
)
def test_the_arguments_of_a_call_become_its_data(
    arguments: tuple[Any, ...], keywords: Mapping[str, Any], stored: object
) -> None:
    handler = registry(add).resolve(add)

    raw = handler.schema.encode(handler.bind(arguments, keywords), limit=1000)

    assert msgspec.json.decode(raw) == stored


@pytest.mark.parametrize(
    ("arguments", "keywords", "message"),
    [
        ((), {}, "'a'"),
        ((1, 2, 3), {}, "too many"),
        ((1,), {"a": 1}, "multiple values"),
        ((1,), {"c": 1}, "'c'"),
        ((1,), {"job": None}, "'job'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    arguments: tuple[Any, ...], keywords: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(DataInvalid, match=message):
        registry(add).resolve(add).bind(arguments, keywords)


def test_arguments_of_the_wrong_type_are_refused() -> None:
    handler = registry(add).resolve(add)

    with pytest.raises(DataInvalid, match=r"\$\.a"):
        handler.schema.encode(handler.bind(("one",), {}), limit=1000)


def test_what_takes_a_context_is_not_called() -> None:
    with pytest.raises(DefinitionInvalid, match=r"once_now\(send_invoice, data\)"):
        registry(send_invoice).resolve(send_invoice).bind((1,), {})


def test_a_decorated_function_stays_the_function_it_was() -> None:
    @job(name="other")
    async def original(number: int) -> int:
        return number + 1

    assert asyncio.run(original(1)) == 2
    assert original.__name__ == "original"


def test_a_handler_that_remembers_what_surrounds_it_may_be_a_marked_function() -> None:
    seen: list[str] = []

    @job
    async def note(job: JobContext) -> None:
        seen.append(job.id)

    assert registry(note).names == {"note"}


def test_a_function_with_a_decorator_of_ones_own_may_be_called() -> None:
    handler = registry(decorated).resolve(decorated)

    assert handler.schema.encode(handler.bind((1,), {}), limit=100) == b'{"number":1}'


@dataclass
class Named:
    first: str
    last: str


def versioned(version: object, **members: Any) -> Any:
    async def execute(self: Any, job: Any) -> None:
        return None

    body = {"execute": execute, "version": version, **members}
    return types.new_class("Rename", (JobHandler[Named],), exec_body=lambda names: names.update(body))


def split(cls: Any, data: Any, from_version: int) -> Any:
    assert from_version == 1
    first, _, last = data["name"].partition(" ")
    return {"first": first, "last": last}


def test_data_of_an_earlier_version_are_brought_into_the_form_of_this_one() -> None:
    built, faults = build_registry([versioned(2, upcast=classmethod(split))], Defaults())
    assert faults == []
    handler = built.resolve("rename")
    assert (handler.version, handler.policy.data_version) == (2, 2)
    assert b'"data_version":2' in handler.definition().policy
    assert handler.read(b'{"first":"A","last":"B"}', 2) == Named("A", "B")
    assert handler.read(b'{"name":"Ann Bee"}', 1) == Named("Ann", "Bee")
    with pytest.raises(KeyError):
        handler.read(b'{"nom":"Ann Bee"}', 1)


def test_upcast_may_give_the_declared_type_and_what_it_gives_is_checked() -> None:
    def whole(cls: Any, data: Any, from_version: int) -> Any:
        return Named(data["name"], "") if "name" in data else {"first": 7}

    built, _ = build_registry([versioned(2, upcast=classmethod(whole))], Defaults())
    assert built.resolve("rename").read(b'{"name":"Ann"}', 1) == Named("Ann", "")
    with pytest.raises(DataInvalid, match="first"):
        built.resolve("rename").read(b"{}", 1)


def test_a_function_may_have_versions_too() -> None:
    @job(version=2, upcast=lambda data, from_version: {"name": data["nom"], "times": from_version})
    def greet(name: str, times: int = 1) -> None:
        return None

    greet.__qualname__ = "greet"
    built, faults = build_registry([greet], Defaults())
    assert faults == []
    data = built.resolve("greet").read(b'{"nom":"Ann"}', 1)
    assert (data.name, data.times) == ("Ann", 1)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"version": 2}, "version=2 without upcast"),
        ({"version": 0}, "version=0 is not allowed"),
        ({"version": "2"}, "version='2' is not allowed"),
        ({"version": True}, "version=True is not allowed"),
    ],
)
def test_a_version_that_is_none_is_refused(members: dict[str, Any], words: str) -> None:
    _, faults = build_registry([versioned(**members)], Defaults())
    assert len(faults) == 1
    assert words in faults[0]
