"""What can be said of a handler by looking at it: its name, its data, how it is called; and what is wrong with it."""

import inspect
import sys
import types
from enum import Enum, auto
from functools import partial
from typing import Any

import msgspec
from msgspec import Struct

from jobmaster.data_types import arguments_type, context_data, data_type_of, hints_of, is_context
from jobmaster.handler import JobHandler, JobOptions, options_of
from jobmaster.model.errors import DefinitionInvalid, NameInvalid, quoted
from jobmaster.model.names import check_name, kebab_case


class Style(Enum):
    """How a handler is called."""

    CLASS = auto()
    """`Handler().execute(context)`."""
    CONTEXT = auto()
    """`function(context)`."""
    CALL = auto()
    """`function(**data)`."""


class Definition(Struct, frozen=True, kw_only=True):
    """A handler as it is written, before a cluster's defaults are added."""

    target: Any
    """What was registered; of a class method, the function under it."""
    label: str
    """What messages call it."""
    name: str
    style: Style
    blocking: bool
    """A plain `def`: it runs in a thread."""
    owner: type[Any] | None = None
    """The class to build an instance of; None for functions."""
    data_type: Any = None
    """None: untyped."""
    parameters: tuple[str, ...] = ()
    """Of a call: what is stored."""
    context_parameter: str | None = None
    """Of a call: the parameter that takes the `JobContext`."""
    options: JobOptions = JobOptions()


def examine(reference: object) -> Definition:
    """Raises `DefinitionInvalid`, naming it, for what cannot be a handler."""
    if isinstance(reference, type):
        return _of_class(reference)
    if isinstance(reference, JobHandler):
        name = type(reference).__name__
        raise DefinitionInvalid(f"{name}(...)", "it is an instance", f"pass the class: {name}")
    if callable(reference):
        return _of_function(reference)
    raise DefinitionInvalid(quoted(reference), "it is no handler", "pass a handler class, a function or a module")


def scan(module: types.ModuleType) -> list[object]:
    """The handlers defined in a module itself: concrete handler classes, and functions and methods with `@job`, in the
    order they are written. What it merely imported is left out, and so are abstract classes."""
    found: list[object] = []
    for value in list(vars(module).values()):
        if getattr(value, "__module__", None) != module.__name__:
            continue
        if isinstance(value, type):
            if issubclass(value, JobHandler):
                found += [] if inspect.isabstract(value) else [value]
            else:
                found += [getattr(value, name) for name, member in vars(value).items() if options_of(member)]
        elif options_of(value):
            found.append(value)
    # One object under two names is one handler.
    return list({id(getattr(value, "__func__", value)): value for value in found}.values())


def key_of(reference: object) -> object:
    """What identifies a handler in a registry: a class method is a new object each time it is looked at."""
    return getattr(reference, "__func__", reference)


def _of_class(cls: type[Any]) -> Definition:
    label = cls.__qualname__.rpartition("<locals>.")[2]
    if not issubclass(cls, JobHandler):
        raise DefinitionInvalid(
            label, "it is not a JobHandler", f"write `class {cls.__name__}(JobHandler[...])`, or register its methods"
        )
    if cls is JobHandler or getattr(cls.execute, "__isabstractmethod__", False):
        raise DefinitionInvalid(label, "it has no `execute`", "add `async def execute(self, job: JobContext[...])`")
    if inspect.isabstract(cls):
        missing = ", ".join(sorted(cls.__abstractmethods__))
        raise DefinitionInvalid(label, f"it is abstract: {missing}", "register a subclass that has everything")
    execute = cls.execute
    _refuse_generators(label, execute)
    try:
        inspect.signature(execute).bind(None, None)
    except TypeError:
        raise DefinitionInvalid(
            label, f"`execute{inspect.signature(execute)}` cannot be called with a job", "write `execute(self, job)`"
        ) from None
    options = JobOptions(**{field: getattr(cls, field) for field in JobOptions.__struct_fields__ if field != "upcast"})
    if getattr(cls.upcast, "__func__", None) is not JobHandler.upcast.__func__:  # type: ignore[attr-defined]
        options = msgspec.structs.replace(options, upcast=cls.upcast)
    return Definition(
        target=cls,
        label=label,
        name=_name(label, options.name, kebab_case(cls.__name__)),
        style=Style.CLASS,
        blocking=not inspect.iscoroutinefunction(execute),
        owner=cls,
        data_type=data_type_of(cls, label),
        options=options,
    )


