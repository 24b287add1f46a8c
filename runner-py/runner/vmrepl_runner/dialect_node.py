"""The dialect of `kernels/javascript.js`: JSON, one object a line each way, over one socket."""

import os
import signal
import socket
from subprocess import DEVNULL, Popen

from vmrepl_runner import limits
from vmrepl_runner.kernel import Message, die_with_us, outputs
from vmrepl_runner.text import LONE, decode, encode

_KERNEL = __file__.rpartition("/")[0] + "/kernels/javascript.js"
_SIGNALS_A_MESSAGE = 5


class Node:
    """Implements `kernel.Dialect`."""

    first_repeat_ms = repeat_ms = limits.REPEAT_MS

    def __init__(self) -> None:
        self._begun: int | None = None
        self._signals = 0

    def start(self) -> tuple["Popen[bytes]", int, int]:
        ours, theirs = socket.socketpair()
        # A heap as large as memory: what ends a cell that takes too much is the limit on cells.
        memory_mb = (os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")) >> 20
        with outputs() as (out, error):
            process = Popen(
                ["node", "--expose-internals", "--no-warnings", f"--max-old-space-size={memory_mb}", _KERNEL],
                stdin=DEVNULL,
                stdout=out,
                stderr=error,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "VMREPL_KERNEL_FD": str(theirs.fileno())},
                preexec_fn=die_with_us,
            )
        theirs.close()
        fd = ours.detach()
        return process, fd, fd

    def encode(self, number: int, op: str, fields: Message) -> bytes:
        # It is told at once that it has begun: Node notices no signal before, and is sent more of them.
        self._begun = number
        self._signals = 0
        return encode({"id": number, "op": op, **fields}).encode("utf-8", LONE) + b"\n"

    def decode(self, unread: bytes) -> tuple[Message | None, bytes]:
        if self._begun is not None:
            begun, self._begun = self._begun, None
            return {"begun": begun}, unread
        line, newline, rest = unread.partition(b"\n")
        return (decode(line), rest) if newline else (None, unread)

    def interrupt(self, process: "Popen[bytes]") -> bytes:
        # The signal ends code that runs; code that waits hears of it by the message. One that comes together with the
        # request is too early, and many would fill the socket. A loop behind an `await` hears neither: what follows on
        # an interrupt ends it.
        os.kill(process.pid, signal.SIGINT)
        self._signals += 1
        return b'{"op": "interrupt"}\n' if self._signals % _SIGNALS_A_MESSAGE == 1 else b""

    def known(self, _op: str, _fields: Message) -> Message | None:
        return None
