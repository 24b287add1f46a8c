"""Tables: what they are made of, and their first rows as text. No library is imported for it."""

import sys
import unicodedata
from typing import Any

ROWS = 10
CELL_WIDTH_MAX = 40
COLUMNS_MAX = 50

Columns = list[tuple[str, str]]
Rows = list[list[Any]]


def table_of(name: str, value: Any, with_meta: bool) -> dict[str, Any] | None:
    """The entry for `value` under `name`; None when it is no table."""
    kind = type(value)
    reader = _READERS.get((kind.__module__.partition(".")[0].lstrip("_"), kind.__name__))
    if reader is None:
        return None
    try:
        count, columns, rows = reader(value)
        text = _text(columns, rows)
    except Exception as error:
        count, columns, text = None, [], f"(no preview: {type(error).__name__}: {error})"
    if with_meta:
        width = max((len(n) for n, _ in columns), default=0)
        text = "\n".join([*(f"{n:<{width}}  {t}" for n, t in columns), "", text])
    return {
        "name": name,
        "row_count": count,
        "is_refreshing": False,
        "columns": [{"name": n, "type": t} for n, t in columns],
        "preview": text,
    }


def _pandas(frame: Any) -> tuple[int, Columns, Rows]:
    columns = [(str(n), str(t)) for n, t in zip(frame.columns, frame.dtypes, strict=True)]
    head = frame.iloc[:ROWS, :COLUMNS_MAX]
    rows = [list(row) for row in head.itertuples(index=False, name=None)]
    return len(frame), columns, rows


def _polars(frame: Any) -> tuple[int, Columns, Rows]:
    columns = [(str(n), str(t)) for n, t in frame.schema.items()]
    return frame.height, columns, [list(row) for row in frame.head(ROWS).rows()]


def _arrow(table: Any) -> tuple[int, Columns, Rows]:
    columns = [(f.name, str(f.type)) for f in table.schema]
    head = table.slice(0, ROWS)
    data = [head.column(i).to_pylist() for i in range(len(columns))]
    return table.num_rows, columns, [list(row) for row in zip(*data, strict=True)]


def _duckdb(relation: Any) -> tuple[int, Columns, Rows]:
    columns = [(str(n), str(t)) for n, t in zip(relation.columns, relation.types, strict=True)]
    rows = [list(row) for row in relation.limit(ROWS).fetchall()]
    count = len(rows) if len(rows) < ROWS else relation.aggregate("count(*)").fetchall()[0][0]
    return count, columns, rows


_READERS = {
    ("pandas", "DataFrame"): _pandas,
    ("polars", "DataFrame"): _polars,
    ("pyarrow", "Table"): _arrow,
    ("pyarrow", "RecordBatch"): _arrow,
    ("duckdb", "DuckDBPyRelation"): _duckdb,
}


def may_hold_tables() -> bool:
    """Whether any library with tables is loaded at all."""
    modules = sys.modules
    return any(name in modules for name in ("pandas", "polars", "pyarrow", "duckdb"))


def _text(columns: Columns, rows: Rows) -> str:
    columns = columns[:COLUMNS_MAX]
    cells = [[_cell(value) for value in row[:COLUMNS_MAX]] for row in rows]
    lines = [[_cell(name) for name, _ in columns], *cells]
    numeric = [bool(rows) and all(isinstance(row[i], (int, float)) for row in rows) for i in range(len(columns))]
    widths = [max(_width(line[i]) for line in lines) for i in range(len(columns))]
    out = []
    for line in lines:
        parts = []
        for text, width, right in zip(line, widths, numeric, strict=True):
            pad = " " * (width - _width(text))
            parts.append(pad + text if right else text + pad)
        out.append("  ".join(parts).rstrip())
    return "\n".join(out)


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else "null" if value is None else str(value)
    if not text.isprintable():
        text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[: CELL_WIDTH_MAX * 2])
    return text if len(text) <= CELL_WIDTH_MAX else text[: CELL_WIDTH_MAX - 1] + "…"


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    marks = sum(bool(unicodedata.combining(c)) for c in text)
    return len(text) + wide - marks
