"""Rows as aligned text: numbers to the right, the rest to the left, wide characters counted as two."""

from typing import Any
from unicodedata import combining, east_asian_width

from vmrepl_runner import limits

Column = tuple[str, str]
"""Name and type."""
Rows = list[list[Any]]


def laid_out(headings: list[str], rows: Rows) -> str:
    """Lines of equal columns, headings first if there are any."""
    count = min(max(map(len, [headings, *rows]), default=0), limits.PREVIEW_COLUMNS)
    lines = [[_cell(value) for value in row[:count]] for row in ([headings] if headings else []) + rows]
    right = [bool(rows) and all(_is_number(row[at]) for row in rows) for at in range(count)]
    widths = [max(_width(line[at]) for line in lines) for at in range(count)]
    return "\n".join(_line(line, widths, right) for line in lines)


def _line(texts: list[str], widths: list[int], right: list[bool]) -> str:
    parts = []
    for text, width, is_right in zip(texts, widths, right, strict=True):
        room = " " * (width - _width(text))
        parts.append(room + text if is_right else text + room)
    return "  ".join(parts).rstrip()


def _is_number(value: Any) -> bool:
    kind = type(value)
    if value is None or kind in (int, float):
        return True
    return kind.__module__ in ("numpy", "decimal") and kind.__name__ not in ("bool", "bool_", "str_")


def _cell(value: Any) -> str:
    text = value if type(value) is str else "null" if value is None else str(value)
    most = limits.PREVIEW_CELL_CHARS
    if len(text) > most:
        text = text[: most - 1] + "…"
    if not text.isprintable():
        text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    return text


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)
