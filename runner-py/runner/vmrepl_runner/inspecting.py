"""Questions about code and names that run none of the user's code where it can be helped."""

import builtins
import codeop
import contextlib
import inspect
import keyword
import pkgutil
import re
import sys
from typing import Any

MATCHES_MAX = 500
REPR_CHARS = 80
_PATH = re.compile(r"[^\W\d]\w*(?:\.\w*)*$")
_IMPORT = re.compile(r"^\s*(?:import|from)\s+([\w.]*)$")
_FROM = re.compile(r"^\s*from\s+([\w.]+)\s+import\s+(?:.*,\s*)?(\w*)$")
_KEY = re.compile(r"([^\W\d][\w.]*)\[(['\"])([^'\"]*)$")
_CALL = re.compile(r"([^\W\d][\w.]*)\([^()]*$")


def complete(code: str, cursor: int, space: dict[str, Any]) -> dict[str, Any]:
    """What could stand at the cursor (code points from the start)."""
    before = code[:cursor]
    line = before[before.rfind("\n") + 1 :]
    for pattern, source in ((_FROM, _members), (_IMPORT, _modules), (_KEY, _keys)):
        found = pattern.search(line)
        if found:
            start, matches = source(found, space)
            return _answer(matches, cursor - len(line) + start, cursor)
    found = _PATH.search(line)
    text = found.group() if found else ""
    head, dot, tail = text.rpartition(".")
    if dot:
        owner = _lookup(head, space)
        matches = [] if owner is None else _attributes(owner[0], tail)
    else:
        matches = _arguments(line, text, space) + _globals(text, space)
    return _answer(matches, cursor - len(tail), cursor)


def _answer(matches: list[dict[str, Any]], start: int, end: int) -> dict[str, Any]:
    return {"matches": matches[:MATCHES_MAX], "cursor_start": start, "cursor_end": end}


def _lookup(path: str, space: dict[str, Any]) -> tuple[Any] | None:
    """The object behind a dotted path, without calling properties."""
    first, *rest = path.split(".")
    if first in space:
        value = space[first]
    elif hasattr(builtins, first):
        value = getattr(builtins, first)
    else:
        return None
    for name in rest:
        try:
            if isinstance(inspect.getattr_static(type(value), name, None), property):
                return None
            value = getattr(value, name)
        except Exception:
            return None
    return (value,)


def _match(text: str, value: Any) -> dict[str, Any]:
    if inspect.isclass(value):
        kind = "class"
    elif inspect.ismodule(value):
        kind = "module"
    elif callable(value):
        kind = "function"
    else:
        kind = "instance"
    return {"text": text, "type": kind}


def _attributes(owner: Any, prefix: str) -> list[dict[str, Any]]:
    try:
        names = sorted(n for n in dir(owner) if n.startswith(prefix) and (prefix or n[0] != "_"))
    except Exception:
        return []
    return [_match(n, inspect.getattr_static(owner, n, None)) for n in names[:MATCHES_MAX]]


def _globals(prefix: str, space: dict[str, Any]) -> list[dict[str, Any]]:
    out = [_match(n, v) for n, v in sorted(space.items()) if n.startswith(prefix) and (prefix or n[0] != "_")]
    out += [{"text": n, "type": "keyword"} for n in keyword.kwlist if prefix and n.startswith(prefix)]
    names = (n for n in dir(builtins) if n.startswith(prefix) and n not in space and (prefix or n[0] != "_"))
    return out + [_match(n, getattr(builtins, n)) for n in names]


def _arguments(line: str, prefix: str, space: dict[str, Any]) -> list[dict[str, Any]]:
    call = _CALL.search(line)
    owner = _lookup(call.group(1), space) if call else None
    if owner is None:
        return []
    try:
        parameters = inspect.signature(owner[0]).parameters.values()
    except (TypeError, ValueError):
        return []
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    names = [p.name for p in parameters if p.kind in kinds and p.name.startswith(prefix)]
    return [{"text": n + "=", "type": "argument"} for n in names]


def _modules(found: re.Match[str], _space: dict[str, Any]) -> tuple[int, list[dict[str, Any]]]:
    head, dot, tail = found.group(1).rpartition(".")
    if dot:
        path = getattr(sys.modules.get(head), "__path__", [])
        names = {m.name for m in pkgutil.iter_modules(path)}
    else:
        names = {m.name for m in pkgutil.iter_modules()} | set(sys.builtin_module_names)
    matches = [{"text": n, "type": "module"} for n in sorted(names) if n.startswith(tail)]
    return found.end(1) - len(tail), matches


