"""A kernel: another language's interpreter, which keeps the user's names and runs one cell after another.

It is a child that speaks JSON, one object a line each way, over a socket of its own. An interrupt is sent on to it,
again and again until it answers: one that comes before the code has begun is not heard. Nothing is raised while a line
is under way. Without the kernel there is no session: when it ends, so do we.
"""

import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from types import FrameType
from typing import Any, NoReturn

from vmrepl_runner import limits
from vmrepl_runner.interrupts import Interrupts
from vmrepl_runner.text import LONE, decode, encode

_FD_VARIABLE = "VMREPL_KERNEL_FD"
_PR_SET_PDEATHSIG = 1
_RECEIVED_BYTES = 1 << 16

Message = dict[str, Any]


class _Woken(Exception):
    """An interrupt has come while nothing was there to be read."""


class Kernel:
    """The child and the conversation with it."""

    def __init__(self, command: list[str], interrupts: Interrupts) -> None:
        self._interrupts = interrupts
        self._socket, theirs = socket.socketpair()
        fd = theirs.fileno()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=_again(1),
            stderr=_again(2),
            pass_fds=[fd],
            env={**os.environ, _FD_VARIABLE: str(fd)},
            preexec_fn=_die_with_us,
        )
        theirs.close()
        self._unread = b""
        self._asked = 0
        self._may_wake = False
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._stopped: KeyboardInterrupt | None = None
        self._lock = Lock()
        self._owes_reseed = False
        while "ready" not in self._receive(self._wait):
            pass

    def ask(self, op: str, **fields: Any) -> Message:
        """Sends a request and waits for its answer; an interrupt meanwhile is the kernel's, and raised here when the
        kernel says that it was its end. To be called on the main thread."""
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
        if answer.get("interrupted"):
            raise self._stopped or KeyboardInterrupt
        return answer

    def ask_now(self, op: str, **fields: Any) -> Message | None:
        """The same from any thread, unless the kernel is busy or does not answer at once: then None."""
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
        self._socket.sendall(encode({"id": self._asked, "op": op, **fields}).encode("utf-8", LONE) + b"\n")
        while True:
            message = self._receive(wait)
            if message.get("id") == self._asked:
                return message

    def _receive(self, wait: Callable[[], None]) -> Message:
        while b"\n" not in self._unread:
            wait()
            try:
                data = self._socket.recv(_RECEIVED_BYTES)
            except ConnectionResetError:
                data = b""
            if not data:
                self._follow()
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        message: Message = decode(line)
        return message

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
        told = False
        while True:
            try:
                self._may_wake = True
                if self._poll.poll(None if self._stopped is None else limits.REPEAT_MS):
                    self._may_wake = False
                    return
            except _Woken:
                pass
            self._may_wake = False
            if self._stopped is not None:
                # The signal ends code that runs; code that waits hears of it by the message, which it finds behind
                # the request. A loop behind an `await` hears neither: what follows on an interrupt ends it.
                os.kill(self._process.pid, signal.SIGINT)
                if not told:
                    told = True
                    self._socket.sendall(b'{"op": "interrupt"}\n')

    def _soften(self, _frame: FrameType) -> bool:
        if self._stopped is None:
            self._stopped = self._interrupts.reason()
        if self._may_wake:
            self._may_wake = False
            raise _Woken
        return True


def _again(fd: int) -> int:
    """The same pipe opened once more: what the kernel sets on its end is not set on ours."""
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return fd


_prctl: Callable[..., int] = ctypes.CDLL(None).prctl


def _die_with_us() -> None:
    _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
