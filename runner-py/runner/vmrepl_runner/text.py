"""JSON as the strictest reader wants it, and texts cut to a bound."""

import codecs
import json
from json.encoder import encode_basestring as quote
from typing import Any

from vmrepl_runner import limits

__all__ = ["cut", "decode", "depth_of", "encode", "quote", "to_bytes"]

LONE = "vmrepl.lone"


def _lone(error: UnicodeError) -> tuple[str, int]:
    # JSON has surrogates inside strings only: an escaped backslash there spells them out.
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(f"\\\\u{ord(char):04x}" for char in text), error.end


codecs.register_error(LONE, _lone)

encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
"""Text of a value; ValueError for NaN and infinities."""

_scan = json.JSONDecoder().raw_decode


def decode(line: bytes) -> Any:
    """The value of one line; ValueError when it is not exactly one."""
    text = line.decode().strip()
    value, end = _scan(text)
    if end != len(text):
        raise ValueError(f"extra text after character {end}")
    return value


def to_bytes(text: str) -> bytes:
    """UTF-8 of JSON text; lone surrogates become their escape, spelt out."""
    return text.encode("utf-8", LONE)


def cut(text: str, chars: int) -> str:
    """The text, or its head and tail with a note between them."""
    if len(text) <= chars:
        return text
    head = chars * 2 // 3
    tail = chars - head
    return f"{text[:head]}\n[vmrepl: {len(text) - chars} characters left out]\n{text[-tail:]}"


def depth_of(value: Any) -> int:
    """Levels of nesting; stops counting above the bound."""
    depth, level = 0, [value]
    while level and depth <= limits.JSON_DEPTH:
        depth += 1
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(item.values())
            elif isinstance(item, (list, tuple)):
                inner.extend(item)
        level = inner
    return depth