def _members(found: re.Match[str], _space: dict[str, Any]) -> tuple[int, list[dict[str, Any]]]:
    module = sys.modules.get(found.group(1))
    return found.start(2), [] if module is None else _attributes(module, found.group(2))


def _keys(found: re.Match[str], space: dict[str, Any]) -> tuple[int, list[dict[str, Any]]]:
    owner = _lookup(found.group(1), space)
    if owner is None:
        return found.start(3), []
    source = owner[0] if isinstance(owner[0], dict) else getattr(owner[0], "columns", [])
    try:
        keys = [k for k in list(source)[:MATCHES_MAX] if isinstance(k, str) and k.startswith(found.group(3))]
    except Exception:
        keys = []
    return found.start(3), [{"text": k, "type": "key"} for k in keys]


def describe(code: str, cursor: int, detail: int, space: dict[str, Any]) -> dict[str, Any]:
    """What is known of the name under the cursor."""
    end = cursor
    while end < len(code) and (code[end].isalnum() or code[end] == "_"):
        end += 1
    found = _PATH.search(code[:end])
    owner = _lookup(found.group().strip("."), space) if found else None
    if found is None or owner is None:
        return {"found": False, "data": {}}
    value = owner[0]
    lines = []
    with contextlib.suppress(TypeError, ValueError):
        lines.append(f"Signature: {found.group()}{inspect.signature(value)}")
    lines.append(f"Type:      {type(value).__name__}")
    if not callable(value) and not inspect.ismodule(value):
        lines.append(f"Value:     {short(value)}")
    for name, ask in (("File", inspect.getsourcefile), ("Docstring", inspect.getdoc)):
        try:
            text = ask(value)
        except (TypeError, OSError):
            text = None
        if text:
            lines.append(f"{name}:\n{text}" if name == "Docstring" else f"{name}:      {text}")
    if detail:
        try:
            lines.append(f"Source:\n{inspect.getsource(value)}")
        except (TypeError, OSError):
            lines.append("Source: not available")
    return {"found": True, "data": {"text/plain": "\n".join(lines)}}


def is_complete(code: str) -> dict[str, Any]:
    """Whether the code is a whole cell."""
    try:
        compiled = codeop.compile_command(code, "<cell>", "exec")
    except (SyntaxError, ValueError, OverflowError):
        return {"status": "invalid", "indent": ""}
    if compiled is not None:
        return {"status": "complete", "indent": ""}
    last = code.rstrip("\n").rpartition("\n")[2]
    indent = last[: len(last) - len(last.lstrip())]
    return {"status": "incomplete", "indent": indent + "    " * last.rstrip().endswith(":")}


def short(value: Any) -> str:
    """A `repr` of one short line; sized things are not asked for all of themselves."""
    try:
        if isinstance(value, (str, bytes)) and len(value) > REPR_CHARS:
            return repr(value[:REPR_CHARS]) + "…"
        if hasattr(value, "__len__") and len(value) > 1000:
            return f"<{type(value).__name__} of {len(value)}>"
        text = " ".join(repr(value).split())
    except Exception as error:
        return f"<repr raised {type(error).__name__}>"
    return text if len(text) <= REPR_CHARS else text[:REPR_CHARS] + "…"


def variables(space: dict[str, Any]) -> list[dict[str, Any]]:
    """The user's names, without modules and private ones."""
    out = []
    for name, value in list(space.items()):
        if name[0] == "_" or name in ("In", "Out") or inspect.ismodule(value):
            continue
        entry: dict[str, Any] = {"name": name, "type": type(value).__name__, "repr": short(value)}
        size = getattr(value, "nbytes", None)
        try:
            entry["size_bytes"] = size if isinstance(size, int) else sys.getsizeof(value)
        except Exception:
            entry["size_bytes"] = None
        shape = getattr(value, "shape", None)
        if isinstance(shape, tuple) and all(isinstance(n, int) for n in shape):
            entry["shape"] = list(shape)
            if hasattr(value, "columns") and shape:
                entry["row_count"] = shape[0]
        out.append({k: v for k, v in entry.items() if v is not None})
    return out
