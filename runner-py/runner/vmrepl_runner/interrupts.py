"""Stopping the user's code, and nothing but the user's code.

One SIGINT handler for the life of the process. It raises only inside `guard`; between the start of a
cell and its first instruction the interrupt is remembered; after the last one it is dropped.

A signal that arrives between Python's last look for one and a system call that waits is noticed only when
the call ends. So whoever signals asks again until it was heard. One that is raised where Python lets
nothing through (a finalizer, a callback around a fork) was not heard, either.
"""

import signal
import sys

# Without the detour of `signal.getsignal` through an enum: it is asked between any two cells.
from _signal import getsignal  # type: ignore[import-not-found]
from collections.abc import Callable
from threading import get_ident, main_thread
from time import monotonic_ns
from types import FrameType
from typing import Any

from vmrepl_runner import limits

_SIGINT = int(signal.SIGINT)

# Not the attribute: the user's class may have its own.
_context_of: Callable[[BaseException], BaseException | None] = BaseException.__dict__["__context__"].__get__


class CellStopped(KeyboardInterrupt):
    """Raised in a cell that went over one of its limits."""

    status = "interrupted"


class CellTimeout(CellStopped):
    """Raised in a cell whose wall time or processor time ran out."""

    status = "timeout"


class CellOutputExceeded(CellStopped):
    """Raised in a cell that wrote more than it may."""

    status = "output_exceeded"


_BY_STATUS = {kind.status: kind for kind in (CellTimeout, CellOutputExceeded)}

for _kind in (CellStopped, CellTimeout, CellOutputExceeded):
    _kind.__module__ = "builtins"


def status_of(error: BaseException) -> str:
    """What a cell that raised this came to.

    An interrupt may meet a library's clean-up half way, which then raises something of its own (a lock that
    is released twice): it is still the interrupt that ended the cell.
    """
    link: BaseException | None = error
    for _ in range(limits.CHAINED_ERRORS):
        if link is None:
            break
        if isinstance(link, CellStopped):
            return type(link).status
        if isinstance(link, KeyboardInterrupt):
            return "interrupted"
        link = _context_of(link)
    return "error"


def _expired(limit_ms: int) -> CellTimeout:
    return CellTimeout(f"the cell ran longer than {limit_ms} ms")


class Interrupts:
    """The gate between SIGINT and the running cell."""

    def __init__(self) -> None:
        self._main = main_thread().ident or 0
        self._armed = False
        self.is_open = False
        """Whether an interrupt would reach a cell."""
        self._pending = False
        self._over: CellStopped | None = None
        """The limit that the open cell went over."""
        self._sent_ns = 0
        self._heard_ns = 0
        self._handler = self._handle
        self._guard_code = Interrupts.guard.__code__
        self.soften: Callable[[FrameType], bool] | None = None
        """May stop user code in a gentler way than by raising in this frame; then it returns True."""

    def install(self) -> None:
        """Takes SIGINT. Costs little when it is taken already."""
        if getsignal(_SIGINT) is not self._handler:
            signal.signal(signal.SIGINT, self._handler)

    def watch_finalizers(self) -> None:
        """Takes the hook for what cannot be raised, once: user code may put its own in its place."""
        sys.unraisablehook = self._note_swallowed

    def begin(self, stop: bool, expired_ms: int) -> None:
        """On the main thread: signals from here on are for the task that starts now. One that came before
        has had its handler called by now and was dropped."""
        self._pending = stop or expired_ms > 0
        self._sent_ns = 0
        self._over = _expired(expired_ms) if expired_ms else None
        self.is_open = True

    def end(self) -> None:
        """The cell is over: interrupts are nobody's."""
        self.is_open = False
        self._pending = False

    def interrupt(self) -> None:
        """Stops the open cell, from any thread."""
        self._sent_ns = monotonic_ns()
        signal.pthread_kill(self._main, signal.SIGINT)

    def signalled(self, sent_ns: int) -> None:
        """Somebody else has sent the open cell a signal, at this time."""
        self._sent_ns = max(self._sent_ns, sent_ns)

    @property
    def is_unheard(self) -> bool:
        """Whether the open cell has been sent a signal and has not noticed."""
        return self.is_open and self._heard_ns < self._sent_ns

    @property
    def is_sent(self) -> bool:
        """Whether the open cell has been sent a signal: until it ends, what it raised may be swallowed."""
        return self.is_open and self._sent_ns > 0

    def repeat(self) -> None:
        """Sends the open cell another signal for the one that it has had time to notice and has not."""
        if self.is_unheard and monotonic_ns() - self._sent_ns >= limits.REPEAT_MS * 1_000_000:
            signal.pthread_kill(self._main, signal.SIGINT)

    def expire(self, timeout_ms: int) -> None:
        """Stops the open cell because its time ran out."""
        self._over = _expired(timeout_ms)
        self.interrupt()

    def exceed(self, status: str, message: str) -> None:
        """Stops the open cell because it went over a limit that somebody else watches."""
        self._over = _BY_STATUS.get(status, CellStopped)(message)
        self.interrupt()

    def guard(self, work: Callable[..., object], *arguments: Any) -> BaseException | None:
        """Calls `work` and lets interrupts through to it. Returns what it raised.

        A signal that arrives in this very frame, before or after `work`, disarms as it raises (see
        `_handle`): whatever is raised is raised inside the outer `try`, once.
        """
        try:
            try:
                self._armed = True
                if self._pending:
                    self._pending = False
                    raise self._reason()
                work(*arguments)
            finally:
                self._armed = False
        except BaseException as error:
            return error
        return None

    def hold(self) -> bool:
        """Keeps interrupts of the main thread waiting until `release`: a frame must be written whole."""
        if get_ident() != self._main:
            return False
        armed = self._armed
        self._armed = False
        return armed

    def release(self, armed: bool) -> None:
        """Ends `hold`; an interrupt that came meanwhile is raised here."""
        if armed:
            self._armed = True
            if self._pending:
                self._pending = False
                raise self._reason()

    def _reason(self) -> KeyboardInterrupt:
        over, self._over = self._over, None
        return KeyboardInterrupt() if over is None else over

    def reason(self) -> KeyboardInterrupt:
        """The exception for an interrupt that `soften` took over."""
        return self._reason()

    def _handle(self, _number: int, frame: FrameType | None) -> None:
        self._heard_ns = monotonic_ns()
        if not self._armed:
            self._pending = self.is_open
            return
        if frame is not None:
            if frame.f_code is self._guard_code:
                self._armed = False
            elif self.soften is not None and self.soften(frame):
                return
        raise self._reason()

    def _note_swallowed(self, what: "sys.UnraisableHookArgs") -> None:
        error = what.exc_value
        if not (isinstance(error, KeyboardInterrupt) and self.is_open and get_ident() == self._main):
            sys.__unraisablehook__(what)
            return
        if isinstance(error, CellStopped):
            self._over = type(error)(*error.args)
        self._heard_ns = 0
        self._sent_ns = monotonic_ns()
