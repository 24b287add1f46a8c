"""Whether a piece of code is a whole cell."""

import ast
import warnings
from typing import Any

# As `codeop` has them; named there since 3.11, with the same values before and after.
_INCOMPLETE_INPUT = 0x4000
_FLAGS = 0x200 | _INCOMPLETE_INPUT | ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
_ENDS = ("return", "pass", "break", "continue", "raise")


def is_complete(code: str) -> dict[str, Any]:
    """`complete`, `incomplete` with the next line's indent, or `invalid`."""
    if not code.strip():
        return _told("complete")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tree = compile(code, "<cell>", "exec", _FLAGS, True)
        except SyntaxError as error:
            if "incomplete input" in str(error) or _may_go_on(code, error):
                return _told("incomplete", _indent(code))
            return _told("invalid")
        except (ValueError, OverflowError, MemoryError, RecursionError):
            return _told("invalid")
    last = code.rpartition("\n")[2]
    if last.strip() and last[0] in " \t" and isinstance(tree, ast.Module) and _is_block(tree):
        # In the middle of a block: an empty line ends it.
        return _told("incomplete", _indent(code))
    return _told("complete")


def _told(status: str, indent: str = "") -> dict[str, Any]:
    return {"status": status, "indent": indent}


def _is_block(tree: ast.Module) -> bool:
    return bool(tree.body) and hasattr(tree.body[-1], "body")


def _may_go_on(code: str, error: SyntaxError) -> bool:
    """A string in triple quotes, a bracket or a line that ends in a backslash is still open."""
    text = str(error)
    return "unterminated triple-quoted" in text or "was never closed" in text or code.endswith("\\")


def _indent(code: str) -> str:
    lines = [line for line in code.split("\n") if line.strip()]
    last = lines[-1]
    indent = last[: len(last) - len(last.lstrip())]
    text = last.partition("#")[0].rstrip()
    if text.endswith((":", "(", "[", "{")):
        return indent + "    "
    if text.split(maxsplit=1)[:1] and text.split(maxsplit=1)[0] in _ENDS:
        return indent[:-4]
    return indent
