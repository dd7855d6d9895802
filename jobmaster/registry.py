"""The handlers of one cluster: what a stored name means here, and what a class or function is stored as.

Built once, then only read, from any thread. There is no global registry, so several clusters live in one process.
"""

import inspect
import types
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any

import msgspec

from jobmaster.contracts.entries import DefinitionEntry
from jobmaster.definition import Definition, Style, examine, key_of, scan
from jobmaster.invocation import HandlerFactory, Invoke, invoker
from jobmaster.model.errors import (
    DataInvalid,
    DefinitionInvalid,
    HandlerUnknown,
    JobMasterError,
    NameInvalid,
    Problem,
)
from jobmaster.model.names import check_name, check_title
from jobmaster.model.policy import Policy
from jobmaster.model.priority import Priority
from jobmaster.model.retry import Retry
from jobmaster.model.schema import DataSchema, UntypedSchema
from jobmaster.settings.models import MICROSECONDS, Defaults
from jobmaster.settings.units import seconds_of


class Handler:
    """One registered definition, complete with the cluster's defaults."""

    __slots__ = (
        "_definition",
        "agent",
        "blocking",
        "invoke",
        "lane",
        "name",
        "policy",
        "priority",
        "schema",
        "style",
        "title",
    )

    def __init__(self, definition: Definition, defaults: Defaults, factory: HandlerFactory | None) -> None:
        options = definition.options
        self.name: str = definition.name
        self.lane: str = _lane(definition)
        self.priority: Priority = _priority(definition)
        self.agent: str | None = options.agent
        self.title: str | None = options.title
        self.policy: Policy = _policy(definition, defaults.policy())
        self.schema: DataSchema = _schema(definition)
        self.style: Style = definition.style
        self.blocking: bool = definition.blocking
        """A plain `def`: it runs in a thread, and cannot be cancelled."""
        self.invoke: Invoke = invoker(definition, factory)
        """Runs one attempt and gives its result. Closes what the handler factory opened, however the attempt ends."""
        self._definition = definition

    @property
    def label(self) -> str:
        """What messages call the class or function."""
        return self._definition.label

    def definition(self) -> DefinitionEntry:
        """What the master keeps of it, for processes that have not its code."""
        return DefinitionEntry(
            name=self.name,
            lane=self.lane,
            priority=int(self.priority),
            policy=self.policy.encode(),
            # An untyped handler takes any object, which is what no schema means.
            data_schema=None
            if isinstance(self.schema, UntypedSchema)
            else msgspec.json.encode(self.schema.json_schema(), order="deterministic"),
            agent=self.agent,
        )

    def bind(self, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> Any:
        """The data of a call with these arguments, not validated yet. Raises `DataInvalid` where they do not fit the
        signature, and `DefinitionInvalid` where the handler is not enqueued by `call`."""
        definition = self._definition
        if definition.style is not Style.CALL:
            raise DefinitionInvalid(
                self.label, "it takes a JobContext, not arguments", f"enqueue it with once_now({self.label}, data)"
            )
        parameters = [
            inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in definition.parameters
        ]
        try:
            given = inspect.Signature(parameters).bind_partial(*arguments, **keywords).arguments
            return definition.data_type(**given)
        except TypeError as error:
            raise DataInvalid([Problem("$", str(error))], f"the call of {self.label}") from None

    def __repr__(self) -> str:
        return f"Handler({self.name!r}, {self.label})"


class Registry:
    """The handlers by name."""

    def __init__(self, handlers: Iterable[tuple[Definition, Handler]] = ()) -> None:
        pairs = list(handlers)
        self._by_name: dict[str, Handler] = {handler.name: handler for _, handler in pairs}
        self._by_target: dict[object, Handler] = {key_of(definition.target): handler for definition, handler in pairs}
        self.names: frozenset[str] = frozenset(self._by_name)
        self.get = self._by_name.get
        """The handler of that name, or None."""

    def __iter__(self) -> Iterator[Handler]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def resolve(self, reference: object) -> Handler:
        """The handler that a name, a class, a function or a method stands for. Raises `HandlerUnknown` with the line to
        add, and `DefinitionInvalid` for what can never be one."""
        if isinstance(reference, str):
            found = self._by_name.get(reference)
            if found is None:
                raise HandlerUnknown(reference, sorted(self.names))
            return found
        try:
            known = self._by_target.get(key_of(reference))
        except TypeError:  # not hashable, so not registered either
            known = None
        if known is not None:
            return known
        definition = examine(reference)
        raise HandlerUnknown(
            definition.name, remedy=f"add .add_handlers({definition.label}) to the ClusterBuilder, before build()"
        )


def build_registry(
    references: Iterable[object], defaults: Defaults, factory: HandlerFactory | None = None
) -> tuple[Registry, list[str]]:
    """The registry of these classes, functions, methods and modules, and every fault found in them."""
    faults: list[str] = []
    found: dict[str, tuple[Definition, Handler]] = {}
    for reference in _spread(references, faults):
        try:
            definition = examine(reference)
            _check_constructor(definition, factory)
            earlier = found.get(definition.name)
            if earlier is None:
                found[definition.name] = (definition, Handler(definition, defaults, factory))
            elif key_of(earlier[0].target) is not key_of(definition.target):
                faults.append(_same_name(earlier[0], definition))
        except JobMasterError as error:
            faults.append(str(error))
    return Registry(found.values()), faults


def _spread(references: Iterable[object], faults: list[str]) -> Iterator[object]:
    for reference in references:
        if not isinstance(reference, types.ModuleType):
            yield reference
            continue
        scanned = scan(reference)
        if not scanned:
            faults.append(
                f"module {reference.__name__} defines no handler: it needs a JobHandler class or a function with @job; "
                f"what it imports does not count, and neither do its submodules"
            )
        yield from scanned


def _same_name(first: Definition, second: Definition) -> str:
    places = " and ".join(f"{one.target.__module__}.{one.label}" for one in (first, second))
    return f'{places} are both stored as {first.name!r}; give one of them another name: name = "…"'


def _check_constructor(definition: Definition, factory: HandlerFactory | None) -> None:
    if definition.owner is None or factory is not None:
        return
    try:
        inspect.signature(definition.owner).bind()
    except ValueError:  # some classes have no signature to look at
        return
    except TypeError as error:
        owner = definition.owner.__name__
        raise DefinitionInvalid(
            definition.label, f"{owner}() cannot be built: {error}", "set .handler_factory(...) to build it"
        ) from None


def _schema(definition: Definition) -> DataSchema:
    try:
        return DataSchema.of(definition.data_type)
    except DefinitionInvalid as error:
        raise DefinitionInvalid(definition.label, str(error)) from None


def _lane(definition: Definition) -> str:
    lane = definition.options.lane
    if lane is None:
        return "default"
    try:
        if definition.options.agent is not None:
            check_name("agent", definition.options.agent)
        return check_name("lane", lane)
    except NameInvalid as error:
        raise DefinitionInvalid(definition.label, str(error)) from None


def _priority(definition: Definition) -> Priority:
    priority = definition.options.priority
    if priority is None:
        return Priority.MEDIUM
    if priority not in list(Priority):
        names = ", ".join(f"Priority.{known.name}" for known in Priority)
        raise DefinitionInvalid(definition.label, f"priority={priority!r} is not allowed", f"expected one of {names}")
    return Priority(priority)


def _policy(definition: Definition, default: Policy) -> Policy:
    options = definition.options
    if options.retry is not None and not isinstance(options.retry, Retry):
        raise DefinitionInvalid(
            definition.label, f"retry={options.retry!r} is not allowed", "expected a Retry, such as Retry.fixed(10)"
        )
    if options.title is not None:
        check_title(options.title)
    return Policy(
        timeout_us=_duration(definition, "timeout", options.timeout, default.timeout_us, positive=True),
        grace_us=_duration(definition, "grace", options.grace, default.grace_us),
        retry=default.retry if options.retry is None else options.retry,
        at_most_once=options.at_most_once,
        max_crashes=_count(definition, "max_crashes", options.max_crashes, default.max_crashes, least=1),
        max_snoozes=_count(definition, "max_snoozes", options.max_snoozes, default.max_snoozes),
        max_interrupts=_count(definition, "max_interrupts", options.max_interrupts, default.max_interrupts),
        unroutable_after_us=None
        if options.unroutable_after is None
        else _duration(definition, "unroutable_after", options.unroutable_after, 0, positive=True),
    )


def _duration(
    definition: Definition, option: str, value: timedelta | float | None, default: int, *, positive: bool = False
) -> int:
    if value is None:
        return default
    try:
        microseconds = round(seconds_of(value) * MICROSECONDS)
    except ValueError as error:
        raise DefinitionInvalid(definition.label, f"{option}={value!r} is not allowed", str(error)) from None
    if positive and microseconds <= 0:
        raise DefinitionInvalid(definition.label, f"{option}={value!r} is not allowed", "expected more than 0 seconds")
    return microseconds


def _count(definition: Definition, option: str, value: int | None, default: int, *, least: int = 0) -> int:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= 1_000_000:
        raise DefinitionInvalid(
            definition.label, f"{option}={value!r} is not allowed", f"expected a number from {least} to 1,000,000"
        )
    return value
