"""The user's names: type, size and a short form of each."""

import reprlib
import sys
from inspect import getattr_static
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from vmrepl_runner import limits, tables

_OURS = ("In", "Out")
_SIMPLE = (float, bool, complex, type(None), type, range, FunctionType, BuiltinFunctionType)


class _Short(reprlib.Repr):
    """Containers to a small depth; of everything else its own `repr`, if user code may run."""

    def __init__(self, live: bool) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxstring = self.maxother = self.maxlong = limits.SHORT_CHARS
        self._live = live

    def repr_instance(self, x: Any, level: int) -> str:
        kind = type(x)
        plain = f"<{kind.__name__} object>"
        if kind in _SIMPLE:
            return repr(x)
        if kind in (bytes, bytearray):
            return repr(x[: self.maxstring])
        if not self._live:
            return plain
        if tables.is_table(x):
            columns = len(x.columns)
            rows = tables.rows_of(x)
            return f"{columns} columns" if rows is None else f"{rows} rows x {columns} columns"
        if hasattr(kind, "__len__") and kind.__module__ != "numpy" and len(x) > 1000:
            return f"<{kind.__name__} of {len(x)}>"
        return repr(x)


def short(value: Any, live: bool) -> str:
    """One bounded line."""
    try:
        text = " ".join(_Short(live).repr(value).split())
    except Exception as error:
        text = f"<{type(value).__name__} object, whose repr raised {type(error).__name__}>"
    return text if len(text) <= limits.SHORT_CHARS else text[: limits.SHORT_CHARS - 1] + "…"


def listed(space: dict[str, Any], live: bool, digest: bool = False) -> list[dict[str, Any]]:
    """All but modules, private names and ours; with `digest`, with a sum of each one's content."""
    found: list[dict[str, Any]] = []
    for name, value in space.copy().items():
        if name.startswith("_") or name in _OURS or isinstance(value, ModuleType):
            continue
        if len(found) == limits.VARIABLES:
            break
        entry: dict[str, Any] = {"name": name, "type": type(value).__name__, "repr": short(value, live)}
        try:
            _measure(entry, value, live)
        except Exception:
            # Its own code has failed: what is known of it stands.
            entry["type"] = type(value).__name__
        if digest:
            _add_digest(entry, value)
        found.append(entry)
    return found


def _add_digest(entry: dict[str, Any], value: Any) -> None:
    # Imported when it is asked for: few sessions ever are.
    from vmrepl_runner.fingerprint import fingerprint

    digest = fingerprint(value)
    if digest is not None:
        entry["digest"] = digest


def _measure(entry: dict[str, Any], value: Any, live: bool) -> None:
    kind = type(value)
    if not live and kind.__module__ != "builtins":
        return
    size = tables.bytes_of(value) if tables.is_table(value) else _own_bytes(value)
    if size is not None:
        entry["size_bytes"] = size
    if kind.__module__ in ("builtins", "__main__"):
        return
    shape = value.shape if getattr_static(kind, "shape", None) is not None else None
    if isinstance(shape, tuple) and not type(value).__name__.startswith("DuckDB"):
        entry["shape"] = [int(extent) for extent in shape]
    rows = tables.rows_of(value)
    if rows is not None:
        entry["row_count"] = rows


def _own_bytes(value: Any) -> int:
    size = value.nbytes if getattr_static(type(value), "nbytes", None) is not None else None
    return size if isinstance(size, int) else sys.getsizeof(value)