def _of_function(reference: Any) -> Definition:
    label = getattr(reference, "__qualname__", type(reference).__name__).rpartition("<locals>.")[2]
    if isinstance(reference, partial):
        raise DefinitionInvalid(
            "functools.partial", "its arguments would not be stored", "register the function itself"
        )
    receiver = getattr(reference, "__self__", None)
    if inspect.ismethod(reference) and not isinstance(receiver, type):
        name = f"{type(receiver).__name__}.{reference.__name__}"
        raise DefinitionInvalid(
            f"{name} of an instance",
            "the instance would not be stored",
            f"pass {name} of the class; the handler factory builds it",
        )
    if not inspect.isfunction(reference) and not inspect.ismethod(reference):
        raise DefinitionInvalid(
            label, f"a {type(reference).__name__} cannot be looked into", "write a function around it"
        )
    if reference.__name__ == "<lambda>":
        raise DefinitionInvalid(
            "lambda", "it has no name by which a worker could find it", "write a function with `def`"
        )
    _refuse_generators(label, reference)
    owner, takes_self = _owner(reference, label)
    options = options_of(reference) or JobOptions()
    natural = f"{kebab_case(owner.__name__)}.{_dashed(reference)}" if owner else _dashed(reference)
    signature = inspect.signature(reference)
    parameters = list(signature.parameters.values())[1 if takes_self else 0 :]
    hints = hints_of(reference, label)
    contexts = [parameter.name for parameter in parameters if is_context(hints.get(parameter.name))]
    common: dict[str, Any] = {
        "target": reference,
        "label": label,
        "name": _name(label, options.name, natural),
        "blocking": not inspect.iscoroutinefunction(reference),
        "owner": owner if takes_self else None,
        "options": options,
    }
    if len(parameters) == 1 and (contexts or (parameters[0].name == "job" and "job" not in hints)):
        return Definition(style=Style.CONTEXT, data_type=context_data(hints.get(parameters[0].name)), **common)
    if owner is None and "<locals>" in reference.__qualname__:
        raise DefinitionInvalid(label, "it is nested: what it captured would not be stored", "move it to the module")
    if len(contexts) > 1:
        raise DefinitionInvalid(label, f"it asks for the job twice: {', '.join(contexts)}", "leave one of them out")
    stored = [parameter for parameter in parameters if parameter.name not in contexts]
    return Definition(
        style=Style.CALL,
        data_type=arguments_type(label, stored, hints),
        parameters=tuple(parameter.name for parameter in stored),
        context_parameter=contexts[0] if contexts else None,
        **common,
    )


def _refuse_generators(label: str, function: Any) -> None:
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise DefinitionInvalid(label, "it is a generator, which runs nothing when called", "use `return`, not `yield`")


def _owner(function: Any, label: str) -> tuple[type[Any] | None, bool]:
    """The class a function was written in, and whether it needs an instance of it."""
    if inspect.ismethod(function):
        return function.__self__, False  # type: ignore[return-value]  # a class method: checked by the caller
    path = function.__qualname__.rpartition("<locals>.")[2].split(".")[:-1]
    if not path:
        return None, False
    owner: Any = None if "<locals>" in function.__qualname__ else sys.modules.get(function.__module__)
    for part in path:
        owner = getattr(owner, part, None)
    if not isinstance(owner, type):
        raise DefinitionInvalid(label, "its class is nested in a function and cannot be found", "move it to the module")
    return owner, not isinstance(inspect.getattr_static(owner, function.__name__, None), staticmethod)


def _dashed(function: Any) -> str:
    return str(function.__name__).strip("_").replace("_", "-").lower()


def _name(label: str, explicit: str | None, natural: str) -> str:
    try:
        return check_name("handler", natural if explicit is None else explicit)
    except NameInvalid as error:
        raise DefinitionInvalid(label, str(error), "" if explicit else 'give it one: `name = "…"`') from None
