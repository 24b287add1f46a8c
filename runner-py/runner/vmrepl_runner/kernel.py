"""A kernel: another language's interpreter, which keeps the user's names and runs one cell after another.

It is a child that is asked one thing after another and answers each, in a dialect of its own. An interrupt is sent on
to it, again and again until it answers: one that comes before the code has begun is not heard. Nothing is raised while
an answer is under way. Without the kernel there is no session: when it ends, so do we.
"""

import ctypes
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from subprocess import Popen
from threading import Lock
from time import monotonic_ns
from types import FrameType
from typing import Any, NoReturn, Protocol

from vmrepl_runner import limits
from vmrepl_runner.interrupts import Interrupts

_PR_SET_PDEATHSIG = 1
_RECEIVED_BYTES = 1 << 16

Message = dict[str, Any]


class Dialect(Protocol):
    """How a kernel is started and spoken to. Requests have numbers, which their answers repeat as `id`."""

    first_repeat_ms: int
    repeat_ms: int
    """How long it may take to notice the first interrupt before it gets another, and how long each of these."""

    def start(self) -> tuple["Popen[bytes]", int, int]:
        """The child, and the descriptors to write to it and to read from it. Its first message has `ready`."""

    def encode(self, number: int, op: str, fields: Message) -> bytes:
        """A request."""

    def decode(self, unread: bytes) -> tuple[Message | None, bytes]:
        """The first message of what has come, if it is whole, and the rest. One with `begun` says that the code of
        that request runs from now on."""

    def interrupt(self, process: "Popen[bytes]") -> bytes:
        """Interrupts the code that runs; what it returns is sent."""

    def known(self, op: str, fields: Message) -> Message | None:
        """The answer to what needs no asking."""


class _Woken(Exception):
    """An interrupt has come while nothing was there to be read."""


class Kernel:
    """The child and the conversation with it."""

    def __init__(self, dialect: Dialect, interrupts: Interrupts) -> None:
        self._dialect = dialect
        self._interrupts = interrupts
        self._process, self._to, self._from = dialect.start()
        self._unread = b""
        self._asked = 0
        self._has_begun = False
        self._may_wake = False
        self._poll = select.poll()
        self._poll.register(self._from, select.POLLIN)
        self._stopped: KeyboardInterrupt | None = None
        self._lock = Lock()
        self._owes_reseed = False
        while "ready" not in self._receive(self._wait):
            pass

    def ask(self, op: str, **fields: Any) -> Message:
        """Sends a request and waits for its answer; an interrupt meanwhile is the kernel's, and raised here when the
        kernel says that it was its end. To be called on the main thread."""
        known = self._dialect.known(op, fields)
        if known is not None:
            return known
        self._stopped = None
        self._interrupts.soften = self._soften
        try:
            with self._lock:
                if self._owes_reseed:
                    self._converse("reseed", {}, self._wait)
                    self._owes_reseed = False
                answer = self._converse(op, fields, self._wait_for_user)
                if self._stopped is not None:
                    # What was sent last is not to meet what comes next.
                    self._converse("settle", {}, self._wait)
        finally:
            self._interrupts.soften = None
        if self._stopped is not None and answer.get("interrupted"):
            raise self._stopped
        return answer

    def ask_now(self, op: str, **fields: Any) -> Message | None:
        """The same from any thread, unless the kernel is busy or does not answer at once: then None."""
        known = self._dialect.known(op, fields)
        if known is not None:
            return known
        if not self._lock.acquire(blocking=False):
            return None
        try:
            return self._converse(op, fields, self._wait_briefly)
        except TimeoutError:
            return None
        finally:
            self._lock.release()

    def reseed(self) -> None:
        """Has the kernel draw random numbers of its own, now or before it does anything else for us."""
        self._owes_reseed = self.ask_now("reseed") is None

    def _converse(self, op: str, fields: Message, wait: Callable[[], None]) -> Message:
        self._asked += 1
        self._has_begun = False
        self._write(self._dialect.encode(self._asked, op, fields))
        while True:
            message = self._receive(wait)
            if message.get("begun") == self._asked:
                self._has_begun = True
            elif message.get("id") == self._asked:
                return message

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._to, view) :]
            except (BrokenPipeError, ConnectionResetError):
                self._follow()

    def _receive(self, wait: Callable[[], None]) -> Message:
        while True:
            message, self._unread = self._dialect.decode(self._unread)
            if message is not None:
                return message
            wait()
            data = b""
            with suppress(ConnectionResetError):
                data = os.read(self._from, _RECEIVED_BYTES)
            if not data:
                self._follow()
            self._unread += data

    def _follow(self) -> NoReturn:
        """Ends as the kernel has: the user's names are gone. The agent starts over, and tells by the end what it was;
        the host goes back to the last checkpoint."""
        code = self._process.wait()
        if code < 0:
            with suppress(OSError):
                signal.signal(-code, signal.SIG_DFL)
            os.kill(os.getpid(), -code)
        print("[vmrepl: the interpreter has ended]", file=sys.stderr, flush=True)
        os._exit(1)

    def _wait(self) -> None:
        self._poll.poll()

    def _wait_briefly(self) -> None:
        if not self._poll.poll(limits.KERNEL_PATIENCE_MS):
            raise TimeoutError

    def _wait_for_user(self) -> None:
        """Returns when there is something to read; sends interrupts on meanwhile."""
        due_ns = 0
        while True:
            try:
                self._may_wake = True
                if self._poll.poll(None if self._stopped is None else limits.REPEAT_MS):
                    self._may_wake = False
                    return
            except _Woken:
                pass
            self._may_wake = False
            now_ns = monotonic_ns()
            if self._stopped is None or not self._has_begun or now_ns < due_ns:
                continue
            repeat_ms = self._dialect.repeat_ms if due_ns else self._dialect.first_repeat_ms
            self._write(self._dialect.interrupt(self._process))
            due_ns = now_ns + repeat_ms * 1_000_000

    def _soften(self, _frame: FrameType) -> bool:
        if self._stopped is None:
            self._stopped = self._interrupts.reason()
        if self._may_wake:
            self._may_wake = False
            raise _Woken
        return True


@contextmanager
def outputs() -> Iterator[list[int]]:
    """Our standard output and error for a kernel to inherit: the same pipes, opened once more, so that what it sets on
    its ends is not set on ours."""
    opened = [_again(fd) for fd in (1, 2)]
    try:
        yield opened
    finally:
        for fd in opened:
            os.close(fd)


def _again(fd: int) -> int:
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        # No pipe and no file.
        return os.dup(fd)


_prctl: Callable[..., int] = ctypes.CDLL(None).prctl


def die_with_us() -> None:
    """Between fork and exec: the child ends when we do."""
    _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
