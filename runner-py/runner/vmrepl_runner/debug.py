"""`breakpoint()`: the standard debugger, which neither shows nor enters our frames."""

import sys
from types import FrameType, TracebackType
from typing import Any

_HERE = __file__.rpartition("/")[0]


def breakpoint_here(*_: Any, **__: Any) -> None:
    """Stops at the caller's next line."""
    import pdb

    class Debugger(pdb.Pdb):
        def get_stack(self, f: FrameType | None, t: TracebackType | None) -> tuple[list[tuple[FrameType, int]], int]:
            stack, at = super().get_stack(f, t)
            above = 0
            for position, (frame, _line) in enumerate(stack):
                name = frame.f_code.co_filename
                if name.startswith(_HERE):
                    above = position + 1
            return stack[above:], max(0, at - above)

    Debugger(skip=["vmrepl_runner.*"]).set_trace(sys._getframe(1))
