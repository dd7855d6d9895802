"""Where another process finds a piece of the program: by importing it."""

import sys
from typing import Any

from jobmaster.model.errors import DefinitionInvalid
from jobmaster.worker.wire import Place


def place_of(label: str, target: Any) -> Place:
    """Raises `DefinitionInvalid` for what can't be imported under its own name."""
    module, name = getattr(target, "__module__", None), getattr(target, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or "<" in name:
        raise _lost(label, "it is no class or function of a module")
    main = None
    if module == "__main__":
        program = sys.modules["__main__"]
        spec = getattr(program, "__spec__", None)
        main = None if spec is not None else getattr(program, "__file__", None)
        if spec is None and main is None:
            raise _lost(label, "its program has no file")
        found: Any = program
        module = spec.name if spec is not None else module
    else:
        found = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if getattr(found, "__func__", found) is not getattr(target, "__func__", target):
        raise _lost(label, f"{module}.{name} is something else")
    return Place(module, name, main)


def _lost(label: str, why: str) -> DefinitionInvalid:
    return DefinitionInvalid(
        label, f"a process of its own could not import it: {why}", "define it in a module, outside of functions"
    )
