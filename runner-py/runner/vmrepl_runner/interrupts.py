"""Stopping the user's code, and nothing but the user's code.

One SIGINT handler for the whole life of the process. It raises only while user code runs (`armed`), so
our own bookkeeping is never hit and no interrupt leaks into the next cell.
"""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

Result = TypeVar("Result")


class Interrupts:
    """The gate between SIGINT and the running cell."""

    def __init__(self) -> None:
        self._armed = False
        self._main = threading.main_thread().ident
        self.timed_out = False
        signal.signal(signal.SIGINT, self._handle)

    def _handle(self, _signal: int, _frame: FrameType | None) -> None:
        if self._armed:
            raise KeyboardInterrupt

    def interrupt(self) -> bool:
        """Stops the user's code from another thread; False when none runs."""
        if not self._armed or self._main is None:
            return False
        signal.pthread_kill(self._main, signal.SIGINT)
        return True

    def _expire(self) -> None:
        self.timed_out = True
        self.interrupt()

    def run(self, code: Callable[[], Result], timeout_ms: int | None) -> Result:
        """Calls `code` with interrupts let through; they end at its return, whatever happens."""
        self.timed_out = False
        timer: threading.Timer | None = None
        if timeout_ms is not None:
            timer = threading.Timer(timeout_ms / 1000, self._expire)
            timer.daemon = True
            timer.start()
        try:
            try:
                self._armed = True
                return code()
            finally:
                self._disarm()
        finally:
            # A second interrupt may have hit the line above; this one cannot be hit.
            self._disarm()
            if timer is not None:
                timer.cancel()

    def _disarm(self) -> None:
        while True:
            try:
                self._armed = False
                return
            except KeyboardInterrupt:
                continue

    def restore_handler(self) -> None:
        """Takes SIGINT back when user code has set its own handler."""
        if signal.getsignal(signal.SIGINT) != self._handle:
            signal.signal(signal.SIGINT, self._handle)
