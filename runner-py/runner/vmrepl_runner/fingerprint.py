"""A sum of a value's content: equal sums in two copies of a machine mean equal values.

What has no form of its own here goes through `pickle`, into the sum and never out of it. What cannot be
pickled has no sum: whoever compares must then look at its `repr`.
"""

import pickle
from collections.abc import Callable
from hashlib import blake2b
from types import CodeType, FunctionType
from typing import Any

from vmrepl_runner import limits

_DIGEST_BYTES = 16
_PLAIN = (type(None), bool, int, float, complex, str, range)
_CHUNK_BYTES = 1 << 20
_NOT_OF_A_CLASS = ("__dict__", "__weakref__", "__slotnames__", "__static_attributes__", "__firstlineno__")
"""What Python notes in a class for itself; `pickle` adds one when it first sees an instance."""


class _Unknown(Exception):
    """There is no sum of this."""


class _Sum:
    """The sum that grows."""

    def __init__(self) -> None:
        self._hash = blake2b(digest_size=_DIGEST_BYTES)
        self._above: list[int] = []

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        for at in range(0, len(view), _CHUNK_BYTES):
            # In pieces: an interrupt comes through between two.
            self._hash.update(view[at : at + _CHUNK_BYTES])
        return len(view)

    def mark(self, word: str, count: int = 0) -> None:
        """What follows is of this kind and so long: two values never run into each other."""
        self._hash.update(f"\0{word} {count}\0".encode("utf-8", "surrogatepass"))

    def text(self, text: str) -> None:
        data = text.encode("utf-8", "surrogatepass")
        self.mark("text", len(data))
        self._hash.update(data)

    def result(self) -> str:
        return self._hash.hexdigest()

    def add(self, value: Any) -> None:
        kind = type(value)
        if kind in _PLAIN:
            self.mark(kind.__name__)
            return self.text(repr(value) if kind is not str else value)
        if kind in (bytes, bytearray):
            self.mark(kind.__name__, len(value))
            self.write(value)
            return None
        if id(value) in self._above:
            # It holds itself: by how far up it is.
            return self.mark("above", len(self._above) - self._above.index(id(value)))
        if len(self._above) >= limits.FINGERPRINT_DEPTH:
            raise _Unknown
        self._above.append(id(value))
        try:
            self.mark(f"{kind.__module__}.{kind.__qualname__}")
            self._reader(kind)(self, value)
        finally:
            self._above.pop()
        return None

    @staticmethod
    def _reader(kind: type) -> "Callable[[_Sum, Any], None]":
        own = _BUILTIN.get(kind)
        if own is not None:
            return own
        for base in kind.__mro__:
            library = base.__module__.partition(".")[0]
            found = _LIBRARIES.get((library, base.__name__))
            if found is not None:
                return found
        return _pickled


def _items(into: _Sum, value: Any) -> None:
    into.mark("items", len(value))
    for item in value:
        into.add(item)


def _unordered(into: _Sum, value: Any) -> None:
    into.mark("set", len(value))
    for one in sorted(_of(item) for item in value):
        into.text(one)


def _mapping(into: _Sum, value: Any) -> None:
    into.mark("pairs", len(value))
    for key, item in value.items():
        into.add(key)
        into.add(item)


def _function(into: _Sum, value: FunctionType) -> None:
    _code(into, value.__code__)
    into.add(value.__defaults__)
    into.add(value.__kwdefaults__)
    for cell in value.__closure__ or ():
        try:
            into.add(cell.cell_contents)
        except ValueError:
            into.mark("empty")


def _code(into: _Sum, code: CodeType) -> None:
    into.mark("code", len(code.co_code))
    into.write(code.co_code)
    for names in (code.co_names, code.co_varnames, code.co_freevars):
        into.add(names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            _code(into, constant)
        else:
            into.add(constant)


def _class(into: _Sum, value: type) -> None:
    if value.__module__ != "__main__":
        return into.text(f"{value.__module__}.{value.__qualname__}")
    into.add(tuple(base.__qualname__ for base in value.__bases__))
    for name, item in vars(value).items():
        if name in _NOT_OF_A_CLASS:
            continue
        into.text(name)
        inner = item.__func__ if isinstance(item, (staticmethod, classmethod)) else item
        inner = (inner.fget, inner.fset, inner.fdel) if isinstance(inner, property) else inner
        into.add(inner)
    return None


def _array(into: _Sum, value: Any) -> None:
    into.text(str(value.dtype))
    into.add(tuple(int(extent) for extent in value.shape))
    if value.dtype.hasobject:
        return _items(into, value.ravel().tolist())
    # Only what lies in another order is copied.
    whole = value if value.flags.c_contiguous else value.copy()
    into.write(whole.view("u1").reshape(-1) if whole.size and whole.ndim else whole.tobytes())
    return None


def _frame(into: _Sum, value: Any) -> None:
    _pandas_index(into, value.index)
    _pandas_index(into, value.columns)
    for at in range(value.shape[1]):
        _column(into, value.iloc[:, at])


def _series(into: _Sum, value: Any) -> None:
    into.add(value.name)
    _pandas_index(into, value.index)
    _column(into, value)


def _pandas_index(into: _Sum, value: Any) -> None:
    into.add(tuple(value.names))
    if type(value).__name__ == "RangeIndex":
        return into.add((value.start, value.stop, value.step))
    return _column(into, value)


def _column(into: _Sum, value: Any) -> None:
    into.text(str(value.dtype))
    values = value.to_numpy()
    if values.dtype.hasobject:
        return _items(into, values.tolist())
    return _array(into, values)


def _polars(into: _Sum, value: Any) -> None:
    _arrow(into, value.to_arrow())


def _arrow(into: _Sum, value: Any) -> None:
    # As a stream: slices are written as what they show, not as what they lie in.
    from pyarrow import ipc  # type: ignore[import-untyped]

    with ipc.new_stream(_File(into), value.schema) as stream:
        stream.write(value)


def _relation(_into: _Sum, _value: Any) -> None:
    # A query, not its rows: what it gives is asked of its database.
    raise _Unknown


def _pickled(into: _Sum, value: Any) -> None:
    try:
        pickle.Pickler(_File(into), 5).dump(value)
    except Exception:
        raise _Unknown from None


class _File:
    """As much of a file as Arrow writes to."""

    closed = False

    def __init__(self, into: _Sum) -> None:
        self._into = into

    def write(self, data: Any) -> int:
        return self._into.write(data)

    def flush(self) -> None: ...

    def close(self) -> None: ...

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False


_BUILTIN: dict[type, Callable[[_Sum, Any], None]] = {
    list: _items,
    tuple: _items,
    dict: _mapping,
    set: _unordered,
    frozenset: _unordered,
    FunctionType: _function,
    type: _class,
}
_LIBRARIES: dict[tuple[str, str], Callable[[_Sum, Any], None]] = {
    ("numpy", "ndarray"): _array,
    ("pandas", "DataFrame"): _frame,
    ("pandas", "Series"): _series,
    ("pandas", "Index"): _pandas_index,
    ("polars", "DataFrame"): _polars,
    ("pyarrow", "Table"): _arrow,
    ("pyarrow", "RecordBatch"): _arrow,
    ("duckdb", "DuckDBPyRelation"): _relation,
    ("_duckdb", "DuckDBPyRelation"): _relation,
}


def _of(value: Any) -> str:
    into = _Sum()
    into.add(value)
    return into.result()


def fingerprint(value: Any) -> str | None:
    """The sum, or None when there is none."""
    try:
        return _of(value)
    except Exception:
        return None
