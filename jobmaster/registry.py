"""The handlers of one cluster: what a stored name means here, and what a class or function is stored as.

Built once, then only read, from any thread. There is no global registry, so several clusters live in one process.
"""

import inspect
import types
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from jobmaster.contracts.entries import DefinitionEntry
from jobmaster.definition import Definition, Style, examine, key_of, scan
from jobmaster.handler_options import agent_of, lane_of, policy_of, priority_of, title_of
from jobmaster.invocation import HandlerFactory, Invoke, invoker
from jobmaster.model import portable
from jobmaster.model.errors import (
    DataInvalid,
    DefinitionInvalid,
    HandlerUnknown,
    JobMasterError,
    Problem,
)
from jobmaster.model.policy import Policy
from jobmaster.model.priority import Priority
from jobmaster.model.schema import DataSchema, UntypedSchema
from jobmaster.settings.models import Defaults
from jobmaster.worker.context import JobContext

UPCAST_BYTES = 16 << 20
"""What upcast data may come to. They are not stored."""


class Handler:
    """One registered definition, complete with the cluster's defaults."""

    __slots__ = (
        "_definition",
        "_invoke",
        "agent",
        "blocking",
        "lane",
        "name",
        "policy",
        "priority",
        "schema",
        "style",
        "title",
        "version",
    )

    def __init__(self, definition: Definition, defaults: Defaults, factory: HandlerFactory | None) -> None:
        self.name: str = definition.name
        self.lane: str = lane_of(definition)
        self.priority: Priority = priority_of(definition)
        self.agent: str | None = agent_of(definition)
        self.title: str | None = title_of(definition)
        self.policy: Policy = policy_of(definition, defaults.policy())
        self.version: int = self.policy.data_version
        """Of the data that this code knows."""
        self.schema: DataSchema = _schema(definition)
        self.style: Style = definition.style
        self.blocking: bool = definition.blocking and not definition.options.process
        """A plain `def`: it runs in a thread, and cannot be cancelled."""
        self._invoke: Invoke = invoker(definition, factory)
        self._definition = definition

    def read(self, raw: bytes, version: int) -> Any:
        """Stored data of that version, not a later one, as what the handler takes. Any exception means that they can't
        be read as that."""
        if version == self.version:
            return self.schema.decode(raw)
        upcast = self._definition.options.upcast
        assert upcast is not None, "checked when it was defined"
        newer = upcast(portable.decode(raw), version)
        return self.schema.decode(self.schema.encode(newer, limit=UPCAST_BYTES))

    def invoke(self, context: JobContext[Any], /) -> Awaitable[Any]:
        """Run one attempt and give its result. Closes what the handler factory opened, however the attempt ends."""
        return self._invoke(context)

    @property
    def label(self) -> str:
        """What messages call the class or function."""
        return self._definition.label

    @property
    def target(self) -> Any:
        """What was registered."""
        return self._definition.target

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
        self.get: Callable[[str], Handler | None] = self._by_name.get
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
        if definition.style is not Style.CALL:
            raise DefinitionInvalid(definition.label, str(error)) from None
        remedy = f"use types that JSON can carry, or take one model: `def {definition.label}(job: JobContext[Model])`"
        raise DefinitionInvalid(definition.label, f"its parameters cannot be stored: {error.fault}", remedy) from None
