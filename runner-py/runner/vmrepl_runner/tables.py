"""Tables: what they are made of and their first rows. No library is imported to find out."""

import sys
from collections.abc import Callable
from typing import Any

from vmrepl_runner import limits
from vmrepl_runner.preview import Column, Rows, laid_out
from vmrepl_runner.text import cut

Told = tuple[int | None, list[Column], list[str], Rows]
"""Row count, columns, headings of the preview, its rows."""


def _pandas(frame: Any) -> Told:
    columns = [(str(name), str(kind)) for name, kind in zip(frame.columns, frame.dtypes, strict=True)]
    head = frame.iloc[: limits.PREVIEW_ROWS, : limits.PREVIEW_COLUMNS]
    index = head.index
    plain = type(index).__name__ == "RangeIndex" and index.name is None
    rows = [list(row) for row in head.itertuples(index=not plain, name=None)]
    headings = [name for name, _ in columns]
    if not plain:
        names = [str(name) if name is not None else "" for name in index.names]
        rows = [[*(row[0] if index.nlevels > 1 else row[:1]), *row[1:]] for row in rows]
        headings = names + headings
    return len(frame), columns, headings, rows


def _polars(frame: Any) -> Told:
    columns = [(str(name), str(kind)) for name, kind in frame.schema.items()]
    rows = [list(row) for row in frame.head(limits.PREVIEW_ROWS).rows()]
    return frame.height, columns, [name for name, _ in columns], rows


def _arrow(table: Any) -> Told:
    columns = [(field.name, str(field.type)) for field in table.schema]
    head = table.slice(0, limits.PREVIEW_ROWS)
    told = min(len(columns), limits.PREVIEW_COLUMNS)
    data = [head.column(at).to_pylist() for at in range(told)]
    return table.num_rows, columns, [name for name, _ in columns], [list(row) for row in zip(*data, strict=True)]


def _duckdb(relation: Any) -> Told:
    # Each is a new query over the relation: the user's own reading of it is not moved.
    columns = [(str(name), str(kind)) for name, kind in zip(relation.columns, relation.types, strict=True)]
    rows = [list(row) for row in relation.limit(limits.PREVIEW_ROWS).fetchall()]
    count = len(rows) if len(rows) < limits.PREVIEW_ROWS else relation.aggregate("count(*)").fetchall()[0][0]
    return count, columns, [name for name, _ in columns], rows


_KINDS: dict[tuple[str, str], Callable[[Any], Told]] = {
    ("pandas", "DataFrame"): _pandas,
    ("polars", "DataFrame"): _polars,
    ("pyarrow", "Table"): _arrow,
    ("pyarrow", "RecordBatch"): _arrow,
    ("duckdb", "DuckDBPyRelation"): _duckdb,
}
_LIBRARIES = ("pandas", "polars", "pyarrow", "duckdb")


def _reader(value: Any) -> Callable[[Any], Told] | None:
    for kind in type(value).__mro__:
        library = kind.__module__.partition(".")[0].lstrip("_")
        reader = _KINDS.get((library, kind.__name__))
        if reader is not None:
            return reader
    return None


def is_table(value: Any) -> bool:
    """Whether the value is a table of a library that is loaded."""
    if type(value).__module__ == "builtins":
        return False
    modules = sys.modules
    return any(name in modules for name in _LIBRARIES) and _reader(value) is not None


def entry(name: str, value: Any, with_meta: bool) -> dict[str, Any] | None:
    """What an answer tells of a table; a preview that fails says why in its place."""
    reader = _reader(value)
    if reader is None:
        return None
    count: int | None
    try:
        count, columns, headings, rows = reader(value)
        preview = laid_out(headings, rows)
        if len(headings) > limits.PREVIEW_COLUMNS:
            preview += f"\n[{len(headings) - limits.PREVIEW_COLUMNS} more columns]"
    except Exception as error:
        count, columns = None, []
        preview = f"[no preview: {type(error).__name__}: {cut(str(error), limits.NAME_CHARS)}]"
    if with_meta:
        described = laid_out([], [[column, kind] for column, kind in columns[: limits.TABLE_COLUMNS]])
        preview = f"{described}\n\n{preview}"
    return {
        "name": name,
        "row_count": count,
        "is_refreshing": False,
        "columns": [{"name": column, "type": kind} for column, kind in columns[: limits.TABLE_COLUMNS]],
        "preview": preview,
    }


def rows_of(value: Any) -> int | None:
    """The row count where it costs nothing to tell."""
    reader = _reader(value)
    if reader is None or reader is _duckdb:
        return None
    count = value.num_rows if reader is _arrow else value.height if reader is _polars else len(value)
    return count if isinstance(count, int) else None


def bytes_of(value: Any) -> int | None:
    """The memory of a table where it costs little to tell, in bytes."""
    reader = _reader(value)
    if reader is _pandas:
        return int(value.memory_usage(index=True, deep=False).sum())
    if reader is _polars:
        return int(value.estimated_size())
    return int(value.nbytes) if reader is _arrow else None
