"""What is known of the name at the cursor."""

import inspect
import linecache
from typing import Any

from vmrepl_runner import limits
from vmrepl_runner.complete import called, signature_of
from vmrepl_runner.lookup import MISSING, InstanceOf, look_up, primary_start, static_value
from vmrepl_runner.text import cut
from vmrepl_runner.variables import short


def describe(code: str, cursor: int, detail: int, space: dict[str, Any], live: bool) -> dict[str, Any]:
    """The text for the name under the cursor, or for what is being called there."""
    end = cursor
    while end < len(code) and (code[end].isalnum() or code[end] == "_"):
        end += 1
    source = code[primary_start(code, end) : end].rstrip(".")
    value = look_up(source, space, live) if source else MISSING
    if value is MISSING:
        source = called(code[:cursor]) or ""
        value = look_up(source, space, live) if source else MISSING
    if value is MISSING:
        return {"found": False, "data": {}}
    if isinstance(value, InstanceOf):
        value = value.kind
    text = "\n".join(_lines(source, value, detail, live))
    return {"found": True, "data": {"text/plain": cut(text, limits.DOCUMENT_CHARS)}}


def _lines(source: str, value: Any, detail: int, live: bool) -> list[str]:
    kind = type(value)
    lines = []
    is_callable = isinstance(value, type) or inspect.isroutine(value) or (live and callable(value))
    signature = signature_of(value) if is_callable and (live or inspect.isroutine(value)) else None
    if signature is not None:
        lines.append(f"Signature: {source.rpartition('.')[2]}{signature}")
    lines.append(f"Type:      {kind.__name__}")
    if not is_callable and not inspect.ismodule(value):
        lines.append(f"Value:     {short(value, live)}")
        size = len(value) if live and hasattr(kind, "__len__") else None
        if size is not None:
            lines.append(f"Length:    {size}")
    file = _file_of(value)
    if file is not None:
        lines.append(f"File:      {file}")
    text = _source_of(value) if detail else None
    if text is not None:
        lines.append(f"Source:\n{text.rstrip()}")
    else:
        document = _document_of(value, live)
        lines.append(f"Docstring:\n{document}" if document else "Docstring: none")
    return lines


def _document_of(value: Any, live: bool) -> str | None:
    try:
        found = inspect.getdoc(value) if live else static_value(value, "__doc__")
    except Exception:
        return None
    return inspect.cleandoc(found) if isinstance(found, str) else None


def _file_of(value: Any) -> str | None:
    if isinstance(value, type) and value.__module__ == "__main__":
        return _cell_of(value)
    try:
        return inspect.getfile(inspect.unwrap(value) if inspect.isroutine(value) else value)
    except (TypeError, OSError, ValueError):
        return None


def _cell_of(kind: type) -> str | None:
    """The cell of a class: that of its first method, for classes themselves do not say."""
    for item in vars(kind).values():
        code = getattr(item, "__code__", None)
        if code is not None:
            return str(code.co_filename)
    return None


def _source_of(value: Any) -> str | None:
    try:
        return inspect.getsource(value)
    except Exception:
        file = _cell_of(value) if isinstance(value, type) else None
    if file is None:
        return None
    lines = linecache.getlines(file)
    for at, line in enumerate(lines):
        if line.lstrip().startswith(f"class {value.__name__}"):
            return "".join(inspect.getblock(lines[at:]))
    return None
