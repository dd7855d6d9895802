"""What a handler's annotations say: the type of its data, and of a call the type of its arguments."""

import inspect
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from jobmaster.handler import JobHandler
from jobmaster.model.errors import DefinitionInvalid
from jobmaster.worker.context import JobContext


def hints_of(function: Any, label: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except Exception as error:
        raise DefinitionInvalid(
            label, f"its annotations cannot be resolved: {error}", "import or define those types in its module"
        ) from None


def is_context(hint: Any) -> bool:
    return (typing.get_origin(hint) or hint) is JobContext


def context_data(hint: Any) -> Any:
    """`X` of `JobContext[X]`; None for the bare one."""
    arguments = typing.get_args(hint)
    return arguments[0] if arguments else None


def data_type_of(cls: type[Any], label: str) -> Any:
    """The generic argument, through any generic classes between; else the annotation of `execute`."""
    argument = _argument(cls, {})
    if isinstance(argument, (str, typing.ForwardRef)):
        holder = types.SimpleNamespace(__annotations__={"data": argument}, __module__=cls.__module__)
        namespace = vars(sys.modules[cls.__module__])
        try:
            return typing.get_type_hints(holder, globalns=namespace)["data"]
        except Exception as error:
            raise DefinitionInvalid(label, f"its data type cannot be resolved: {error}", "define it before") from None
    if argument is not None and not isinstance(argument, typing.TypeVar):
        return argument
    hints = hints_of(cls.execute, label)
    hints.pop("return", None)
    return next((context_data(hint) for hint in hints.values() if is_context(hint)), None)


def _argument(cls: type[Any], bound: Mapping[Any, Any]) -> Any:
    for base in cls.__dict__.get("__orig_bases__", cls.__bases__):
        origin = typing.get_origin(base) or base
        if not isinstance(origin, type) or not issubclass(origin, JobHandler):
            continue
        arguments = [bound.get(argument, argument) for argument in typing.get_args(base)]
        if origin is JobHandler:
            return arguments[0] if arguments else None
        return _argument(origin, dict(zip(getattr(origin, "__parameters__", ()), arguments, strict=False)))
    return None


def arguments_type(label: str, parameters: list[inspect.Parameter], hints: Mapping[str, Any]) -> type[Struct]:
    """The arguments of a call as a type, to be validated like any other data."""
    fields: list[Any] = []
    for parameter in parameters:
        if parameter.kind not in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}:
            raise DefinitionInvalid(label, f"`{parameter}` cannot be stored by name", "list its parameters one by one")
        hint = hints.get(parameter.name, Any)
        required = parameter.default is parameter.empty
        fields.append((parameter.name, hint) if required else (parameter.name, hint | UnsetType, UNSET))
    try:
        return msgspec.defstruct(label.replace(".", "_"), fields, kw_only=True, forbid_unknown_fields=True)
    except TypeError as error:
        raise DefinitionInvalid(label, f"its parameters cannot be stored: {error}") from None
