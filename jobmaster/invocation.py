"""How one attempt reaches the handler's code: a fresh instance, a thread for plain functions, and the closing after it.

Where no factory is set and the handler is a coroutine function, nothing stands between the worker and that function.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.to_thread
from msgspec import UNSET

from jobmaster.definition import Definition, Style
from jobmaster.model.errors import DefinitionInvalid
from jobmaster.processes import place_of
from jobmaster.worker.context import JobContext
from jobmaster.worker.process import in_process

HandlerFactory = Callable[[type[Any]], Any]
"""Given the handler's class: an instance, a context manager of one, or an awaitable of either. Called once per attempt;
a context manager is entered before the run and closed after it, however it ends."""

Invoke = Callable[[JobContext[Any]], Awaitable[Any]]
Call = Callable[[Any, JobContext[Any]], Any]
"""The handler's code, given its instance (None for a function) and the context."""


def invoker(definition: Definition, factory: HandlerFactory | None) -> Invoke:
    """What runs one attempt. Raises `DefinitionInvalid` for a handler whose process could not find it."""
    target, owner = definition.target, definition.owner
    if definition.options.process:
        return _in_process(definition, factory)
    if owner is None or (factory is None and definition.style is Style.CLASS):
        direct = _without_instance(definition)
        return _threaded(direct) if definition.blocking else direct
    call: Call = _execute if definition.style is Style.CLASS else _method(target, definition)
    return _with_instance(owner, factory, call, definition.blocking)


def direct(definition: Definition, factory: HandlerFactory | None) -> Invoke:
    """What runs one attempt right here, on the thread that awaits it, a plain `def` as well."""
    owner = definition.owner
    if owner is None or (factory is None and definition.style is Style.CLASS):
        call = _without_instance(definition)

        async def invoke(context: JobContext[Any]) -> Any:
            value = call(context)
            return await value if inspect.isawaitable(value) else value

        return invoke
    on_instance: Call = _execute if definition.style is Style.CLASS else _method(definition.target, definition)

    async def invoke_on(context: JobContext[Any]) -> Any:
        async with _built(owner, factory) as instance:
            value = on_instance(instance, context)
            return await value if inspect.isawaitable(value) else value

    return invoke_on


def _in_process(definition: Definition, factory: HandlerFactory | None) -> Invoke:
    target = place_of(definition.label, definition.target)
    built_by = None if factory is None or definition.owner is None else place_of("handler_factory", factory)

    async def invoke(context: JobContext[Any]) -> Any:
        return await in_process(target, built_by, context)

    return invoke


def _without_instance(definition: Definition) -> Callable[[JobContext[Any]], Any]:
    function: Callable[..., Any] = definition.target
    match definition.style:
        case Style.CLASS:
            return lambda context: function().execute(context)
        case Style.CONTEXT:
            return function
        case Style.CALL:
            return lambda context: function(**_arguments(definition, context))


def _execute(instance: Any, context: JobContext[Any]) -> Any:
    return instance.execute(context)


def _method(function: Callable[..., Any], definition: Definition) -> Call:
    # Looked up by name, so that what the factory built may override the method that was registered.
    name = function.__name__
    if definition.style is Style.CONTEXT:
        return lambda instance, context: getattr(instance, name)(context)
    return lambda instance, context: getattr(instance, name)(**_arguments(definition, context))


def _arguments(definition: Definition, context: JobContext[Any]) -> dict[str, Any]:
    """The stored arguments. One that was not given is left out, so that the function's own default holds."""
    data = context.data
    given = {name: getattr(data, name) for name in definition.parameters}
    arguments = {name: value for name, value in given.items() if value is not UNSET}
    if definition.context_parameter is not None:
        arguments[definition.context_parameter] = context
    return arguments


def _threaded(call: Callable[[JobContext[Any]], Any]) -> Invoke:
    async def invoke(context: JobContext[Any]) -> Any:
        return await in_thread(call, context)

    return invoke


def _with_instance(owner: type[Any], factory: HandlerFactory | None, call: Call, blocking: bool) -> Invoke:
    async def invoke(context: JobContext[Any]) -> Any:
        async with _built(owner, factory) as instance:
            if blocking:
                return await in_thread(call, instance, context)
            return await call(instance, context)

    return invoke


@asynccontextmanager
async def _built(owner: type[Any], factory: HandlerFactory | None) -> AsyncIterator[Any]:
    made: Any = owner() if factory is None else factory(owner)
    if inspect.isawaitable(made):
        made = await made
    # An instance that happens to be a context manager is still the instance: only what stands for one is entered.
    if isinstance(made, owner):
        yield made
    elif hasattr(type(made), "__aenter__"):
        async with made as instance:
            yield instance
    elif hasattr(type(made), "__enter__"):
        with made as instance:
            yield instance
    elif made is None or inspect.isgenerator(made) or inspect.isasyncgen(made):
        raise DefinitionInvalid(
            "handler_factory",
            f"it gave {type(made).__name__} for {owner.__qualname__}",
            "return an instance, or decorate the factory with contextlib.contextmanager or asynccontextmanager",
        )
    else:
        yield made


async def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run it in a thread of its own and give what it gives.

    A thread can't be cancelled: a first cancellation is kept from it, so that nothing it uses is closed under its hands
    and what it still returns counts; a second one leaves it behind."""

    def run() -> tuple[Any, BaseException | None]:
        # Carried as a value: a SystemExit raised by a task would end the event loop.
        try:
            return function(*arguments), None
        except BaseException as error:
            return None, error

    # The slots are the limit on threads, so each call brings its own permission.
    thread = asyncio.ensure_future(
        anyio.to_thread.run_sync(run, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1))
    )
    try:
        await asyncio.wait({thread})
    except asyncio.CancelledError:
        try:
            await asyncio.wait({thread})
        except asyncio.CancelledError:
            thread.cancel()
            raise
    value, error = thread.result()
    if error is not None:
        raise error
    return await value if inspect.isawaitable(value) else value
