"""Finding the value behind a piece of source without running it.

Names, attributes, literals and subscripts of plain containers are followed; calls are not, but for those
of classes, of which the instance's type is known. Unless `live`, no code of the user runs on the way.
"""

import ast
import builtins
from inspect import getattr_static
from types import BuiltinFunctionType, FunctionType, GetSetDescriptorType, MemberDescriptorType, ModuleType
from typing import Any

MISSING: Any = object()
_INDEXED = ("pandas", "polars", "numpy", "pyarrow")
_EMPTY: dict[type, Any] = {ast.List: [], ast.Dict: {}, ast.Tuple: (), ast.Set: set(), ast.JoinedStr: ""}
_OPENING = {")": "(", "]": "[", "}": "{"}


class InstanceOf:
    """Stands for what calling a class would give."""

    def __init__(self, kind: type) -> None:
        self.kind = kind


def primary_start(text: str, end: int) -> int:
    """Where the expression starts that ends at `end`: names, dots, balanced brackets, one literal."""
    at = end
    while at > 0:
        char = text[at - 1]
        if char.isalnum() or char in "_.":
            at -= 1
        elif char in _OPENING:
            opening = _opening(text, at - 1)
            if opening < 0:
                break
            at = opening
        elif char in "'\"" and (at == end or text[at] == "."):
            opening = quote_before(text, at - 1)
            return at if opening < 0 or "\n" in text[opening:at] else opening
        else:
            break
    return at


def quote_before(text: str, at: int) -> int:
    """Where the literal starts whose closing quote is at `at`; -1 when it does not."""
    start = text.rfind(text[at], 0, at)
    while start > 0 and text[start - 1] == "\\":
        start = text.rfind(text[at], 0, start)
    return start


def _opening(text: str, at: int) -> int:
    wanted: list[str] = []
    while at >= 0:
        char = text[at]
        if char in _OPENING:
            wanted.append(_OPENING[char])
        elif char in "([{":
            if wanted.pop() != char:
                return -1
            if not wanted:
                return at
        elif char in "'\"":
            at = quote_before(text, at)
            if at < 0:
                return -1
        at -= 1
    return -1


def look_up(source: str, space: dict[str, Any], live: bool) -> Any:
    """The value, or MISSING."""
    try:
        tree = ast.parse(source.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return MISSING
    try:
        return _follow(tree.body, space, live)
    except Exception:
        return MISSING


def _follow(node: ast.expr, space: dict[str, Any], live: bool) -> Any:
    if isinstance(node, ast.Name):
        return space[node.id] if node.id in space else getattr(builtins, node.id, MISSING)
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Attribute):
        owner = _follow(node.value, space, live)
        return MISSING if owner is MISSING or isinstance(owner, InstanceOf) else attribute(owner, node.attr, live)
    if isinstance(node, ast.Subscript):
        return _item(_follow(node.value, space, live), node.slice, live)
    if isinstance(node, ast.Call):
        called = _follow(node.func, space, live)
        return InstanceOf(called) if isinstance(called, type) else MISSING
    return _EMPTY.get(type(node), MISSING)


def _item(owner: Any, index: ast.expr, live: bool) -> Any:
    try:
        key = ast.literal_eval(index)
    except ValueError:
        return MISSING
    if type(owner) in (dict, list, tuple, str):
        return owner[key]
    if live and type(owner).__module__.partition(".")[0] in _INDEXED:
        return owner[key]
    return MISSING


def attribute(owner: Any, name: str, live: bool) -> Any:
    """An attribute's value; a property's only when `live`."""
    if live:
        return getattr(owner, name)
    if type(owner) is ModuleType:
        return vars(owner).get(name, MISSING)
    found = getattr_static(owner, name, MISSING)
    if found is MISSING or isinstance(found, (FunctionType, BuiltinFunctionType, type)):
        return found
    if isinstance(found, (GetSetDescriptorType, MemberDescriptorType)):
        return found.__get__(owner, type(owner))
    if isinstance(found, (staticmethod, classmethod)):
        return found.__func__
    return MISSING if hasattr(type(found), "__get__") and not callable(found) else found


def members(owner: Any, live: bool) -> list[str]:
    """The names of what hangs on a value."""
    if isinstance(owner, InstanceOf):
        owner = owner.kind
        names = _static_members(owner)
    elif live:
        names = set(dir(owner))
    else:
        names = _static_members(owner)
    return sorted(name for name in names if isinstance(name, str))


def _static_members(owner: Any) -> set[str]:
    names: set[str] = set()
    for kind in type.__dict__["__mro__"].__get__(owner if isinstance(owner, type) else type(owner)):
        names.update(type.__dict__["__dict__"].__get__(kind))
    if not isinstance(owner, type):
        try:
            own = object.__getattribute__(owner, "__dict__")
        except AttributeError:
            return names
        if type(own) is dict:
            names.update(list(own))
    return names


def static_value(owner: Any, name: str) -> Any:
    """What the name holds, looked up without calling anything."""
    if isinstance(owner, InstanceOf):
        owner = owner.kind
    try:
        return getattr_static(owner, name, MISSING)
    except Exception:
        return MISSING


def kind_of(value: Any) -> str:
    """`class`, `module`, `function` or `instance`."""
    if isinstance(value, type):
        return "class"
    if isinstance(value, ModuleType):
        return "module"
    if isinstance(value, property):
        return "instance"
    return "function" if callable(value) or isinstance(value, (staticmethod, classmethod)) else "instance"
