"""Tracebacks as Python prints them: the user's lines, none of ours."""

import traceback
from types import TracebackType

from vmrepl_runner import limits
from vmrepl_runner.text import cut

_HERE = __file__.rpartition("/")[0]


def trimmed(trace: TracebackType | None) -> TracebackType | None:
    """Without the frames above the cell: ours, and those of the loop that runs a cell with `await`."""
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if not name.startswith(_HERE) and "/asyncio/" not in name and not name.endswith("/selectors.py"):
            return trace
        trace = trace.tb_next
    return trace


def told(error: BaseException, code: str, filename: str | None) -> str:
    """The whole text, chained exceptions and groups included."""
    if isinstance(error, SyntaxError) and error.text is None and error.filename == filename:
        # Found by the compiler, which looks for the line in a file.
        lines = code.splitlines(True)
        if error.lineno is not None and 0 < error.lineno <= len(lines):
            error.text = lines[error.lineno - 1]
    try:
        whole = traceback.TracebackException(type(error), error, error.__traceback__, compact=True)
        _hide(whole, set())
        return cut("".join(whole.format()), limits.ERROR_CHARS)
    except Exception as failure:
        name = type(error).__name__
        return f"{name}: [vmrepl: its traceback cannot be made: {type(failure).__name__}]\n"


def _hide(told: traceback.TracebackException, seen: set[int]) -> None:
    todo = [told]
    while todo:
        one = todo.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        one.stack[:] = [frame for frame in one.stack if not frame.filename.startswith(_HERE)]
        linked = (one.__cause__, one.__context__, *(one.exceptions or ()))
        todo.extend(other for other in linked if other is not None)
