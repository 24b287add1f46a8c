"""Which modules there are and which names they hold; none is imported to find out."""

import ast
import pkgutil
import sys
from importlib.machinery import PathFinder
from typing import Any

from vmrepl_runner.lookup import kind_of, static_value
from vmrepl_runner.names import names_of

_SOURCE_BYTES = 1 << 20


def module_names(package: str) -> list[str]:
    """Modules that could be imported, or those in a package."""
    if not package:
        found = {module.name for module in pkgutil.iter_modules()}
        return sorted(found | sys.stdlib_module_names | set(sys.builtin_module_names))
    return sorted({module.name for module in pkgutil.iter_modules(_folders(package))})


def names_in(module: str) -> list[tuple[str, str]]:
    """Names and their kinds that `from module import` could take."""
    loaded = sys.modules.get(module)
    names: dict[str, str] = {name: "module" for name in module_names(module)} if module else {}
    if loaded is not None:
        for name in list(vars(loaded)):
            names[name] = kind_of(static_value(loaded, name))
    else:
        names |= dict.fromkeys(_bound_in(module), "instance")
    return sorted(names.items())


def _folders(package: str) -> Any:
    loaded = sys.modules.get(package)
    if loaded is not None:
        return getattr(loaded, "__path__", [])
    spec = _spec(package)
    return [] if spec is None else spec.submodule_search_locations or []


def _spec(module: str) -> Any:
    """Finds the file without importing the packages above it."""
    above, _, _ = module.rpartition(".")
    return PathFinder.find_spec(module, list(_folders(above)) if above else None)


def _bound_in(module: str) -> set[str]:
    spec = _spec(module)
    origin = None if spec is None else spec.origin
    if not origin or not origin.endswith(".py"):
        return set()
    try:
        source = spec.loader.get_data(origin)
        return names_of(ast.parse(source)).bound if len(source) <= _SOURCE_BYTES else set()
    except (OSError, SyntaxError, ValueError, RecursionError):
        return set()
